"""Failures that a request, or the response to it, causes."""

from collections.abc import Sequence

from rpc.errors.service_error import FieldViolation, ServiceError


class InvalidField(ServiceError):
    """A field is missing, out of range or contradicts another."""

    def __init__(self, field: str, description: str, *more: FieldViolation) -> None:
        super().__init__(f"{field}: {description}", field=field)
        self.violations = (FieldViolation(field, description), *more)

    @classmethod
    def of(cls, violations: Sequence[FieldViolation]) -> "InvalidField":
        """Builds one error from at least one violation."""
        first, *more = violations
        return cls(first.field, first.description, *more)


class MalformedMessage(ServiceError):
    """The bytes received are not a message of the method's request type."""

    def __init__(self, method: str) -> None:
        super().__init__("The request is not a message of this method.", method=method)


class MessageTooLarge(ServiceError):
    """The request message is larger than the server reads."""

    def __init__(self, message_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"The request has {message_bytes} bytes; the limit is {limit_bytes}.",
            messageBytes=message_bytes,
            limitBytes=limit_bytes,
        )


class TokenIdOutOfRange(ServiceError):
    """A token id is not in the vocabulary of the request's revision, or has no row in the model."""

    def __init__(
        self,
        field: str,
        *,
        row: int | None,
        index: int,
        token_id: int,
        vocabulary_size: int,
        has_row: bool = True,
    ) -> None:
        """Refuses an id.

        Args:
            field: path of the field that holds it.
            row: its row, from 0; None where the field has ids, and no rows of them.
            index: its place in the row, from 0.
            token_id: the id.
            vocabulary_size: number of ids of the request's revision.
            has_row: False where the tokenizer knows the id and the model does not.
        """
        why = (
            f"is not in the vocabulary of {vocabulary_size} ids"
            if has_row
            else "is in the tokenizer's vocabulary, but the model has no row for it"
        )
        where = f"index {index}" if row is None else f"row {row}, index {index}"
        super().__init__(
            f"{field}: id {token_id} at {where} {why}.",
            field=field,
            row=row or 0,
            index=index,
            tokenId=token_id,
            vocabularySize=vocabulary_size,
        )


class ContextLengthExceeded(ServiceError):
    """Prompt and new tokens together exceed the model's context, or what a session has room for."""

    def __init__(
        self,
        *,
        row: int,
        prompt_tokens: int,
        new_tokens: int,
        context_tokens: int,
        of_session: bool = False,
    ) -> None:
        """Refuses a row.

        Args:
            row: index of the row.
            prompt_tokens: that it has.
            new_tokens: that are asked for.
            context_tokens: that it may have.
            of_session: whether that is the `max_length` of a session.
        """
        limit = "the session's max_length" if of_session else "the context"
        remedy = (
            "open a session with a larger max_length"
            if of_session
            else "encode the text with truncation and max_length"
            + ", or ask for fewer new tokens" * bool(new_tokens)
        )
        size = f"has {prompt_tokens} prompt tokens"
        if not prompt_tokens:
            size = f"is given {new_tokens} tokens, which exceeds"
        elif new_tokens:
            size += f"; with {new_tokens} new tokens it exceeds"
        else:
            size += ", which exceeds"
        super().__init__(
            f"Row {row} {size} {limit} of {context_tokens} tokens; {remedy}.",
            row=row,
            promptTokens=prompt_tokens,
            newTokens=new_tokens,
            contextTokens=context_tokens,
        )


class NotImplemented_(ServiceError):  # without the underscore it would hide the builtin
    """The method, or the feature asked for, is not offered by this server."""

    def __init__(
        self,
        feature: str,
        reason: str = "",
        services: Sequence[str] = (),
        *,
        hides_admins: bool = False,
    ) -> None:
        """Names what is not offered.

        Args:
            feature: the method or the field.
            reason: why not, with a remedy, if there is more to say.
            services: what the server offers, where it does not know the method.
            hides_admins: whether it offers more at the port of its admins.
        """
        if services:
            elsewhere = ", and services for admins at its --admin-port" * hides_admins
            reason = f"it offers {', '.join(services)}{elsewhere}"
        why = f": {reason}" if reason else ""
        super().__init__(
            f"{feature} is not offered by this server{why}.",
            feature=feature,
            services=",".join(services),
        )


class ResponseTooLarge(ServiceError):
    """The response would be larger than the server sends."""

    def __init__(
        self,
        response_bytes: int,
        limit_bytes: int,
        remedy: str = "Ask for less at once.",
        *,
        at_least: bool = False,
    ) -> None:
        """Refuses a response.

        Args:
            response_bytes: size of the response.
            limit_bytes: most that the server sends.
            remedy: what to ask for instead, a sentence.
            at_least: whether building it was stopped before the full size was known.
        """
        size = f"at least {response_bytes}" if at_least else f"{response_bytes}"
        super().__init__(
            f"The response would have {size} bytes; the limit is {limit_bytes}. {remedy}",
            responseBytes=response_bytes,
            limitBytes=limit_bytes,
        )


class SlowConsumer(ServiceError):
    """The caller did not read its stream for too long."""

    def __init__(self, buffered_bytes: int) -> None:
        super().__init__(
            f"The stream was not read; {buffered_bytes} bytes are waiting.",
            bufferedBytes=buffered_bytes,
        )
