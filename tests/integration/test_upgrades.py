"""A pair, a model and the schema are replaced while callers go on (docs/operations.md, Upgrade)."""

import itertools
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import grpc
import pytest

from lockstep_client import Lockstep
from lockstep_client.exceptions import VocabularyMismatch
from tests.checkpoint_factory import make_checkpoint
from tests.integration.holding_proxy import HoldingProxy
from tests.integration.old_schema import RELEASES, OldSchema, old_service
from tests.services import Services, running_process, running_services

PROMPT = "The capital of France is"
NUM_CALLERS = 3


@dataclass
class Callers:
    """Threads that generate again and again, and what became of it.

    Attributes:
        answers: what was generated, by the name of the pair that was asked.
        failures: what was raised.
    """

    clients: dict[str, Lockstep]
    asked: str
    answers: dict[str, set[str]] = field(default_factory=dict)
    failures: list[Exception] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def _call(self) -> None:
        while not self._over.is_set():
            name = self.asked
            try:
                text = self.clients[name].generate(PROMPT, max_new_tokens=8).text
            except Exception as error:
                self.failures.append(error)
            else:
                self.answers.setdefault(name, set()).add(text)

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Calls as long as the block runs."""
        threads = [threading.Thread(target=self._call) for _ in range(NUM_CALLERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join(60)


def stopped(services: Services) -> None:
    """Stops a pair as a supervisor does, the model service first."""
    for service in (services.model, services.tokenizer):
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(30) == 0


def test_a_pair_is_replaced_by_another_and_no_call_fails(tmp_path):
    """Blue and green: both run under names of their own, and callers move from one to the other."""
    folders = {name: tmp_path / name for name in ("blue", "green")}
    checkpoints = {
        "blue": make_checkpoint(tmp_path / "a", "llama"),
        "green": make_checkpoint(tmp_path / "b", "llama", vocab_size=330, seed=3),
    }
    for folder in folders.values():
        folder.mkdir()
    with ExitStack() as stack:
        waits = ("--session-drain-silence-s", "20")
        blue = stack.enter_context(
            running_services(checkpoints["blue"], folders["blue"], model_flags=waits)
        )
        clients = {"blue": stack.enter_context(blue.client())}
        callers = Callers(clients, "blue")
        with callers.calling():
            green = stack.enter_context(running_services(checkpoints["green"], folders["green"]))
            clients["green"] = stack.enter_context(green.client())
            session = clients["blue"].model.open_session([[5, 6]])
            ids = clients["blue"].tokenizer.encode([PROMPT])
            callers.asked = "green"
            time.sleep(1)  # callers have moved
            blue.model.process.send_signal(signal.SIGTERM)
            for token in range(10):  # what is begun on blue ends there
                session.step([token + 5])
            session.close()
            with pytest.raises(VocabularyMismatch, match="another tokenizer"):
                clients["green"].model.generate(ids)
            stopped(blue)
            served = len(callers.answers["green"])
            assert served
        expected = clients["green"].generate(PROMPT, max_new_tokens=8).text
    assert callers.failures == []
    assert callers.answers["green"] == {expected}
    assert len(callers.answers["blue"]) == 1


def test_a_model_is_replaced_under_a_vocabulary_that_goes_on(tmp_path):
    """Other weights, the same tokenizer and its added tokens, behind one address."""
    old, new = make_checkpoint(tmp_path / "old"), make_checkpoint(tmp_path / "new", seed=3)
    with ExitStack() as stack:
        services = stack.enter_context(running_services(old, tmp_path))
        proxy = HoldingProxy(services.model.address)
        stack.callback(proxy.close)
        # A caller whose connection leads to the replica that goes is refused until that is gone.
        addresses = {"tokenizer": services.tokenizer.address, "model": proxy.address}
        ls = stack.enter_context(Lockstep(**addresses, retries=30))
        ls.vocabulary.add_tokens(["<added>"])
        callers = Callers({"served": ls}, "served")
        with callers.calling():
            (tmp_path / "replica").mkdir()
            replica = stack.enter_context(
                running_process(
                    "model_service",
                    f"--model={new}",
                    f"--tokenizer-address={services.tokenizer.address}",
                    *("--dtype=fp32", "--threads=1"),
                    folder=tmp_path / "replica",
                )
            )
            with Lockstep(tokenizer=services.tokenizer.address, model=replica.address) as other:
                other.wait_until_ready(120)
                expected = other.generate(PROMPT, max_new_tokens=8).text
                revision = other.model.info().vocabulary.revision
            before = set(callers.answers["served"])
            proxy.lead_to(replica.address)
            services.model.process.send_signal(signal.SIGTERM)
            assert services.model.process.wait(30) == 0
            time.sleep(2)
        assert ls.generate(PROMPT, max_new_tokens=8).text == expected
    assert callers.failures == []
    assert callers.answers["served"] == before | {expected}
    assert (len(before), revision) == (1, 1)


@pytest.mark.parametrize("release", RELEASES)
def test_a_client_of_an_earlier_release_is_served(services, release):
    schema = OldSchema(release)
    with (
        grpc.insecure_channel(services.tokenizer.address) as tokenizer,
        grpc.insecure_channel(services.model.address) as model,
        services.client() as ls,
    ):
        encode = schema.message("EncodeRequest")()
        encode.items.add().text = PROMPT
        (encoded,) = schema.call(tokenizer, "/lockstep.v1.TokenizerService/Encode", encode)
        ids = list(encoded.token_batch.sequences[0].ids)
        assert ids == ls.tokenizer.encode([PROMPT]).token_ids[0]

        generate = schema.message("GenerateRequest")()
        generate.prompt.token_batch.sequences.add().ids.extend(ids)
        generate.vocabulary.CopyFrom(encoded.vocabulary)
        generate.generation_config.max_new_tokens = 8
        (generated,) = schema.call(model, "/lockstep.v1.ModelService/Generate", generate)
        new = list(generated.sequences[0].token_ids)
        assert new == ls.model.generate([ids], max_new_tokens=8).sequences[0]

        stream = schema.message("GenerateStreamRequest")(request=generate)
        answers = schema.call(model, "/lockstep.v1.ModelService/GenerateStream", stream)
        assert answers[0].HasField("started")
        assert answers[-1].HasField("completed")

        opening = schema.message("OpenSessionRequest")()
        opening.prompt.CopyFrom(generate.prompt)
        service = "/lockstep.v1.LogitsSessionService"
        (opened,) = schema.call(model, f"{service}/OpenSession", opening)
        step = schema.message("StepRequest")(session_id=opened.session_id)
        step.rows.add().ids.append(new[0])
        (stepped,) = schema.call(model, f"{service}/Step", step)
        assert stepped.rows[0].position == len(ids) + 1
        more = schema.message("StepStreamRequest")()
        more.step.CopyFrom(step)
        (streamed,) = schema.call(model, f"{service}/StepStream", more)
        assert streamed.step.rows[0].position == len(ids) + 2
        close = schema.message("CloseSessionRequest")(session_id=opened.session_id)
        schema.call(model, f"{service}/CloseSession", close)


@pytest.mark.parametrize("release", RELEASES)
def test_a_client_of_today_is_served_by_services_of_an_earlier_release(services, release):
    schema = OldSchema(release)
    with (
        old_service(schema, services.tokenizer.address) as tokenizer,
        old_service(schema, services.model.address) as model,
        Lockstep(tokenizer=tokenizer, model=model) as old,
        services.client() as new,
    ):
        results = []
        for ls in (old, new):
            batch = ls.tokenizer.encode([PROMPT, "one"], padding=True)
            generation = ls.model.generate(batch, max_new_tokens=8)
            with ls.model.open_session([[5, 6]]) as session:
                positions = []
                for _ in range(3):
                    session.step([7])
                    positions.append(list(session.position))
            results.append(
                (
                    batch.token_ids,
                    ls.generate(PROMPT, max_new_tokens=8).text,
                    "".join(ls.stream(PROMPT, max_new_tokens=8)),
                    [list(row) for row in generation.sequences],
                    positions,
                    ls.tokenizer.decode([[5, 6]]),
                    ls.model.info().context_length,
                )
            )
        assert results[0] == results[1]
        with pytest.raises(Exception, match="max_new_tokens"):
            old.generate(PROMPT, max_new_tokens=-1)


def test_there_is_an_earlier_release_to_compare_with():
    assert RELEASES
    assert len(list(itertools.chain(*(OldSchema(release).methods for release in RELEASES)))) > 20
