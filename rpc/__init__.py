"""What every gRPC server here needs and no service owns.

One folder, because each module is one thing around a call or a process, and stands alone: errors
and their statuses, interceptors, health, metrics, TLS, logs, limits, settings.
"""
