"""Each program of `examples/`, run as its first lines say, and its numbers against transformers."""

import asyncio
import functools
import io
import json
import runpy
import sys

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient
from transformers import AutoModelForCausalLM, AutoTokenizer

import lockstep_client
from examples import (
    classification,
    contrastive_decoding,
    guidance,
    sampling_loop,
    web_service,
)
from lockstep_client import AsyncLockstep, Lockstep
from tests.checkpoint_factory import make_checkpoint
from tests.integration.model_process import model_process
from tests.services import ROOT, Services, running_services


@pytest.fixture
def ls(services: Services):
    with services.client() as client:
        yield client


@pytest.fixture
def run(services, monkeypatch, capsys):
    """Runs a program against the services of the tests, and returns what it prints."""

    def run(name, *arguments, services=services, stdin=""):
        addresses = {"tokenizer": services.tokenizer.address, "model": services.model.address}
        for client in (Lockstep, AsyncLockstep):
            there = functools.partial(client, **addresses)
            monkeypatch.setattr(lockstep_client, client.__name__, there)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="module")
def hugging_face(services: Services):
    """The tokenizer and the model of the services, in transformers."""
    tokenizer = AutoTokenizer.from_pretrained(services.checkpoint)
    return tokenizer, AutoModelForCausalLM.from_pretrained(services.checkpoint).eval()


def log_softmax(model, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].log_softmax(-1)


def test_a_batch_job_answers_every_line_once_and_in_order(run, ls: Lockstep, tmp_path):
    prompts = [f"{number} plus {number} is" for number in range(70)]
    prompts[3] = "too long " * 200
    lines = [json.dumps({"id": i, "prompt": prompt}) for i, prompt in enumerate(prompts)]
    source, target = tmp_path / "prompts.jsonl", tmp_path / "answers.jsonl"
    source.write_text("\n".join(lines[:20]))
    run("batch_job", str(source), str(target))
    source.write_text("\n".join(lines))
    run("batch_job", str(source), str(target))
    answers = [json.loads(line) for line in target.read_text().splitlines()]
    assert [answer["id"] for answer in answers] == list(range(70))
    assert "context" in answers[3]["error"]
    alone = ls.generate(prompts[69], max_new_tokens=64, do_sample=False)
    assert answers[69]["text"] == alone.text


def test_a_conversation_goes_on_when_the_context_is_full(run, monkeypatch):
    asked = []
    stream = Lockstep.stream

    def listen(self, *, messages, **options):
        asked.append([message["content"] for message in messages])
        return stream(self, messages=messages, seed=1, **options)

    monkeypatch.setattr(Lockstep, "stream", listen)
    run("chat", stdin="One\nTwo\n\n")
    first, both, second = asked  # 256 tokens have no room for both and 128 new ones
    assert [first, second] == [["One"], ["Two"]]
    assert both[::2] == ["One", "Two"]


def test_labels_get_the_probabilities_that_transformers_gives_them(run, ls, hugging_face):
    tokenizer, model = hugging_face
    texts = ["What a wonderful film.", "I want my money back."]
    expected = []
    for text in texts:
        prompt = tokenizer(classification.QUESTION.format(text=text))["input_ids"]
        sums = []
        for label in classification.LABELS:
            ids = tokenizer(label, add_special_tokens=False)["input_ids"]
            rows = log_softmax(model, prompt + ids)[len(prompt) - 1 : -1]
            sums.append(rows[range(len(ids)), ids].sum())
        expected.append(torch.stack(sums).softmax(0).numpy())
    shares = classification.label_probabilities(ls, texts)
    np.testing.assert_allclose(shares, expected, rtol=1e-3)
    printed = run("classification", *texts).splitlines()
    assert [line.split("%")[1].strip() for line in printed] == texts


def test_the_perplexity_of_a_long_text_is_that_of_overlapping_windows(run, ls, hugging_face):
    tokenizer, model = hugging_face
    text = "Once upon a time there was a model that counted one, two, three. " * 3
    ids = tokenizer(text)["input_ids"]
    log_p, scored = [], 1
    for first in range(0, len(ids), 16):  # as transformers' page on perplexity does it
        end = min(first + 32, len(ids))
        rows = log_softmax(model, ids[first:end])[scored - first - 1 : -1]
        log_p += rows[range(end - scored), ids[scored:end]].tolist()
        scored = end
        if end == len(ids):
            break
    assert len(log_p) == len(ids) - 1
    expected = np.exp(-np.mean(log_p))
    assert ls.perplexity(text, window=32) == pytest.approx(expected, rel=1e-4)
    both = ls.perplexity([text, text[:20]], window=32)
    assert both == pytest.approx([expected, ls.perplexity(text[:20])], rel=1e-4)
    whole = log_softmax(model, ids)[:-1][range(len(ids) - 1), ids[1:]].mean().item()
    assert float(run("perplexity", stdin=text)) == pytest.approx(np.exp(-whole), abs=0.01)


def test_mirostat_holds_the_surprise_of_a_text(run, ls: Lockstep):
    sampler = sampling_loop.Mirostat(target=2.0, seed=1)
    surprises = []

    def choose(logits: np.ndarray) -> int:
        token = sampling_loop.Mirostat.choose(sampler, logits)
        log_p = logits[token] - np.logaddexp.reduce(logits.astype(np.float64))
        surprises.append(-log_p / np.log(2))
        return token

    sampler.choose = choose
    sampling_loop.continuation(ls, "Once upon a time", 96, sampler)
    assert np.mean(surprises) == pytest.approx(2.0, abs=0.5)
    assert run("sampling_loop", "Once") == run("sampling_loop", "Once")


def test_guidance_is_the_same_by_keyword_by_steps_and_in_transformers(run, ls, hugging_face):
    tokenizer, model = hugging_face
    prompt, negative = "The capital of France is", "The capital is"
    guided = (prompt, negative, 2.0, 16)
    expected = model.generate(
        torch.tensor([tokenizer(prompt)["input_ids"]]),
        attention_mask=torch.ones(1, len(tokenizer(prompt)["input_ids"]), dtype=torch.long),
        negative_prompt_ids=torch.tensor([tokenizer(negative)["input_ids"]]),
        guidance_scale=2.0,
        max_new_tokens=16,
        do_sample=False,
        pad_token_id=0,
    )[0].tolist()[len(tokenizer(prompt)["input_ids"]) :]
    assert guidance.by_keyword(ls, *guided) == guidance.by_steps(ls, *guided) == expected
    printed = run("guidance", prompt, "--away-from", negative).splitlines()
    assert printed[1].split(":", 1)[1].strip() == printed[2].split(":", 1)[1].strip()


def test_contrast_takes_what_leads_over_the_weaker_model(run, ls, hugging_face, services, tmp_path):
    tokenizer, expert = hugging_face
    folder = make_checkpoint(tmp_path / "weaker", "llama", seed=1)
    amateur = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = tokenizer("Once upon a time")["input_ids"]
    expected = []
    while len(expected) < 12 and 0 not in expected:
        wanted = log_softmax(expert, ids + expected)[-1]
        ahead = wanted - log_softmax(amateur, ids + expected)[-1]
        ahead[wanted < wanted.max() + np.log(0.1)] = -torch.inf
        expected.append(int(ahead.argmax()))
    flags = ("--dtype", "fp32", "--tokenizer-address", services.tokenizer.address)
    with model_process(folder, tmp_path, *flags) as weaker:
        addresses = services.tokenizer.address, weaker.service.address
        with Lockstep(*addresses) as other:
            other.wait_until_ready()
            got = contrastive_decoding.continuation(ls, other, "Once upon a time", 12)
        assert got == expected
        printed = run("contrastive_decoding", "Once", "--amateur", weaker.service.address)
        assert "contrast: " in printed


def test_a_tool_token_is_used_with_its_vectors(run, tmp_path):
    with running_services(make_checkpoint(tmp_path / "tiny"), tmp_path) as grown:
        vectors = np.random.default_rng(0).normal(0, 0.3, (2, 64)).astype(np.float32)
        np.save(tmp_path / "search.npy", vectors)
        arguments = ("<search>", "--vectors", str(tmp_path / "search.npy"))
        printed = run("tool_token", *arguments, services=grown)

        tokenizer = AutoTokenizer.from_pretrained(grown.checkpoint)
        tokenizer.add_special_tokens({"additional_special_tokens": ["<search>"]})
        model = AutoModelForCausalLM.from_pretrained(grown.checkpoint).eval()
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        with torch.no_grad():
            model.get_input_embeddings().weight[-1] = torch.tensor(vectors[0])
            model.get_output_embeddings().weight[-1] = torch.tensor(vectors[1])
            ids = tokenizer("Look it up: <search>")["input_ids"]
            logit = model(torch.tensor([ids])).logits[0, -1, -1]
        assert f"as text:   {[ids]}" in printed
        assert f"columns:   321 logit: {logit:.3f}" in printed
        again = run("tool_token", *arguments, services=grown)
        assert again == printed


@pytest.fixture
def web(services: Services, monkeypatch):
    addresses = {"tokenizer": services.tokenizer.address, "model": services.model.address}
    monkeypatch.setattr(web_service, "AsyncLockstep", functools.partial(AsyncLockstep, **addresses))
    with TestClient(web_service.app) as client:
        yield client


def test_the_web_service_streams_the_answer(web, ls: Lockstep):
    question = {"question": "What is the capital of France?", "max_new_tokens": 12}
    response = web.post("/answer", json=question)
    messages = [{"role": "user", "content": question["question"]}]
    assert response.text == ls.generate(messages=messages, max_new_tokens=12).text


def test_the_web_service_answers_with_the_reason_of_a_refusal(web):
    response = web.post("/answer", json={"question": "Hi", "max_new_tokens": 100_000})
    assert response.status_code == 422
    assert response.json()["reason"] in ("CONTEXT_LENGTH_EXCEEDED", "INVALID_FIELD")


async def test_a_browser_that_leaves_ends_its_generation(services: Services, monkeypatch):
    addresses = {"tokenizer": services.tokenizer.address, "model": services.model.address}
    async with AsyncLockstep(**addresses) as client:
        monkeypatch.setattr(web_service.app.state, "ls", client, raising=False)
        received = asyncio.Event()

        async def receive():
            if not received.is_set():
                received.set()
                return {
                    "type": "http.request",
                    "body": b'{"question": "Hi", "max_new_tokens": 200}',
                }
            return {"type": "http.disconnect"}

        async def send(message):
            pass

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/answer",
            "headers": [(b"content-type", b"application/json")],
            "query_string": b"",
            "app": web_service.app,
        }
        with services.model.cancelling("GenerateStream"):
            await web_service.app(scope, receive, send)
