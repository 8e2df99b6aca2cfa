"""Are the services well? All replicas of both, their objectives, calls and processes."""

from deploy.grafana.panels import (
    PER_REPLICA,
    REPLICA,
    WINDOW,
    Board,
    Panel,
    Query,
    Row,
    gauge,
    rate,
    stat,
)

_FAILED = f'grpc_server_handled_total{{{REPLICA},grpc_code!="OK"}}'
_ENDED = f"grpc_server_handled_total{{{REPLICA}}}"

HEALTH = Row(
    "Now",
    (
        stat(
            "Replicas of the tokenizer service",
            "Those that take calls.",
            "short",
            f'sum(lockstep_ready{{{REPLICA},service="tokenizer_service"}})',
            (1, 0.5),
        ),
        stat(
            "Replicas of the model service",
            "Those that take calls.",
            "short",
            f'sum(lockstep_ready{{{REPLICA},service="model_service"}})',
            (1, 0.5),
        ),
        stat(
            "Alerts that fire",
            "docs/operations.md says what to do about each.",
            "short",
            'count(ALERTS{alertname=~"Lockstep.*",alertstate="firing"}) or vector(0)',
            (1, 2),
        ),
        stat(
            "All calls per second",
            "Started, of all methods.",
            "reqps",
            f"sum(rate(grpc_server_started_total{{{REPLICA}}}[{WINDOW}]))",
        ),
        stat(
            "All calls in progress",
            "Streams included.",
            "short",
            f"sum(grpc_server_in_flight{{{REPLICA}}})",
        ),
        stat(
            "First certificate to expire",
            "Time left; none without TLS.",
            "s",
            f"min(lockstep_certificate_expiry_timestamp_seconds{{{REPLICA}}}) - time()",
            (14 * 86400, 3 * 86400),
        ),
    ),
)

OBJECTIVES = Row(
    "Objectives",
    (
        stat(
            "Calls answered, 6 hours",
            "Not failed or turned away by the service. The objective is 99.9 %.",
            "percentunit",
            '1 - max(lockstep:objective_calls_failed:ratio_rate6h{namespace=~"$namespace"})',
            (0.999, 0.99),
        ),
        stat(
            "First tokens within 2.5 s, 6 hours",
            "The objective is 99 %.",
            "percentunit",
            "1 - max(lockstep:objective_first_tokens_late:ratio_rate6h"
            '{namespace=~"$namespace",model_name=~"$model"})',
            (0.99, 0.9),
        ),
        Panel(
            "Burn rate of errors",
            "1 uses up the errors of 30 days in 30 days, 14.4 in two.",
            "short",
            tuple(
                Query(
                    f'lockstep:objective_calls_failed:ratio_rate{window}{{namespace=~"$namespace"}}'
                    " / 0.001",
                    f"{{{{job}}}} {window}",
                )
                for window in ("5m", "1h", "6h")
            ),
        ),
        Panel(
            "Burn rate of late first tokens",
            "As of errors, of the 1 % that may be late.",
            "short",
            tuple(
                Query(
                    f"lockstep:objective_first_tokens_late:ratio_rate{window}"
                    '{namespace=~"$namespace",model_name=~"$model"} / 0.01',
                    f"{{{{model_name}}}} {window}",
                )
                for window in ("5m", "1h", "6h")
            ),
        ),
    ),
)

CALLS = Row(
    "Calls",
    (
        Panel(
            "Ready",
            "1 while a service takes calls. 0 means that it loads or drains.",
            "short",
            (gauge("lockstep_ready", REPLICA, "service", *PER_REPLICA, function="min"),),
        ),
        Panel(
            "Calls per second",
            "Started, by method.",
            "reqps",
            (rate("grpc_server_started_total", REPLICA, "grpc_method"),),
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
            (rate("grpc_server_handled_total", REPLICA, "grpc_code"),),
        ),
        Panel(
            "Failed calls per second by reason",
            "The reasons of docs/errors.md. Calls that callers cancelled have none.",
            "reqps",
            (rate("lockstep_calls_failed_total", REPLICA, "reason"),),
        ),
        Panel(
            "Duration of calls (p95)",
            "A stream lasts as long as its sequence: see the model's latencies for those.",
            "s",
            (
                Query(
                    "histogram_quantile(0.95, sum by (le, grpc_method) "
                    f"(rate(grpc_server_handling_seconds_bucket{{{REPLICA}}}[{WINDOW}])))",
                    "{{grpc_method}}",
                ),
            ),
        ),
        Panel(
            "Calls in progress",
            "Falls to 0 while a replica drains.",
            "short",
            (gauge("grpc_server_in_flight", REPLICA, "grpc_method"),),
        ),
        Panel(
            "Bytes per second",
            "Requests and responses. Rows of logits make the responses.",
            "Bps",
            (
                rate("grpc_server_request_size_bytes_sum", REPLICA),
                rate("grpc_server_response_size_bytes_sum", REPLICA),
            ),
        ),
        Panel(
            "Calls per second by replica",
            "Replicas of one service should be alike: a client that keeps one connection uses one.",
            "reqps",
            (rate("grpc_server_started_total", REPLICA, "job", *PER_REPLICA),),
        ),
        Panel(
            "Failed calls per second by replica",
            "One replica alone that fails is ill; all together are overloaded.",
            "reqps",
            (rate("lockstep_calls_failed_total", REPLICA, "job", *PER_REPLICA),),
        ),
    ),
)

PROCESSES = Row(
    "Processes",
    (
        Panel(
            "Memory of the services",
            "Resident. The model's own memory is the engine's.",
            "bytes",
            (gauge("process_resident_memory_bytes", REPLICA, "job", *PER_REPLICA),),
        ),
        Panel(
            "Memory of the engine",
            "Resident: weights, KV cache and code.",
            "bytes",
            (gauge("lockstep_model_engine_process_resident_memory_bytes", REPLICA, *PER_REPLICA),),
        ),
        Panel(
            "Processor time",
            "Cores in use, by the services and by the engines.",
            "short",
            (
                rate("process_cpu_seconds_total", REPLICA, "job", *PER_REPLICA),
                rate(
                    "lockstep_model_engine_process_cpu_seconds_total",
                    REPLICA,
                    *PER_REPLICA,
                    name="engine",
                ),
            ),
        ),
        Panel(
            "Threads of the engine",
            "Far more than the cores it may use makes it slow.",
            "short",
            (gauge("lockstep_model_engine_process_threads", REPLICA, *PER_REPLICA),),
        ),
        Panel(
            "Versions of the tokenizer service",
            "Replicas by version; two lines for long are an unfinished rollout.",
            "short",
            (
                Query(
                    f"count by (lockstep, tokenizers) (lockstep_tokenizer_build_info{{{REPLICA}}})",
                    "{{lockstep}}, tokenizers {{tokenizers}}",
                ),
            ),
        ),
        Panel(
            "Versions of the model service",
            "Replicas by version.",
            "short",
            (
                Query(
                    "count by (lockstep, torch, transformers) "
                    f"(lockstep_model_build_info{{{REPLICA}}})",
                    "{{lockstep}}, torch {{torch}}, transformers {{transformers}}",
                ),
            ),
        ),
    ),
)

BOARD = Board(
    "fleet",
    "Lockstep / Fleet",
    "All replicas of both services: health, objectives, calls and processes.",
    (HEALTH, OBJECTIVES, CALLS, PROCESSES),
)
