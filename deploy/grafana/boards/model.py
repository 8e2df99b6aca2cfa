"""Is the model quick, and is there room? Generation, sessions and the engine."""

from deploy.grafana.panels import (
    MODEL,
    PER_REPLICA,
    WINDOW,
    Board,
    Panel,
    Query,
    Row,
    gauge,
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
            "Tokens generated per second",
            "Generated.",
            "short",
            f"sum(rate(lockstep_model_generated_tokens_total{{{MODEL}}}[{WINDOW}]))",
        ),
        stat(
            "Sequences that run",
            "In the batches of all replicas.",
            "short",
            f"sum(lockstep_model_requests_running{{{MODEL}}})",
        ),
        stat(
            "Sequences that wait",
            "For a place.",
            "short",
            f"sum(lockstep_model_requests_waiting{{{MODEL}}})",
            (1, 16),
        ),
        stat(
            "KV cache reserved",
            "Of the fullest replica.",
            "percentunit",
            f"max(lockstep_model_kv_cache_usage_ratio{{{MODEL}}})",
            (0.8, 0.95),
        ),
        stat(
            "First token, p95",
            "Arrival to first token.",
            "s",
            quantiles("lockstep_model_time_to_first_token_seconds", MODEL)[1].expression,
            (1, 2.5),
        ),
        stat(
            "Between tokens, p99",
            "A stall inside of a sequence shows.",
            "s",
            quantiles("lockstep_model_inter_token_latency_seconds", MODEL)[2].expression,
            (0.2, 1),
        ),
    ),
)

LATENCY = Row(
    "Latency",
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
        heatmap(
            "Time to first token, by bucket",
            "Two bands are two kinds of prompts, or a queue.",
            "s",
            "lockstep_model_time_to_first_token_seconds",
            MODEL,
        ),
        Panel(
            "Time between tokens",
            "Of each pair of steps of a sequence, where the mean of it hides a stall.",
            "s",
            quantiles("lockstep_model_inter_token_latency_seconds", MODEL, "operation"),
        ),
        heatmap(
            "Time between tokens, by bucket",
            "A second band high above is where others' prompts hold up a step.",
            "s",
            "lockstep_model_inter_token_latency_seconds",
            MODEL,
        ),
        Panel(
            "Step of a session",
            "From its message to its answer, alone or in a stream.",
            "s",
            quantiles("lockstep_model_session_step_seconds", MODEL, "method"),
        ),
    ),
)

LENGTHS = Row(
    "Lengths",
    (
        heatmap(
            "Length of prompts",
            "Tokens. Longer ones cost more time to the first token, and room.",
            "short",
            "lockstep_model_request_prompt_tokens",
            MODEL,
        ),
        heatmap(
            "Length of answers",
            "Tokens of sequences that ended.",
            "short",
            "lockstep_model_request_generated_tokens",
            MODEL,
        ),
        Panel(
            "Prompt tokens per second by operation",
            "What the tokens are spent on.",
            "short",
            (rate("lockstep_model_prompt_tokens_total", MODEL, "operation"),),
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
                gauge("lockstep_model_requests_running", MODEL, *PER_REPLICA, name="running"),
                gauge("lockstep_model_requests_waiting", MODEL, *PER_REPLICA, name="waiting"),
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
            (gauge("lockstep_model_kv_cache_usage_ratio", MODEL, *PER_REPLICA, function="max"),),
        ),
        Panel(
            "Bytes of KV cache",
            "Reserved, kept for prompts that begin alike, and in total.",
            "bytes",
            (
                gauge("lockstep_model_kv_cache_used_bytes", MODEL, *PER_REPLICA, name="reserved"),
                gauge("lockstep_model_kv_cache_kept_bytes", MODEL, *PER_REPLICA, name="kept"),
                gauge("lockstep_model_kv_cache_limit_bytes", MODEL, *PER_REPLICA, name="total"),
            ),
        ),
        Panel(
            "Prompts with a reused part per second",
            "Their KV cache was copied in part. Callers that share a beginning share a salt.",
            "reqps",
            (rate("lockstep_model_prefix_cache_hits_total", MODEL),),
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
                mean("lockstep_model_batch_sequences", MODEL, name="sequences"),
                mean("lockstep_model_batch_tokens", MODEL, name="tokens"),
            ),
        ),
        Panel(
            "Drafts per second",
            "Guesses that were verified, and guesses that were right; the assistant's apart.",
            "short",
            (
                rate("lockstep_model_drafts_total", MODEL),
                rate("lockstep_model_accepted_drafts_total", MODEL),
                rate("lockstep_model_assistant_drafts_total", MODEL),
                rate("lockstep_model_accepted_assistant_drafts_total", MODEL),
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

SESSIONS = Row(
    "Sessions",
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
            "Steps of sessions per second",
            "Alone and in streams.",
            "ops",
            (rate("lockstep_model_session_step_seconds_count", MODEL, "method"),),
        ),
        Panel(
            "Tokens given by steps per second",
            "By clients that choose tokens themselves.",
            "short",
            (rate("lockstep_model_session_step_tokens_total", MODEL),),
        ),
        Panel(
            "Life of sessions",
            "From open to close.",
            "s",
            quantiles("lockstep_model_session_lifetime_seconds", MODEL),
        ),
    ),
)

LOADING = Row(
    "Loading",
    (
        Panel(
            "Duration of loading",
            "How long a new replica takes.",
            "s",
            (gauge("lockstep_model_load_seconds", MODEL, *PER_REPLICA, function="max"),),
        ),
        Panel(
            "Progress of loading",
            "1 once a stage is done.",
            "percentunit",
            (gauge("lockstep_model_load_progress_ratio", MODEL, "stage", *PER_REPLICA),),
        ),
        Panel(
            "Engine up",
            "1 while the engine process answers.",
            "short",
            (gauge("lockstep_model_engine_up", MODEL, *PER_REPLICA, function="min"),),
        ),
        Panel(
            "Compiled steps",
            "Replicas by the state that compiled steps are in.",
            "short",
            (gauge("lockstep_model_decode_graphs", MODEL, "state"),),
        ),
        Panel(
            "NaN or infinite logits",
            "Sequences per second that ended with them. Any is a fault.",
            "ops",
            (rate("lockstep_model_nonfinite_logits_total", MODEL),),
        ),
    ),
)

BOARD = Board(
    "model",
    "Lockstep / Model",
    "Generation, sessions and the engine of the model service.",
    (NOW, LATENCY, LENGTHS, ENGINE, SESSIONS, LOADING),
)
