"""Contender: concurrent `GenerateStream` calls, one per prompt, over one channel."""

import asyncio
import statistics
import sys
import time
from typing import TYPE_CHECKING

import grpc
from lockstep.v1 import generation_pb2, model_service_pb2, scores_pb2, tokens_pb2
from lockstep.v1.model_service_pb2_grpc import ModelServiceStub

from bench.peers.rounds import answer
from bench.workload import Measurement

if TYPE_CHECKING:  # exists in the stub file only
    from lockstep.v1.model_service_pb2_grpc import ModelServiceAsyncStub


def request_of(prompt: list[int], new_tokens: int) -> model_service_pb2.GenerateStreamRequest:
    """Builds a greedy request that nothing but the length ends."""
    return model_service_pb2.GenerateStreamRequest(
        request=model_service_pb2.GenerateRequest(
            prompt=tokens_pb2.PromptBatch(
                token_batch=tokens_pb2.TokenBatch(sequences=[tokens_pb2.TokenSequence(ids=prompt)])
            ),
            generation_config=generation_pb2.GenerationConfig(
                max_new_tokens=new_tokens,
                do_sample=False,
                eos_token_ids=scores_pb2.TokenIdList(),
            ),
            use_prefix_cache=False,  # the same work as the other contender, in every round
        )
    )


async def stream(
    stub: "ModelServiceAsyncStub", prompt: list[int], new_tokens: int, start: float
) -> tuple[list[int], float]:
    """Runs one stream and returns its tokens and the time to the first."""
    token_ids: list[int] = []
    first = 0.0
    async for event in stub.GenerateStream(request_of(prompt, new_tokens)):
        for delta in event.deltas.deltas:
            first = first or time.perf_counter() - start
            token_ids += delta.token_ids
    return token_ids, first


async def run_streams(address: str, prompts: list[list[int]], new_tokens: int) -> Measurement:
    """Runs all prompts at once."""
    async with grpc.aio.insecure_channel(address) as channel:
        await channel.channel_ready()
        stub = ModelServiceStub(channel)
        start = time.perf_counter()
        results = await asyncio.gather(*(stream(stub, p, new_tokens, start) for p in prompts))
        wall = time.perf_counter() - start
    tokens, first = zip(*results, strict=True)
    return Measurement(wall, statistics.median(first), list(tokens))


def main() -> None:
    """Talks to the model service whose address is the first argument."""
    address = sys.argv[1]
    answer(lambda prompts, new: asyncio.run(run_streams(address, prompts, new)))


if __name__ == "__main__":
    main()
