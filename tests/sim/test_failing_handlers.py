"""What a server logs of handlers that end with an exception, in virtual time."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from tests.protocol.raw import raw_client, settle
from tests.support.http3 import HttpClient
from tests.support.logs import written

import wtio
from wtio.testing import Network, run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Handler = Callable[[wtio.WebTransportSession], Awaitable[None]]

MINUTE = 60
SMALL = wtio.Limits(line=10, bidirectional_streams=1)


# -- handlers that leave to the server what their client does


async def echo(session: wtio.WebTransportSession) -> None:
    async for stream in session.incoming_bidirectional_streams():
        await stream.write(data=await stream.read_all(), end_stream=True)


async def echo_in_groups(session: wtio.WebTransportSession) -> None:
    async def one(stream: wtio.WebTransportStream) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(turn_round(stream))

    async with asyncio.TaskGroup() as tasks:
        async for stream in session.incoming_bidirectional_streams():
            tasks.create_task(one(stream))


async def turn_round(stream: wtio.WebTransportStream) -> None:
    await stream.write(data=await stream.read_all(), end_stream=True)


async def read_lines(session: wtio.WebTransportSession) -> None:
    async for stream in session.incoming_bidirectional_streams():
        while line := await stream.readline():
            await stream.write(data=line)


async def read_records(session: wtio.WebTransportSession) -> None:
    async for stream in session.incoming_bidirectional_streams():
        await stream.readexactly(n=100)


async def write_much(session: wtio.WebTransportSession) -> None:
    async for stream in session.incoming_bidirectional_streams():
        await stream.write_all(data=bytes(10**8))


async def echo_datagrams(session: wtio.WebTransportSession) -> None:
    async for data in session.incoming_datagrams():
        session.send_datagram(data * 1000)


async def open_streams(session: wtio.WebTransportSession) -> None:
    async for _ in session.incoming_bidirectional_streams():
        for _ in range(1000):
            await session.create_bidirectional_stream(wait_until_available=False)


async def reset(session: wtio.WebTransportSession) -> None:
    stream = await session.create_bidirectional_stream()
    await stream.write(data=b"x")
    await stream.reset(error_code=7)


async def stop(session: wtio.WebTransportSession) -> None:
    stream = await session.create_bidirectional_stream()
    await stream.write(data=b"x")
    await stream.stop_receiving(error_code=7)
    await asyncio.sleep(0.1)
    await stream.close()


async def finish(session: wtio.WebTransportSession) -> None:
    stream = await session.create_bidirectional_stream()
    await stream.write(data=b"x", end_stream=True)


async def go_on_and_on(session: wtio.WebTransportSession) -> None:
    stream = await session.create_bidirectional_stream()
    await stream.write(data=b"x" * 100)
    await session.wait_closed()


async def say_hello(session: wtio.WebTransportSession) -> None:
    session.send_datagram(b"hello")


CLIENTS: dict[str, tuple[Handler, Handler, int, str]] = {
    "resets": (echo, reset, logging.INFO, "StreamResetError"),
    "resets in a task of a group": (echo_in_groups, reset, logging.INFO, "StreamResetError"),
    "stops": (write_much, stop, logging.INFO, "StreamStoppedError"),
    "stops in a task of a group": (echo_in_groups, stop, logging.INFO, "StreamStoppedError"),
    "ends too early": (read_records, finish, logging.INFO, "IncompleteReadError"),
    "ends no line": (read_lines, go_on_and_on, logging.INFO, "ReadLimitError"),
    "takes small datagrams": (echo_datagrams, say_hello, logging.WARNING, "DatagramTooLargeError"),
    "allows few streams": (open_streams, go_on_and_on, logging.WARNING, "StreamCreditError"),
}


@pytest.mark.parametrize("what", CLIENTS)
def test_what_a_client_does_is_one_line_without_traceback_and_then_a_number(
    what: str, log: pytest.LogCaptureFixture
) -> None:
    handler, act, level, name = CLIENTS[what]

    async def main() -> None:
        network = Network()
        async with network.serve(handler, limits=SMALL):
            if level == logging.INFO:
                # Python shows warnings without any configuration: somebody who tries a handler sees why it ended.
                await fail(network, act, 1)
                [(first, text, has_traceback)] = written(log)
                assert (first, has_traceback) == (logging.WARNING, False)
                assert f"handler ended early (further ones are at INFO): {name}: " in text
            await fail(network, act, 50)
            lines = written(log)
            assert len(lines) == 1
            assert lines[0][0] == level
            assert not lines[0][2]
            assert f"handler ended early: {name}: " in lines[0][1]
            await asyncio.sleep(MINUTE)
            assert written(log) == [(level, f"49 more failures like the last one of {name}", False)]
            # After a minute, there is a line to read again.
            await fail(network, act, 3)
            assert len(written(log)) == 1
        # What was counted is logged before the server is gone.
        assert written(log) == [(level, f"2 more failures like the last one of {name}", False)]

    run(main())


async def fail(network: Network, act: Handler, times: int) -> None:
    """Let a client make handlers end, one after the other; each sees the documented end of its session."""
    for _ in range(times):
        async with network.connect(limits=SMALL) as session:
            await act(session)
            info = await session.wait_closed()
            assert (info.code, info.reason) == (258, "internal error")


def test_the_client_reads_what_the_code_of_a_handler_that_raised_means() -> None:
    async def fail_at_once(stream: wtio.WebTransportStream) -> None:
        raise RuntimeError(await stream.read())

    async def handler(session: wtio.WebTransportSession) -> None:
        if session.path == "/streams":
            await session.serve_streams(fail_at_once)
        raise RuntimeError("a fault of the application")

    words = "258 (wtio sends it when a handler or an `async with` block raises)"

    async def main() -> None:
        network = Network()
        async with network.serve(handler):
            async with network.connect("https://localhost/streams") as session:
                stream = await session.create_bidirectional_stream()
                await stream.write(data=b"x")
                with pytest.raises(wtio.StreamResetError) as reset:
                    await stream.read()
                with pytest.raises(wtio.StreamStoppedError) as stopped:
                    await stream.write(data=b"more")
            async with network.connect() as session:
                with pytest.raises(wtio.SessionClosedError) as closed:
                    await session.receive_datagram()
            assert str(reset.value) == f"stream 4 was reset by the peer with application code {words}"
            assert str(stopped.value).endswith(f"the peer stopped receiving with application code {words}")
            text = f"session closed by the peer with code {words}: internal error"
            assert (str(closed.value), repr(closed.value)) == (text, f"SessionClosedError('{text}')")
            assert session.report.end is not None
            assert session.report.end.code_name == f"application code {words}"

    run(main())


async def read_from_streams(session: wtio.WebTransportSession) -> None:
    async def read(stream: wtio.WebTransportStream) -> None:
        await stream.readexactly(n=100)

    await session.serve_streams(read)


STREAMS: dict[str, tuple[Handler, int]] = {
    "the client gives the stream up": (reset, logging.INFO),
    "what comes is cut short": (finish, logging.WARNING),
}


@pytest.mark.parametrize("what", STREAMS)
def test_the_first_handler_of_a_stream_that_a_client_cuts_short_is_a_warning(
    what: str, log: pytest.LogCaptureFixture
) -> None:
    act, level = STREAMS[what]

    async def main() -> None:
        network = Network()
        async with network.serve(read_from_streams), network.connect() as session:
            for _ in range(2):
                await act(session)
                await asyncio.sleep(1)
            assert not session.is_closed
        # The second one is the count, or the line that follows the warning.
        assert [line[0] for line in written(log)] == [level, logging.INFO]

    run(main())


@pytest.mark.unaudited("its peer is a raw one")
def test_a_peer_that_breaks_a_rule_is_named_where_its_handler_ends(log: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(wait_for_datagram):
            for level in (logging.WARNING, logging.INFO):
                async with raw_client(network) as peer:
                    stream = peer.request()
                    await settle()
                    # SETTINGS, which belong on the control stream.
                    stream.send(b"\x04\x00")
                    await settle()
                    [(found, text, has_traceback)] = written(log)
                    assert (found, has_traceback) == (level, False)
                    assert "handler ended with its session" in text
                    assert ": RemoteProtocolError: the peer broke the protocol: " in text

    run(main())


async def wait_for_datagram(session: wtio.WebTransportSession) -> None:
    await session.receive_datagram()


# -- what nobody has cancelled


async def await_a_cancelled_task(_: object = None) -> None:
    task = asyncio.create_task(asyncio.sleep(10))
    asyncio.get_running_loop().call_soon(task.cancel)
    await task


@pytest.mark.unaudited("a session that its server closes is the only one of its connection")
@pytest.mark.parametrize("which", ["session", "stream", "datagrams"])
def test_a_handler_that_waits_for_a_task_which_is_cancelled_has_failed(
    which: str, log: pytest.LogCaptureFixture
) -> None:
    async def handler(session: wtio.WebTransportSession) -> None:
        if which == "session":
            await await_a_cancelled_task()
        await session.serve_streams(await_a_cancelled_task, datagrams=await_a_cancelled_task)

    async def main() -> None:
        network = Network()
        async with network.serve(handler), network.connect() as session:
            for number in range(1, 3):
                if which == "stream":
                    await finish(session)
                elif which == "datagrams":
                    session.send_datagram(b"x")
                await asyncio.sleep(1)
                lines = [(level, has_traceback) for level, _, has_traceback in written(log)]
                # Those of streams and datagrams go on, and fail a second time.
                assert lines == [(logging.ERROR, True)] * (number == 1 or which != "session")
            if which == "session":
                info = await session.wait_closed()
                assert (info.code, info.reason) == (258, "internal error")

    run(main())


@pytest.mark.unaudited("its client is refused")
def test_an_admit_that_waits_for_a_task_which_is_cancelled_has_failed(log: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(echo, admit=await_a_cancelled_task):
            with pytest.raises(wtio.SessionRejectedError) as caught:
                await network.connect()
            assert caught.value.status == 500
            assert [(level, has_traceback) for level, _, has_traceback in written(log)] == [(logging.ERROR, True)]

    run(main())


@pytest.mark.unaudited("its client is a raw one, which keeps streams")
def test_a_hook_that_waits_for_a_task_which_is_cancelled_has_failed(log: pytest.LogCaptureFixture) -> None:
    async def hook(request: wtio.HttpRequest) -> wtio.HttpResponse:
        await await_a_cancelled_task()
        return wtio.HttpResponse(status=200)

    async def main() -> None:
        network = Network()
        async with network.serve(echo, http=hook), HttpClient(network) as client:
            assert (await client.get("/")).status == 500
            assert [(level, has_traceback) for level, _, has_traceback in written(log)] == [(logging.ERROR, True)]

    run(main())


def test_a_helper_that_a_handler_cancels_at_its_sessions_end_is_no_failure(log: pytest.LogCaptureFixture) -> None:
    async def handler(session: wtio.WebTransportSession) -> None:
        helper = asyncio.create_task(asyncio.sleep(1000))
        try:
            await session.wait_closed()
        finally:
            helper.cancel()
            await helper

    async def main() -> None:
        network = Network()
        async with network.serve(handler), network.connect():
            await asyncio.sleep(1)
        assert not written(log)

    run(main())


# -- handlers with a defect


def test_a_defect_is_written_with_its_traceback_and_then_counted(log: pytest.LogCaptureFixture) -> None:
    async def handler(session: wtio.WebTransportSession) -> None:
        async for stream in session.incoming_bidirectional_streams():
            data = await stream.read_all()
            if data == b"one":
                raise KeyError(data)
            json.loads(data)

    async def send(session: wtio.WebTransportSession, data: bytes) -> None:
        stream = await session.create_bidirectional_stream()
        await stream.write(data=data, end_stream=True)

    async def main() -> None:
        network = Network()
        async with network.serve(handler):
            for number in range(20):
                # The text of the error is another one each time, the lines are the same.
                await fail(network, lambda session, number=number: send(session, b"?%d" % number), 1)  # type: ignore[misc]
            await fail(network, lambda session: send(session, b"one"), 4)
            lines = log.records
            assert [record.levelno for record in lines] == [logging.ERROR] * 6
            names = [record.exc_info[0].__name__ for record in lines if record.exc_info and record.exc_info[0]]
            assert names == ["JSONDecodeError"] * 3 + ["KeyError"] * 3
            log.clear()
            await asyncio.sleep(MINUTE)
            assert [text for _, text, _ in written(log)] == [
                "17 more failures like the last one of JSONDecodeError",
                "1 more failures like the last one of KeyError",
            ]
            await fail(network, lambda session: send(session, b"?"), 1)
            assert [has_traceback for _, _, has_traceback in written(log)] == [True]

    run(main())


def test_a_defect_beside_what_the_client_did_is_an_error(log: pytest.LogCaptureFixture) -> None:
    async def handler(session: wtio.WebTransportSession) -> None:
        stream = await anext(session.incoming_bidirectional_streams())
        try:
            await stream.read_all()
        except wtio.StreamResetError as error:
            raise ExceptionGroup("both", [error, ZeroDivisionError()]) from None

    async def main() -> None:
        network = Network()
        async with network.serve(handler):
            await fail(network, reset, 3)
            assert [(level, has_traceback) for level, _, has_traceback in written(log)] == [(logging.ERROR, True)] * 3

    run(main())


@pytest.mark.unaudited("it counts what is logged in a minute, and every look takes seconds of it", entirely=True)
def test_however_many_kinds_there_are_the_log_stays_small(log: pytest.LogCaptureFixture) -> None:
    def fall(depth: int) -> None:
        if depth == 0:
            raise ValueError
        fall(depth - 1)

    async def handler(session: wtio.WebTransportSession) -> None:
        data = await session.receive_datagram()
        # How deep the traceback is, the client says.
        fall(int(data))

    async def send(session: wtio.WebTransportSession, depth: int) -> None:
        session.send_datagram(b"%d" % depth)

    async def main() -> None:
        network = Network()
        async with network.serve(handler) as server:
            for depth in range(150):
                await fail(network, lambda session, depth=depth: send(session, depth), 1)  # type: ignore[misc]
            # Those beyond 64 kinds count as one.
            assert len(written(log)) == 64 + 3
            assert len(server._service._failures._kinds) == 65
            await asyncio.sleep(2 * MINUTE)
            assert [text for _, text, _ in written(log)] == ["83 more failures like the last one of ValueError"]
            await fail(network, lambda session: send(session, 200), 1)
            assert len(written(log)) == 1
            assert len(server._service._failures._kinds) <= 2

    run(main())


@pytest.mark.unaudited("its connections end by CONNECTION_CLOSE while a session is open")
def test_the_end_of_another_session_is_an_error(log: pytest.LogCaptureFixture) -> None:
    async def handler(session: wtio.WebTransportSession) -> None:
        # What a proxy may forget to catch.
        raise wtio.SessionClosedError(code=3, reason="", closed_by="peer")

    async def main() -> None:
        network = Network()
        async with network.serve(handler):
            await fail(network, wait, 1)
            assert [level for level, _, _ in written(log)] == [logging.ERROR]

    run(main())


@pytest.mark.unaudited("its connections end by CONNECTION_CLOSE while a session is open")
def test_an_end_that_another_source_cuts_short_is_an_error(log: pytest.LogCaptureFixture) -> None:
    async def handler(session: wtio.WebTransportSession) -> None:
        database = asyncio.StreamReader()
        database.feed_eof()
        await database.readexactly(5)

    async def main() -> None:
        network = Network()
        async with network.serve(handler):
            await fail(network, wait, 1)
            assert [level for level, _, _ in written(log)] == [logging.ERROR]

    run(main())


async def wait(session: wtio.WebTransportSession) -> None:
    await session.wait_closed()


@pytest.mark.unaudited("its client is a raw one, which keeps streams")
def test_an_http_hook_that_fails_for_every_request_does_not_fill_the_log(log: pytest.LogCaptureFixture) -> None:
    def hook(request: wtio.HttpRequest) -> Any:
        raise RuntimeError(request.path)

    async def main() -> None:
        network = Network()
        async with network.serve(echo, http=hook), HttpClient(network) as client:
            for number in range(20):
                assert (await client.get(f"/{number}")).status == 500
            assert [(level, has_traceback) for level, _, has_traceback in written(log)] == [(logging.ERROR, True)] * 3
        assert [text for _, text, _ in written(log)] == ["17 more failures like the last one of RuntimeError"]

    run(main())
