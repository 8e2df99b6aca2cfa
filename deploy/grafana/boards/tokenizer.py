"""Is text quick? Encoding, decoding and chat templates."""

from deploy.grafana.panels import (
    PER_REPLICA,
    REPLICA,
    WINDOW,
    Board,
    Panel,
    Query,
    Row,
    heatmap,
    mean,
    quantiles,
    rate,
    stat,
)

NOW = Row(
    "Now",
    (
        stat(
            "Tokens per second",
            "Encoded and decoded.",
            "short",
            f"sum(rate(lockstep_tokenizer_tokens_total{{{REPLICA}}}[{WINDOW}]))",
        ),
        stat(
            "Calls per second",
            "Of the tokenizer service.",
            "reqps",
            f"sum(rate(lockstep_tokenizer_operation_seconds_count{{{REPLICA}}}[{WINDOW}]))",
        ),
        stat(
            "Work of a call, p95",
            "Without waiting.",
            "s",
            quantiles("lockstep_tokenizer_operation_seconds", REPLICA)[1].expression,
            (0.05, 0.5),
        ),
        stat(
            "Wait for a thread, p95",
            "Rising asks for more threads or replicas.",
            "s",
            quantiles("lockstep_tokenizer_queue_seconds", REPLICA)[1].expression,
            (0.01, 0.1),
        ),
    ),
)

TOKENIZATION = Row(
    "Tokenization",
    (
        Panel(
            "Tokens encoded and decoded per second",
            "By operation.",
            "short",
            (rate("lockstep_tokenizer_tokens_total", REPLICA, "operation"),),
        ),
        Panel(
            "Time of the work of one call",
            "Without waiting, by operation.",
            "s",
            quantiles("lockstep_tokenizer_operation_seconds", REPLICA, "operation"),
        ),
        Panel(
            "Wait for a thread",
            "Rising asks for more threads or replicas.",
            "s",
            quantiles("lockstep_tokenizer_queue_seconds", REPLICA),
        ),
        Panel(
            "Sequences per call",
            "Callers that batch cost less.",
            "short",
            (mean("lockstep_tokenizer_batch_size", REPLICA),),
        ),
        Panel(
            "Characters per token",
            "Falls when texts are in a language or notation that the vocabulary does not know.",
            "short",
            (
                Query(
                    f"sum(rate(lockstep_tokenizer_characters_total{{{REPLICA}}}[{WINDOW}])) "
                    f"/ sum(rate(lockstep_tokenizer_tokens_total{{{REPLICA}}}[{WINDOW}]))",
                    "mean",
                ),
            ),
        ),
        heatmap(
            "Length of sequences",
            "Tokens of each text that was encoded or decoded.",
            "short",
            "lockstep_tokenizer_sequence_tokens",
            REPLICA,
        ),
        heatmap(
            "Work of a call, by bucket",
            "A band high above is large texts.",
            "s",
            "lockstep_tokenizer_operation_seconds",
            REPLICA,
        ),
        Panel(
            "Calls per second by replica of the tokenizer",
            "Replicas should be alike.",
            "reqps",
            (rate("lockstep_tokenizer_operation_seconds_count", REPLICA, *PER_REPLICA),),
        ),
    ),
)

BOARD = Board(
    "tokenizer",
    "Lockstep / Tokenizer",
    "Encoding, decoding and chat templates of the tokenizer service.",
    (NOW, TOKENIZATION),
)
