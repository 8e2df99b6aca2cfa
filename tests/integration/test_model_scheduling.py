"""What callers see of reuse, priorities and eviction, against the real engine."""

import threading
import time

import grpc
import numpy as np
import pytest
from lockstep.v1 import generation_pb2, model_admin_service_pb2, model_info_service_pb2
from lockstep.v1 import logits_session_service_pb2 as sessions_pb
from lockstep.v1 import model_service_pb2 as pb

from tests.integration.model_process import model_process, ragged, refusal

BOOK = [(7 * index) % 300 + 3 for index in range(60)]
OTHER_BOOK = [(11 * index) % 300 + 3 for index in range(60)]
KV_TOKENS = 300  # room for four sessions of 70 tokens, or for one and a long generation


@pytest.fixture(scope="module")
def small_model(tiny_checkpoint, tmp_path_factory):
    """A model service with little KV cache and two rows at a time."""
    folder = tmp_path_factory.mktemp("small_model")
    flags = ["--dtype", "fp32", "--max-kv-tokens", str(KV_TOKENS), "--max-running-sequences", "2"]
    flags += ["--max-waiting-sequences", "62"]
    with model_process(tiny_checkpoint, folder, *flags) as service:
        yield service


@pytest.fixture
def emptied(small_model):
    """The service, with nothing left in it that could be reused."""
    flush(small_model)
    yield small_model
    wait_until(small_model, lambda load: not load.running_sequence_count)


def flush(service) -> int:
    request = model_admin_service_pb2.FlushPrefixCacheRequest()
    return service.admin.FlushPrefixCache(request).token_count


def generate(service, ids: list[int], new: int = 4, **fields) -> pb.GenerateResponse:
    config = generation_pb2.GenerationConfig(max_new_tokens=new, do_sample=False)
    return service.model.Generate(
        pb.GenerateRequest(prompt=ragged(ids), generation_config=config, **fields)
    )


def cached(response) -> int:
    return response.usage.cached_prompt_token_count


def endless(service, **fields):
    """A stream of many tokens that nothing but its limit ends."""
    config = generation_pb2.GenerationConfig(
        max_new_tokens=180, do_sample=False, suppress_tokens={"ids": [0]}
    )
    request = pb.GenerateRequest(prompt=ragged(BOOK), generation_config=config, **fields)
    return service.model.GenerateStream(pb.GenerateStreamRequest(request=request))


def tokens_of(messages) -> list[int]:
    deltas = (delta for message in messages for delta in message.deltas.deltas)
    return [token_id for delta in deltas for token_id in delta.token_ids]


def load(service):
    return service.info.GetLoad(model_info_service_pb2.GetLoadRequest())


def wait_until(service, condition) -> None:
    deadline = time.monotonic() + 20
    while not condition(load(service)):
        assert time.monotonic() < deadline, load(service)
        time.sleep(0.01)


# --- Reuse ---------------------------------------------------------------------------------------


def test_a_prompt_that_was_there_before_is_reused_and_counted(emptied):
    first = generate(emptied, BOOK)
    second = generate(emptied, [*BOOK[:50], 5])
    again = generate(emptied, BOOK)
    assert [cached(first), cached(second), cached(again)] == [0, 50, 59]
    assert again.sequences[0].token_ids == first.sequences[0].token_ids


def test_salts_keep_prompts_apart(emptied):
    generate(emptied, BOOK, cache_salt="a")
    assert cached(generate(emptied, BOOK, cache_salt="b")) == 0
    assert cached(generate(emptied, BOOK)) == 0
    assert cached(generate(emptied, BOOK, cache_salt="a")) == 59


def test_a_prompt_that_opts_out_neither_reuses_nor_is_reused(emptied):
    generate(emptied, BOOK, use_prefix_cache=False)
    assert cached(generate(emptied, BOOK)) == 0
    assert cached(generate(emptied, BOOK, use_prefix_cache=False)) == 0
    assert cached(generate(emptied, BOOK, use_prefix_cache=True)) == 59


def test_a_salt_that_is_too_long_is_named(emptied):
    with pytest.raises(grpc.RpcError) as caught:
        generate(emptied, BOOK, cache_salt="x" * 257)
    assert refusal(caught.value).fields == ["cache_salt"]


def test_flushing_says_how_many_tokens_were_kept(emptied):
    generate(emptied, BOOK, new=4)
    assert flush(emptied) == 63  # the last token never passed through the model
    assert flush(emptied) == 0
    assert cached(generate(emptied, BOOK)) == 0


def test_sessions_and_one_off_distributions_reuse_and_count(emptied):
    generate(emptied, BOOK, cache_salt="a")
    opened = emptied.sessions.OpenSession(
        sessions_pb.OpenSessionRequest(prompt=ragged(BOOK), max_length=70, cache_salt="a")
    )
    close(emptied, opened.session_id)
    assert opened.usage.cached_prompt_token_count == 59
    logits = emptied.model.ComputeLogits(pb.ComputeLogitsRequest(prompt=ragged(BOOK)))
    again = emptied.model.ComputeLogits(pb.ComputeLogitsRequest(prompt=ragged(BOOK)))
    assert [cached(logits), cached(again)] == [0, 59]


# --- Sessions without a place --------------------------------------------------------------------


def open_session(service, ids: list[int]) -> str:
    request = sessions_pb.OpenSessionRequest(prompt=ragged(ids), max_length=70)
    return service.sessions.OpenSession(request).session_id


def step(service, session_id: str, *ids: int, **fields):
    row = sessions_pb.RowStep(ids=ids)
    request = sessions_pb.StepRequest(session_id=session_id, rows=[row], **fields)
    return service.sessions.Step(request)


def close(service, session_id: str) -> None:
    service.sessions.CloseSession(sessions_pb.CloseSessionRequest(session_id=session_id))


def logits_of(response) -> np.ndarray:
    return np.frombuffer(response.rows[0].scores[0].logits.tensor.data, dtype="<f4")


def test_more_sessions_than_fit_go_on_and_say_what_was_recomputed(emptied):
    names = [open_session(emptied, [index + 3, *BOOK]) for index in range(6)]
    expected = logits_of(step(emptied, names[-1], 5, look_ahead=True))
    answers = [step(emptied, name, 5) for name in names]
    assert [answer.recomputed for answer in answers] == [True] * 6
    assert [answer.rows[0].position for answer in answers] == [62] * 6
    assert np.abs(logits_of(answers[-1]) - expected).max() < 1e-4
    assert not step(emptied, names[-1], 6).recomputed
    for name in names:
        close(emptied, name)


def test_a_session_without_a_place_holds_no_memory_and_can_be_described(emptied):
    names = [open_session(emptied, [index + 3, *BOOK]) for index in range(5)]
    request = sessions_pb.GetSessionRequest(session_id=names[0])
    state = emptied.sessions.GetSession(request)
    assert state.kv_bytes == 0
    assert list(state.rows[0].tokens.ids) == [3, *BOOK]
    for name in names:
        close(emptied, name)


# --- Priorities and the queue --------------------------------------------------------------------


def test_an_urgent_call_does_not_wait_for_long_ones_which_go_on_unchanged(emptied):
    alone = tokens_of(endless(emptied))
    flush(emptied)
    messages: list = []
    call = endless(emptied, priority=5)
    reader = threading.Thread(target=lambda: messages.extend(call))
    reader.start()
    wait_until(emptied, lambda load: load.running_sequence_count == 1)
    urgent = generate(emptied, OTHER_BOOK, new=100)  # does not fit beside it
    still_running = reader.is_alive()
    reader.join()
    assert urgent.sequences[0].token_ids
    assert still_running
    assert tokens_of(messages) == alone


def test_a_call_that_is_cancelled_in_the_queue_frees_its_place_and_never_runs(emptied):
    running = endless(emptied)
    next(running)
    wait_until(emptied, lambda load: load.running_sequence_count == 1)
    queued = endless(emptied)
    next(queued)
    wait_until(emptied, lambda load: load.waiting_sequence_count == 1)
    queued.cancel()
    wait_until(emptied, lambda load: load.waiting_sequence_count == 0)
    assert load(emptied).running_sequence_count == 1
    running.cancel()


def test_a_deadline_in_the_queue_frees_the_place(emptied):
    running = endless(emptied)
    next(running)
    with pytest.raises(grpc.RpcError) as caught:
        emptied.model.Generate(
            pb.GenerateRequest(
                prompt=ragged(OTHER_BOOK),
                generation_config=generation_pb2.GenerationConfig(max_new_tokens=180),
            ),
            timeout=0.05,
        )
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until(emptied, lambda load: load.waiting_sequence_count == 0)
    running.cancel()
