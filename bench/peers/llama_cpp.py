"""Contender: llama.cpp in process: what is new of all prompts and streams is one batch a step."""

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

from bench.peers.rounds import Round, answer

PRECISIONS = {"fp32": "F32", "bf16": "BF16", "q8_0": "Q8_0", "q4_k_m": "Q4_K_M"}
FROM_GGUF = True

# As llama.cpp's own programs have them.
BATCH_TOKENS, PIECE_TOKENS = 2048, 512


def quantized(source: Path, kind: str, cache: Path) -> Path:
    """Returns a GGUF file with the weights of another one in a format; writes it once.

    Raises:
        SystemExit: llama.cpp cannot write it.
    """
    import llama_cpp

    target = cache / f"{source.stem}-{kind}.gguf"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        parameters = llama_cpp.llama_model_quantize_default_params()
        file_type = {"F32": "ALL_F32"}.get(kind, f"MOSTLY_{kind}")
        parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_{file_type}")
        parameters.allow_requantize = True
        unfinished = target.with_suffix(".unfinished")
        paths = [os.fsencode(path) for path in (source, unfinished)]
        if llama_cpp.llama_model_quantize(*paths, ctypes.byref(parameters)):
            raise SystemExit(f"llama.cpp cannot write {source} as {kind}.")
        unfinished.rename(target)
    return target


class Streams:
    """The sequences of one round, in a context that is made for them."""

    def __init__(self, model: Any, request: Round, threads: int) -> None:
        """Sets memory aside; the clock does not run yet."""
        import llama_cpp
        import numpy as np

        self._api, self._np = llama_cpp, np
        self._request = request
        count = len(request.prompts)
        parameters = llama_cpp.llama_context_default_params()
        length = max(map(len, request.prompts)) + request.new_tokens
        parameters.n_ctx = count * -(-length // 256) * 256
        parameters.n_seq_max = count
        parameters.n_batch, parameters.n_ubatch = BATCH_TOKENS, PIECE_TOKENS
        parameters.n_threads = parameters.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(model, parameters)
        self._vocabulary_size = llama_cpp.llama_vocab_n_tokens(
            llama_cpp.llama_model_get_vocab(model)
        )
        self._batch = llama_cpp.llama_batch_init(BATCH_TOKENS, 0, 1)

    def run(self) -> None:
        """Runs all prompts."""
        waiting: dict[int, list[int]] = {}  # tokens that are not in the cache yet, by prompt
        lengths: dict[int, int] = {}
        left = [self._request.new_tokens] * len(self._request.prompts)
        begun = 0
        self._request.start()
        while begun < len(left) or waiting:
            for index in self._request.arrived(begun):
                waiting[index], lengths[index] = list(self._request.prompts[index]), 0
                begun += 1
            if not waiting:
                self._request.wait_for(begun)
                continue
            for index, place in self._step(waiting, lengths):
                row = self._api.llama_get_logits_ith(self._context, place)
                array = self._np.ctypeslib.as_array(row, (self._vocabulary_size,))
                token_id = int(array.argmax())
                self._request.note(index, [token_id])
                left[index] -= 1
                if left[index]:
                    waiting[index] = [token_id]
                else:
                    del waiting[index]

    def _step(
        self, waiting: dict[int, list[int]], lengths: dict[int, int]
    ) -> list[tuple[int, int]]:
        """Computes as many tokens as fit a batch; decoding ones first.

        Returns:
            The prompts that get a token, each with its place in the batch.
        """
        batch, targets, count = self._batch, [], 0
        for index in sorted(waiting, key=lambda index: len(waiting[index]) > 1):
            tokens = waiting[index][: BATCH_TOKENS - count]
            for offset, token_id in enumerate(tokens):
                place = count + offset
                batch.token[place] = token_id
                batch.pos[place] = lengths[index] + offset
                batch.n_seq_id[place] = 1
                batch.seq_id[place][0] = index
                batch.logits[place] = False
            count += len(tokens)
            lengths[index] += len(tokens)
            waiting[index] = waiting[index][len(tokens) :]
            if tokens and not waiting[index]:
                batch.logits[count - 1] = True
                targets.append((index, count - 1))
        batch.n_tokens = count
        if self._api.llama_decode(self._context, batch):
            raise RuntimeError("llama_decode failed.")
        return targets

    def close(self) -> None:
        """Gives the memory back."""
        self._api.llama_batch_free(self._batch)
        self._api.llama_free(self._context)


def main() -> None:
    """Loads the GGUF file named by the first argument, in the precision named by the second.

    The third argument is the folder where files in other precisions are kept.
    """
    import llama_cpp

    source, precision, cache = sys.argv[1:4]
    llama_cpp.llama_backend_init()
    path = quantized(Path(source), PRECISIONS[precision], Path(cache))
    parameters = llama_cpp.llama_model_default_params()
    model = llama_cpp.llama_model_load_from_file(os.fsencode(path), parameters)
    threads = int(os.environ["OMP_NUM_THREADS"])

    def run(request: Round) -> None:
        streams = Streams(model, request, threads)
        streams.run()
        streams.close()

    answer(run)


if __name__ == "__main__":
    main()
