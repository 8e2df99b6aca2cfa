"""Part: texts to ids and back, through gRPC against the tokenizers library in this process."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import grpc
from lockstep.v1 import tokenizer_service_pb2 as pb
from lockstep.v1 import tokens_pb2
from lockstep.v1.tokenizer_service_pb2_grpc import TokenizerServiceStub
from tokenizers import Tokenizer

from bench.contender import ROOT
from bench.parts.part import Figure, Part, Side
from bench.services import tokenizer_service

TEXT_CHARACTERS = 1024
REPEATS = 20

Texts = Sequence[str]
Rows = Sequence[Sequence[int]]


class Text(Part):
    """Calls of one text and of many, one after the other."""

    name = "text"
    title = f"Texts of {TEXT_CHARACTERS} characters, one call after the other"
    case_title = "call"
    figures = (Figure("call_ms", "ms", 2, more_is_better=False),)
    cases = tuple(f"{method} {count}" for method in ("Encode", "Decode") for count in (1, 64))

    def sides(self) -> Mapping[str, Side]:
        library = Tokenizer.from_file(str(self._setup.model / "tokenizer.json"))
        address = self._setup.stack.enter_context(tokenizer_service(str(self._setup.model)))
        channel = self._setup.stack.enter_context(grpc.insecure_channel(address))
        stub = TokenizerServiceStub(channel)

        def encode(texts: Texts) -> Rows:
            items = [pb.TextItem(text=text) for text in texts]
            response = stub.Encode(pb.EncodeRequest(items=items))
            return [list(sequence.ids) for sequence in response.token_batch.sequences]

        def decode(rows: Rows) -> Texts:
            sequences = [tokens_pb2.TokenSequence(ids=ids) for ids in rows]
            batch = tokens_pb2.PromptBatch(token_batch=tokens_pb2.TokenBatch(sequences=sequences))
            return [text.text for text in stub.Decode(pb.DecodeRequest(batch=batch)).texts]

        def encode_here(texts: Texts) -> Rows:
            return [encoding.ids for encoding in library.encode_batch(texts)]

        def measure(
            methods: dict[str, Callable[..., object]], case: str, seed: int
        ) -> dict[str, float]:
            method, count = case.split()
            texts = _texts(int(count), seed)
            given = texts if method == "Encode" else encode_here(texts)
            start = time.perf_counter()
            for _ in range(REPEATS):
                methods[method](given)
            return {"call_ms": 1000 * (time.perf_counter() - start) / REPEATS}

        return {
            "ours": partial(measure, {"Encode": encode, "Decode": decode}),
            "tokenizers": partial(measure, {"Encode": encode_here, "Decode": library.decode_batch}),
        }


def _texts(count: int, seed: int) -> Texts:
    """Cuts texts out of this project's pages, others in every round."""
    pages = "".join(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))
    starts = range(seed * 1000, len(pages), TEXT_CHARACTERS)
    return [pages[start : start + TEXT_CHARACTERS] for start in starts[:count]]
