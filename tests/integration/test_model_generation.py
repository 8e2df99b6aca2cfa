"""Generate and GenerateStream against the real engine with a tiny model."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import torch
from lockstep.v1 import (
    generation_pb2,
    model_info_service_pb2,
    model_service_pb2,
    scores_pb2,
    tensor_pb2,
    tokens_pb2,
)
from transformers import AutoModelForCausalLM

from tests.checkpoint_factory import CONTEXT_LENGTH, VOCABULARY_SIZE
from tests.integration.model_process import ragged, refusal

PROMPTS = [[5, 6, 7], [40, 41], [9] * 30, [100, 7, 200, 13, 50, 8, 77]]
SAMPLING = {"do_sample": True, "temperature": 0.8, "top_k": 40, "max_new_tokens": 12}
FULL = scores_pb2.ScoreSelection(logits=True, scores=True, full=True)
NO_EOS = {"ids": []}


def generate(service, prompt=None, config=None, **fields):
    message = request(prompt or ragged(*PROMPTS), config, **fields)
    return service.model.Generate(message, timeout=60)


def request(prompt, config=None, **fields):
    return model_service_pb2.GenerateRequest(
        prompt=prompt, generation_config=config or {}, **fields
    )


def stream(service, prompt=None, config=None, **fields):
    message = request(prompt or ragged(*PROMPTS), config, **fields)
    return service.model.GenerateStream(
        model_service_pb2.GenerateStreamRequest(request=message), timeout=60
    )


def ids(response) -> list[list[int]]:
    return [list(sequence.token_ids) for sequence in response.sequences]


def row(message: scores_pb2.ScoreRow) -> np.ndarray:
    assert message.tensor.dtype == tensor_pb2.DATA_TYPE_FLOAT32
    assert list(message.tensor.shape) == [VOCABULARY_SIZE]
    return np.frombuffer(message.tensor.data, dtype="<f4")


def load(service) -> model_info_service_pb2.GetLoadResponse:
    return service.info.GetLoad(model_info_service_pb2.GetLoadRequest())


@pytest.fixture(scope="module")
def hugging_face(tiny_checkpoint):
    return AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32).eval()


def test_greedy_tokens_equal_hugging_faces(tiny_model, hugging_face):
    response = generate(tiny_model, config={"max_new_tokens": 16})
    for prompt, sequence in zip(PROMPTS, response.sequences, strict=True):
        with torch.inference_mode():
            expected = hugging_face.generate(
                torch.tensor([prompt]), max_new_tokens=16, do_sample=False, pad_token_id=0
            )
        assert list(sequence.token_ids) == expected[0, len(prompt) :].tolist()


def test_padded_prompts_give_what_ragged_ones_give(tiny_model):
    width = max(map(len, PROMPTS))
    expected = ids(generate(tiny_model, config={"max_new_tokens": 8}))
    for left in (True, False):
        padding = [[0] * (width - len(p)) for p in PROMPTS]
        rows = [a + p if left else p + a for a, p in zip(padding, PROMPTS, strict=True)]
        masks = [[0] * len(a) + [1] * len(p) for a, p in zip(padding, PROMPTS, strict=True)]
        mask = np.array(masks if left else [m[::-1] for m in masks])
        batch = tokens_pb2.PaddedBatch(
            input_ids=tensor(np.array(rows)),
            attention_mask=tensor(mask),
            position_ids=tensor(np.where(mask == 1, mask.cumsum(1) - 1, 1)),
        )
        prompt = tokens_pb2.PromptBatch(padded_batch=batch)
        assert ids(generate(tiny_model, prompt, {"max_new_tokens": 8})) == expected


def tensor(array: np.ndarray) -> tensor_pb2.Tensor:
    return tensor_pb2.Tensor(
        dtype=tensor_pb2.DATA_TYPE_INT64, shape=array.shape, data=array.astype("<i8").tobytes()
    )


def test_a_stream_begins_carries_deltas_finishes_and_completes(tiny_model):
    events = list(stream(tiny_model, config={"max_new_tokens": 5, "seed": 3}))
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[0] == "started"
    assert kinds[-1] == "completed"
    assert kinds.count("finished") == len(PROMPTS)
    assert events[0].started.effective_config.max_new_tokens == 5
    assert len(events[0].started.seeds) == len(PROMPTS)
    assert events[-1].completed.usage.prompt_token_count == sum(map(len, PROMPTS))


@pytest.mark.parametrize("config", [{"max_new_tokens": 12}, SAMPLING | {"seed": 5}])
def test_a_stream_gives_the_tokens_of_the_unary_call(tiny_model, config):
    rows = [[] for _ in PROMPTS]
    for event in stream(tiny_model, config=config):
        for delta in event.deltas.deltas:
            rows[delta.prompt_index] += delta.token_ids
    assert rows == ids(generate(tiny_model, config=config))


def test_equal_seeds_give_equal_tokens_and_others_do_not(tiny_model):
    first = generate(tiny_model, config=SAMPLING | {"seed": 11})
    second = generate(tiny_model, config=SAMPLING | {"seed": 11})
    other = generate(tiny_model, config=SAMPLING | {"seed": 12})
    assert ids(first) == ids(second)
    assert ids(first) != ids(other)


def test_the_seed_that_was_returned_reproduces_a_sequence_alone(tiny_model):
    config = SAMPLING | {"num_return_sequences": 3}
    for sequence in generate(tiny_model, config=config).sequences:
        prompt = ragged(PROMPTS[sequence.prompt_index])
        alone = generate(tiny_model, prompt, SAMPLING | {"seed": sequence.seed})
        assert ids(alone) == [list(sequence.token_ids)]


def test_sequences_of_a_prompt_come_in_order_and_differ(tiny_model):
    config = SAMPLING | {"num_return_sequences": 3, "eos_token_ids": NO_EOS}
    response = generate(tiny_model, config=config)
    order = [(s.prompt_index, s.sequence_index) for s in response.sequences]
    assert order == list(itertools.product(range(len(PROMPTS)), range(3)))
    assert len({tuple(row) for row in ids(response)[:3]}) == 3


def test_the_effective_configuration_sent_again_gives_the_same_tokens(tiny_model):
    first = generate(tiny_model, config=SAMPLING)
    again = generate(tiny_model, config=first.effective_config)
    assert ids(again) == ids(first)
    assert again.effective_config == first.effective_config
    assert first.applied_processors == ["temperature", "top_k"]


def test_an_unset_configuration_is_the_models_and_is_told(tiny_model):
    response = generate(tiny_model, ragged([5, 6]))
    effective = response.effective_config
    assert effective.max_new_tokens == CONTEXT_LENGTH - 2
    assert not effective.do_sample
    assert list(effective.eos_token_ids.ids) == [0]
    assert effective.HasField("seed")


def test_a_row_that_fills_the_context_says_so(tiny_model):
    long = [7] * (CONTEXT_LENGTH - 3)
    response = generate(tiny_model, ragged([5, 6], long), {"eos_token_ids": NO_EOS})
    short_row, long_row = response.sequences
    assert len(short_row.token_ids) == CONTEXT_LENGTH - 2
    assert len(long_row.token_ids) == 3
    for row in response.sequences:
        assert row.finish_reason == generation_pb2.FINISH_REASON_CONTEXT_LENGTH


@pytest.mark.parametrize("asked", [{"max_new_tokens": 6}, {"max_length": CONTEXT_LENGTH}])
def test_a_row_that_fills_the_context_as_asked_says_that_it_has_what_was_asked(tiny_model, asked):
    prompt = ragged([7] * (CONTEXT_LENGTH - 6))
    (row,) = generate(tiny_model, prompt, {"eos_token_ids": NO_EOS, **asked}).sequences
    assert len(row.token_ids) == 6
    assert row.finish_reason == generation_pb2.FINISH_REASON_MAX_NEW_TOKENS


def test_a_stop_id_ends_its_row_and_is_part_of_it(tiny_model):
    config = {"max_new_tokens": 8, "eos_token_ids": NO_EOS}
    plain = ids(generate(tiny_model, ragged(PROMPTS[0]), config))[0]
    stop = plain[3]
    response = generate(tiny_model, ragged(PROMPTS[0]), config | {"stop_token_ids": [stop]})
    assert ids(response)[0] == plain[: plain.index(stop) + 1]
    assert response.sequences[0].finish_reason == generation_pb2.FINISH_REASON_STOP_TOKEN


@pytest.mark.parametrize("sample", [False, True])
def test_prompt_lookup_gives_the_same_answer_in_fewer_steps(tiny_model, sample):
    words = {"allowed_token_ids": {"ids": [5, 6, 7]}}  # few, so that guesses are right at times
    config = {"max_new_tokens": 60, "eos_token_ids": NO_EOS, "do_sample": sample, "seed": 3} | words
    drafting = config | {"prompt_lookup_num_tokens": 8, "max_matching_ngram_size": 3}
    prompt = ragged([5, 6, 7, 5])
    plain = generate(tiny_model, prompt, config, scores=FULL)
    drafted = generate(tiny_model, prompt, drafting, scores=FULL)
    assert ids(drafted) == ids(plain)
    assert drafted.usage.step_count < plain.usage.step_count == 60
    for ours, expected in zip(drafted.sequences[0].scores, plain.sequences[0].scores, strict=True):
        assert (ours.position, ours.token_id) == (expected.position, expected.token_id)
        assert np.abs(row(ours.logits) - row(expected.logits)).max() < 1e-3
    streamed = [
        token_id
        for message in stream(tiny_model, prompt, drafting)
        for delta in message.deltas.deltas
        for token_id in delta.token_ids
    ]
    assert streamed == ids(plain)[0]
    assert drafted.effective_config.prompt_lookup_num_tokens == 8
    assert drafted.effective_config.max_matching_ngram_size == 3


def test_a_stop_sequence_ends_its_row_and_is_part_of_it(tiny_model):
    config = {"max_new_tokens": 8, "eos_token_ids": NO_EOS}
    plain = ids(generate(tiny_model, ragged(PROMPTS[0]), config))[0]
    config["stop_sequences"] = [{"ids": [298, 299]}, {"ids": plain[2:5]}]
    response = generate(tiny_model, ragged(PROMPTS[0]), config)
    assert ids(response)[0] == plain[:5]
    assert response.sequences[0].finish_reason == generation_pb2.FINISH_REASON_STOP_SEQUENCE


def test_a_time_limit_ends_a_row_early(tiny_model):
    config = {"max_new_tokens": 100, "eos_token_ids": NO_EOS, "max_time": {"nanos": 1}}
    (sequence,) = generate(tiny_model, ragged(PROMPTS[0]), config).sequences
    assert len(sequence.token_ids) == 1
    assert sequence.finish_reason == generation_pb2.FINISH_REASON_TIME_LIMIT


def test_rows_with_processors_of_their_own_share_a_batch(tiny_model):
    """A forbidden first choice in one call changes nothing in a call beside it."""
    config = {"max_new_tokens": 6, "eos_token_ids": NO_EOS}
    plain = ids(generate(tiny_model, ragged(PROMPTS[0]), config))[0]
    with ThreadPoolExecutor(2) as pool:
        other = config | {"suppress_tokens": {"ids": plain}, "no_repeat_ngram_size": 2}
        changed = pool.submit(generate, tiny_model, ragged(PROMPTS[0]), other)
        same = pool.submit(generate, tiny_model, ragged(PROMPTS[0]), config)
    assert not set(ids(changed.result())[0]) & set(plain)
    assert ids(same.result())[0] == plain


def test_an_end_id_ends_its_row_only_after_min_new_tokens(tiny_model):
    config = {"max_new_tokens": 8, "eos_token_ids": NO_EOS}
    end = ids(generate(tiny_model, ragged(PROMPTS[0]), config))[0][0]
    config = {"max_new_tokens": 8, "eos_token_ids": {"ids": [end]}}
    at_once = generate(tiny_model, ragged(PROMPTS[0]), config).sequences[0]
    assert list(at_once.token_ids) == [end]
    assert at_once.finish_reason == generation_pb2.FINISH_REASON_EOS_TOKEN
    later = generate(tiny_model, ragged(PROMPTS[0]), config | {"min_new_tokens": 4})
    assert end not in ids(later)[0][:4]
    assert later.applied_processors == ["min_new_tokens"]


def test_logits_are_those_from_which_each_token_was_drawn(tiny_model, hugging_face):
    response = generate(tiny_model, config={"max_new_tokens": 6}, scores=FULL)
    for prompt, sequence in zip(PROMPTS, response.sequences, strict=True):
        given = torch.tensor([prompt + list(sequence.token_ids)])
        with torch.inference_mode():
            expected = hugging_face(given).logits[0, len(prompt) - 1 : -1].numpy()
        logits = np.stack([row(scores.logits) for scores in sequence.scores])
        np.testing.assert_allclose(logits, expected, atol=1e-4)
        assert logits.argmax(1).tolist() == list(sequence.token_ids)
        positions = [scores.position for scores in sequence.scores]
        assert positions == list(range(len(prompt), len(prompt) + len(sequence.token_ids)))


def test_scores_are_logits_after_processors_and_warpers(tiny_model):
    config = SAMPLING | {"top_k": 3, "temperature": 0.5, "seed": 1}
    response = generate(tiny_model, config=config, scores=FULL)
    for scores in response.sequences[0].scores:
        logits, processed = row(scores.logits), row(scores.scores)
        kept = np.isfinite(processed)
        assert kept.sum() == 3
        assert kept[scores.token_id]
        np.testing.assert_allclose(processed[kept], logits[kept] / 0.5, rtol=1e-6)


def test_top_k_with_logsumexp_gives_exact_log_probabilities(tiny_model):
    selection = scores_pb2.ScoreSelection(logits=True, top_k=5, logsumexp=True, rank=True)
    config = {"max_new_tokens": 3, "seed": 1}
    top = generate(tiny_model, config=config, scores=selection).sequences[0].scores
    full = generate(tiny_model, config=config, scores=FULL).sequences[0].scores
    for some, everything in zip(top, full, strict=True):
        logits = row(everything.logits).astype(np.float64)
        logprobs = logits - np.log(np.exp(logits).sum())
        for token in some.tokens:
            logprob = token.logit - some.logits_logsumexp
            assert logprob == pytest.approx(logprobs[token.token_id], abs=1e-5)
        assert [t.token_id for t in some.tokens] == np.argsort(-logits, kind="stable")[:5].tolist()
        assert some.rank == 1


def test_prompt_scores_describe_every_prompt_token_but_the_first(tiny_model):
    response = generate(tiny_model, config={"max_new_tokens": 1}, prompt_scores=FULL)
    for prompt, sequence in zip(PROMPTS, response.sequences, strict=True):
        assert [s.token_id for s in sequence.prompt_scores] == prompt[1:]
        assert [s.position for s in sequence.prompt_scores] == list(range(1, len(prompt)))


def test_32_concurrent_streams_give_what_each_gives_alone(tiny_model):
    prompts = [[5 + n, 17, 3 * n + 1] for n in range(32)]
    config = {"max_new_tokens": 24}
    alone = [ids(generate(tiny_model, ragged(prompt), config))[0] for prompt in prompts]
    together = [[] for _ in prompts]

    def run(n: int) -> None:
        for event in stream(tiny_model, ragged(prompts[n]), config):
            for delta in event.deltas.deltas:
                together[n] += delta.token_ids

    threads = [threading.Thread(target=run, args=(n,)) for n in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


ENDLESS = {"max_new_tokens": 250, "eos_token_ids": NO_EOS}


def wait_until_idle(service) -> None:
    deadline = time.monotonic() + 5
    while load(service).running_sequence_count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_cancelling_a_stream_frees_its_rows(tiny_model):
    prompt = ragged(*[[5]] * 60)
    for _ in range(4):  # more than are admitted at once
        call = stream(tiny_model, prompt, ENDLESS)
        next(call)
        next(call)
        call.cancel()
        wait_until_idle(tiny_model)


def test_the_load_of_an_idle_server_is_zero_after_a_cancelled_call(tiny_model):
    call = stream(tiny_model, ragged(*[[5]] * 40), ENDLESS)
    next(call)
    next(call)
    busy = load(tiny_model)
    assert busy.running_sequence_count == 32
    assert busy.waiting_sequence_count == 8
    call.cancel()
    wait_until_idle(tiny_model)
    idle = load(tiny_model)
    assert idle.waiting_sequence_count == idle.kv_used_token_count == 0


def test_a_deadline_frees_the_rows_of_a_call(tiny_model):
    prompt = ragged(*[[5]] * 60)
    for _ in range(4):
        with pytest.raises(grpc.RpcError) as caught:
            tiny_model.model.Generate(request(prompt, ENDLESS), timeout=0.3)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        wait_until_idle(tiny_model)


def test_more_than_is_admitted_is_refused_at_once_with_a_delay(tiny_model):
    first = stream(tiny_model, ragged(*[[5]] * 60), ENDLESS)
    next(first)
    with pytest.raises(grpc.RpcError) as caught:
        generate(tiny_model, ragged(*[[5]] * 60), ENDLESS)
    first.cancel()
    answer = refusal(caught.value)
    assert answer.reason == "OVERLOADED"
    assert answer.retry
    assert answer.info.metadata["resource"] == "sequences"
    wait_until_idle(tiny_model)


def test_a_full_server_refuses_a_call_before_it_reads_it(tiny_model):
    running = [stream(tiny_model, ragged(*[[5]] * size), ENDLESS) for size in (48, 48)]
    for call in running:
        next(call)
    wrong = request(ragged([5]), {"temperature": -1.0})
    with pytest.raises(grpc.RpcError) as caught:
        tiny_model.model.Generate(wrong)
    for call in running:
        call.cancel()
    assert refusal(caught.value).reason == "OVERLOADED"
    wait_until_idle(tiny_model)
    with pytest.raises(grpc.RpcError) as caught:
        tiny_model.model.Generate(wrong)
    assert refusal(caught.value).reason == "INVALID_FIELD"


def test_a_dry_run_tells_what_a_real_one_uses(tiny_model):
    message = request(ragged(*PROMPTS), SAMPLING | {"seed": 9}, scores=FULL)
    dry = tiny_model.info.ValidateRequest(
        model_info_service_pb2.ValidateRequestRequest(generate_request=message)
    )
    real = tiny_model.model.Generate(message)
    assert dry.effective_config == real.effective_config
    assert dry.applied_processors == real.applied_processors
    assert dry.kv_token_count == sum(len(p) + 12 for p in PROMPTS)
    assert dry.max_response_bytes >= real.ByteSize() - 1024


def test_usage_and_timing_are_reported(tiny_model):
    response = generate(tiny_model, config={"max_new_tokens": 5, "eos_token_ids": NO_EOS})
    assert response.usage.prompt_token_count == sum(map(len, PROMPTS))
    assert response.usage.completion_token_count == 5 * len(PROMPTS)
    assert response.usage.step_count >= 5
    timing = response.timing
    parts = (timing.queue_duration, timing.prefill_duration, timing.decode_duration)
    total = timing.total_duration.ToNanoseconds()
    assert 0 < sum(part.ToNanoseconds() for part in parts) <= total


def test_capabilities_tell_what_is_offered_and_what_is_not(tiny_model):
    answer = tiny_model.info.GetCapabilities(model_info_service_pb2.GetCapabilitiesRequest())
    supported = 1
    assert answer.methods["lockstep.v1.ModelService/Generate"] == supported
    for method in ("Truncate", "Fork", "SelectRows", "StepStream"):
        assert answer.methods[f"lockstep.v1.LogitsSessionService/{method}"] == supported
    assert answer.methods["lockstep.v1.ModelAdminService/FlushPrefixCache"] == supported
    assert len(answer.methods) == 4 + 11 + 5 + 4
    assert answer.generation_fields["temperature"] == supported
    assert answer.generation_fields["num_beams"] == supported
    assert answer.limits.max_running_sequences == 32


def test_the_model_is_described(tiny_model):
    info = tiny_model.info.GetModelInfo(model_info_service_pb2.GetModelInfoRequest())
    assert info.architecture == "LlamaForCausalLM"
    assert info.dtype == "float32"
    assert info.context_length == CONTEXT_LENGTH
    assert (info.vocabulary.revision, info.vocabulary.size) == (0, VOCABULARY_SIZE)
    assert len(info.vocabulary.fingerprint) == len(info.model_fingerprint) == 64
    assert not info.vocabulary_followed
    assert list(info.eos_token_ids) == [0]


def test_the_listed_processors_are_those_that_requests_report(tiny_model):
    listed = tiny_model.info.ListLogitsProcessors(
        model_info_service_pb2.ListLogitsProcessorsRequest()
    )
    everything = SAMPLING | {
        "sequence_bias": [{"ids": [5, 6], "bias": -1.0}],
        "encoder_repetition_penalty": 1.1,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.5,
        "logit_bias": {7: 1.0},
        "no_repeat_ngram_size": 3,
        "encoder_no_repeat_ngram_size": 3,
        "bad_words_ids": [{"ids": [8, 9]}],
        "min_new_tokens": 1,
        "allowed_token_ids": {"ids": range(1, 200)},
        "forced_prefix": {"ids": [11]},
        "forced_bos_token_id": 12,
        "forced_eos_token_ids": {"ids": [13]},
        "remove_invalid_values": True,
        "exponential_decay_length_penalty": {"start_index": 2, "decay_factor": 1.1},
        "suppress_tokens": {"ids": [14]},
        "begin_suppress_tokens": {"ids": [15]},
        "top_n_sigma": 9.0,
        "top_h": 0.9,
        "top_p": 0.9,
        "min_p": 0.01,
        "typical_p": 0.9,
        "epsilon_cutoff": 0.001,
        "eta_cutoff": 0.001,
        "green_list_watermark": {},
        "renormalize_logits": True,
    }
    response = generate(tiny_model, config=everything)
    rivals = {"min_new_tokens": "min_length", "green_list_watermark": "synth_id_watermark"}
    names = [p.name for p in listed.processors]
    assert [name for name in names if name not in rivals.values()] == list(
        response.applied_processors
    )
    others = {k: v for k, v in everything.items() if k not in rivals} | {
        "min_length": 1,
        "synth_id_watermark": {"ngram_len": 5, "keys": [1, 2]},
    }
    assert [name for name in names if name not in rivals] == list(
        generate(tiny_model, config=others).applied_processors
    )
    warpers = [p.name for p in listed.processors if p.warper]
    assert (warpers[0], warpers[-1], len(warpers)) == ("temperature", "eta_cutoff", 9)
    assert [s.token_ids[0] for s in response.sequences] == [11] * len(PROMPTS)


def test_distributions_are_computed_without_generating(tiny_model, hugging_face):
    response = tiny_model.model.ComputeLogits(
        model_service_pb2.ComputeLogitsRequest(prompt=ragged(*PROMPTS))
    )
    for prompt, scores in zip(PROMPTS, response.rows, strict=True):
        with torch.inference_mode():
            expected = hugging_face(torch.tensor([prompt])).logits[0, -1].numpy()
        np.testing.assert_allclose(row(scores.scores[0].logits), expected, atol=1e-4)


def test_given_tokens_are_scored(tiny_model, hugging_face):
    continuation = [9, 10, 11]
    response = tiny_model.model.Score(
        model_service_pb2.ScoreRequest(
            prompt=ragged(*PROMPTS),
            continuations=ragged(*[continuation] * len(PROMPTS)).token_batch,
        )
    )
    for prompt, sequence in zip(PROMPTS, response.sequences, strict=True):
        with torch.inference_mode():
            logits = hugging_face(torch.tensor([prompt + continuation])).logits[0]
        logprobs = logits.log_softmax(-1)[len(prompt) - 1 : -1]
        expected = [float(p[t]) for p, t in zip(logprobs, continuation, strict=True)]
        assert [s.token_id for s in sequence.scores] == continuation
        assert [s.logits_logprob for s in sequence.scores] == pytest.approx(expected, abs=1e-4)
        assert sequence.logits_logprob == pytest.approx(sum(expected), abs=1e-3)


@pytest.mark.parametrize(
    ("prompts", "continuations", "field"),
    [([[5, 6], [7]], None, "prompt"), ([[5], []], [[6], [7]], "continuations")],
)
def test_a_row_without_a_token_to_score_is_refused(tiny_model, prompts, continuations, field):
    given = {} if continuations is None else {"continuations": ragged(*continuations).token_batch}
    with pytest.raises(grpc.RpcError) as caught:
        tiny_model.model.Score(model_service_pb2.ScoreRequest(prompt=ragged(*prompts), **given))
    refused = refusal(caught.value)
    assert refused.fields == [field]
    assert "row 1 has no token to score" in caught.value.details()


def test_the_greedy_continuation_is_scored_as_greedy(tiny_model):
    best = ids(generate(tiny_model, ragged(PROMPTS[0]), {"max_new_tokens": 3}))[0]
    for continuation, greedy in ((best, True), ([best[0], (best[1] + 1) % 300], False)):
        response = tiny_model.model.Score(
            model_service_pb2.ScoreRequest(
                prompt=ragged(PROMPTS[0]), continuations=ragged(continuation).token_batch
            )
        )
        assert response.sequences[0].greedy is greedy
