"""A client can use what it has added, with ids that say nothing of their vocabulary."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from lockstep_client import AsyncLockstep, NewToken
from tests.checkpoint_factory import make_checkpoint
from tests.services import running_services


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """Both services, for tests that grow the vocabulary."""
    folder = tmp_path_factory.mktemp("own_writes")
    with running_services(make_checkpoint(folder / "tiny", "llama"), folder) as services:
        yield services


@pytest.fixture
def client(grown):
    with grown.client() as client:
        yield client


def test_a_new_id_can_be_used_at_once(client):
    for number in range(20):
        added = client.vocabulary.add_tokens([f"<at-once-{number}>"], special=True)
        out = client.model.generate([[5, added.ids[0]]], max_new_tokens=1)
        assert out.vocabulary.revision >= added.vocabulary.revision
        assert client.tokenizer.decode([[5, added.ids[0]]], skip_special_tokens=False)


def test_every_call_of_the_model_can_use_it(client):
    model = client.model
    calls = (
        lambda rows: model.score(rows),
        lambda rows: model.compute_logits(rows),
        lambda rows: model.validate(rows),
        lambda rows: model.open_session(rows).close(),
        lambda rows: list(model.stream(rows, max_new_tokens=1)),
        lambda rows: model.compute_logits([[5, 6]], bad_words_ids=rows),
    )
    for number, call in enumerate(calls):
        added = client.vocabulary.add_tokens([f"<everywhere-{number}>"], special=True)
        call([[5, added.ids[0]]])


def test_a_session_is_rebound_to_what_the_client_has_added(client):
    with client.model.open_session([[5]], max_length=8) as session:
        added = client.vocabulary.add_tokens(["<rebound>"], special=True)
        assert session.rebind().revision >= added.vocabulary.revision
        session.step([added.ids])


def test_what_another_client_has_added_can_be_used_too(grown, client):
    known = client.model.info().vocabulary
    with grown.client() as other:
        added = other.vocabulary.add_tokens(["<of-another>"], special=True)
        other.model.compute_logits([added.ids])  # both services have it
    assert client.model.compute_logits([added.ids]).vocabulary.revision > known.revision


def test_a_dry_run_asks_for_nothing(client):
    planned = client.vocabulary.add_tokens(["<planned>"], special=True, dry_run=True)
    out = client.model.compute_logits([[5]])
    assert out.vocabulary.revision < planned.vocabulary.revision


def test_threads_and_tasks_read_their_own_writes(grown, client):
    def add_and_use(number):
        added = client.vocabulary.add_tokens([NewToken(f"<thread-{number}>", special=True)])
        return client.model.compute_logits([added.ids]).vocabulary.size > added.ids[0]

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(add_and_use, range(8)))

    async def add_and_use_again():
        async with AsyncLockstep(grown.tokenizer.address, grown.model.address) as client:

            async def one(number):
                added = await client.vocabulary.add_tokens([f"<task-{number}>"], special=True)
                out = await client.model.compute_logits([added.ids])
                return out.vocabulary.size > added.ids[0]

            return await asyncio.gather(*map(one, range(8)))

    assert all(asyncio.run(add_and_use_again()))
