"""Every call of the client ends, by its deadline, with an answer or one of our exceptions."""

import asyncio
import json
import shutil
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing, suppress
from threading import Thread

import grpc
import pytest
from lockstep.v1 import tokenizer_service_pb2 as messages
from lockstep.v1 import tokenizer_service_pb2_grpc as services_pb
from lockstep.v1 import vocabulary_admin_service_pb2 as admin_messages
from lockstep.v1 import vocabulary_admin_service_pb2_grpc as admin_services_pb
from lockstep.v1 import vocabulary_pb2

from lockstep_client import (
    AsyncLockstep,
    ConnectionFailed,
    DeadlineExceeded,
    Lockstep,
    LockstepError,
    exceptions,
)
from lockstep_client._transport import endpoint
from lockstep_client._transport.pulse import QUESTION_TIMEOUT_S
from rpc import errors
from tests.integration.holding_proxy import holding_proxy
from tests.integration.leaving_peer import leaving_peer
from tests.integration.model_process import model_process
from tests.integration.rpc_probe import running
from tests.services import Services

LATE_S = 5.0
"""How much later than its deadline a call may end on a busy machine."""

STREAMS = {
    "GenerateStream": lambda ls: ls.model.generate([[5]]),
    "GetVocabulary": lambda ls: list(ls.tokenizer.vocabulary()),
    "GetTokenizerArtifact": lambda ls: ls.tokenizer.artifact(),
    "ExportRevisions": lambda ls: list(ls.vocabulary.export_revisions()),
    "DecodeStream": lambda ls: ls.tokenizer.open_decoder().feed([5]),
    "ImportRevisions": lambda ls: ls.vocabulary.import_revisions(b"{}"),
    "Encode": lambda ls: ls.tokenizer.encode("a"),
}


def _ending(call: Callable[[], object], limit_s: float) -> LockstepError:
    """Makes a call that must fail within a time, in a thread that may be left behind."""
    caught: list[BaseException] = []

    def make() -> None:
        try:
            call()
        except BaseException as error:  # whatever it is, it is what the caller gets
            caught.append(error)

    thread = Thread(target=make, daemon=True)
    thread.start()
    thread.join(limit_s)
    assert not thread.is_alive(), "The call hangs."
    (error,) = caught
    assert isinstance(error, LockstepError), repr(error)
    return error


def _client(address: str, timeout_s: float) -> Lockstep:
    return Lockstep(tokenizer=address, model=address, timeout=timeout_s, stream_timeout=timeout_s)


@pytest.mark.parametrize("call", STREAMS.values(), ids=STREAMS)
def test_a_call_ends_whose_service_leaves_as_it_arrives(call):
    with leaving_peer() as address, _client(address, 3.0) as ls:
        assert isinstance(_ending(lambda: call(ls), 3.0 + LATE_S), ConnectionFailed)


LISTS = {
    "Generate": lambda ls: ls.model.generate([[5], [6]], timeout=1.0),
    "Score": lambda ls: ls.model.score([[5, 6], [6, 7]], timeout=1.0),
    "Encode": lambda ls: ls.tokenizer.encode(["a", "b"], timeout=1.0),
    "Decode": lambda ls: ls.tokenizer.decode_rows([[5], [6]], timeout=1.0),
    "CountTokens": lambda ls: ls.tokenizer.count_tokens(["a", "b"], timeout=1.0),
}


@pytest.mark.parametrize("call", LISTS.values(), ids=LISTS)
def test_a_call_with_several_rows_ends_by_its_timeout_where_nobody_answers(call):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with _client(address, 60.0) as ls:
            assert isinstance(_ending(lambda: call(ls), 1.0 + LATE_S), DeadlineExceeded)


def test_calls_end_while_a_service_refuses_its_model(tiny_checkpoint, tmp_path):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "refused")
    (folder / "generation_config.json").write_text(json.dumps({"penalty_alpha": 0.6}))

    with (
        model_process(folder, tmp_path, ready=False) as model,
        _client(model.service.address, 3.0) as ls,
        ThreadPoolExecutor(6) as callers,
    ):

        def call_until_it_has_ended() -> set[type[LockstepError]]:
            reasons = set()
            while model.process.poll() is None:
                reasons.add(type(_ending(lambda: ls.model.generate([[5]]), 3.0 + LATE_S)))
            return reasons

        calls = [callers.submit(call_until_it_has_ended) for _ in range(6)]
        reasons = set.union(*(call.result() for call in calls))
    assert reasons <= {exceptions.Loading, exceptions.Draining, ConnectionFailed, DeadlineExceeded}


def test_a_read_that_grpc_leaves_waiting_ends_soon_after_the_deadline(monkeypatch):
    hanging = [*endpoint.CHANNEL_OPTIONS, ("grpc.enable_retries", 1)]
    monkeypatch.setattr(endpoint.Endpoint, "options", lambda self, **keywords: hanging)
    with leaving_peer() as address, _client(address, 1.0) as ls:
        began = time.monotonic()
        error = _ending(lambda: ls.model.generate([[5]]), 1.0 + LATE_S)
        assert isinstance(error, DeadlineExceeded)
        assert time.monotonic() - began > 1.0


async def test_a_call_that_a_connection_at_its_end_has_not_taken_is_made_once_on_the_next(
    services: Services,
):
    with Lockstep(model=services.model.address) as observer:
        num_sessions = observer.model.load().session_count
        with leaving_peer(then=services.model.address) as address, Lockstep(model=address) as ls:
            session = await asyncio.to_thread(ls.model.open_session, [[5, 6]])
            assert observer.model.load().session_count == num_sessions + 1
            session.close()
        with leaving_peer(then=services.model.address) as address:
            async with AsyncLockstep(model=address) as als, await als.model.open_session([[5, 6]]):
                assert observer.model.load().session_count == num_sessions + 1


async def test_a_stream_both_ways_that_a_connection_at_its_end_has_not_taken_goes_over_the_next(
    services: Services,
):
    model, tokenizer = services.model.address, services.tokenizer.address
    with Lockstep(model=model) as observer, observer.model.open_session([[5, 6]]) as session:
        # The first connection is that of calls with one answer.
        with leaving_peer(model, num_passed=1) as address, Lockstep(model=address) as ls:
            found = await asyncio.to_thread(ls.model.get_session, session.session_id)
            with found.step_stream() as stream:
                assert await asyncio.to_thread(_positions, stream, 7, 8) == [3, 4]
        with leaving_peer(model, num_passed=1) as address:
            async with AsyncLockstep(model=address) as als:
                found = await als.model.get_session(session.session_id)
                async with found.step_stream() as stream:
                    assert [(await stream.step([id])).rows[0][0].position for id in (9, 10)] == [
                        5,
                        6,
                    ]
        assert observer.model.get_session(session.session_id).token_ids() == [[5, 6, 7, 8, 9, 10]]
    with leaving_peer(tokenizer) as address, Lockstep(tokenizer=address) as ls:
        assert await asyncio.to_thread(ls.tokenizer.open_decoder().feed, [40]) == "F"


def _positions(stream, *ids):
    return [stream.step([id]).rows[0][0].position for id in ids]


class Failing(services_pb.TokenizerServiceServicer):
    """Fails calls in one way, the first so many of them, and counts them."""

    def __init__(self, fail: Callable[[grpc.aio.ServicerContext], object], times: int = 99):
        self.fail = fail
        self.times = times
        self.calls = 0

    async def GetTokenizerInfo(self, request, context):
        await self._fail(context)
        return messages.GetTokenizerInfoResponse(model_type="BPE")

    async def GetVocabulary(self, request, context):
        await self._fail(context)
        yield messages.GetVocabularyResponse(entries=[vocabulary_pb2.VocabularyEntry(id=7)])

    async def DecodeStream(self, request_iterator, context):
        await self._fail(context)
        async for request in request_iterator:
            yield messages.DecodeStreamResponse(text=" ".join(map(str, request.ids)))

    async def _fail(self, context):
        self.calls += 1
        if self.calls <= self.times:
            await self.fail(context)


async def _drain(context):
    raise errors.Draining


async def _cancel(context):
    await context.abort(grpc.StatusCode.CANCELLED)


async def _wait(context):
    await asyncio.Event().wait()


@pytest.mark.parametrize("timeout_s", [0.5, 1.5])
async def test_a_timeout_does_not_hide_that_a_service_drains(timeout_s):
    servicer = Failing(_drain)  # states one second
    async with running(servicer) as (server, _):
        address = f"127.0.0.1:{server.port}"
        with _client(address, timeout_s) as ls:
            for call in (ls.tokenizer.info, lambda: list(ls.tokenizer.vocabulary())):
                assert isinstance(
                    await asyncio.to_thread(_ending, call, timeout_s + LATE_S), exceptions.Draining
                )
        async with AsyncLockstep(
            tokenizer=address, timeout=timeout_s, stream_timeout=timeout_s
        ) as als:
            with pytest.raises(exceptions.Draining):
                await als.tokenizer.info()
            with pytest.raises(exceptions.Draining):
                [_ async for _ in als.tokenizer.vocabulary()]
    assert servicer.calls == 4 * (1 if timeout_s < 1 else 2)


async def test_a_call_that_the_service_cancels_is_made_again():
    servicer = Failing(_cancel, times=1)
    async with running(servicer) as (server, _):
        address = f"127.0.0.1:{server.port}"
        with _client(address, 10.0) as ls:
            info = await asyncio.to_thread(ls.tokenizer.info)
            assert info.model_type == "BPE"
            servicer.calls = 0
            entries = await asyncio.to_thread(lambda: list(ls.tokenizer.vocabulary()))
            assert [entry.id for entry in entries] == [7]
            servicer.calls = 0
            with ls.tokenizer.open_decoder() as decoder:
                assert await asyncio.to_thread(decoder.feed, [5]) == "5"
                assert await asyncio.to_thread(decoder.feed, [6, 7]) == "6 7"
        async with AsyncLockstep(tokenizer=address) as als:
            servicer.calls = 0
            assert (await als.tokenizer.info()).model_type == "BPE"
            servicer.calls = 0
            assert [entry.id async for entry in als.tokenizer.vocabulary()] == [7]
            servicer.calls = 0
            async with als.tokenizer.open_decoder() as decoder:
                assert await decoder.feed([5]) == "5"
                assert await decoder.feed([6, 7]) == "6 7"


async def test_nothing_goes_on_waiting_for_the_requests_of_a_call_that_has_failed():
    async with (
        running(Failing(_drain)) as (server, _),
        AsyncLockstep(tokenizer=f"127.0.0.1:{server.port}") as ls,
    ):
        before = asyncio.all_tasks()
        async with ls.tokenizer.open_decoder() as decoder:
            with pytest.raises(exceptions.Draining):
                await decoder.feed([5])
        left = [t for t in asyncio.all_tasks() - before if "_consume_request" in repr(t)]
        if left:
            _, waiting = await asyncio.wait(left, timeout=LATE_S)
            assert not waiting


async def test_a_stream_is_not_repeated_once_it_has_begun():
    class Breaking(Failing):
        async def GetVocabulary(self, request, context):
            self.calls += 1
            yield messages.GetVocabularyResponse(
                entries=[vocabulary_pb2.VocabularyEntry(id=self.calls)]
            )
            await self.fail(context)

    servicer = Breaking(_drain)
    async with running(servicer) as (server, _):
        with _client(f"127.0.0.1:{server.port}", 10.0) as ls:

            def read() -> list[int]:
                ids = []
                with suppress(exceptions.Draining):
                    ids += [entry.id for entry in ls.tokenizer.vocabulary()]
                return ids

            entries = ls.tokenizer.vocabulary()
            assert (await asyncio.to_thread(next, entries)).id == 1
            with pytest.raises(exceptions.Draining):
                await asyncio.to_thread(next, entries)
    assert servicer.calls == 1


async def test_streams_both_ways_are_not_repeated_once_they_have_answered():
    class Breaking(Failing):
        async def DecodeStream(self, request_iterator, context):
            self.calls += 1
            await anext(aiter(request_iterator))
            yield messages.DecodeStreamResponse(text="a")
            await self.fail(context)

    servicer = Breaking(_drain)
    async with running(servicer) as (server, _):
        address = f"127.0.0.1:{server.port}"
        with _client(address, 10.0) as ls, ls.tokenizer.open_decoder() as decoder:
            assert await asyncio.to_thread(decoder.feed, [5]) == "a"
            with pytest.raises(exceptions.Draining):
                await asyncio.to_thread(decoder.feed, [6])
        async with AsyncLockstep(tokenizer=address) as als, als.tokenizer.open_decoder() as twin:
            assert await twin.feed([5]) == "a"
            with pytest.raises(exceptions.Draining):
                await twin.feed([6])
    assert servicer.calls == 2


async def test_a_client_that_is_closed_says_so_to_calls_that_run_and_that_come():
    async with running(Failing(_wait)) as (server, _):
        address = f"127.0.0.1:{server.port}"
        ls = _client(address, 60.0)
        calls = [
            ls.tokenizer.info,
            lambda: list(ls.tokenizer.vocabulary()),
            lambda: ls.tokenizer.open_decoder().feed([5]),
        ]
        waiting = [asyncio.create_task(asyncio.to_thread(_ending, call, 60.0)) for call in calls]
        await asyncio.sleep(0.5)
        await asyncio.to_thread(ls.close)
        for error in await asyncio.gather(*waiting):
            assert isinstance(error, exceptions.Cancelled)
        for call in calls:
            assert isinstance(await asyncio.to_thread(_ending, call, 60.0), exceptions.Cancelled)


async def test_an_asyncio_client_that_is_closed_says_so_too():
    async with running(Failing(_wait)) as (server, _):
        ls = AsyncLockstep(tokenizer=f"127.0.0.1:{server.port}")

        async def read() -> None:
            async for _ in ls.tokenizer.vocabulary():
                pass

        calls = [ls.tokenizer.info, read, lambda: ls.tokenizer.open_decoder().feed([5])]
        waiting = [asyncio.create_task(call()) for call in calls]
        await asyncio.sleep(0.5)
        await ls.close()
        for error in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(error, exceptions.Cancelled), repr(error)
        for call in calls:
            with pytest.raises(exceptions.Cancelled):
                await call()


async def test_cancelling_a_task_is_not_taken_for_anything_else():
    async with (
        running(Failing(_wait)) as (server, _),
        AsyncLockstep(tokenizer=f"127.0.0.1:{server.port}") as ls,
    ):
        task = asyncio.create_task(ls.tokenizer.info())
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await ls.tokenizer.info()


async def test_every_kind_of_call_to_a_service_that_stopped_answering_fails_at_once(
    services: Services,
):
    with (
        holding_proxy(services.tokenizer.address) as tokenizer,
        holding_proxy(services.model.address) as model,
    ):
        async with AsyncLockstep(tokenizer=tokenizer.address, model=model.address) as ls:
            session = await ls.model.open_session([[5, 6]])
            await ls.tokenizer.info()
            for proxy, ask in ((tokenizer, ls.tokenizer.info), (model, ls.model.info)):
                proxy.hold()
                with pytest.raises(DeadlineExceeded):
                    await ask(timeout=0.3)
            await asyncio.sleep(QUESTION_TIMEOUT_S + 1.0)  # nobody has said that he is there
            began = time.monotonic()
            for call in (
                ls.tokenizer.open_decoder().feed([5]),
                session.step_stream().step([[7]]),
                session.generate(max_new_tokens=1),
                ls.vocabulary.import_revisions(b"{}"),
            ):
                with pytest.raises(ConnectionFailed, match="stopped answering"):
                    await call
            assert time.monotonic() - began < 10.0  # their own timeout is ten minutes
            model.release()
            await session.close()


async def test_every_kind_of_call_of_the_blocking_client_fails_at_once_too(services: Services):
    with (
        holding_proxy(services.tokenizer.address) as tokenizer,
        holding_proxy(services.model.address) as model,
        Lockstep(tokenizer=tokenizer.address, model=model.address) as ls,
    ):
        session = ls.model.open_session([[5, 6]])
        ls.tokenizer.info()
        for proxy, ask in ((tokenizer, ls.tokenizer.info), (model, ls.model.info)):
            proxy.hold()
            with pytest.raises(DeadlineExceeded):
                await asyncio.to_thread(ask, timeout=0.3)
        await asyncio.sleep(QUESTION_TIMEOUT_S + 1.0)  # nobody has said that he is there
        for call in (
            lambda: ls.tokenizer.open_decoder().feed([5]),
            lambda: session.step_stream().step([[7]]),
            lambda: session.generate(max_new_tokens=1),
            lambda: ls.vocabulary.import_revisions(b"{}"),
        ):
            error = await asyncio.to_thread(_ending, call, 10.0)  # its own timeout is ten minutes
            assert isinstance(error, ConnectionFailed)
            assert "stopped answering" in str(error)
        model.release()
        await asyncio.to_thread(session.close)


async def test_an_upload_that_is_not_answered_gives_reason_to_doubt_the_service(
    services: Services,
):
    with holding_proxy(services.tokenizer.address) as proxy:
        with Lockstep(tokenizer=proxy.address) as ls:
            await asyncio.to_thread(ls.tokenizer.info)
            proxy.hold()
            with pytest.raises(DeadlineExceeded):
                await asyncio.to_thread(ls.vocabulary.import_revisions, b"{}", timeout=0.3)
            await asyncio.sleep(QUESTION_TIMEOUT_S + 1.0)
            with pytest.raises(ConnectionFailed, match="stopped answering"):
                await asyncio.to_thread(ls.tokenizer.info)
            proxy.release()
        async with AsyncLockstep(tokenizer=proxy.address) as als:
            await als.tokenizer.info()
            proxy.hold()
            with pytest.raises(DeadlineExceeded):
                await als.vocabulary.import_revisions(b"{}", timeout=0.3)
            await asyncio.sleep(QUESTION_TIMEOUT_S + 1.0)
            with pytest.raises(ConnectionFailed, match="stopped answering"):
                await als.tokenizer.info()


class Exporting(admin_services_pb.VocabularyAdminServiceServicer):
    """Exports without end; `left` is set by every call that its caller has left."""

    def __init__(self):
        self.left = asyncio.Event()

    async def ExportRevisions(self, request, context):
        try:
            while True:
                yield admin_messages.ExportRevisionsResponse(data=b"piece")
                await asyncio.sleep(0.01)
        finally:
            self.left.set()


class Importing(admin_services_pb.VocabularyAdminServiceServicer):
    """Cancels every call that follows one that was answered, and keeps what it is sent."""

    def __init__(self):
        self.received = []

    async def ImportRevisions(self, request_iterator, context):
        self.received.append(b"".join([request.data async for request in request_iterator]))
        if len(self.received) % 2:
            await _cancel(context)
        return admin_messages.ImportRevisionsResponse()


async def test_an_import_is_made_again_unless_its_pieces_can_be_read_once():
    servicer, server = Importing(), grpc.aio.server()
    admin_services_pb.add_VocabularyAdminServiceServicer_to_server(servicer, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        with Lockstep(tokenizer=address) as ls:
            await asyncio.to_thread(ls.vocabulary.import_revisions, [b"a", b"b"])
            with pytest.raises(ConnectionFailed):
                await asyncio.to_thread(ls.vocabulary.import_revisions, iter([b"c"]))
        servicer.received.append(b"")
        async with AsyncLockstep(tokenizer=address) as als:
            await als.vocabulary.import_revisions(b"d")
            with pytest.raises(ConnectionFailed):
                await als.vocabulary.import_revisions(iter([b"e"]))
        assert servicer.received == [b"ab", b"ab", b"c", b"", b"d", b"d", b"e"]
    finally:
        await server.stop(None)


async def test_leaving_an_export_early_ends_its_call():
    servicer, server = Exporting(), grpc.aio.server()
    admin_services_pb.add_VocabularyAdminServiceServicer_to_server(servicer, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        with Lockstep(tokenizer=address) as ls, closing(ls.vocabulary.export_revisions()) as pieces:
            assert await asyncio.to_thread(next, pieces) == b"piece"
            await asyncio.to_thread(pieces.close)
            await asyncio.wait_for(servicer.left.wait(), 30)
        servicer.left.clear()
        async with AsyncLockstep(tokenizer=address) as als:
            async with aclosing(als.vocabulary.export_revisions()) as apieces:
                assert await anext(apieces) == b"piece"
            await asyncio.wait_for(servicer.left.wait(), 30)
    finally:
        await server.stop(None)
