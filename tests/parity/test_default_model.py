"""The default model through both real services against `generate`, float32."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

import checkpoints
from lockstep_client import Lockstep
from tests.correctness.sizes import sizes
from tests.services import running_services

pytestmark = [pytest.mark.default_model, pytest.mark.timeout(600)]

# Of very different length: one token, a sentence, paragraphs.
PROMPTS = [
    "The",
    "Once upon a time",
    "The capital of France is",
    "def fibonacci(n):",
    "In 1969, the first",
    "Water boils at 100 degrees Celsius, and freezes at",
    "To be, or not to be, that is the question:",
    "1, 1, 2, 3, 5, 8, 13, 21,",
    "Die Hauptstadt von Deutschland ist",
    "SELECT name, age FROM users WHERE",
    "The three laws of motion were written down by Isaac Newton. The first of them says that",
    "Ingredients: 200 g flour, 3 eggs, a pinch of salt, half a liter of milk.\nStep 1:",
    "Grüße aus München! 東京 is the capital of Japan, and Москва that of",
    "Q: What is larger, the sun or the moon?\nA:",
    " ".join(f"{n} squared is {n * n}." for n in range(1, 12)) + " 12 squared is",
    "A list of fruit: apple, banana, cherry, date, elderberry, fig, grape,",
    "It was a dark and stormy night; the rain fell in torrents, except at occasional intervals, "
    "when it was checked by a violent gust of wind which swept up the streets.",
    "Dear Sir or Madam,\n\nI am writing to",
    "import numpy as np\n\ndef softmax(x):\n    ",
    "The quick brown fox jumps over the lazy dog. " * 12,
]


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    folder = checkpoints.resolve(checkpoints.DEFAULT_MODEL, need="model").folder
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lockstep]:
    folder = tmp_path_factory.mktemp("default-model")
    checkpoint = checkpoints.resolve(checkpoints.DEFAULT_MODEL, need="model").folder
    flags = ("--threads=2",)
    with (
        running_services(checkpoint, folder, model_flags=flags) as services,
        services.client(stream_timeout=300) as client,
    ):
        yield client


def expected_of(model: PreTrainedModel, ids: list[int], new: int) -> list[int]:
    with torch.inference_mode():
        output = model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
            max_new_tokens=new,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
    return output[0, len(ids) :].tolist()


@sizes("new", 12, 32)
def test_20_prompts_continue_as_in_generate_alone_and_together(model, client, new):
    batch = client.tokenizer.encode(PROMPTS, padding="longest")
    expected = [expected_of(model, ids, new) for ids in batch.token_ids]
    options = {"max_new_tokens": new, "do_sample": False, "eos_token_id": []}
    together = client.model.generate(batch, **options)
    assert [list(row) for row in together.sequences] == expected

    def alone(ids: list[int]) -> list[int]:
        return list(client.model.generate([ids], **options).sequences[0])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(alone, batch.token_ids)) == expected


def test_a_question_is_answered(client):
    question = [{"role": "user", "content": "What is the capital of France?"}]
    answer = client.generate(messages=question, max_new_tokens=24, do_sample=False)
    assert "Paris" in answer.text
    assert answer.finish_reason == "eos_token"
