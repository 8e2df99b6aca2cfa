"""The client's model against the real service, with transformers as the reference."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from lockstep_client import AsyncLockstep, Batch, Lockstep, ScoreSelection, exceptions
from tests.checkpoint_factory import CONTEXT_LENGTH, VOCABULARY_SIZE
from tests.services import Services

ROWS = [[40, 50, 60, 70, 80, 90, 100], [200, 210], [300, 301, 302]]
NEW_TOKENS = 12


@pytest.fixture
def client(services: Services):
    with services.client() as client:
        yield client


@pytest.fixture(scope="module")
def reference(services: Services) -> "Reference":
    return Reference(services.checkpoint)


class Reference:
    """`model.generate` of one prompt alone."""

    def __init__(self, checkpoint: Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)

    def greedy(self, prompt: list[int], new_tokens: int) -> tuple[list[int], np.ndarray]:
        output = self.model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=new_tokens,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
            pad_token_id=0,
        )
        logits = torch.stack(output.logits, dim=1)[0].numpy()
        return output.sequences[0, len(prompt) :].tolist(), logits


def test_tokens_and_logits_are_those_of_transformers(client: Lockstep, reference: Reference):
    result = client.model.generate(
        ROWS, max_new_tokens=NEW_TOKENS, do_sample=False, output_logits=True
    )
    assert result.logits is not None
    assert result.logits.shape == (len(ROWS), NEW_TOKENS, VOCABULARY_SIZE)
    for row, prompt in enumerate(ROWS):
        tokens, logits = reference.greedy(prompt, NEW_TOKENS)
        assert result.sequences[row] == tokens
        np.testing.assert_allclose(result.logits[row, : len(tokens)], logits, atol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_goes_into_a_model_of_either_kind(client: Lockstep, reference: Reference, side):
    batch = client.tokenizer.encode(
        ["abc", "fghij"], padding=True, padding_side=side, return_tensors="pt"
    )
    with torch.no_grad():
        theirs = reference.model(**batch).logits
    last = batch["attention_mask"].cumsum(1).argmax(1)
    ours = client.model.compute_logits(**batch).logits
    np.testing.assert_allclose(ours, theirs[torch.arange(2), last], atol=1e-4)
    assert (ours == client.model.compute_logits(batch).logits).all()


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(client: Lockstep, side):
    padded = client.tokenizer.pad(ROWS, padding_side=side)
    ragged = client.model.generate(ROWS, max_new_tokens=NEW_TOKENS, output_logits=True)
    result = client.model.generate(padded, max_new_tokens=NEW_TOKENS, output_logits=True)
    assert result.sequences == ragged.sequences
    np.testing.assert_allclose(result.logits, ragged.logits, atol=1e-5)


def test_a_result_larger_than_any_message_arrives(client: Lockstep):
    rows = [[token] * 3 for token in range(40, 56)]
    result = client.model.generate(
        rows, max_new_tokens=200, eos_token_id=[], output_logits=True, output_scores=True
    )
    assert result.logits is not None
    assert result.scores is not None
    assert result.logits.nbytes + result.scores.nbytes > 8_000_000
    assert (result.logits.argmax(-1) == np.array(result.sequences)).all()


def test_places_after_the_end_of_a_shorter_sequence_are_nan(client: Lockstep):
    free = client.model.generate(ROWS, max_new_tokens=NEW_TOKENS, eos_token_id=[])
    stop = free.sequences[0][3]
    result = client.model.generate(
        ROWS, max_new_tokens=NEW_TOKENS, eos_token_id=[], stop_token_ids=[stop], output_logits=True
    )
    assert result.finish_reasons[0] == "stop_token"
    assert result.sequences[0] == free.sequences[0][:4]
    assert np.isfinite(result.logits[0, :4]).all()
    assert np.isnan(result.logits[0, 4:]).all()


def test_logits_are_raw_and_scores_are_after_the_warpers(client: Lockstep):
    result = client.model.generate(
        ROWS,
        max_new_tokens=4,
        do_sample=True,
        temperature=0.5,
        top_k=5,
        seed=3,
        output_logits=True,
        output_scores=True,
    )
    kept = np.isfinite(result.scores)
    assert (kept.sum(-1) == 5).all()
    np.testing.assert_allclose(result.scores[kept], (result.logits / 0.5)[kept], rtol=1e-5)


def test_only_the_asked_ids_of_each_position_are_returned(client: Lockstep):
    selection = ScoreSelection(logits=True, token_ids=[7, 3], logsumexp=True, rank=True)
    result = client.model.generate(
        [ROWS[0]], max_new_tokens=3, selection=selection, do_sample=False
    )
    full = client.model.generate([ROWS[0]], max_new_tokens=3, output_logits=True, do_sample=False)
    assert result.logits is None
    for position, row in zip(result.details[0].scores, full.logits[0], strict=True):
        assert [(t.token_id, t.logit) for t in position.tokens] == [(7, row[7]), (3, row[3])]
        assert position.logits_logsumexp == pytest.approx(np.logaddexp.reduce(row), rel=1e-5)
        assert position.rank == 1


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 1e-2), ("bfloat16", 8e-2)])
def test_rows_can_be_rounded_on_the_wire(client: Lockstep, dtype, tolerance):
    exact = client.model.generate([ROWS[0]], max_new_tokens=3, output_logits=True).logits
    selection = ScoreSelection(logits=True, full=True, dtype=dtype)
    rounded = client.model.generate([ROWS[0]], max_new_tokens=3, selection=selection).logits
    assert not np.array_equal(rounded, exact)
    np.testing.assert_allclose(rounded.astype(np.float32), exact, atol=tolerance)


def test_several_sequences_of_a_prompt_are_numbered(client: Lockstep):
    result = client.model.generate(
        ROWS[:2], max_new_tokens=5, do_sample=True, num_return_sequences=3, seed=1, top_k=0
    )
    numbers = [(s.prompt_index, s.sequence_index) for s in result.details]
    assert numbers == [(prompt, index) for prompt in range(2) for index in range(3)]
    assert len({tuple(sequence) for sequence in result.sequences}) > 2


def test_the_seed_that_comes_back_reproduces_the_draws(client: Lockstep):
    first = client.model.generate([ROWS[0]], max_new_tokens=NEW_TOKENS, do_sample=True)
    again = client.model.generate(
        [ROWS[0]], max_new_tokens=NEW_TOKENS, do_sample=True, seed=first.seeds[0]
    )
    assert again.sequences == first.sequences


def test_a_stream_gives_what_generate_gives_token_by_token(client: Lockstep):
    whole = client.model.generate(ROWS, max_new_tokens=NEW_TOKENS, output_logits=True)
    rows: list[list[int]] = [[] for _ in ROWS]
    with client.model.stream(ROWS, max_new_tokens=NEW_TOKENS, output_logits=True) as stream:
        for delta in stream:
            at = len(rows[delta.prompt_index])
            rows[delta.prompt_index] += delta.token_ids
            np.testing.assert_array_equal(
                delta.scores[0].logits, whole.logits[delta.prompt_index, at]
            )
    assert rows == whole.sequences == stream.result.sequences
    assert stream.result.finish_reasons == whole.finish_reasons


@pytest.mark.parametrize("end", ["close", "with", "drop"])
def test_a_stream_that_is_not_read_to_its_end_is_cancelled_on_the_server(
    services: Services, client: Lockstep, end
):
    with services.model.cancelling("GenerateStream"):
        stream = client.model.stream([ROWS[0]], max_new_tokens=200, eos_token_id=[])
        if end == "with":
            with stream:
                next(stream)
        else:
            next(stream)
            if end == "close":
                stream.close()
            else:
                del stream


def test_a_client_loop_over_a_session_gives_what_generate_gives(client: Lockstep):
    expected = client.model.generate(ROWS, max_new_tokens=NEW_TOKENS, eos_token_id=[])
    with client.model.open_session(ROWS) as session:
        chosen = []
        for _ in range(NEW_TOKENS):
            chosen.append(session.logits.argmax(-1))
            session.step(chosen[-1])
        assert np.array(chosen).T.tolist() == expected.sequences
        assert session.position == tuple(len(row) + NEW_TOKENS for row in ROWS)
        assert session.token_ids() == [
            row + new for row, new in zip(ROWS, expected.sequences, strict=True)
        ]


def test_the_server_draws_in_a_session_what_it_draws_in_generate(client: Lockstep):
    prompt, options = ROWS[0], {"do_sample": True, "temperature": 1.5, "top_k": 0, "seed": 11}
    expected = client.model.generate([prompt], max_new_tokens=8, eos_token_id=[], **options)
    drawn: list[int] = []
    with client.model.open_session([prompt[:-1]], **options) as session:
        token = prompt[-1]
        for _ in range(8):
            (token,) = session.step([token], sample=True).sampled_token_ids
            drawn.append(token)
    assert drawn == expected.sequences[0]


def test_torch_seeds_of_several_sequences_reproduce_each_alone(client: Lockstep):
    options = {"max_new_tokens": 6, "do_sample": True, "top_k": 0, "seed_mode": "torch"}
    first = client.model.generate(ROWS[:2], num_return_sequences=2, seed=4, **options)
    assert first.effective_config["seed_mode"] == "SEED_MODE_TORCH"
    assert first.seeds[0] == 4
    prompts = [ROWS[0], ROWS[0], ROWS[1], ROWS[1]]
    for prompt, seed, expected in zip(prompts, first.seeds, first.sequences, strict=True):
        alone = client.model.generate([prompt], seed=seed, **options)
        assert alone.sequences[0] == expected
    other = client.model.generate(
        ROWS[:2], num_return_sequences=2, seed=4, **options | {"seed_mode": "counter"}
    )
    assert other.sequences != first.sequences


def test_torch_seeds_of_searches_reproduce_each_alone(client: Lockstep):
    options = {"max_new_tokens": 6, "do_sample": True, "num_beams": 3, "seed_mode": "torch"}
    first = client.model.generate(ROWS[:2], num_return_sequences=2, seed=4, **options)
    assert first.seeds[0] == first.seeds[1] == 4 != first.seeds[2]
    for index, prompt in enumerate(ROWS[:2]):
        pair = slice(2 * index, 2 * index + 2)
        seed = first.seeds[2 * index]
        alone = client.model.generate([prompt], num_return_sequences=2, seed=seed, **options)
        assert alone.sequences == first.sequences[pair]


def test_a_row_that_is_left_alone_keeps_its_logits(client: Lockstep):
    with client.model.open_session(ROWS[:2]) as session:
        before = session.logits.copy()
        session.step([[9, 8], []])
        assert session.position == (len(ROWS[0]) + 2, len(ROWS[1]))
        np.testing.assert_array_equal(session.logits[1], before[1])
        assert not np.array_equal(session.logits[0], before[0])


def test_a_session_cut_and_gone_another_way_is_like_one_that_went_there(client: Lockstep):
    with client.model.open_session(ROWS[:2]) as session:
        session.truncate([3, 1])
        assert session.position == (3, 1)
        assert session.logits is None
        session.step([[9], [8, 7]])
        with client.model.open_session([[*ROWS[0][:3], 9], [ROWS[1][0], 8, 7]]) as fresh:
            np.testing.assert_allclose(session.logits, fresh.logits, atol=1e-4)


def test_a_fork_and_its_original_go_their_own_ways(client: Lockstep):
    with client.model.open_session(ROWS) as session, session.fork([2, 0]) as fork:
        assert fork.position == (len(ROWS[2]), len(ROWS[0]))
        np.testing.assert_array_equal(fork.logits, session.logits[[2, 0]])
        fork.step([[5], [6]])
        session.step([[7], [], []])
        assert fork.token_ids() == [[*ROWS[2], 5], [*ROWS[0], 6]]
        assert session.token_ids() == [[*ROWS[0], 7], ROWS[1], ROWS[2]]


def test_selected_rows_are_dropped_repeated_and_reordered(client: Lockstep):
    with client.model.open_session(ROWS) as session:
        session.select_rows([2, 2, 0])
        assert session.position == (len(ROWS[2]), len(ROWS[2]), len(ROWS[0]))
        session.step([[5], [6], []])
        assert session.token_ids() == [[*ROWS[2], 5], [*ROWS[2], 6], ROWS[0]]


def test_looking_ahead_and_repeating_a_step_leave_the_session_where_it_is(client: Lockstep):
    with client.model.open_session(ROWS[:1]) as session:
        before = session.logits.copy()
        ahead = session.step([[9]], look_ahead=True)
        np.testing.assert_array_equal(session.logits, before)
        first = session.step([[9]], step_id="a")
        assert (first.replayed, session.step([[9]], step_id="a").replayed) == (False, True)
        np.testing.assert_array_equal(session.logits[0], ahead.rows[0][0].logits)
        assert session.token_ids() == [[*ROWS[0], 9]]


def test_closing_a_session_twice_or_after_it_is_gone_does_nothing(client: Lockstep):
    before = client.model.load().session_count
    session = client.model.open_session([ROWS[0]])
    same = session._copy(session.session_id, ())
    assert client.model.load().session_count == before + 1
    session.close()
    session.close()
    same.close()
    assert client.model.load().session_count == before


def test_ids_of_the_services_own_tokenizer_carry_their_vocabulary(client: Lockstep):
    batch = client.tokenizer.encode("The capital", padding="longest")
    result = client.model.generate(batch, max_new_tokens=2)
    assert result.vocabulary == batch.vocabulary
    assert isinstance(batch, Batch)


def test_the_model_describes_itself(client: Lockstep):
    info = client.model.info()
    assert (info.architecture, info.dtype) == ("LlamaForCausalLM", "float32")
    assert info.context_length == CONTEXT_LENGTH
    assert info.vocabulary == client.tokenizer.info().vocabulary
    assert info.vocabulary_followed
    assert info.default_generation_config["eos_token_ids"] == [0]
    capabilities = client.model.capabilities()
    assert capabilities.methods["lockstep.v1.ModelService/Generate"] == "supported"
    assert capabilities.limits["max_running_sequences"] > 0
    assert "bfloat16" in capabilities.score_dtypes


async def test_the_asyncio_client_gives_the_same(services: Services, client: Lockstep):
    expected = client.model.generate(ROWS, max_new_tokens=6, output_logits=True)
    async with AsyncLockstep(services.tokenizer.address, services.model.address) as twin:
        result = await twin.model.generate(ROWS, max_new_tokens=6, output_logits=True)
        assert result.sequences == expected.sequences
        np.testing.assert_array_equal(result.logits, expected.logits)
        streamed: list[list[int]] = [[] for _ in ROWS]
        async with twin.model.stream(ROWS, max_new_tokens=6) as stream:
            async for delta in stream:
                streamed[delta.prompt_index] += delta.token_ids
        assert streamed == expected.sequences
        async with await twin.model.open_session([ROWS[0]]) as session:
            await session.step(session.logits.argmax(-1))
            assert session.logits[0].argmax() == expected.sequences[0][1]
            assert await session.token_ids() == [[*ROWS[0], expected.sequences[0][0]]]
            async with await session.fork() as fork:
                await fork.truncate(2)
                await fork.select_rows([0, 0])
                assert await fork.token_ids() == [ROWS[0][:2]] * 2
        assert (await twin.model.info()).vocabulary == client.model.info().vocabulary


async def test_an_asyncio_stream_that_is_closed_is_cancelled_on_the_server(services: Services):
    async with AsyncLockstep(services.tokenizer.address, services.model.address) as twin:
        with services.model.cancelling("GenerateStream"):
            stream = twin.model.stream([ROWS[0]], max_new_tokens=200, eos_token_id=[])
            await anext(stream)
            await stream.aclose()


NO_TOKEN = {"allowed_token_ids": [7], "suppress_tokens": [7], "max_new_tokens": 2}


def test_a_sequence_that_fails_raises(client: Lockstep):
    with pytest.raises(exceptions.NoTokenLeft, match=r"allowed_token_ids.*suppress_tokens"):
        client.model.generate([[5]], **NO_TOKEN)
    with pytest.raises(exceptions.NoTokenLeft):
        list(client.model.stream([[5]], **NO_TOKEN))


def test_errors_of_sequences_are_returned_where_that_is_asked_for(client: Lockstep):
    out = client.model.generate([[5]], errors="return", **NO_TOKEN)
    assert out.finish_reasons == ["error"]
    assert isinstance(out.details[0].error, exceptions.NoTokenLeft)
    with client.model.stream([[5]], errors="return", **NO_TOKEN) as stream:
        assert list(stream) == []
    assert stream.result.finish_reasons == ["error"]
    with pytest.raises(ValueError, match="errors is one of 'raise', 'return'"):
        client.model.generate([[5]], errors="ignore")


def test_a_row_of_a_session_that_fails_raises_and_the_session_knows_its_position(client: Lockstep):
    with client.model.open_session([[5]], max_length=8) as session:
        with pytest.raises(exceptions.NoTokenLeft):
            session.generate(**NO_TOKEN)
        session.step([[6]])
        assert session.token_ids() == [[5, 6]]


def test_every_call_takes_the_keywords_of_a_batch(client: Lockstep):
    batch = client.tokenizer.encode(["abc", "defgh"], padding="longest")
    options = {"max_new_tokens": 3, "do_sample": False}
    expected = client.model.generate(batch, **options).sequences
    assert client.model.generate(**batch, **options).sequences == expected
    with client.model.stream(**batch, **options) as stream:
        list(stream)
    assert stream.result.sequences == expected
    assert client.model.validate(**batch, **options)
    for named, given in zip(client.model.score(**batch), client.model.score(batch), strict=True):
        assert named.logits_logprob == given.logits_logprob
    with client.model.open_session(**batch, max_length=16) as session:
        assert session.position == tuple(map(len, batch.token_ids))
        with pytest.raises(TypeError, match="a session has its rows"):
            session.generate(**batch)
    with pytest.raises(TypeError, match="Give prompts, or input_ids="):
        client.model.generate(batch, **batch)


def test_full_sequences_are_those_of_generate_without_padding(
    client: Lockstep, reference: Reference
):
    batch = client.tokenizer.pad(ROWS)
    out = client.model.generate(batch, max_new_tokens=3, do_sample=False, eos_token_id=[])
    assert out.full_sequences == [row + new for row, new in zip(ROWS, out.sequences, strict=True)]
    theirs = reference.model.generate(
        torch.tensor([ROWS[0]]), max_new_tokens=3, do_sample=False, pad_token_id=0, eos_token_id=-1
    )
    assert theirs.tolist() == out.full_sequences[:1]
    with client.model.open_session([[5]], max_length=8) as session:
        continued = session.generate(max_new_tokens=1)
    with pytest.raises(ValueError, match="token_ids"):
        _ = continued.full_sequences


def test_a_configuration_of_hugging_faces_is_taken_and_keywords_go_before_it(client: Lockstep):
    given = {"max_new_tokens": 3, "do_sample": True, "top_k": 4, "temperature": 0.5}
    expected = client.model.validate([[5]], **given).effective_config
    for config in (given, GenerationConfig(**given)):
        assert client.model.validate([[5]], generation_config=config).effective_config == expected
    changed = client.model.validate([[5]], generation_config=given, max_new_tokens=7)
    assert changed.effective_config == expected | {"max_new_tokens": 7}
    with client.model.open_session([[5]], generation_config=given) as session:
        assert session.effective_config["top_k"] == 4


def test_keywords_of_hugging_faces_that_change_nothing_are_taken(client: Lockstep):
    harmless = {"pad_token_id": 0, "use_cache": True, "return_dict_in_generate": True}
    off = {"output_attentions": False, "streamer": None}
    options = {"max_new_tokens": 2, "do_sample": False}
    expected = client.model.generate([[5]], **options).sequences
    assert client.model.generate([[5]], **options, **harmless, **off).sequences == expected


def test_a_seed_where_nothing_is_drawn_is_a_warning(client: Lockstep):
    greedy = {"do_sample": False, "seed": 3}
    unused = pytest.warns(UserWarning, match="seed has no effect without do_sample=True")
    with unused:
        client.model.generate([[5]], max_new_tokens=1, **greedy)
    with unused:
        client.model.generate([[5]], max_new_tokens=1, do_sample=False, seeds=[3])
    with unused:
        list(client.stream("The", max_new_tokens=1, **greedy))
    with unused:
        client.model.open_session([[5]], **greedy).close()
    # Every warning is an error in tests.
    out = client.model.generate([[5]], max_new_tokens=1, do_sample=True, seed=3)
    client.model.generate([[5]], max_new_tokens=1, do_sample=True, seeds=out.seeds)
    client.model.generate([[5]], max_new_tokens=1, do_sample=False)


WORDS = {"output_logits": True, "output_scores": True, "processor_trace": True}
SAMPLED = {"do_sample": True, "top_k": 5, "temperature": 0.5, "seed": 3}


def test_the_same_words_ask_for_rows_in_every_call(client: Lockstep):
    model = client.model
    out = model.generate([[5, 6]], max_new_tokens=2, **SAMPLED, **WORDS)
    generated = out.details[0].scores[0]
    (scored,) = model.score([[5, 6]], out.sequences, **SAMPLED, **WORDS)
    after = model.compute_logits([[5, 6]], **SAMPLED, **WORDS)
    with model.open_session([[5, 6]], **SAMPLED, **WORDS) as session:
        assert (session.scores == after.scores).all()
        step = session.step([out.sequences[0][:1]], output_scores=True, output_logits=False)
        np.testing.assert_allclose(step.rows[0][0].scores, out.details[0].scores[1].scores)
        assert step.rows[0][0].logits is None
        session.truncate(2)
    assert (generated.logits == after.logits[0]).all()
    assert (generated.scores == after.scores[0]).all()
    np.testing.assert_allclose(scored.scores[0].scores, after.scores[0], rtol=1e-5)
    for given, drawn in zip(
        scored.scores[0].processor_trace, generated.processor_trace, strict=True
    ):
        assert given == (drawn[0], pytest.approx(drawn[1], rel=1e-5))
    assert [name for name, _ in generated.processor_trace] == ["temperature", "top_k"]


def test_what_a_call_returns_by_itself_stays_beside_what_is_asked_for(client: Lockstep):
    assert client.model.compute_logits([[5]], output_scores=True).logits is not None
    assert (
        client.model.compute_logits([[5]], output_scores=True, output_logits=False).logits is None
    )
    selection = ScoreSelection(logits=True, full=True)
    with pytest.raises(ValueError, match="Give selection, or output_scores, not both"):
        client.model.compute_logits([[5]], selection=selection, output_scores=True)
