"""The power fails while the real service answers `AddTokens`."""

import random

from lockstep.v1 import vocabulary_admin_service_pb2 as admin

from tests.correctness.sizes import sizes
from tests.durability.ledger import Ledger
from tests.durability.recorder import Recorder
from tests.durability.recovery import Expected, Recovery
from tests.integration.tokenizer_process import running_tokenizer
from tests.tokenizer_factory import make_tokenizer_folder
from vocabulary import Reference

FLAGS = ("--template-workers=1", "--log-level=error")


@sizes("calls", 6, 100)
def test_what_a_caller_was_told_is_there_after_a_power_failure(
    library, memory_folder, tmp_path, calls
):
    tokenizer = make_tokenizer_folder(tmp_path / "tiny")
    disk = memory_folder / "disk"
    disk.mkdir()
    store = disk / "vocabulary.sqlite"
    recorder = Recorder(library, disk, memory_folder)
    ledger = Ledger(base_size=400)
    expected = []
    with running_tokenizer(
        tokenizer, tmp_path, *FLAGS, store=store, environment=recorder.environment
    ) as stubs:
        base = stubs.info().vocabulary
        for _ in range(calls):
            key, told = ledger.add(stubs)
            recorder.acknowledge(key.encode())
            after = admin.AddTokensResponse.FromString(told).vocabulary
            expected.append(Expected(key, told, after.fingerprint, after.revision))
    reference = Reference(base.tokenizer_id, 0, base.fingerprint, base.size)
    recovery = Recovery(reference, expected, store, memory_folder)
    findings = recovery.check(recorder.events(), random.Random(7), random_states=3)
    print(f"{calls} calls, {findings.boundaries} boundaries, {findings.states} states")
    assert findings.acknowledged == calls
    assert findings.boundaries > 20 * calls
    assert not findings.problems, findings.examples
