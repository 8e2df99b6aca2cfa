"""A program that traces with OpenTelemetry, set up by its variables, and calls both services.

Prints the trace id of each of the things that it does.
"""

import asyncio
import json
import os
import sys

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from lockstep_client import AsyncLockstep, Lockstep
from lockstep_client.exceptions import DeadlineExceeded, InvalidField

ADDRESSES = {
    "tokenizer": os.environ["LOCKSTEP_TOKENIZER"],
    "model": os.environ["LOCKSTEP_MODEL"],
}
PROMPT = "The capital of France is"
GREEDY = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": []}


def generate(ls: Lockstep) -> None:
    ls.generate(PROMPT, **GREEDY)


def stream(ls: Lockstep) -> None:
    with ls.stream(PROMPT, **GREEDY) as pieces:
        list(pieces)


def sampled(ls: Lockstep) -> None:
    ls.model.generate(
        [[5, 6, 7]],
        max_new_tokens=3,
        eos_token_id=[],
        do_sample=True,
        temperature=0.7,
        top_p=0.9,
        seed=1,
        num_return_sequences=2,
    )


def session(ls: Lockstep) -> None:
    with ls.model.open_session([[5, 6, 7, 8]], max_length=50) as opened:
        opened.step([[1]])
        with opened.step_stream() as steps:
            steps.step([[2]])
            steps.step([[3, 4]])


def refused(ls: Lockstep) -> None:
    ls.model.generate([[5]], temperature=-1.0)


def late(ls: Lockstep) -> None:
    ls.model.generate([[5]], max_new_tokens=200, eos_token_id=[], timeout=0.05)


def left(ls: Lockstep) -> None:
    with ls.model.stream([[5]], max_new_tokens=200, eos_token_id=[]) as deltas:
        next(deltas)


async def asynchronous() -> None:
    async with AsyncLockstep(**ADDRESSES) as ls:
        await ls.generate(PROMPT, **GREEDY)
        async with ls.stream(PROMPT, **GREEDY) as pieces:
            async for _ in pieces:
                pass


def main(names: list[str]) -> None:
    provider = TracerProvider(resource=Resource.create({"service.name": "program"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    tracer = trace.get_tracer("program")
    works = {
        work.__name__: work for work in (generate, stream, sampled, session, refused, late, left)
    }
    ids = {}
    with Lockstep(**ADDRESSES) as ls:
        for name in names:
            with tracer.start_as_current_span(name) as span:
                ids[name] = trace.format_trace_id(span.get_span_context().trace_id)
                try:
                    if name == "asynchronous":
                        asyncio.run(asynchronous())
                    else:
                        works[name](ls)
                except (InvalidField, DeadlineExceeded):  # as they should
                    pass
    provider.shutdown()
    print(json.dumps(ids))


if __name__ == "__main__":
    main(sys.argv[1:])
