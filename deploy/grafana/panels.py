"""What the dashboard shows: one table, read by the generator and by the tests."""

from dataclasses import dataclass

# The selectors of every query. `$instance` and `$model` are variables of the dashboard.
RPC = 'instance=~"$instance"'
TOKENIZER = 'instance=~"$instance"'
MODEL = 'instance=~"$instance",model_name=~"$model"'
WINDOW = "$__rate_interval"


@dataclass(frozen=True, slots=True)
class Query:
    """One set of lines.

    Attributes:
        expression: PromQL.
        legend: template of the lines' names.
    """

    expression: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph.

    Attributes:
        title: what is shown.
        description: what to conclude from it.
        unit: Grafana's name of the unit.
        queries: its lines.
    """

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A titled group of panels."""

    title: str
    panels: tuple[Panel, ...]


def quantiles(metric: str, labels: str, legend: str = "") -> tuple[Query, ...]:
    """Gives the median, p95 and p99 of a histogram, in one line each per `legend` label."""
    by = f"le, {legend}" if legend else "le"
    name = f" {{{{{legend}}}}}" if legend else ""
    rate = f"sum by ({by}) (rate({metric}_bucket{{{labels}}}[{WINDOW}]))"
    return tuple(
        Query(f"histogram_quantile({quantile}, {rate})", f"p{quantile * 100:.0f}{name}")
        for quantile in (0.5, 0.95, 0.99)
    )


def rate(metric: str, labels: str, *by: str) -> Query:
    """Gives the rate per second of a counter, summed over all labels but `by`."""
    legend = " ".join(f"{{{{{label}}}}}" for label in by) or metric.removesuffix("_total")
    expression = f"rate({metric}{{{labels}}}[{WINDOW}])"
    return Query(f"sum by ({', '.join(by)}) ({expression})" if by else f"sum({expression})", legend)


def mean(metric: str, labels: str) -> Query:
    """Gives the mean of a histogram's observations over the window."""
    selector = f"{{{labels}}}[{WINDOW}]"
    quotient = f"sum(rate({metric}_sum{selector})) / sum(rate({metric}_count{selector}))"
    return Query(quotient, "mean")


def gauge(metric: str, labels: str, *by: str, function: str = "sum") -> Query:
    """Gives a gauge, combined over all labels but `by`."""
    legend = " ".join(f"{{{{{label}}}}}" for label in by) or metric
    return Query(f"{function} by ({', '.join(by)}) ({metric}{{{labels}}})", legend)


_FAILED = f'grpc_server_handled_total{{{RPC},grpc_code!="OK"}}'
_ENDED = f"grpc_server_handled_total{{{RPC}}}"

CALLS = Row(
    "Calls",
    (
        Panel(
            "Ready",
            "1 while a service takes calls. 0 means that it loads or drains.",
            "short",
            (gauge("lockstep_ready", RPC, "service", "instance", function="min"),),
        ),
        Panel(
            "Calls per second",
            "Started, by method.",
            "reqps",
            (rate("grpc_server_started_total", RPC, "grpc_method"),),
        ),
        Panel(
            "Share of calls that failed",
            "Ended with another code than OK, cancellations by callers included.",
            "percentunit",
            (
                Query(
                    f"sum by (grpc_service) (rate({_FAILED}[{WINDOW}])) "
                    f"/ sum by (grpc_service) (rate({_ENDED}[{WINDOW}]))",
                    "{{grpc_service}}",
                ),
            ),
        ),
        Panel(
            "Calls per second by code",
            "INTERNAL is always a bug; RESOURCE_EXHAUSTED asks for more replicas.",
            "reqps",
            (rate("grpc_server_handled_total", RPC, "grpc_code"),),
        ),
        Panel(
            "Failed calls per second by reason",
            "The reasons of docs/errors.md. Calls that callers cancelled have none.",
            "reqps",
            (rate("lockstep_calls_failed_total", RPC, "reason"),),
        ),
        Panel(
            "Duration of calls (p95)",
            "A stream lasts as long as its sequence: see the model's latencies for those.",
            "s",
            (
                Query(
                    "histogram_quantile(0.95, sum by (le, grpc_method) "
                    f"(rate(grpc_server_handling_seconds_bucket{{{RPC}}}[{WINDOW}])))",
                    "{{grpc_method}}",
                ),
            ),
        ),
        Panel(
            "Calls in progress",
            "Falls to 0 while a replica drains.",
            "short",
            (gauge("grpc_server_in_flight", RPC, "grpc_method"),),
        ),
        Panel(
            "Bytes per second",
            "Requests and responses. Rows of logits make the responses.",
            "Bps",
            (
                rate("grpc_server_request_size_bytes_sum", RPC),
                rate("grpc_server_response_size_bytes_sum", RPC),
            ),
        ),
    ),
)

LATENCY = Row(
    "Latency of generation",
    (
        Panel(
            "Time to first token",
            "Arrival to first token, waiting for a place included.",
            "s",
            quantiles("lockstep_model_time_to_first_token_seconds", MODEL),
        ),
        Panel(
            "Time per output token",
            "Mean time between the tokens of a sequence.",
            "s",
            quantiles("lockstep_model_time_per_output_token_seconds", MODEL),
        ),
        Panel(
            "Waiting for a place",
            "Arrival to prefill. Rising with a full batch asks for more replicas.",
            "s",
            quantiles("lockstep_model_queue_seconds", MODEL),
        ),
        Panel(
            "Whole sequence",
            "Arrival to the end.",
            "s",
            quantiles("lockstep_model_request_seconds", MODEL),
        ),
    ),
)

ENGINE = Row(
    "Engine",
    (
        Panel(
            "Tokens per second",
            "Prompt tokens, of these reused ones, and generated tokens.",
            "short",
            (
                rate("lockstep_model_prompt_tokens_total", MODEL),
                rate("lockstep_model_prefix_cache_hit_tokens_total", MODEL),
                rate("lockstep_model_generated_tokens_total", MODEL),
            ),
        ),
        Panel(
            "Sequences",
            "In the batch, and waiting for a place.",
            "short",
            (
                gauge("lockstep_model_requests_running", MODEL, "instance"),
                gauge("lockstep_model_requests_waiting", MODEL, "instance"),
            ),
        ),
        Panel(
            "Places lost",
            "Sequences that made room for urgent ones, and idle rows of sessions for others.",
            "short",
            (
                rate("lockstep_model_preemptions_total", MODEL),
                rate("lockstep_model_session_row_evictions_total", MODEL),
            ),
        ),
        Panel(
            "KV cache in use",
            "Share reserved. At 1, new sequences wait.",
            "percentunit",
            (gauge("lockstep_model_kv_cache_usage_ratio", MODEL, "instance", function="max"),),
        ),
        Panel(
            "Duration of a step",
            "A decode step gives every sequence of the batch a token.",
            "s",
            quantiles("lockstep_model_step_seconds", MODEL),
        ),
        Panel(
            "Time in the model per step",
            "Prefill and decode. The rest of a step is sampling and bookkeeping.",
            "s",
            quantiles("lockstep_model_forward_seconds", MODEL, "phase"),
        ),
        Panel(
            "Steps by path",
            "Compiled steps are the quicker ones; prompts run eagerly.",
            "ops",
            (
                Query(
                    f"sum by (path) (rate(lockstep_model_steps_total{{{MODEL}}}[{WINDOW}]))",
                    "{{path}}",
                ),
            ),
        ),
        Panel(
            "Time in the sampler per step",
            "Processors, warpers and draws.",
            "s",
            quantiles("lockstep_model_sample_seconds", MODEL),
        ),
        Panel(
            "Batch",
            "Sequences that decode in a step, and tokens of a step: the higher, the better used.",
            "short",
            (
                mean("lockstep_model_batch_sequences", MODEL),
                mean("lockstep_model_batch_tokens", MODEL),
            ),
        ),
        Panel(
            "Drafts per second",
            "Guesses of prompt lookup that were verified, and guesses that were right.",
            "short",
            (
                rate("lockstep_model_drafts_total", MODEL),
                rate("lockstep_model_accepted_drafts_total", MODEL),
            ),
        ),
        Panel(
            "Ends of sequences per second",
            "`stop` and `length` are regular ends.",
            "short",
            (rate("lockstep_model_requests_finished_total", MODEL, "finish_reason"),),
        ),
        Panel(
            "Refusals per second",
            "Calls refused for lack of room.",
            "reqps",
            (rate("lockstep_model_admission_rejections_total", MODEL, "reason"),),
        ),
        Panel(
            "Scores sent",
            "Bytes of logits and scores per second, by encoding.",
            "Bps",
            (rate("lockstep_model_logits_bytes_total", MODEL, "encoding"),),
        ),
    ),
)

TOKENIZATION = Row(
    "Tokenizer",
    (
        Panel(
            "Tokens encoded and decoded per second",
            "By operation.",
            "short",
            (rate("lockstep_tokenizer_tokens_total", TOKENIZER, "operation"),),
        ),
        Panel(
            "Time of the work of one call",
            "Without waiting, by operation.",
            "s",
            quantiles("lockstep_tokenizer_operation_seconds", TOKENIZER, "operation"),
        ),
        Panel(
            "Wait for a thread",
            "Rising asks for more threads or replicas.",
            "s",
            quantiles("lockstep_tokenizer_queue_seconds", TOKENIZER),
        ),
        Panel(
            "Sequences per call",
            "Callers that batch cost less.",
            "short",
            (mean("lockstep_tokenizer_batch_size", TOKENIZER),),
        ),
        Panel(
            "Characters per token",
            "Falls when texts are in a language or notation that the vocabulary does not know.",
            "short",
            (
                Query(
                    f"sum(rate(lockstep_tokenizer_characters_total{{{TOKENIZER}}}[{WINDOW}])) "
                    f"/ sum(rate(lockstep_tokenizer_tokens_total{{{TOKENIZER}}}[{WINDOW}]))",
                    "mean",
                ),
            ),
        ),
        Panel(
            "Vocabulary revision of the tokenizer service",
            "Grows by one with every change.",
            "short",
            (gauge("lockstep_tokenizer_vocab_revision", TOKENIZER, "tokenizer", function="max"),),
        ),
        Panel(
            "Changes of the vocabulary per second",
            "`conflict` means that another change came first.",
            "short",
            (rate("lockstep_tokenizer_vocab_revisions_total", TOKENIZER, "result"),),
        ),
        Panel(
            "Store",
            "Time of an operation of the vocabulary's store.",
            "s",
            quantiles("lockstep_tokenizer_store_operation_seconds", TOKENIZER, "operation"),
        ),
    ),
)

SESSIONS = Row(
    "Sessions and vocabulary",
    (
        Panel(
            "Open sessions",
            "Idle ones hold KV cache too.",
            "short",
            (gauge("lockstep_model_sessions", MODEL, "state"),),
        ),
        Panel(
            "Sessions opened and closed per second",
            "`idle_timeout` means that a client forgot its session.",
            "short",
            (
                rate("lockstep_model_sessions_opened_total", MODEL),
                rate("lockstep_model_sessions_closed_total", MODEL, "reason"),
            ),
        ),
        Panel(
            "Vocabulary revision of the model service",
            "Replicas that differ for long do not follow the tokenizer service.",
            "short",
            (gauge("lockstep_model_vocabulary_revision", MODEL, "instance", function="max"),),
        ),
        Panel(
            "Vocabulary lag",
            "Revisions that the tokenizer service has and a replica does not serve yet.",
            "short",
            (gauge("lockstep_model_vocabulary_lag_revisions", MODEL, "instance", function="max"),),
        ),
        Panel(
            "Growth pause",
            "How long no step could run while rows were added.",
            "s",
            quantiles("lockstep_model_vocabulary_growth_pause_seconds", MODEL),
        ),
    ),
)

ROWS = (CALLS, LATENCY, ENGINE, SESSIONS, TOKENIZATION)
