"""Do the services have the same vocabulary, and is there room in it?"""

from deploy.grafana.panels import (
    MODEL,
    PER_REPLICA,
    REPLICA,
    Board,
    Panel,
    Row,
    gauge,
    quantiles,
    rate,
    stat,
)

NOW = Row(
    "Now",
    (
        stat(
            "Revision of the tokenizer service",
            "The newest.",
            "short",
            f"max(lockstep_tokenizer_vocab_revision{{{REPLICA}}})",
        ),
        stat(
            "Oldest revision of a model service",
            "Equal to the tokenizer service's, but for a moment.",
            "short",
            f"min(lockstep_model_vocabulary_revision{{{MODEL}}})",
        ),
        stat(
            "Revisions behind",
            "Of the slowest model service.",
            "short",
            f"max(lockstep_model_vocabulary_lag_revisions{{{MODEL}}})",
            (1, 10),
        ),
        stat(
            "Tokens added",
            "By all revisions.",
            "short",
            f"max(lockstep_tokenizer_added_tokens{{{REPLICA}}})",
        ),
        stat(
            "Tokens that may still be added",
            "Raise --max-added-tokens before there are none.",
            "short",
            f"min(lockstep_tokenizer_added_tokens_left{{{REPLICA}}})",
            (800, 1),
        ),
    ),
)

FOLLOWING = Row(
    "Revisions",
    (
        Panel(
            "Vocabulary revision of the model service",
            "Replicas that differ for long do not follow the tokenizer service.",
            "short",
            (gauge("lockstep_model_vocabulary_revision", MODEL, *PER_REPLICA, function="max"),),
        ),
        Panel(
            "Vocabulary lag",
            "Revisions that the tokenizer service has and a replica does not serve yet.",
            "short",
            (
                gauge(
                    "lockstep_model_vocabulary_lag_revisions", MODEL, *PER_REPLICA, function="max"
                ),
            ),
        ),
        Panel(
            "Growth pause",
            "How long no step could run while rows were added.",
            "s",
            quantiles("lockstep_model_vocabulary_growth_pause_seconds", MODEL),
        ),
        Panel(
            "Model services by state of following",
            "`conflict` never ends by itself.",
            "short",
            (gauge("lockstep_model_vocabulary_follow_state", MODEL, "state"),),
        ),
        Panel(
            "Silence of the tokenizer service",
            "Time since a model service last heard of it.",
            "s",
            (
                gauge(
                    "lockstep_model_vocabulary_follower_silence_seconds",
                    MODEL,
                    *PER_REPLICA,
                    function="max",
                ),
            ),
        ),
    ),
)

GROWTH = Row(
    "Growth and store",
    (
        Panel(
            "Vocabulary revision of the tokenizer service",
            "Grows by one with every change.",
            "short",
            (gauge("lockstep_tokenizer_vocab_revision", REPLICA, "tokenizer", function="max"),),
        ),
        Panel(
            "Changes of the vocabulary per second",
            "`conflict` means that another change came first.",
            "short",
            (rate("lockstep_tokenizer_vocab_revisions_total", REPLICA, "result"),),
        ),
        Panel(
            "Store",
            "Time of an operation of the vocabulary's store.",
            "s",
            quantiles("lockstep_tokenizer_store_operation_seconds", REPLICA, "operation"),
        ),
        Panel(
            "Added tokens in use per second",
            "How often tokens that were added are encoded and generated.",
            "short",
            (
                rate("lockstep_tokenizer_added_tokens_encoded_total", REPLICA),
                rate("lockstep_model_added_tokens_generated_total", MODEL),
            ),
        ),
        Panel(
            "Tokens left",
            "Of --max-added-tokens.",
            "short",
            (gauge("lockstep_tokenizer_added_tokens_left", REPLICA, "tokenizer", function="min"),),
        ),
        Panel(
            "Size of the vocabulary",
            "Ids of the newest revision.",
            "short",
            (
                gauge(
                    "lockstep_tokenizer_vocab_size",
                    REPLICA,
                    "tokenizer",
                    function="max",
                    name="tokenizer",
                ),
                gauge(
                    "lockstep_model_vocabulary_size",
                    MODEL,
                    "model_name",
                    function="max",
                    name="model",
                ),
            ),
        ),
    ),
)

BOARD = Board(
    "vocabulary",
    "Lockstep / Vocabulary",
    "Revisions of the vocabulary in both services, their growth and their store.",
    (NOW, FOLLOWING, GROWTH),
)
