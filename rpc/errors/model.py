"""Failures about sessions, the engine and what the model computes."""

from rpc.errors.service_error import ServiceError


class SessionNotFound(ServiceError):
    """The session does not exist, has expired or is not the caller's."""

    def __init__(self, session_id: str) -> None:
        super().__init__(
            "The session does not exist or has ended; open a new one.", sessionId=session_id
        )


class SessionOnOtherReplica(ServiceError):
    """Another replica has the session, if it still exists."""

    def __init__(self, session_id: str, *, replica: str, address: str = "") -> None:
        """Says where the session is.

        Args:
            session_id: the session.
            replica: name of the replica that has it.
            address: `HOST:PORT` at which that replica alone is reached; empty if unknown.
        """
        where = f" at {address}" if address else ""
        super().__init__(
            f"The replica {replica}{where} has the session; send the call there, or send the "
            "answers' x-session-token along, by which a gateway finds it.",
            sessionId=session_id,
            replica=replica,
            address=address,
        )


class SessionBusy(ServiceError):
    """Another call is using the session."""

    def __init__(self, session_id: str) -> None:
        super().__init__(
            "Another call is using the session.", retry_delay_s=0.1, sessionId=session_id
        )


class PositionConflict(ServiceError):
    """The session is not at the position that the step expected."""

    def __init__(self, *, row: int, expected: int, current: int) -> None:
        super().__init__(
            f"Row {row} is at position {current}, not {expected}.",
            row=row,
            expectedPosition=expected,
            currentPosition=current,
        )


class KVCacheExceeded(ServiceError):
    """The request needs more KV cache than this server has in total."""

    def __init__(self, *, kv_tokens: int, limit_tokens: int) -> None:
        super().__init__(
            f"The request needs {kv_tokens} tokens of KV cache; the limit is {limit_tokens}.",
            kvTokens=kv_tokens,
            limitTokens=limit_tokens,
        )


class MemoryExhausted(ServiceError):
    """Memory was not sufficient for this sequence beside what else was running."""

    def __init__(self) -> None:
        super().__init__(
            "Memory was not sufficient for this sequence beside what else was running. It may be "
            "later, or for a shorter one; the operator can lower --max-kv-tokens.",
            retry_delay_s=1.0,
        )


class EngineLost(ServiceError):
    """The process that owns the model has ended or stopped answering."""

    def __init__(self) -> None:
        super().__init__("The engine has ended; its sessions are lost.", retry_delay_s=2.0)


class NonFiniteLogits(ServiceError):
    """The model produced NaN or infinite logits for this row."""

    def __init__(self, *, row: int, position: int) -> None:
        super().__init__(
            f"The logits of row {row} at position {position} are not finite.",
            row=row,
            position=position,
        )


class NonFiniteScores(ServiceError):
    """The processors turned finite logits into scores that are NaN or infinite."""

    def __init__(self, *, row: int, position: int) -> None:
        super().__init__(
            f"The processors produce scores that are not finite for row {row} at position "
            f"{position}; use smaller biases, penalties and factors, or a higher temperature.",
            row=row,
            position=position,
        )


class NoTokenLeft(ServiceError):
    """The processors excluded every token."""

    def __init__(self, *, row: int, position: int, not_generable: int = 0) -> None:
        """Describes a row that cannot go on.

        Args:
            row: index of the row.
            position: of the token that was to be chosen.
            not_generable: how many added ids may not be generated, whatever is allowed.
        """
        beside = f", beside {not_generable} added ids that are not generable" * bool(not_generable)
        super().__init__(
            f"The processors exclude every token for row {row} at position {position}{beside}.",
            row=row,
            position=position,
        )
