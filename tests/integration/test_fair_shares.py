"""Callers beside each other at real services: who is served, who is refused, and for how long."""

import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from lockstep_client import Lockstep, exceptions
from tests.callers import ROLES, write_principals
from tests.integration.model_process import model_process
from tests.services import running_process

GREEDY_THREADS = 6
GREEDY_TOKENS = 100
SMALL_CALLS = 20
PRINCIPALS = {
    **{name: {"roles": ["inference", "session", "info"]} for name in ("greedy", "small")},
    "metered": {"roles": ["inference", "info"], "quota": {"tokens_per_minute": 3000}},
    "narrow": {"roles": ["inference", "session", "info"], "quota": {"sequences": 2, "sessions": 1}},
}
LENGTH = {"max_new_tokens": GREEDY_TOKENS, "min_new_tokens": GREEDY_TOKENS}


@pytest.fixture(scope="module")
def address(tiny_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shares")
    principals = write_principals(folder / "principals.toml", PRINCIPALS)
    flags = ["--tokenizer-address=none", "--decode-graphs=off", f"--principals={principals}"]
    flags += ["--max-running-sequences=4", "--max-waiting-sequences=12"]
    flags += ["--max-sequences-per-call=16"]
    with model_process(tiny_checkpoint, folder, *flags) as model:
        yield model.service.address


@contextmanager
def called_by(address, token, **options):
    options = {"token": token, "token_in_plain_text": True, **options}
    with Lockstep(tokenizer="localhost:1", model=address, **options) as client:
        yield client.model


@contextmanager
def greedy(address):
    """Asks for more than there is, all the time. Yields the list of the answers so far."""
    answers, stop = [], threading.Event()

    def ask():
        with called_by(address, "greedy") as model:
            while not stop.is_set():
                try:
                    answers.append(model.generate([[5, 6, 7]] * 4, **LENGTH))
                except exceptions.Overloaded:
                    time.sleep(0.01)

    threads = [threading.Thread(target=ask) for _ in range(GREEDY_THREADS)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_small_caller_beside_a_greedy_one_never_waits_for_it_to_finish(address):
    with greedy(address) as answers, called_by(address, "small", retries=0) as model:
        deadline = time.monotonic() + 60
        while model.load().waiting_sequence_count < 8:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        ended = 0
        for _ in range(SMALL_CALLS):
            before = len(answers)
            model.generate([[5]], max_new_tokens=2)
            ended += len(answers) - before
        # Had each waited for a place, a sequence at least had ended in each.
        assert 4 * ended < SMALL_CALLS
    assert answers


def test_a_caller_over_its_quota_of_sequences_is_told_so_whatever_is_free(address):
    with called_by(address, "narrow", retries=0) as model:
        with pytest.raises(exceptions.QuotaExceeded) as refused:
            model.generate([[5]] * 3, concurrency=1, max_new_tokens=1)
        assert refused.value.metadata == {"quota": "sequences", "limit": "2"}
        assert refused.value.retry_delay_s is None
        with model.open_session([[5]]), pytest.raises(exceptions.QuotaExceeded) as refused:
            model.open_session([[5]])
        assert refused.value.metadata == {"quota": "sessions", "limit": "1"}
        assert 0 < refused.value.retry_delay_s <= 300


def test_who_has_used_its_tokens_is_told_when_there_are_more(address):
    with called_by(address, "metered", retries=0) as model:
        refused = None
        while refused is None:
            try:
                model.generate([[5]] * 4, **LENGTH)
            except exceptions.QuotaExceeded as error:
                refused = error
        assert refused.metadata == {"quota": "tokens_per_minute", "limit": "3000"}
        owed = 4 * (GREEDY_TOKENS + 1)
        assert 0 < refused.retry_delay_s <= owed / 50
        time.sleep(refused.retry_delay_s)
        model.generate([[5]] * 4, max_new_tokens=1)


def test_without_credentials_nobody_uses_up_the_vocabulary_and_an_admin_not_within_an_hour(
    tiny_checkpoint, tmp_path
):
    principals = write_principals(
        tmp_path / "principals.toml", {name: {"roles": ROLES} for name in ("ann", "bob")}
    )
    flags = [f"--principals={principals}", "--quota-added-tokens-per-hour=8"]
    flags += ["--allow-anonymous=inference,info"]
    with running_process(
        "tokenizer_service",
        f"--model={tiny_checkpoint}",
        f"--store=sqlite:///{tmp_path / 'vocabulary.db'}",
        *flags,
        folder=tmp_path,
    ) as service:
        service.wait_until_serving()
        options = {"token_in_plain_text": True, "retries": 0}
        stranger = Lockstep(service.address, "localhost:1")
        with stranger, pytest.raises(exceptions.Unauthenticated):
            stranger.vocabulary.add_tokens(["<never>"])
        with Lockstep(service.address, "localhost:1", token="ann", **options) as ann:
            ann.vocabulary.add_tokens([f"<ann-{n}>" for n in range(8)])
            with pytest.raises(exceptions.QuotaExceeded) as refused:
                ann.vocabulary.add_tokens(["<ann-8>"])
        assert refused.value.metadata == {"quota": "added_tokens_per_hour", "limit": "8"}
        assert 400 < refused.value.retry_delay_s <= 450
        with Lockstep(service.address, "localhost:1", token="bob", **options) as bob:
            bob.vocabulary.add_tokens(["<bob>"])
        token = tmp_path / "token"
        token.write_text("bob\n")
        shown = {"LOCKSTEP_TOKEN_FILE": str(token), "LOCKSTEP_TOKEN_IN_PLAIN_TEXT": "1"}
        command = [sys.executable, "-c", "from lockstep_client._cli import main; main()"]
        command += ["vocab", "add", "<command>"]
        for environment, code in (({}, 1), (shown, 0)):
            ran = subprocess.run(
                [*command, "--tokenizer", service.address],
                env={**os.environ, **environment},
                capture_output=True,
                text=True,
                timeout=100,
                check=False,
            )
            assert ran.returncode == code, ran.stderr
            assert ("authorization: Bearer" in ran.stderr) == (code == 1)


def test_a_model_service_shows_its_token_to_the_tokenizer_service(tiny_checkpoint, tmp_path):
    principals = write_principals(
        tmp_path / "principals.toml", {"follower": {"roles": ["info"]}, "other": {"roles": []}}
    )
    token = tmp_path / "token"
    token.write_text("other\n")
    with running_process(
        "tokenizer_service",
        f"--model={tiny_checkpoint}",
        f"--store=sqlite:///{tmp_path / 'vocabulary.db'}",
        f"--principals={principals}",
        folder=tmp_path,
    ) as tokenizer:
        flags = [f"--tokenizer-address={tokenizer.address}", f"--tokenizer-token-file={token}"]
        with model_process(tiny_checkpoint, tmp_path, *flags, ready=False) as model:
            deadline = time.monotonic() + 60
            while not any("PERMISSION_DENIED" in line["reason"] for line in unreachable(model)):
                assert time.monotonic() < deadline, model.log()
                time.sleep(0.05)
            token.write_text("follower\n")  # the next connection reads it
            model.wait_for_health("SERVING")


def unreachable(model):
    return model.events("tokenizer_unreachable")
