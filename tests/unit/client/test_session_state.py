import time
from typing import Any

import numpy as np
import pytest
from lockstep.v1 import error_reason_pb2, generation_pb2, scores_pb2, tokens_pb2, vocabulary_pb2
from lockstep.v1 import logits_session_service_pb2 as pb
from lockstep.v1 import model_service_pb2 as model_pb

from lockstep_client import exceptions
from lockstep_client._calls.session_state import SessionState, Turn
from lockstep_client._values import tensors
from lockstep_client._values.vocabulary_ref import VocabularyRef


def _scores(value: float) -> scores_pb2.PositionScores:
    row = np.full(3, value, dtype=np.float32)
    return scores_pb2.PositionScores(logits=scores_pb2.ScoreRow(tensor=tensors.to_message(row)))


def ragged(*rows: list[int]) -> tokens_pb2.PromptBatch:
    sequences = [tokens_pb2.TokenSequence(ids=row) for row in rows]
    return tokens_pb2.PromptBatch(token_batch=tokens_pb2.TokenBatch(sequences=sequences))


def _state() -> SessionState:
    return SessionState(
        pb.OpenSessionRequest(prompt=ragged([1, 2, 3, 4], [5, 6])),
        pb.OpenSessionResponse(
            session_id="s",
            rows=[pb.SessionRow(position=4, seed=1), pb.SessionRow(position=2, seed=2)],
            scores=[model_pb.PositionScoresList(scores=[_scores(v)]) for v in (1.0, 2.0)],
        ),
    )


def _step(*rows: pb.StepRowResult) -> pb.StepResponse:
    return pb.StepResponse(rows=rows)


def _asked(*rows: list[int], **options: Any) -> pb.StepRequest:
    return pb.StepRequest(rows=[pb.RowStep(ids=ids) for ids in rows], **options)


def test_an_open_session_knows_positions_and_logits():
    state = _state()
    assert state.position == (4, 2)
    assert state.logits is not None
    assert state.logits[:, 0].tolist() == [1.0, 2.0]
    assert state.scores is None


def test_a_step_moves_positions_and_replaces_logits():
    state = _state()
    result = state._apply_step(
        _asked([7], [8], sampling=pb.StepSampling()),
        _step(
            pb.StepRowResult(position=5, scores=[_scores(8.0), _scores(9.0)], sampled_token_id=0),
            pb.StepRowResult(
                position=3,
                scores=[_scores(7.0)],
                finish_reason=generation_pb2.FINISH_REASON_EOS_TOKEN,
            ),
        ),
    )
    assert state.position == (5, 3)
    assert state.logits[:, 0].tolist() == [9.0, 7.0]
    assert result.sampled_token_ids == (0, None)
    assert result.finish_reasons == (None, "eos_token")


def test_a_row_that_did_not_step_keeps_its_logits():
    state = _state()
    state._apply_step(
        _asked([7], []),
        _step(pb.StepRowResult(position=5, scores=[_scores(9.0)]), pb.StepRowResult(position=2)),
    )
    assert state.logits[:, 0].tolist() == [9.0, 2.0]


def test_looking_ahead_changes_nothing_that_is_known():
    state = _state()
    result = state._apply_step(
        _asked([7], [8], look_ahead=True),
        _step(
            pb.StepRowResult(position=4, scores=[_scores(9.0)]),
            pb.StepRowResult(position=2, scores=[_scores(9.0)]),
        ),
    )
    assert state.logits[:, 0].tolist() == [1.0, 2.0]
    assert result.rows[0][0].logits[0] == 9.0


def test_a_row_that_failed_raises_after_the_others_were_taken():
    state = _state()
    error = error_reason_pb2.ItemError(reason=error_reason_pb2.ERROR_REASON_NON_FINITE_LOGITS)
    with pytest.raises(exceptions.NonFiniteLogits):
        state._apply_step(
            _asked([7], [8]),
            _step(
                pb.StepRowResult(position=5, error=error),
                pb.StepRowResult(position=3, scores=[_scores(9.0)]),
            ),
        )
    assert state.position == (5, 3)
    assert state.logits[1, 0] == 9.0


def test_after_a_cut_nothing_is_known_about_the_next_token():
    state = _state()
    assert list(state._truncate_request(1).positions) == [1, 1]
    assert list(state._truncate_request([1, 2]).positions) == [1, 2]
    state._apply_rows([pb.SessionRow(position=1), pb.SessionRow(position=1)])
    assert state.position == (1, 1)
    assert state.logits is None


def test_a_fork_starts_where_its_original_is_and_goes_its_own_way():
    state = _state()
    fork = state._copy("f", [1])
    assert (fork.session_id, fork.position, fork.seeds) == ("f", (2,), (2,))
    assert fork.logits[:, 0].tolist() == [2.0]
    fork._apply_step(_asked([8]), _step(pb.StepRowResult(position=3, scores=[_scores(9.0)])))
    assert state.position == (4, 2)


def test_selected_rows_take_their_logits_along():
    state = _state()
    rows = [pb.SessionRow(position=p) for p in (2, 2, 4)]
    state._apply_selection(pb.SelectRowsResponse(rows=rows), [1, 1, 0])
    assert state.logits[:, 0].tolist() == [2.0, 2.0, 1.0]


def test_a_session_that_moved_knows_its_revision_and_no_logits():
    state = _state()
    request = state._rebind_request(None)
    assert request.session_id == "s"
    assert not request.HasField("vocabulary")
    ref = vocabulary_pb2.VocabularyRef(tokenizer_id="t", revision=3, fingerprint="f", size=9)
    rows = [pb.SessionRow(position=4), pb.SessionRow(position=2)]
    moved = state._apply_rebind(pb.RebindSessionResponse(vocabulary=ref, rows=rows))
    assert moved == state.vocabulary == VocabularyRef("t", 3, "f", 9)
    assert state.logits is None
    assert state.position == (4, 2)
    assert state._rebind_request(moved).vocabulary == ref


def test_a_call_that_is_left_is_noted_and_one_that_is_refused_is_not():
    state = _state()
    refusal = exceptions.InvalidField("no")
    for error, unsettled, overrun in (
        (refusal, False, False),
        (exceptions.DeadlineExceeded("late"), True, False),
        (KeyboardInterrupt(), True, False),
    ):
        with pytest.raises(type(error)), state._leaving():
            raise error
        assert (state._unsettled, state._overrun) == (unsettled, overrun)
    with pytest.raises(GeneratorExit), state._leaving(overrun=True):
        raise GeneratorExit
    assert state._overrun
    assert list(state._undo_request().positions) == [4, 2]
    assert not state._copy("fork", ())._unsettled
    state._settled()
    assert (state._unsettled, state._overrun) == (False, False)


def test_a_call_that_was_left_is_waited_for_within_the_timeout():
    busy = exceptions.SessionBusy("busy", retry_delay_s=0.1)
    turn = Turn(0.15)
    assert turn.pause_s(busy) == 0.1
    assert 0 < turn.timeout_s <= 0.15
    time.sleep(0.1)
    with pytest.raises(exceptions.SessionBusy):
        turn.pause_s(busy)
    assert Turn(None).timeout_s is None
