"""A session that was lost and opened again goes on as if it had not been."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from lockstep.v1 import logits_session_service_pb2 as pb

from lockstep_client import AsyncLockstep, Lockstep
from lockstep_client._sync.session import Session
from lockstep_client.exceptions import SessionNotFound
from tests.integration.model_process import ModelProcess

PROMPTS = [[5, 6, 7], [40, 41]]
DRAWN: dict[str, Any] = {"do_sample": True, "temperature": 1.3, "seed": 11, "eos_token_id": []}

History = Callable[[Session], object]


def _sampled(session: Session) -> None:
    session.step([[8], [42]], sample=True, append=True)
    session.step([[], []], sample=True, append=True)


def _selected(session: Session) -> None:
    session.step([[8], [42, 43]])
    session.select_rows([1, 0, 1])
    session.step([[9], [10], [11]])


HISTORIES: dict[str, History] = {
    "as it was opened": lambda session: None,
    "after steps of several tokens": lambda session: session.step([[8, 9], [42]]),
    "after a row that sat out": lambda session: session.step([[8], []]),
    "after tokens that the server chose": _sampled,
    "after a generation": lambda session: session.generate(max_new_tokens=4),
    "after a cut into a prompt": lambda session: session.truncate([2, 2]),
    "after a selection of rows": _selected,
    "after looking ahead": lambda session: session.look_ahead([[8], [42]]),
}

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "greedy": {"eos_token_id": []},
    "drawn": DRAWN,
    "drawn as torch does": {**DRAWN, "seed_mode": "torch"},
    "with processors that know the prompt": {
        **DRAWN,
        "presence_penalty": 1.5,
        "frequency_penalty": 0.5,
        "encoder_repetition_penalty": 1.2,
        "no_repeat_ngram_size": 3,
        "forced_prefix": [9, 9, 9],
    },
    "with a pipeline": {
        **DRAWN,
        "temperature": None,
        "processors": [("temperature", {"temperature": 0.7}), ("top_k", {"top_k": 9})],
    },
}


def _lose(tiny_model: ModelProcess, session: Session) -> None:
    tiny_model.sessions.CloseSession(pb.CloseSessionRequest(session_id=session.session_id))


def _continuation(session: Session) -> tuple[list[Any], list[np.ndarray]]:
    """Goes on, and returns the tokens that were chosen and the rows of logits."""
    chosen: list[Any] = []
    logits: list[np.ndarray] = []
    rows: list[list[int]] = [[] for _ in session.position]
    for step in range(3):
        result = session.step(rows, sample=True, append=True, output_logits=True)
        chosen.append(result.sampled_token_ids)
        logits += [row[-1].logits for row in result.rows if row]
        rows = [[12 + step] for _ in session.position]
    out = session.generate(max_new_tokens=3)
    return [*chosen, out.sequences, session.token_ids()], logits


@pytest.fixture
def ls(tiny_model: ModelProcess):
    with Lockstep(tokenizer="localhost:1", model=tiny_model.service.address) as client:
        yield client


@pytest.mark.parametrize("configuration", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
def test_steps_after_it_are_those_without_loss(
    ls: Lockstep, tiny_model: ModelProcess, history: History, configuration: dict[str, Any]
):
    options = {"max_length": 64, "output_logits": True, **configuration}
    with (
        ls.model.open_session(PROMPTS, **options) as spared,
        ls.model.open_session(PROMPTS, **options, reopen=True) as lost,
    ):
        for session in (spared, lost):
            history(session)
        seeds = lost.seeds
        _lose(tiny_model, lost)
        expected, expected_logits = _continuation(spared)
        found, found_logits = _continuation(lost)
        assert found == expected
        for row, right in zip(found_logits, expected_logits, strict=True):
            # Computed in one piece instead of token by token, so rounded otherwise.
            np.testing.assert_allclose(row, right, rtol=0, atol=1e-5 * np.abs(right).max())
        again = ls.model.get_session(lost.session_id)
        assert (again.seeds, again.effective_config) == (seeds, lost.effective_config)


def test_a_session_that_a_generation_left_behind_is_opened_again(
    ls: Lockstep, tiny_model: ModelProcess
):
    options = {**DRAWN, "presence_penalty": 1.0, "max_new_tokens": 4}
    sessions = []
    for _ in range(2):
        kept = ls.model.generate(PROMPTS, keep_session=True, **options).session_id
        sessions.append(ls.model.get_session(kept))
    spared, lost = sessions
    _lose(tiny_model, lost)
    lost.reopen()
    assert _continuation(lost)[0] == _continuation(spared)[0]
    for session in sessions:
        session.close()


def test_forks_of_a_session_are_opened_again_by_themselves(ls: Lockstep, tiny_model: ModelProcess):
    with ls.model.open_session(PROMPTS, **DRAWN, reopen=True) as session:
        session.step([[8], [42]])
        with session.fork() as spared, session.fork([1, 0]) as lost:
            _lose(tiny_model, lost)
            lost.select_rows([1, 0])
            assert _continuation(lost)[0] == _continuation(spared)[0]


def test_what_is_known_of_rows_stays_known(ls: Lockstep, tiny_model: ModelProcess):
    with ls.model.open_session(PROMPTS) as session:
        session.step([[8], [42]])
        known, name = session.logits, session.session_id
        _lose(tiny_model, session)
        session.reopen()
        assert session.session_id != name
        np.testing.assert_array_equal(session.logits, known)
        assert session.position == (4, 3)


def test_without_being_asked_to_a_lost_session_stays_lost(ls: Lockstep, tiny_model: ModelProcess):
    session = ls.model.open_session(PROMPTS)
    _lose(tiny_model, session)
    with pytest.raises(SessionNotFound):
        session.step([[8], [42]])
    session.reopen()
    session.step([[8], [42]])
    session.close()
    with pytest.raises(SessionNotFound):
        session.reopen()


def test_a_stream_of_steps_goes_on_in_the_session_that_was_opened_again(
    ls: Lockstep, tiny_model: ModelProcess
):
    with ls.model.open_session(PROMPTS, reopen=True) as session, session.step_stream() as steps:
        steps.step([[8], [42]])
        _lose(tiny_model, session)
        steps.step([[9], [43]])
        assert session.token_ids() == [[*PROMPTS[0], 8, 9], [*PROMPTS[1], 42, 43]]


async def test_asyncio_sessions_are_opened_again_by_themselves(tiny_model: ModelProcess):
    async with (
        AsyncLockstep(tokenizer="localhost:1", model=tiny_model.service.address) as ls,
        await ls.model.open_session(PROMPTS, **DRAWN, reopen=True) as session,
    ):
        await session.step([[8], [42]])
        _lose(tiny_model, session)
        stream = session.stream(max_new_tokens=2)
        drawn = [delta async for delta in stream]
        assert sum(len(delta.token_ids) for delta in drawn) == 4
        assert session.position == (6, 5)
