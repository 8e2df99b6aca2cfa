"""Channel arguments of our servers, and why each has its value.

What gRPC leaves unlimited or open by default is closed here. Settings hold what
an operator may want to change.
"""

from rpc.settings import ServerSettings

Options = list[tuple[str, int]]

# A message between `max_message_bytes` and this many times it is read, so that it
# can be refused with details. gRPC itself refuses what is larger, without.
TRANSPORT_HEADROOM = 4

# A stream counts until Python has let go of it, a moment after its caller has the answer
# and may have begun another. gRPC would refuse that one, without details.
STREAM_HEADROOM = 4

_MAX_HEALTH_MESSAGE_BYTES = 4096
_NEVER_S = 10**9

_COMMON: Options = [
    # By default a second server binds the same port and takes half of the calls.
    ("grpc.so_reuseport", 0),
    # Bit 0: identity only. A compressed message would be inflated before any
    # interceptor, and so before any authentication, sees the call.
    ("grpc.compression_enabled_algorithms_bitset", 1),
    # The soft limit refuses at random between the two; both are small on purpose.
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    # A connection that says nothing is closed; gRPC would hold it for two minutes.
    ("grpc.server_handshake_timeout_ms", 10_000),
    # Finds peers that vanished. Without the ping timeout the keepalive timeout
    # alone did not close connections to peers that had stopped answering.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    # Clients with a keepalive of 30 s are welcome, also between calls.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
    ("grpc.http2.max_ping_strikes", 2),
    ("grpc.max_connection_idle_ms", 15 * 60_000),
]

_HEALTH_CONNECTIONS = 128
_STREAMS_PER_HEALTH_CONNECTION = 4

HEALTH_OPTIONS: Options = [
    *_COMMON,
    ("grpc.max_receive_message_length", _MAX_HEALTH_MESSAGE_BYTES),
    ("grpc.max_concurrent_streams", _STREAMS_PER_HEALTH_CONNECTION),
    ("grpc.max_allowed_incoming_connections", _HEALTH_CONNECTIONS),
]

# As many as gRPC lets in, so that no probe waits for a thread that another call holds.
# Threads are made when they are needed.
HEALTH_THREADS = _HEALTH_CONNECTIONS * _STREAMS_PER_HEALTH_CONNECTION


def server_options(settings: ServerSettings) -> Options:
    """Returns the channel arguments of a service's own port."""
    return [
        *_COMMON,
        ("grpc.max_receive_message_length", TRANSPORT_HEADROOM * settings.max_message_bytes),
        # The error interceptor refuses first, with details.
        ("grpc.max_send_message_length", settings.max_response_bytes),
        ("grpc.max_concurrent_streams", settings.max_streams_per_connection),
        (
            "grpc.http2.max_deallocating_streams",
            STREAM_HEADROOM * settings.max_streams_per_connection,
        ),
        # By default gRPC cancels, without details, calls that no handler has had time
        # for within 30 s. They are refused with details instead, or their deadline ends.
        ("grpc.server_max_unrequested_time_in_server", _NEVER_S),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.max_connection_age_ms", round(settings.max_connection_age_s * 1000)),
        ("grpc.max_connection_age_grace_ms", round(settings.max_connection_age_grace_s * 1000)),
    ]
