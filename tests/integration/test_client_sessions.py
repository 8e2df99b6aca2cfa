"""Sessions of the Python client, blocking and asyncio, against both real services."""

import asyncio
from contextlib import suppress

import numpy as np
import pytest

from lockstep_client import AsyncLockstep, Lockstep, ScoreSelection, SessionRetention
from lockstep_client._calls.session_state import StepResult
from lockstep_client._results.generation import Generation, TokenDelta
from lockstep_client._sync.session import Session
from lockstep_client._sync.streams import Stream
from lockstep_client.exceptions import DeadlineExceeded, PositionConflict, SessionNotFound
from tests.services import Services

PROMPTS = [[5, 6, 7], [40, 41]]
SAMPLED = {"do_sample": True, "temperature": 1.2, "seed": 5, "eos_token_id": []}


@pytest.fixture
def ls(services: Services):
    with services.client() as client:
        yield client


def test_a_session_is_finished_by_the_server(ls: Lockstep):
    expected = ls.model.generate(PROMPTS, max_new_tokens=8, **SAMPLED).sequences
    with ls.model.open_session([p[:-1] for p in PROMPTS], **SAMPLED) as session:
        rows = [p[-1:] for p in PROMPTS]
        drawn = []
        for _ in range(3):
            result = session.step(rows, sample=True, append=True)
            drawn.append(result.sampled_token_ids)
            rows = [[], []]
        out = session.generate(max_new_tokens=5)
        assert [[*a, *b] for a, b in zip(zip(*drawn, strict=True), out.sequences, strict=True)] == (
            expected
        )
        assert session.position == (11, 10)
        assert session.logits is None
        session.step([[1], [2]])
        assert session.logits.shape[0] == 2


def test_a_stream_of_a_session_that_is_left_is_undone(ls: Lockstep):
    with ls.model.open_session(PROMPTS, eos_token_id=[]) as session:
        with session.stream(max_new_tokens=100) as stream:
            next(stream)
        assert session.position == (3, 2)
        with session.stream(max_new_tokens=3) as stream:
            new = [token_id for delta in stream for token_id in delta.token_ids]
        assert len(new) == 6
        assert session.position == (6, 5)
        assert session.token_ids()[0][:3] == PROMPTS[0]


LEFT = {
    "at its only token": (1, 1),
    "at its last token": (4, 4),
    "just before its last token": (4, 3),
    "while its last token comes": (12, 11),
    "at its first token": (30, 1),
}
"""How long a generation would be, and at which token its caller leaves."""

NEXT = {
    "step": lambda session: session.step([[9]]),
    "look_ahead": lambda session: session.look_ahead([[9]]),
    "truncate": lambda session: session.truncate(2),
    "fork": lambda session: session.fork().close(),
    "select_rows": lambda session: session.select_rows([0]),
    "rebind": lambda session: session.rebind(),
    "token_ids": lambda session: session.token_ids(),
    "generate": lambda session: session.generate(max_new_tokens=1),
    "step_stream": lambda session: _stepped(session),
}


def _read(stream: Stream[TokenDelta, Generation], num_tokens: int) -> None:
    """Reads so many tokens or a few more: several may come at once."""
    num_read = 0
    while num_read < num_tokens:
        num_read += len(next(stream).token_ids)


def _stepped(session: Session) -> None:
    with session.step_stream() as steps:
        steps.step([[9]])


@pytest.mark.parametrize(("length", "token"), LEFT.values(), ids=LEFT)
def test_a_stream_of_a_session_is_undone_wherever_it_is_left(ls: Lockstep, length, token):
    for call in NEXT.values():
        with ls.model.open_session([[5, 6, 7]], eos_token_id=[]) as session:
            expected = session.look_ahead([[9]]).rows[0][-1].logits
            with session.stream(max_new_tokens=length) as stream:
                _read(stream, token)
            call(session)
            session.truncate(2)
            assert session.token_ids() == [[5, 6]]
            again = session.step([[7, 9]]).rows[0][-1].logits
            np.testing.assert_allclose(again, expected, atol=1e-4)


@pytest.mark.parametrize(("length", "token"), LEFT.values(), ids=LEFT)
async def test_the_asyncio_session_is_as_it_was_too(services: Services, length, token):
    async with AsyncLockstep(model=services.model.address) as ls:
        for _ in range(4):
            async with await ls.model.open_session([[5, 6, 7]], eos_token_id=[]) as session:
                async with session.stream(max_new_tokens=length) as stream:
                    num_read = 0
                    while num_read < token:
                        num_read += len((await anext(stream)).token_ids)
                await session.step([[9]])
                assert await session.token_ids() == [[5, 6, 7, 9]]


@pytest.mark.parametrize("token", [0, 1, 2])
def test_what_was_generated_before_a_stream_that_is_left_is_seen_by_the_next_step(
    ls: Lockstep, token
):
    with ls.model.open_session([[5, 6, 7]], eos_token_id=[]) as session:
        session.generate(max_new_tokens=2)
        expected = session.fork()
        with session.stream(max_new_tokens=2) as stream:
            _read(stream, token)
        drawn = session.step([[]], sample=True).sampled_token_ids
        assert drawn == expected.step([[]], sample=True).sampled_token_ids != (None,)
        expected.close()


async def test_a_step_whose_task_is_cancelled_keeps_no_other_call_from_the_session(
    services: Services,
):
    async with (
        AsyncLockstep(model=services.model.address) as ls,
        await ls.model.open_session([[5]], max_length=250) as session,
    ):
        for _ in range(4):
            step = asyncio.create_task(session.look_ahead([[7] * 200]))
            await asyncio.sleep(0.02)
            step.cancel()
            with suppress(asyncio.CancelledError):
                await step
            await session.look_ahead([[9]])


def test_a_generation_that_met_its_deadline_is_undone(ls: Lockstep):
    with ls.model.open_session([[5, 6, 7]], eos_token_id=[]) as session:
        with pytest.raises(DeadlineExceeded):
            session.generate(max_new_tokens=250, timeout=0.05)
        session.step([[9]])
        assert session.token_ids() == [[5, 6, 7, 9]]


def test_a_kept_generation_is_found_again(ls: Lockstep):
    keep = SessionRetention(ttl_s=60, max_length=30)
    out = ls.model.generate(PROMPTS, max_new_tokens=3, keep_session=keep, **SAMPLED)
    with ls.model.get_session(out.session_id) as session:
        assert session.position == (6, 5)
        assert list(session.seeds) == out.seeds
        assert session.logits is None
        whole = [
            a + b
            for a, b in zip(
                out.sequences, session.generate(max_new_tokens=4).sequences, strict=True
            )
        ]
    assert whole == ls.model.generate(PROMPTS, max_new_tokens=7, **SAMPLED).sequences
    with pytest.raises(SessionNotFound):
        ls.model.get_session(out.session_id)


def test_looking_ahead_changes_nothing_that_is_known(ls: Lockstep):
    with ls.model.open_session(PROMPTS) as session:
        before = session.logits
        ahead = session.look_ahead([[9, 9], []])
        assert session.position == (3, 2)
        np.testing.assert_array_equal(session.logits, before)
        session.step([[9, 9], []])
        np.testing.assert_allclose(session.logits[0], ahead.rows[0][-1].logits, atol=1e-4)


def test_a_step_stream_steps_as_steps_do(ls: Lockstep):
    with ls.model.open_session(PROMPTS) as streamed, ls.model.open_session(PROMPTS) as stepped:
        with streamed.step_stream() as steps:
            for rows in ([[1], [2]], [[3], []]):
                steps.step(rows)
                stepped.step(rows)
                np.testing.assert_allclose(streamed.logits, stepped.logits, atol=1e-4)
        assert streamed.position == stepped.position
        with streamed.step_stream() as steps:
            streamed.position = (9, 9)
            with pytest.raises(PositionConflict):
                steps.step([[1], [1]])


EVERYTHING = ScoreSelection(logits=True, scores=True, full=True, positions="all")
LONG_STEP = [[(7 * row + i) % 320 for i in range(200)] for row in range(4)]
"""With `EVERYTHING` 2 MB, where a message of a stream has at most 1 MiB of rows."""


def test_a_step_stream_gives_what_does_not_fit_a_message_equal_to_the_bit(ls: Lockstep):
    with ls.model.open_session([[5]] * 4, max_length=250) as session:
        expected = session.look_ahead(LONG_STEP, selection=EVERYTHING)
        with session.step_stream() as steps:
            ahead = steps.step(LONG_STEP, selection=EVERYTHING, look_ahead=True)
            assert_rows_equal(ahead, expected)
            assert session.position == (1, 1, 1, 1)
            assert_rows_equal(steps.step(LONG_STEP, selection=EVERYTHING), expected)
            steps.step([[1]] * 4)
        assert session.position == (202,) * 4


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_step_stream_reads_rows_of_every_type(ls: Lockstep, dtype):
    half = ScoreSelection(logits=True, scores=True, full=True, dtype=dtype, positions="all")
    rows = [ids + ids[:40] for ids in LONG_STEP]
    with ls.model.open_session([[5]] * 4, max_length=250) as session:
        expected = session.look_ahead(rows, selection=half)
        with session.step_stream() as steps:
            assert_rows_equal(steps.step(rows, selection=half), expected)


async def test_the_asyncio_step_stream_gives_what_does_not_fit_a_message(services: Services):
    addresses = {"tokenizer": services.tokenizer.address, "model": services.model.address}
    async with (
        AsyncLockstep(**addresses) as ls,
        await ls.model.open_session([[5]] * 4, max_length=250) as session,
    ):
        expected = await session.look_ahead(LONG_STEP, selection=EVERYTHING)
        async with session.step_stream() as steps:
            assert_rows_equal(await steps.step(LONG_STEP, selection=EVERYTHING), expected)
            await steps.step([[1]] * 4)
        assert session.position == (202,) * 4


def assert_rows_equal(result: StepResult, expected: StepResult) -> None:
    for row, other in zip(result.rows, expected.rows, strict=True):
        assert len(row) == len(other)
        for position, same in zip(row, other, strict=True):
            np.testing.assert_array_equal(position.logits, same.logits)
            np.testing.assert_array_equal(position.scores, same.scores)


async def test_the_asyncio_client_does_the_same(services: Services):
    addresses = {"tokenizer": services.tokenizer.address, "model": services.model.address}
    async with AsyncLockstep(**addresses) as ls:
        expected = (await ls.model.generate(PROMPTS, max_new_tokens=6, **SAMPLED)).sequences
        async with await ls.model.open_session(PROMPTS, **SAMPLED) as session:
            ahead = await session.look_ahead([[9], [9]])
            assert ahead.rows[0][-1].logits is not None
            first = (await session.generate(max_new_tokens=2)).sequences
            stream = session.stream(max_new_tokens=4)
            async with stream:
                async for _ in stream:
                    pass
            rest = stream.result.sequences
            assert [a + b for a, b in zip(first, rest, strict=True)] == expected
            assert session.position == (9, 8)
            async with session.step_stream() as steps:
                await steps.step([[1], [2]])
            assert session.position == (10, 9)
        kept = await ls.model.generate(PROMPTS, max_new_tokens=2, keep_session=True, **SAMPLED)
        async with await ls.model.get_session(kept.session_id) as session:
            assert session.position == (5, 4)
