"""Two tokenizer and two model replicas agree in the end, whoever dies in between."""

import random
import signal
import threading
import time
import uuid
from dataclasses import dataclass, field

import pytest

from lockstep_client import Lockstep, LockstepError, VocabularyRef
from lockstep_client._results.vocabulary import AddedTokens
from tests.checkpoint_factory import make_checkpoint
from tests.correctness.sizes import sizes
from tests.durability.cluster import Cluster, running_cluster
from tests.postgresql import running_postgresql

CONVERGED_WITHIN_S = 15.0


@dataclass
class Writer:
    """Adds tokens through either replica and asks the other when one fails.

    Attributes:
        acknowledged: what was answered, by token.
        attempts: calls in all.
    """

    cluster: Cluster
    number: int
    acknowledged: dict[str, AddedTokens] = field(default_factory=dict)
    attempts: int = 0

    def run(self, count: int) -> None:
        """Adds so many tokens, each until it is acknowledged."""
        dice = random.Random(self.number)
        clients = [
            Lockstep(tokenizer=replica.address, timeout=5.0) for replica in self.cluster.tokenizers
        ]
        for index in range(count):
            token, key = f"<{self.number}:{index}>", str(uuid.uuid4())
            while token not in self.acknowledged:
                self.attempts += 1
                try:
                    self.acknowledged[token] = dice.choice(clients).vocabulary.add_tokens(
                        [token], special=True, idempotency_key=key
                    )
                except LockstepError:
                    time.sleep(0.05)
        for client in clients:
            client.close()


def histories(cluster: Cluster) -> list[list[tuple[VocabularyRef, dict[int, str]]]]:
    """The revisions that each tokenizer replica lists, each from a chain that verifies."""
    listed = []
    for replica in cluster.tokenizers:
        with Lockstep(tokenizer=replica.address) as client:
            assert client.vocabulary.verify().valid
            listed.append([(r.vocabulary, r.tokens) for r in client.vocabulary.revisions()])
    return listed


def converge(cluster: Cluster) -> None:
    """Waits until all four are at the newest revision."""
    deadline = time.monotonic() + CONVERGED_WITHIN_S
    while True:
        newest = [history[-1][0].fingerprint for history in histories(cluster)]
        newest += [state.vocabulary.fingerprint for state in cluster.vocabulary_states()]
        if len(set(newest)) == 1:
            return
        assert time.monotonic() < deadline, newest
        time.sleep(0.1)


# --- Whoever dies --------------------------------------------------------------------------------


@sizes("size", (4, 12, 5), (4, 150, 60))
def test_replicas_converge_and_nothing_acknowledged_is_lost_whoever_is_killed(size, tmp_path):
    num_writers, count, num_kills = size
    checkpoint = make_checkpoint(tmp_path / "tiny", "llama")
    dice = random.Random(7)
    with (
        running_postgresql() as database,
        running_cluster(checkpoint, database.url(database.new_database()), tmp_path) as cluster,
    ):
        writers = [Writer(cluster, number) for number in range(num_writers)]
        threads = [threading.Thread(target=writer.run, args=[count]) for writer in writers]
        for thread in threads:
            thread.start()
        for kill in range(num_kills):
            time.sleep(dice.uniform(0.1, 1.0))
            if kill % 5 == 2:  # the database as well
                database.stop(signal.SIGQUIT)
                database.start()
            else:
                cluster.kill_one(dice).wait()
        for thread in threads:
            thread.join()
        for replica in cluster.all:
            replica.wait()
        converge(cluster)
        _check(cluster, writers, checkpoint_size=320)
        deaths = [replica.deaths for replica in cluster.all]
        print(
            f"\n{sum(w.attempts for w in writers)} calls for {num_writers * count} tokens, {deaths}"
        )


def _check(cluster: Cluster, writers: list[Writer], checkpoint_size: int) -> None:
    first, second = histories(cluster)
    assert first == second
    by_revision = {ref.revision: (ref, tokens) for ref, tokens in first}
    assert sorted(by_revision) == list(range(len(first)))
    added = [token_id for _, tokens in first for token_id in sorted(tokens)]
    assert added == list(range(checkpoint_size, checkpoint_size + len(added)))
    acknowledged = {t: answer for w in writers for t, answer in w.acknowledged.items()}
    for token, answer in acknowledged.items():
        ref, tokens = by_revision[answer.vocabulary.revision]
        assert ref == answer.vocabulary
        assert tokens == {answer.ids[0]: token}
    assert len(added) == len(acknowledged)  # a retry adds nothing twice
    states = cluster.vocabulary_states()
    assert {state.vocabulary.revision for state in states} == {len(first) - 1}
    assert len({state.added_rows_sha256 for state in states}) == 1


# --- Nobody dies ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster(postgresql, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster")
    checkpoint = make_checkpoint(folder / "tiny", "llama")
    store = postgresql.url(postgresql.new_database())
    with running_cluster(checkpoint, store, folder) as running:
        yield running


def test_a_change_made_on_one_replica_can_be_used_at_once_on_all_others(cluster):
    first, second = cluster.tokenizers
    with (
        Lockstep(tokenizer=first.address, model=cluster.models[0].address) as here,
        Lockstep(tokenizer=second.address, model=cluster.models[1].address) as there,
    ):
        for number in range(20):
            token = f"<at once {number}>"
            added = here.vocabulary.add_tokens([token], special=True)
            # Ids from here, models there, and the other way round.
            batch = here.tokenizer.encode(f"a{token}b", parse_special_tokens=True)
            assert added.ids[0] in batch.token_ids[0]
            outputs = [ls.model.generate(batch, max_new_tokens=4) for ls in (here, there)]
            assert outputs[0].sequences == outputs[1].sequences
            assert there.tokenizer.decode([added.ids], skip_special_tokens=False) == [token]


def test_a_key_that_was_used_on_one_replica_gets_the_same_answer_from_the_other(cluster):
    key = str(uuid.uuid4())
    answers = []
    for replica in cluster.tokenizers:
        with Lockstep(tokenizer=replica.address) as client:
            answers.append(
                client.vocabulary.add_tokens(["<same>"], special=True, idempotency_key=key)
            )
    assert answers[0] == answers[1]
