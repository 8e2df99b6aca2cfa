"""Tokenizers with more ids than their model has rows, as Gemma 3's beside its models for text.

Hugging Face generates with them; the ids that have no row are in no request and in no answer.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from lockstep.v1 import model_service_pb2
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, AutoTokenizer

import checkpoints
from lockstep_client import Lockstep
from lockstep_client.exceptions import TokenIdOutOfRange
from model_service.front.checks.generation import AskedSequences
from model_service.front.checks.plan import PlanLimits, plan
from model_service.front.vocabulary.base import read_base_vocabulary
from model_service.protocol import GrowVocabulary, NewRow
from model_service.protocol.generation import ScoreSelection
from rpc import errors
from tests.checkpoint_factory import (
    ARCHITECTURES,
    VOCABULARY_SIZE,
    make_checkpoint,
    make_model,
    make_tokenizer,
)
from tests.engine_harness import InprocEngine, array, scores_of, tokens_of
from tests.gguf_factory import write_gguf
from tests.integration.model_process import ragged
from tests.pairs import Pair
from tests.services import running_services
from vocabulary import Reference
from wire.prompts import Bounds

from .test_processors import (
    FULL,
    NEW,
    PROMPT,
    SAMPLED,
    assert_equal_scores,
    name_of,
    their_options,
)

IMAGE, IMAGE_ID = "<image_soft_token>", VOCABULARY_SIZE
SIZE = VOCABULARY_SIZE + 1


def save(folder: Path, architecture: str = "gemma3", **changes: object) -> Path:
    """Writes a model of 320 rows beside a tokenizer of 321 ids."""
    make_checkpoint(folder, architecture)
    if changes:
        config = ARCHITECTURES[architecture]()
        for name, value in changes.items():
            setattr(config, name, value)
        model = make_model(config, 0)
        model.generation_config.eos_token_id = 0
        model.save_pretrained(folder)
    tokenizer = make_tokenizer()
    tokenizer.add_tokens([AddedToken(IMAGE, special=True)], special_tokens=True)
    tokenizer.save_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids(IMAGE) == IMAGE_ID
    return folder


CHECKPOINTS = {
    "gemma3": {},
    "gemma3 tied": {"tie_word_embeddings": True},
    "gemma3 with capped logits": {"final_logit_softcapping": 30.0},
    "gpt2": {"architecture": "gpt2"},
}


@pytest.fixture(scope="module", params=CHECKPOINTS)
def pair(request, tmp_path_factory) -> Pair:
    folder = save(tmp_path_factory.mktemp("rowless"), **CHECKPOINTS[request.param])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    engine = InprocEngine(folder, vocabulary_size=SIZE, max_running_sequences=12)
    assert engine.info.execution_path == "fast"
    return Pair(folder, model, engine)


def scores(events, request_id, row=0) -> torch.Tensor:
    found = scores_of(events, request_id, row)
    return torch.stack([torch.from_numpy(array(position.scores)) for position in found])


GREEDY = [{}, {"remove_invalid_values": True}, {"repetition_penalty": 1.7, "min_new_tokens": 3}]


@pytest.mark.parametrize("config", GREEDY, ids=name_of)
def test_greedy_tokens_and_scores_equal_generate(pair, config):
    expected = pair.generate(PROMPT, NEW, **their_options(config))
    request_id = pair.engine.submit([PROMPT], selection=FULL, max_new_tokens=NEW, **config)
    events = pair.engine.drain()
    assert tokens_of(events, request_id, 1) == [expected.token_ids]
    got = scores(events, request_id)
    assert got.shape[1] == SIZE
    assert (got[:, IMAGE_ID] == -torch.inf).all()
    assert_equal_scores(got[:, :IMAGE_ID], expected.scores, 1e-4)
    for position in scores_of(events, request_id):
        assert array(position.logits)[IMAGE_ID] == -float("inf")
    assert pair.engine.generate([PROMPT], max_new_tokens=NEW, **config) == [expected.token_ids]


@pytest.mark.parametrize("config", SAMPLED[:-1], ids=name_of)  # a green list goes by the size
def test_draws_are_from_the_distribution_of_generate(pair, config):
    config = {"do_sample": True, "top_k": 0, **config}
    expected = pair.generate(PROMPT, 1, **their_options(config)).scores[0]
    options = {"seeds": list(range(6)), "max_new_tokens": 1, **config}
    request_id = pair.engine.submit([PROMPT] * 6, selection=FULL, **options)
    events = pair.engine.drain()
    for row in range(6):
        (got,) = scores(events, request_id, row)
        assert_equal_scores(got[:IMAGE_ID], expected, 1e-4)
    assert pair.engine.generate([PROMPT] * 6, **options) == tokens_of(events, request_id, 6)


@pytest.mark.parametrize("config", [{"num_beams": 3}, {"guidance_scale": 1.5}], ids=name_of)
def test_beams_and_guidance_equal_generate(pair, config):
    expected = pair.generate(PROMPT, NEW, **config).token_ids
    ours = pair.engine.generate([PROMPT], max_new_tokens=NEW, **config)
    assert [row for row in ours if row] == [expected]


def test_a_token_that_is_added_gets_an_id_and_a_row_behind_them(tmp_path):
    engine = InprocEngine(save(tmp_path), vocabulary_size=SIZE, reserved_vocabulary_rows=1)
    before = engine.generate([PROMPT], max_new_tokens=NEW)
    best = before[0][0]
    rows = [NewRow(SIZE, "copy", True, copy_token_id=best), NewRow(SIZE + 1, "mean", True)]
    engine.handle(GrowVocabulary(revision=1, rows=rows, request_id=99))
    (grown,) = engine.drain()
    assert (grown.size, grown.revision) == (SIZE + 2, 1)
    selection = ScoreSelection(logits=True, amount="full")
    request_id = engine.submit([PROMPT, [*PROMPT, SIZE]], revision=1, selection=selection)
    first = array(scores_of(engine.drain(), request_id)[0].logits)
    assert first[SIZE] == pytest.approx(first[best], rel=1e-5)
    assert first[IMAGE_ID] == -float("inf")
    assert engine.generate([PROMPT], max_new_tokens=NEW) == before
    with_new = engine.generate([[*PROMPT, SIZE]], revision=1, max_new_tokens=1)
    assert with_new == engine.generate([[*PROMPT, best]], revision=1, max_new_tokens=1)


@pytest.mark.parametrize(
    ("prompt", "config", "field"),
    [
        ([5, IMAGE_ID], {}, "prompt"),
        ([5], {"forced_prefix": {"ids": [IMAGE_ID]}}, "generation_config.forced_prefix"),
        ([5], {"logit_bias": {IMAGE_ID: 1.0}}, "generation_config.logit_bias"),
        ([5], {"guidance_scale": 2.0, "negative_prompt": {"ids": [IMAGE_ID]}}, "negative_prompt"),
    ],
)
def test_a_request_that_uses_such_an_id_is_refused_by_name(pair, prompt, config, field):
    request = model_service_pb2.GenerateRequest(prompt=ragged(prompt), generation_config=config)
    bounds = Bounds(8, pair.engine.info.context_length)
    for size in (SIZE, SIZE + 4):  # at revision 0, and at a later one
        vocabulary = Reference("tiny", 0, "0" * 64, size)
        with pytest.raises(errors.TokenIdOutOfRange, match="the model has no row for it") as caught:
            plan(AskedSequences(request, bounds), vocabulary, pair.engine.info, PlanLimits(8, 8))
        assert field in caught.value.metadata["field"]
        assert caught.value.metadata["tokenId"] == str(IMAGE_ID)
    fine = model_service_pb2.GenerateRequest(prompt=ragged([5, SIZE]))
    assert plan(AskedSequences(fine, bounds), vocabulary, pair.engine.info, PlanLimits(8, 8))


def test_a_gguf_file_whose_tokenizer_gains_an_id_is_served(tmp_path, monkeypatch):
    """transformers adds `<|endoftext|>` to byte-level vocabularies without, as Llama 3's."""
    monkeypatch.setenv("LOCKSTEP_CACHE", str(tmp_path / "cache"))
    write_gguf(tmp_path / "tiny.gguf", make_checkpoint(tmp_path / "llama"), pre="llama-bpe")
    folder = checkpoints.resolve(str(tmp_path / "tiny.gguf"), need="model").folder
    base = read_base_vocabulary("tiny", folder)
    assert base.size == SIZE
    engine = InprocEngine(folder, vocabulary_size=base.size)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    expected = Pair(folder, model, engine).generate(PROMPT, NEW).token_ids
    assert engine.generate([PROMPT], max_new_tokens=NEW) == [expected]
    assert [*engine.info.ids_without_rows] == [IMAGE_ID]


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Iterator[Lockstep]:
    folder = tmp_path_factory.mktemp("services")
    with running_services(save(folder / "gemma"), folder) as services, services.client() as client:
        yield client


def test_the_services_serve_it_together_and_grow_on_top_of_it(client):
    batch = client.tokenizer.encode(["The capital of France is"])
    before = client.model.generate(batch, max_new_tokens=4, do_sample=False).sequences
    assert client.model.info().vocabulary.size == SIZE
    assert client.vocabulary.add_tokens(["<tool>"], special=True).ids == [SIZE]
    text = "The capital <tool> of"
    grown = client.tokenizer.encode([text], parse_special_tokens=True)
    assert SIZE in grown.token_ids[0]
    client.model.generate(grown, max_new_tokens=2, do_sample=False)
    after = client.model.generate(batch, max_new_tokens=4, do_sample=False).sequences
    assert [list(row) for row in after] == [list(row) for row in before]


def test_a_text_that_uses_such_an_id_is_refused_by_name(client):
    with pytest.raises(TokenIdOutOfRange, match="the model has no row for it"):
        client.generate(f"a {IMAGE}", parse_special_tokens=True, max_new_tokens=2)
    client.generate(f"a {IMAGE}", max_new_tokens=2)  # as text it has other ids


def test_a_step_with_such_an_id_is_refused_by_name(client):
    with client.model.open_session([[5, 6]]) as session:
        with pytest.raises(TokenIdOutOfRange, match="the model has no row for it"):
            session.step([[IMAGE_ID]])
        session.step([[7]])
