"""Contender: concurrent `GenerateStream` calls, one per prompt, over one channel."""

import asyncio
import sys
from typing import TYPE_CHECKING

import grpc
from lockstep.v1 import generation_pb2, model_service_pb2, scores_pb2, tokens_pb2
from lockstep.v1.model_service_pb2_grpc import ModelServiceStub

from bench.peers.rounds import Round, answer

if TYPE_CHECKING:  # exists in the stub file only
    from lockstep.v1.model_service_pb2_grpc import ModelServiceAsyncStub


PRECISIONS = {
    "fp32": ("--dtype", "fp32"),
    "bf16": ("--dtype", "bf16"),
    "int8": ("--dtype", "bf16", "--weights", "int8"),
}
"""What the service is started with."""


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


async def stream(stub: "ModelServiceAsyncStub", request: Round, index: int) -> None:
    """Runs one stream once it is due, and notes its tokens as they come."""
    await asyncio.sleep(request.arrivals_s[index] - request.now_s)
    call = stub.GenerateStream(request_of(request.prompts[index], request.new_tokens))
    async for event in call:
        for delta in event.deltas.deltas:
            request.note(index, list(delta.token_ids))


async def run_streams(address: str, request: Round) -> None:
    """Runs all prompts."""
    async with grpc.aio.insecure_channel(address) as channel:
        await channel.channel_ready()
        stub = ModelServiceStub(channel)
        request.start()
        await asyncio.gather(*(stream(stub, request, i) for i in range(len(request.prompts))))


def main() -> None:
    """Talks to the model service whose address is the first argument."""
    address = sys.argv[1]
    answer(lambda request: asyncio.run(run_streams(address, request)))


if __name__ == "__main__":
    main()
