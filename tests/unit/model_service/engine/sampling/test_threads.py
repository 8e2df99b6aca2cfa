"""Work on a single row uses one thread, and comes out the same however many there are."""

import pytest
import torch

from model_service.engine.calls.scores import report
from model_service.engine.sampling import processors
from model_service.engine.sampling.threads import one_thread
from model_service.engine.sequences.sequence import Sequence
from model_service.protocol.generation import ScoreSelection
from model_service.protocol.parameters import GenerationConfig
from model_service.protocol.processor_arguments import SynthIdWatermark
from tests.sequence_factory import choose, make_sequence, scores

SIZE = 50_257  # torch splits rows of more than 32,768 values among threads


@pytest.fixture(params=[1, 2, 3], autouse=True)
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    assert torch.get_num_threads() == request.param
    torch.set_num_threads(before)


def sequence(**config) -> Sequence:
    resolved = GenerationConfig(max_new_tokens=5, do_sample=True, **config)
    return make_sequence([1, 2, 3], resolved, size=SIZE, seed=1)


ROW = torch.randn(SIZE, generator=torch.Generator().manual_seed(0)) * 3

CONFIGS = [
    {"typical_p": 0.9},
    {"eta_cutoff": 0.01},
    {"top_p": 0.9, "renormalize_logits": True},
    {"top_h": 0.5},
    {"synth_id_watermark": SynthIdWatermark(ngram_len=3, keys=(654, 400, 836)), "top_k": 1000},
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: next(iter(config)))
def test_scores_by_the_reference_do_not_depend_on_the_number_of_threads(config):
    with one_thread():
        expected = scores(sequence(**config), ROW)
    assert torch.equal(scores(sequence(**config), ROW), expected)


def test_reported_statistics_do_not_depend_on_the_number_of_threads():
    selection = ScoreSelection(logits=True, scores=True, logsumexp=True, entropy=True, rank=True)
    with one_thread():
        expected = report(selection, 3, 5, ROW, ROW)
    assert report(selection, 3, 5, ROW, ROW) == expected


@pytest.mark.parametrize("config", [*CONFIGS, {"top_p": 0.9}, {"repetition_penalty": 1.3}])
def test_no_operator_on_a_single_row_uses_more_than_one_thread(config, monkeypatch):
    used = []
    original = processors._apply

    def apply(*args):
        for step in original(*args):
            used.append(torch.get_num_threads())
            yield step

    monkeypatch.setattr(processors, "_apply", apply)
    choose(ROW[None], [sequence(**config)], wants_scores=True)
    assert used
    assert set(used) == {1}
