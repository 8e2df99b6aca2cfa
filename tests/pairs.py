"""Pairs of the same checkpoint: in Hugging Face's hands and in ours."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.checkpoint_factory import ARCHITECTURES, make_checkpoint
from tests.engine_harness import InprocEngine


@dataclass
class Pair:
    """One checkpoint, twice."""

    folder: Path
    model: PreTrainedModel
    engine: InprocEngine

    def generate(self, prompt: list[int], new: int, **options: object) -> "Expected":
        """What `generate` gives for one prompt alone."""
        options = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0, **options}
        with torch.inference_mode():
            out = self.model.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
                max_new_tokens=new,
                output_logits=True,
                output_scores=True,
                return_dict_in_generate=True,
                **options,
            )
        return Expected(
            out.sequences[0, len(prompt) :].tolist(),
            torch.cat(out.logits),
            torch.cat(out.scores),
        )


@dataclass
class Expected:
    """Tokens, and `[T, V]` raw logits and processed scores."""

    token_ids: list[int]
    logits: torch.Tensor
    scores: torch.Tensor


@pytest.fixture(scope="session")
def pair_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    pairs: dict[str, Pair] = {}

    def get(architecture: str) -> Pair:
        if architecture not in pairs:
            folder = tmp_path_factory.mktemp("checkpoints") / architecture
            make_checkpoint(folder, architecture)
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
            engine = InprocEngine(folder, max_running_sequences=12, max_session_rows=8)
            pairs[architecture] = Pair(folder, model, engine)
        return pairs[architecture]

    return get


@pytest.fixture(params=ARCHITECTURES)
def pair(request: pytest.FixtureRequest, pair_of: Callable[[str], Pair]) -> Pair:
    return pair_of(request.param)
