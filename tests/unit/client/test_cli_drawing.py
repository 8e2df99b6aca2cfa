import io
import json

import pytest
from lockstep.v1.model_info_service_pb2 import DecodeGraphState, GetModelInfoResponse
from rich.console import Console

from lockstep_client import Completion, ModelInfo, Timing, Usage, VocabularyRef, exceptions
from lockstep_client._cli import distribution, generate, session, token_text
from lockstep_client._cli.stepper import Candidate, Distribution
from lockstep_client._results.tokenizer import VocabularyEntry


def _entry(data: bytes, kind: str = "normal", token_id: int = 7) -> VocabularyEntry:
    return VocabularyEntry(token_id, data, kind, "")


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b" the", "␣the"),
        (b"\n\n", "⏎⏎"),
        (b"\t\r", "⇥␍"),
        ("é".encode(), "é"),
        ("東".encode()[:2], "\\xe6\\x9d"),
        (b"a\xff", "a\\xff"),
        (b"\x00", "\\u0000"),
        ("\u202e".encode(), "\\u202e"),
        (b"", "∅"),
        (b"[red]", "[red]"),
    ],
)
def test_every_character_of_a_token_can_be_seen(data, shown):
    assert token_text.render(_entry(data)).plain == shown


def test_a_control_token_does_not_look_like_text_that_spells_it():
    control = token_text.render(_entry(b"<|im_end|>", "special"))
    text = token_text.render(_entry(b"<|im_end|>"))
    assert control.plain == text.plain
    assert control.style != text.style


def _drawn(*candidates: Candidate, config: dict) -> list[str]:
    console = Console(width=120, no_color=True, file=io.StringIO())
    here = Distribution(list(candidates), entropy=0.5, drawn_id=8)
    console.print(distribution.screen([_entry(b"a")], 1, here, config))
    return console.file.getvalue().splitlines()


CONFIG = {"do_sample": True, "temperature": 0.5, "top_k": 0, "top_p": 1.0}


def test_bars_are_as_long_as_probabilities_and_the_rest_is_shown():
    lines = _drawn(
        Candidate(_entry(b"x"), 2.0, probability=0.5, processed=1.0),
        Candidate(_entry(b"y", token_id=8), 1.0, probability=0.25, processed=0.0),
        config=CONFIG,
    )
    first, second, rest = (
        next(line for line in lines if name in line) for name in (" x ", " y ", "all others")
    )
    width = distribution.BAR_WIDTH
    assert first.count("█") == width // 2 + width
    assert "50.0%" in first
    assert "100.0%" in first
    assert second.count("█") == width // 4
    assert "◂" in second
    assert rest.count("█") == width // 4


def test_only_warpers_that_change_anything_are_named():
    row = Candidate(_entry(b"x"), 2.0, probability=0.5, processed=1.0)
    assert any("after temperature 0.5 " in line for line in _drawn(row, config=CONFIG))
    greedy = CONFIG | {"do_sample": False, "repetition_penalty": 1.2}
    assert any("after repetition-penalty 1.2 " in line for line in _drawn(row, config=greedy))
    off = CONFIG | {"temperature": 1.0}
    assert any("after no warpers" in line for line in _drawn(row, config=off))


def test_an_error_is_one_line_with_its_class_or_every_violation():
    error = exceptions.InvalidField(
        "a: first\nline",
        violations=[
            exceptions.FieldViolation("a", "first"),
            exceptions.FieldViolation("b", "second"),
        ],
    )
    assert session.describe(error) == "a: first; b: second"
    busy = exceptions.Overloaded("busy", retry_delay_s=0.5)
    assert session.describe(busy) == "Overloaded: busy (retry in 0.5 s)"


@pytest.mark.parametrize("state", ["compiling", "ready"])
def test_a_slow_first_minute_is_told(capsys, state):
    number = DecodeGraphState.Value(f"DECODE_GRAPH_STATE_{state.upper()}")
    model = ModelInfo.from_message(GetModelInfoResponse(decode_graph_state=number))
    ref = VocabularyRef("tiny", 0, "ab" * 32, 320)
    answer = Completion("a", [5], [4], "max_new_tokens", 1, Usage(), Timing(), {}, ref)
    generate._summarize(answer, model)
    said = " ".join(capsys.readouterr().err.split())
    assert ("faster once the model service has compiled its steps" in said) == (state != "ready")


def test_json_is_one_line_and_keeps_characters(capsys):
    session.print_json({"entry": _entry("é".encode()), "text": "é\n"})
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert "é" in line
    assert json.loads(line)["entry"]["token_bytes"] == "c3a9"
