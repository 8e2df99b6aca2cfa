"""Processors of an operator's: the example of docs/processors.md on real services, and failures."""

import json
import os
import re
import subprocess
import sys
import textwrap

import grpc
import pytest
from lockstep.v1 import generation_pb2, model_info_service_pb2, model_service_pb2
from lockstep.v1 import logits_session_service_pb2 as session_pb

from tests.checkpoint_factory import make_checkpoint
from tests.integration.model_process import model_process, ragged, refusal
from tests.services import ROOT, running_services

PAGE = (ROOT / "docs" / "processors.md").read_text()

BROKEN = '''
import torch
from model_service.engine.calls import generate_calls
from lockstep_processors import Arguments, CustomProcessor


class Nothing(Arguments, frozen=True):
    """Breaks in the way asked for."""

    how: str


class Broken:
    def __init__(self, arguments, row):
        if arguments.how == "build":
            raise KeyError("build")
        self._how = arguments.how

    def __call__(self, input_ids, scores):
        if self._how == "raise":
            raise AssertionError("called")
        if self._how == "none":
            return None
        if self._how == "shape":
            return scores[:, 1:]
        return scores


def describe(seq, selection, position, *arguments):
    if selection.entropy and seq.row == 0 and position == 6:
        raise torch.OutOfMemoryError("out of memory")
    return describe_as_ever(seq, selection, position, *arguments)


# What runs in the engine can also break what is no processor.
describe_as_ever, generate_calls.describe = generate_calls.describe, describe

LOGITS_PROCESSORS = [CustomProcessor("acme.broken", Nothing, Broken)]
'''


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processors")
    (example,) = blocks("python operator")
    (folder / "acme_processors.py").write_text(example)
    (folder / "acme_broken.py").write_text(BROKEN)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("custom") / "tiny", "llama")


def environment(modules) -> dict[str, str]:
    paths = filter(None, (str(modules), os.environ.get("PYTHONPATH")))
    return {"PYTHONPATH": os.pathsep.join(paths)}


@pytest.fixture(scope="module")
def model(checkpoint, modules, tmp_path_factory):
    flags = ("--logits-processors", "acme_processors, acme_broken")
    folder = tmp_path_factory.mktemp("model")
    with model_process(checkpoint, folder, *flags, environment=environment(modules)) as process:
        yield process


def generate(model, *pipeline, **fields):
    specs = [
        generation_pb2.LogitsProcessorSpec(name=name, arguments_json=json.dumps(arguments))
        for name, arguments in pipeline
    ]
    return model.model.Generate(
        model_service_pb2.GenerateRequest(
            prompt=ragged([5, 6, 7], [40, 41]),
            generation_config={"max_new_tokens": 6, "eos_token_ids": {}, "processors": specs},
            **fields,
        ),
        timeout=60,
    )


def test_the_page_runs_from_top_to_bottom(checkpoint, modules, tmp_path):
    (command,) = [line for block in blocks("console") for line in block.splitlines()]
    assert "--logits-processors acme_processors" in command
    flags = ("--logits-processors", "acme_processors")
    with running_services(
        checkpoint, tmp_path, model_flags=flags, model_environment=environment(modules)
    ) as services:
        script = "\n".join(blocks("python"))
        script = script.replace("localhost:50051", services.tokenizer.address)
        script = script.replace("localhost:50052", services.model.address)
        result = subprocess.run(
            [sys.executable, "-W", "error", "-c", script],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert result.returncode == 0, result.stderr
    assert "acme.cooldown" in result.stdout


def test_it_is_listed_behind_ours_with_its_schema(model):
    listed = model.info.ListLogitsProcessors(
        model_info_service_pb2.ListLogitsProcessorsRequest()
    ).processors
    assert [p.name for p in listed][-2:] == ["acme.cooldown", "acme.broken"]
    cooldown = listed[-2]
    assert cooldown.description == (
        "Lowers the scores of tokens that were generated shortly before."
    )
    schema = json.loads(cooldown.arguments_schema_json)
    assert schema["properties"]["window"] == {"type": "integer", "minimum": 1, "maximum": 1000}
    assert schema["required"] == ["window"]
    assert schema["additionalProperties"] is False


def test_it_is_applied_in_its_place_and_echoed(model):
    favorite = ("logit_bias", {"logit_bias": [{"token_id": 77, "bias": 50}]})
    response = generate(model, favorite, ("acme.cooldown", {"window": 2}))
    assert list(response.applied_processors) == ["logit_bias", "acme.cooldown"]
    (_, spec) = response.effective_config.processors
    assert json.loads(spec.arguments_json) == {"window": 2, "penalty": 100.0, "exempt": []}
    exempt = generate(model, favorite, ("acme.cooldown", {"window": 2, "exempt": [77]}))
    for cooled, free in zip(response.sequences, exempt.sequences, strict=True):
        assert [token_id == 77 for token_id in cooled.token_ids] == [True, False, False] * 2
        assert set(free.token_ids) == {77}


@pytest.mark.parametrize(
    ("arguments", "where", "reason"),
    [
        ({"window": 0}, ".window", "INVALID_FIELD"),
        ({"window": 1, "penalty": 101}, ".penalty", "INVALID_FIELD"),
        ({"windows": 1}, "", "INVALID_FIELD"),
        ({"window": 1, "exempt": [10**6]}, ".exempt", "TOKEN_ID_OUT_OF_RANGE"),
    ],
)
def test_its_arguments_are_checked_before_anything_runs(model, arguments, where, reason):
    with pytest.raises(grpc.RpcError) as caught:
        generate(model, ("acme.cooldown", arguments))
    answer = refusal(caught.value)
    assert answer.reason == reason
    field = f"generation_config.processors[0].arguments_json{where}"
    assert field in answer.fields or answer.info.metadata["field"] == field


@pytest.mark.parametrize("how", ["build", "raise", "none", "shape"])
def test_one_that_fails_ends_its_own_rows_and_no_others(model, how):
    pending = model.model.Generate.future(
        model_service_pb2.GenerateRequest(
            prompt=ragged([9, 10, 11]),
            generation_config={"max_new_tokens": 40, "eos_token_ids": {}},
        )
    )
    failed = generate(model, ("acme.broken", {"how": how}))
    for sequence in failed.sequences:
        assert sequence.finish_reason == generation_pb2.FINISH_REASON_ERROR
        assert sequence.error.metadata["requestId"] in model.log()
    assert len(pending.result().sequences[0].token_ids) == 40
    assert "acme.broken failed" in model.log() or how == "build"


def test_a_row_whose_report_takes_too_much_memory_ends_alone(model):
    response = generate(model, scores={"logits": True, "top_k": 1, "entropy": True})
    failed, held = response.sequences
    assert failed.finish_reason == generation_pb2.FINISH_REASON_ERROR
    assert failed.error.metadata["requestId"] in model.log()
    assert len(failed.token_ids) == 3
    assert len(held.token_ids) == 6


@pytest.mark.parametrize("how", ["build", "raise"])
def test_one_that_fails_in_a_session_or_while_scoring_fails_the_call_only(model, how):
    spec = generation_pb2.LogitsProcessorSpec(
        name="acme.broken", arguments_json=json.dumps({"how": how})
    )
    config = {"processors": [spec]}
    wanted = {"scores": True, "top_k": 1}
    with pytest.raises(grpc.RpcError) as caught:
        model.model.Score(
            model_service_pb2.ScoreRequest(
                prompt=ragged([5, 6, 7]), generation_config=config, scores=wanted | {"logits": True}
            )
        )
    assert refusal(caught.value).reason == "INTERNAL"
    session = model.sessions.OpenSession(
        session_pb.OpenSessionRequest(prompt=ragged([5, 6, 7]), generation_config=config)
    )
    step = session_pb.StepRequest(
        session_id=session.session_id, rows=[session_pb.RowStep(ids=[8])], scores=wanted
    )
    (row,) = model.sessions.Step(step).rows
    assert row.error.code == grpc.StatusCode.INTERNAL.value[0]
    step.scores.Clear()
    step.scores.logits = step.scores.full = True
    (row,) = model.sessions.Step(step).rows
    assert not row.HasField("error"), "nobody asked for its scores"
    assert row.position == 5
    assert generate(model, ("acme.cooldown", {"window": 1})).sequences[0].token_ids


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise RuntimeError('boom')", "boom"),
        ("X = 1", "no list LOGITS_PROCESSORS"),
        ("LOGITS_PROCESSORS = [1]", "which is not a CustomProcessor"),
        ("LOGITS_PROCESSORS = [CustomProcessor('nodot', Fine, print)]", "not a valid name"),
        ("LOGITS_PROCESSORS = [CustomProcessor('a.b', Fine, print)] * 2", "defined twice"),
        ("LOGITS_PROCESSORS = [CustomProcessor('a.b', dict, print)]", "not a subclass"),
        ("LOGITS_PROCESSORS = [CustomProcessor('a.b', Bare, print)]", "no docstring"),
        ("LOGITS_PROCESSORS = [CustomProcessor('a.b', Odd, print)]", "no JSON schema"),
    ],
)
def test_a_module_that_cannot_be_used_is_refused_with_the_reason(tmp_path, monkeypatch, code, said):
    from model_service.engine.sampling.custom_processors import CustomProcessorError, load

    name = f"acme_wrong_{abs(hash(code))}"
    (tmp_path / f"{name}.py").write_text(
        textwrap.dedent(
            """
            from lockstep_processors import Arguments, CustomProcessor

            class Fine(Arguments, frozen=True):
                '''Is fine.'''

            class Bare(Arguments, frozen=True):
                pass

            class Odd(Arguments, frozen=True):
                '''Cannot be written as JSON.'''

                value: complex
            """
        )
        + code
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(CustomProcessorError, match=re.escape(said)):
        load([name])


def test_the_service_says_at_start_why_it_does_not_serve(checkpoint, tmp_path):
    flags = ("--logits-processors", "no_such_module")
    with model_process(checkpoint, tmp_path, *flags, ready=False) as process:
        assert process.process.wait(60) != 0
        assert "no_such_module cannot be imported" in process.log()
