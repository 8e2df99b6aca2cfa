"""Generates the same streams again and again beside small calls, and says what came of them.

In a process of its own, so that whoever sends other calls meanwhile does not hold it up.
Usage: `python -m tests.integration.canary_probe MODEL_ADDRESS TOKENIZER_ADDRESS`. Prints `ready`
once it knows what every stream should give, ends with its input, and prints JSON.
"""

import json
import sys
import threading
import time
from typing import Any

import grpc
from lockstep.v1 import (
    generation_pb2,
    model_info_service_pb2,
    model_info_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    tokenizer_service_pb2,
    tokenizer_service_pb2_grpc,
    tokens_pb2,
)

NUM_NEW_TOKENS = 24
PULSE_S = 0.02

_SETTINGS: list[dict[str, Any]] = [
    {},
    {"do_sample": True, "seed": 7, "temperature": 1.3, "top_k": 40},
    {"do_sample": True, "seed": 8, "top_p": 0.8, "repetition_penalty": 1.2},
    {"no_repeat_ngram_size": 2, "presence_penalty": 0.5},
]


class Canaries:
    """Four streams, and another caller's small calls."""

    def __init__(self, model: str, tokenizer: str) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.insecure_channel(model, options)
        self._model = model_service_pb2_grpc.ModelServiceStub(channel)
        self._info = model_info_service_pb2_grpc.ModelInfoServiceStub(channel)
        self._tokenizer = tokenizer_service_pb2_grpc.TokenizerServiceStub(
            grpc.insecure_channel(tokenizer, options)
        )
        vocabulary = self._tokenizer.GetTokenizerInfo(
            tokenizer_service_pb2.GetTokenizerInfoRequest()
        ).vocabulary
        self._requests = [
            model_service_pb2.GenerateStreamRequest(
                request=model_service_pb2.GenerateRequest(
                    prompt=tokens_pb2.PromptBatch(
                        token_batch=tokens_pb2.TokenBatch(
                            sequences=[tokens_pb2.TokenSequence(ids=[40 + index, 50, 60])]
                        )
                    ),
                    generation_config=generation_pb2.GenerationConfig(
                        max_new_tokens=NUM_NEW_TOKENS,
                        eos_token_ids={},
                        **settings,
                    ),
                    vocabulary=vocabulary,
                )
            )
            for index, settings in enumerate(_SETTINGS)
        ]
        self._expected = [self._generate(request) for request in self._requests]
        self.ended = threading.Event()
        self.runs = self.wrong = 0
        self.failures: list[str] = []
        self.waits_s: dict[str, list[float]] = {"model": [], "tokenizer": []}

    def run(self) -> None:
        """Goes on until `ended` is set."""
        threads = [
            threading.Thread(target=self._sing, args=(index,)) for index in range(len(_SETTINGS))
        ]
        threads += [
            threading.Thread(target=self._ask, args=("model",)),
            threading.Thread(target=self._ask, args=("tokenizer",)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _sing(self, index: int) -> None:
        while not self.ended.is_set():
            try:
                tokens = self._generate(self._requests[index])
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:  # others fill the queue
                    self.failures.append(f"{error.code()}: {error.details()}")
                time.sleep(0.2)
                continue
            self.runs += 1
            self.wrong += tokens != self._expected[index]

    def _generate(self, request: model_service_pb2.GenerateStreamRequest) -> list[int]:
        events = self._model.GenerateStream(request, timeout=120)
        return [
            token_id
            for event in events
            for delta in event.deltas.deltas
            for token_id in delta.token_ids
        ]

    def _ask(self, service: str) -> None:
        calls = {
            "model": lambda: self._info.GetLoad(model_info_service_pb2.GetLoadRequest()),
            "tokenizer": lambda: self._tokenizer.GetTokenizerInfo(
                tokenizer_service_pb2.GetTokenizerInfoRequest()
            ),
        }
        while not self.ended.is_set():
            start = time.perf_counter()
            try:
                calls[service]()
            except grpc.RpcError as error:
                self.failures.append(f"{service} {error.code()}: {error.details()}")
            self.waits_s[service].append(time.perf_counter() - start)
            time.sleep(PULSE_S)


def main(model: str, tokenizer: str) -> None:
    """Runs canaries until the input ends."""
    canaries = Canaries(model, tokenizer)
    threading.Thread(target=lambda: (sys.stdin.read(), canaries.ended.set()), daemon=True).start()
    print("ready", flush=True)
    canaries.run()
    print(
        json.dumps(
            {
                "runs": canaries.runs,
                "wrong": canaries.wrong,
                "failures": canaries.failures[:20],
                "waits_s": canaries.waits_s,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
