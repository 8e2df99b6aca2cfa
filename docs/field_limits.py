"""The limits that the schema declares for the fields of requests, as a table."""

from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, FileDescriptor
from lockstep.v1 import (
    logits_session_service_pb2,
    model_admin_service_pb2,
    model_info_service_pb2,
    model_service_pb2,
    tokenizer_service_pb2,
    vocabulary_admin_service_pb2,
)

from rpc.field_limits import limits_of

_SERVICES: list[FileDescriptor] = [
    tokenizer_service_pb2.DESCRIPTOR,
    vocabulary_admin_service_pb2.DESCRIPTOR,
    model_service_pb2.DESCRIPTOR,
    logits_session_service_pb2.DESCRIPTOR,
    model_info_service_pb2.DESCRIPTOR,
    model_admin_service_pb2.DESCRIPTOR,
]


def field_limits_table() -> str:
    """One row per field that has a limit, in the order in which requests have them."""
    rows = ["| field | items | bytes of each |", "|---|---|---|"]
    for message in _messages():
        for field in message.fields:
            limits = limits_of(field)
            if limits.max_items or limits.max_bytes:
                items = f"{limits.max_items:,}" if limits.max_items else ""
                most_bytes = f"{limits.max_bytes:,}" if limits.max_bytes else ""
                rows.append(f"| `{message.name}.{field.name}` | {items} | {most_bytes} |")
    return "\n".join(rows)


def _messages() -> list[Descriptor]:
    """Finds the types of requests, and of messages inside of them, each once."""
    found: dict[Descriptor, None] = {}
    for file in _SERVICES:
        for service in file.services_by_name.values():
            for method in service.methods:
                found.update(dict.fromkeys(_within(method.input_type)))
    return list(found)


def _within(message: Descriptor) -> Iterator[Descriptor]:
    yield message
    for field in message.fields:
        if field.message_type is not None:
            yield from _within(field.message_type)
