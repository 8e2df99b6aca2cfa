"""Text to text through both real services."""

import asyncio
import json
import re
import shutil
import time

import pytest

from lockstep_client import AsyncLockstep, Lockstep
from tests.services import Services, running_services

PROMPT = "The capital of France is"
MESSAGES = [{"role": "user", "content": "What is the capital of France? 🙂"}]


@pytest.fixture
def client(services: Services):
    with services.client() as client:
        yield client


@pytest.mark.parametrize(
    "source", [{"prompt": PROMPT}, {"messages": MESSAGES}], ids=["text", "chat"]
)
def test_an_answer_is_what_the_calls_that_it_is_made_of_give(client: Lockstep, source):
    answer = client.generate(**source, max_new_tokens=16, do_sample=False)
    if "prompt" in source:
        batch = client.tokenizer.encode(PROMPT)
    else:
        batch = client.tokenizer.apply_chat_template(MESSAGES)
    expected = client.model.generate(batch, max_new_tokens=16, do_sample=False)
    assert answer.prompt_token_ids == batch.token_ids[0]
    assert answer.token_ids == expected.sequences[0]
    assert answer.text == client.tokenizer.decode(expected.sequences[0])
    assert answer.finish_reason == expected.finish_reasons[0]
    assert answer.usage.prompt_token_count == len(batch.token_ids[0])
    assert answer.usage.completion_token_count == len(answer.token_ids)
    assert answer.effective_config["max_new_tokens"] == 16
    assert answer.timing.total_s > 0


def test_the_calls_of_one_answer_have_one_id_in_both_logs_and_say_how_much_they_were(
    services: Services, client: Lockstep
):
    def calls(service, method):
        lines = map(json.loads, service.log.read_text().splitlines())
        return [line for line in lines if str(line.get("method")).endswith(f"/{method}")]

    answer = client.generate(PROMPT, max_new_tokens=5, eos_token_id=[])
    client.tokenizer.encode(PROMPT)
    deadline = time.monotonic() + 5.0
    while not (generated := calls(services.model, "GenerateStream")):  # written after the answer
        assert time.monotonic() < deadline
        time.sleep(0.02)
    model = generated[-1]
    *_, encoded, alone = calls(services.tokenizer, "Encode")
    decoded = calls(services.tokenizer, "Decode")[-1]
    assert model["request_id"] == encoded["request_id"] == decoded["request_id"]
    assert alone["request_id"] != encoded["request_id"]
    assert model["prompt_tokens"] == encoded["tokens"] == len(answer.prompt_token_ids)
    assert model["generated_tokens"] == decoded["tokens"] == 5


def test_pieces_of_a_stream_concatenate_to_the_answer(client: Lockstep):
    # A random model generates broken UTF-8, which is the harder case.
    options = {"max_new_tokens": 64, "do_sample": True, "seed": 5, "eos_token_id": []}
    whole = client.generate(PROMPT, **options)
    with client.stream(PROMPT, **options) as stream:
        pieces = list(stream)
    assert "".join(pieces) == whole.text == stream.result.text
    assert all(pieces)
    assert stream.result.token_ids == whole.token_ids
    assert stream.result.seed == 5


GUIDED = {"max_new_tokens": 12, "do_sample": False, "guidance_scale": 3.0, "eos_token_id": []}


@pytest.mark.parametrize("special", [True, False])
def test_a_negative_prompt_is_a_text_encoded_as_the_prompt_is(client: Lockstep, special):
    options = {"add_special_tokens": special, "negative_prompt": "<s> London"}
    ids = client.tokenizer.encode("<s> London", add_special_tokens=special).token_ids[0]
    batch = client.tokenizer.encode(PROMPT, add_special_tokens=special)
    expected = client.model.generate(batch, negative_prompt=ids, **GUIDED).sequences[0]
    assert client.generate(PROMPT, **options, **GUIDED).token_ids == expected
    with client.stream(PROMPT, **options, **GUIDED) as stream:
        list(stream)
    assert stream.result.token_ids == expected
    assert client.generate(PROMPT, add_special_tokens=special, **GUIDED).token_ids != expected


async def test_the_asyncio_client_encodes_a_negative_prompt_too(services: Services):
    addresses = {"tokenizer": services.tokenizer.address, "model": services.model.address}
    async with AsyncLockstep(**addresses) as client:
        ids = (await client.tokenizer.encode("London")).token_ids[0]
        expected = await client.generate(PROMPT, negative_prompt=ids, **GUIDED)
        answer = await client.generate(PROMPT, negative_prompt="London", **GUIDED)
        assert answer.token_ids == expected.token_ids
        async with client.stream(PROMPT, negative_prompt="London", **GUIDED) as stream:
            assert "".join([piece async for piece in stream]) == expected.text


def test_the_model_takes_a_negative_prompt_as_ids_only(client: Lockstep):
    with pytest.raises(TypeError, match="negative_prompt"):
        client.model.generate([[5]], negative_prompt="London", guidance_scale=3.0)


def test_a_stop_string_ends_the_text_across_tokens(client: Lockstep):
    options = {"max_new_tokens": 24, "do_sample": True, "seed": 5, "eos_token_id": []}
    options |= {"suppress_tokens": [0, 1, 2], "skip_special_tokens": False}
    plain = client.generate(PROMPT, **options)
    stop = "".join(client.tokenizer.decode([i], skip_special_tokens=False) for i in plain.token_ids)
    stop = longest_plain_part(stop)
    assert len(stop) > 4
    before = plain.text.partition(stop)[0]
    answer = client.generate(PROMPT, stop_strings=["\x00", stop], **options)
    with client.stream(PROMPT, stop_strings=stop, **options) as stream:
        assert "".join(stream) == answer.text
    for ended in (answer, stream.result):
        assert (ended.finish_reason, ended.stop_string) == ("stop_string", stop)
        assert ended.text_before_stop == before
        assert ended.token_ids == plain.token_ids[: len(ended.token_ids)]
        assert stop not in client.tokenizer.decode(ended.token_ids[:-1], skip_special_tokens=False)
    assert answer.effective_config["stop_strings"] == ["\x00", stop]


def test_stop_strings_of_the_model_itself_are_honored(services: Services, tmp_path):
    folder = shutil.copytree(services.checkpoint, tmp_path / "stopping")
    every_character = [chr(i) for i in range(0x20, 0x7F)]
    (folder / "generation_config.json").write_text(json.dumps({"stop_strings": every_character}))
    with running_services(folder, tmp_path) as running, running.client() as client:
        answer = client.generate(PROMPT, max_new_tokens=100, do_sample=True, seed=3)
    assert answer.finish_reason == "stop_string"
    assert answer.stop_string in every_character


def longest_plain_part(text: str) -> str:
    """A part of a random model's text that is no broken UTF-8 and is in it once."""
    parts = [part for part in re.split("[^\x20-\x7e]+", text) if text.count(part) == 1]
    return max(parts, key=len)


def test_special_tokens_are_left_out_unless_asked_for(client: Lockstep):
    options = {"max_new_tokens": 3, "allowed_token_ids": None, "do_sample": False}
    kept = client.generate(PROMPT, skip_special_tokens=False, **options)
    assert kept.text == client.tokenizer.decode(kept.token_ids, skip_special_tokens=False)


def test_a_result_before_the_end_of_a_stream_is_refused(client: Lockstep):
    with client.stream(PROMPT, max_new_tokens=8) as stream:
        next(stream)
        with pytest.raises(RuntimeError, match="every item of the stream"):
            _ = stream.result


def test_leaving_a_stream_ends_both_of_its_calls(services: Services, client: Lockstep):
    decoded = services.tokenizer.handled("DecodeStream")
    with services.model.cancelling("GenerateStream"):
        for _ in client.stream(PROMPT, max_new_tokens=200, eos_token_id=[]):
            break
    deadline = time.monotonic() + 5.0
    while services.tokenizer.handled("DecodeStream") == decoded:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_exactly_one_of_text_and_messages_is_taken(client: Lockstep):
    with pytest.raises(TypeError, match="either"):
        client.generate()
    with pytest.raises(TypeError, match="either"):
        client.stream(PROMPT, messages=MESSAGES)


def test_one_text_is_returned(client: Lockstep):
    with pytest.raises(ValueError, match=r"model\.generate"):
        client.generate(PROMPT, num_return_sequences=2)


async def test_the_asyncio_client_gives_the_same(services: Services, client: Lockstep):
    expected = client.generate(PROMPT, max_new_tokens=16, do_sample=False)
    async with AsyncLockstep(services.tokenizer.address, services.model.address) as twin:
        await twin.wait_until_ready(5)
        answer = await twin.generate(PROMPT, max_new_tokens=16, do_sample=False)
        assert (answer.text, answer.token_ids) == (expected.text, expected.token_ids)
        stream = twin.stream(PROMPT, max_new_tokens=16, do_sample=False)
        assert "".join([piece async for piece in stream]) == expected.text
        assert stream.result.token_ids == expected.token_ids


async def test_many_streams_at_once_give_what_each_gives_alone(
    services: Services, client: Lockstep
):
    prompts = [f"{PROMPT} {number}" for number in range(12)]
    alone = [client.generate(prompt, max_new_tokens=12, do_sample=False).text for prompt in prompts]

    async def together(twin: AsyncLockstep, prompt: str) -> str:
        stream = twin.stream(prompt, max_new_tokens=12, do_sample=False)
        return "".join([piece async for piece in stream])

    async with AsyncLockstep(services.tokenizer.address, services.model.address) as twin:
        texts = await asyncio.gather(*(together(twin, prompt) for prompt in prompts))
    assert texts == alone


async def test_cancelling_the_task_cancels_the_call(services: Services):
    async with AsyncLockstep(services.tokenizer.address, services.model.address) as twin:
        with services.model.cancelling("GenerateStream"):
            task = asyncio.create_task(twin.generate(PROMPT, max_new_tokens=200, eos_token_id=[]))
            while not (await twin.model.load()).running_sequence_count:
                assert not task.done()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
