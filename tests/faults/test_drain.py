"""A model service that is told to stop amid many streams (R11)."""

import signal
import threading
import time

import grpc
from lockstep.v1 import model_service_pb2

from tests.correctness.sizes import sizes
from tests.integration.model_process import model_process, ragged, refusal


def tokens(events) -> list[int]:
    """Reads a stream to its end, which has to be a good one."""
    new, completed = [], False
    for event in events:
        completed |= event.HasField("completed")
        new += [token for delta in event.deltas.deltas for token in delta.token_ids]
    assert completed
    return new


@sizes("num_streams", ci=24, full=100)
def test_all_streams_end_well_after_sigterm_and_new_ones_are_refused(
    tiny_checkpoint, tmp_path, num_streams
):
    flags = ("--max-waiting-sequences", "100", "--tokenizer-address", "none")
    with model_process(tiny_checkpoint, tmp_path, *flags) as service:

        def stream(first: int):
            request = model_service_pb2.GenerateRequest(
                prompt=ragged([first, 5, 6]),
                generation_config={"max_new_tokens": 200, "eos_token_ids": {}},
            )
            return service.model.GenerateStream(
                model_service_pb2.GenerateStreamRequest(request=request), timeout=120
            )

        expected = {first: tokens(stream(first)) for first in range(10, 14)}
        calls = [(10 + index % 4, stream(10 + index % 4)) for index in range(num_streams)]
        for _, call in calls:
            next(call)  # it has been let in
        answers: list[list[int] | None] = [None] * num_streams

        def read(index: int) -> None:
            answers[index] = tokens(calls[index][1])

        readers = [threading.Thread(target=read, args=(index,)) for index in range(num_streams)]
        for reader in readers:
            reader.start()
        start = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        service.wait_for_health("NOT_SERVING")
        unready_s = time.monotonic() - start
        try:
            next(stream(10))
        except grpc.RpcError as error:
            answer = refusal(error)
        assert (answer.reason, answer.retry) == ("DRAINING", True)
        for reader in readers:
            reader.join()
        end = time.monotonic()
        assert service.process.wait(30) == 0
        exit_s = time.monotonic() - end
    assert answers == [expected[first] for first, _ in calls]
    print(f"\n{num_streams} streams, not ready after {unready_s:.3f} s, ended {exit_s:.1f} s after")
