"""Clients whose sessions share sockets and connections, and servers with several sessions on one connection."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest

import wtio
from wtio import testing
from wtio.testing import Network

if TYPE_CHECKING:
    from collections.abc import Coroutine

URL = "https://localhost/"


def run(main: Coroutine[Any, Any, None]) -> None:
    testing.run(asyncio.wait_for(main, 600))


async def echo(session: wtio.WebTransportSession) -> None:
    async for stream in session.incoming_bidirectional_streams():
        await stream.write(data=await stream.read_all(), end_stream=True)


async def says(session: wtio.WebTransportSession, data: bytes) -> bytes:
    stream = await session.create_bidirectional_stream()
    await stream.write(data=data, end_stream=True)
    return await stream.read_all()


async def opened(client: wtio.Client, path: str = "", *, allow_pooling: bool = True) -> wtio.WebTransportSession:
    return await client.connect(URL + path, allow_pooling=allow_pooling)


@pytest.mark.trap("C10")
def test_r60_pooled_sessions_share_one_connection_and_are_separate() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(echo), network.client() as client:
            sessions = [await opened(client, str(number)) for number in range(5)]
            assert client.connections == 1
            assert len({session.session_id for session in sessions}) == 5
            assert [session.path for session in sessions] == [f"/{number}" for number in range(5)]
            replies = await asyncio.gather(*(says(session, session.path.encode()) for session in sessions))
            assert replies == [session.path.encode() for session in sessions]
            # The end of one leaves the others alone, on whatever way it ends.
            await sessions[0].close(7, "done")
            await sessions[1].abort()
            for session in sessions[2:]:
                assert await says(session, b"still here") == b"still here"
            assert client.connections == 1
            for session in sessions[2:]:
                await session.close()
            assert client.connections == 0

    run(main())


def test_sessions_that_may_not_be_pooled_have_connections_of_their_own() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(echo), network.client() as client:
            first = await opened(client)
            second = await opened(client, allow_pooling=False)
            third = await opened(client)
            assert client.connections == 2
            for session in (first, second, third):
                assert await says(session, b"x") == b"x"

    run(main())


def test_connections_of_one_client_use_one_socket_per_address_family() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(None) as server, network.client() as client:
            connecting = [asyncio.ensure_future(opened(client, allow_pooling=False)) for _ in range(20)]
            requests = [await anext(server) for _ in range(20)]
            assert len({request.remote_address for request in requests}) == 1
            for request in requests:
                await request.accept()
            await asyncio.gather(*connecting)
            assert client.connections == 20

    run(main())


def test_connects_at_the_same_time_share_one_handshake() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(echo), network.client() as client:
            sessions = await asyncio.gather(*(opened(client) for _ in range(50)))
            assert client.connections == 1
            assert len({session.session_id for session in sessions}) == 50
            assert await says(sessions[-1], b"x") == b"x"

    run(main())


@pytest.mark.parametrize("when", [0.0, 0.005, 0.015, 0.025, 0.035, 0.045, 0.055])
@pytest.mark.parametrize("victim", [0, 1])
def test_cancelling_one_of_two_that_wait_does_not_hurt_the_other(when: float, victim: int) -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(echo), network.client() as client:
            tasks = [asyncio.ensure_future(opened(client)) for _ in range(2)]
            await asyncio.sleep(when)
            tasks[victim].cancel()
            session = await tasks[1 - victim]
            assert await says(session, b"x") == b"x"
            assert client.connections == 1
            await session.close()
            if not tasks[victim].cancelled():
                await (await tasks[victim]).close()
            assert client.connections == 0

    run(main())


@pytest.mark.parametrize("when", [0.0, 0.005, 0.015, 0.025, 0.035])
def test_cancelling_everybody_leaves_no_connection_behind(when: float) -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(echo), network.client() as client:
            tasks = [asyncio.ensure_future(opened(client)) for _ in range(3)]
            await asyncio.sleep(when)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert all(task.cancelled() for task in tasks)
            await asyncio.sleep(1)
            assert client.connections == 0
            # The client is as good as new.
            async with await opened(client) as session:
                assert await says(session, b"x") == b"x"

    run(main())


def test_a_failed_handshake_fails_everybody_who_waits_for_it() -> None:
    async def main() -> None:
        network = Network()
        async with network.client(timeouts=wtio.Timeouts(connect=2)) as client:
            errors = await asyncio.gather(*(opened(client) for _ in range(3)), return_exceptions=True)
            assert [type(error) for error in errors] == [wtio.HandshakeTimeout] * 3
            assert all(isinstance(error, wtio.ConnectError) and error.report for error in errors)
            assert client.connections == 0
            async with network.serve(echo), await opened(client) as session:
                assert await says(session, b"x") == b"x"

    run(main())


def test_a_rejected_session_leaves_the_connection_to_the_others() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(None) as server, network.client() as client:
            tasks = [asyncio.ensure_future(opened(client, path)) for path in ("yes", "no")]
            for _ in tasks:
                request = await anext(server)
                await (request.accept() if request.path == "/yes" else request.reject(403))
            session = await tasks[0]
            with pytest.raises(wtio.SessionRejectedError):
                await tasks[1]
            assert not session.is_closed
            assert client.connections == 1

    run(main())


def test_r62_a_full_connection_is_left_for_a_new_one() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(echo), network.client(limits=wtio.Limits(sessions=3)) as client:
            sessions = [await opened(client) for _ in range(7)]
            assert client.connections == 3
            await sessions[0].close()
            # There is room on the first one again.
            sessions[0] = await opened(client)
            assert client.connections == 3
            replies = await asyncio.gather(*(says(session, b"x") for session in sessions))
            assert replies == [b"x"] * 7

    run(main())


def test_r53_no_new_session_on_a_connection_that_is_going_away() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(echo, timeouts=wtio.Timeouts(drain=5)) as server, network.client() as client:
            old = await opened(client)
            for connection in server._service.connections:
                connection.h3.send_goaway()
                connection._pump()
            await old.wait_draining()
            new = await opened(client)
            assert client.connections == 2
            assert await says(old, b"old") == b"old"
            assert await says(new, b"new") == b"new"

    run(main())


def test_closing_the_client_closes_sessions_and_those_that_are_being_opened() -> None:
    async def main() -> None:
        network = Network()
        ended: list[wtio.CloseInfo] = []

        async def note(session: wtio.WebTransportSession) -> None:
            ended.append(await session.wait_closed())

        async with network.serve(note):
            client = network.client()
            sessions = [await opened(client), await opened(client), await opened(client, allow_pooling=False)]
            pending = [asyncio.ensure_future(opened(client, allow_pooling=pool)) for pool in (True, False)]
            await asyncio.sleep(0)
            await client.close()
            assert client.is_closed
            assert client.connections == 0
            assert all(session.is_closed for session in sessions)
            results = await asyncio.gather(*pending, return_exceptions=True)
            assert all(isinstance(result, (wtio.ConnectError, wtio.WebTransportSession)) for result in results)
            assert all(result.is_closed for result in results if isinstance(result, wtio.WebTransportSession))
            await client.close()
            with pytest.raises(wtio.LocalProtocolError):
                client.connect(URL)
            await asyncio.sleep(1)
            assert [info.code for info in ended[:3]] == [0, 0, 0]

    run(main())


def test_w3c_pinned_certificates_are_not_pooled() -> None:
    async def main() -> None:
        tls = wtio.ClientTLS(certificate_hashes=[bytes(32)])
        async with Network().client(tls=tls) as client:
            with pytest.raises(ValueError, match="certificate_hashes"):
                client.connect(URL, allow_pooling=True)
            client.connect(URL)

    run(main())


def test_options_of_the_client_hold_where_connect_says_nothing() -> None:
    async def main() -> None:
        network = Network()
        async with (
            network.serve(None, origins=["https://a.example", "https://b.example"]) as server,
            network.client(headers={"x-one": "1"}, protocols=["p"], origin="https://a.example") as client,
        ):
            connecting = asyncio.ensure_future(opened(client))
            request = await anext(server)
            assert (request.origin, request.protocols) == ("https://a.example", ("p",))
            assert ("x-one", "1") in request.headers
            await request.accept()
            held = [await connecting]

            async def other() -> wtio.WebTransportSession:
                return await client.connect(
                    URL, headers={"x-two": "2"}, protocols=[], origin="https://b.example", allow_pooling=True
                )

            connecting = asyncio.ensure_future(other())
            request = await anext(server)
            assert (request.origin, request.protocols) == ("https://b.example", ())
            assert {("x-one", "1"), ("x-two", "2")} <= set(request.headers)
            await request.accept()
            held.append(await connecting)

    run(main())


def test_a_request_that_cannot_be_sent_leaves_a_shared_connection_alone() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(echo), network.client() as client:
            session = await opened(client)
            for _ in range(3):
                with pytest.raises(ValueError, match="header"):
                    await client.connect(URL, headers={"bad name": "x"}, allow_pooling=True)
            assert await says(session, b"x") == b"x"
            assert client.connections == 1

    run(main())


def test_many_quiet_sessions_on_one_connection_leave_its_streams_to_them() -> None:
    async def main() -> None:
        network = Network()
        limits = wtio.Limits(bidirectional_streams=4)
        async with network.serve(echo, limits=limits), network.client() as client:
            sessions = [await opened(client) for _ in range(100)]
            assert client.connections == 1
            # CONNECT streams take none of the four.
            for session in sessions[:4]:
                stream = await session.create_bidirectional_stream(wait_until_available=False)
                await stream.write(data=b"x")
            for session in sessions:
                await session.close()
            assert client.connections == 0
            gc.collect()

    run(main())


@pytest.mark.unmeasured
def test_r91_sessions_on_one_connection_get_equal_shares() -> None:
    async def main() -> None:
        network = Network(bandwidth=1_000_000.0)
        received: dict[str, int] = {}

        async def drain(session: wtio.WebTransportSession) -> None:
            async def one(stream: wtio.WebTransportReceiveStream) -> None:
                async for chunk in stream:
                    received[session.path] = received.get(session.path, 0) + len(chunk)

            async with asyncio.TaskGroup() as group:
                async for stream in session.incoming_unidirectional_streams():
                    group.create_task(one(stream))

        limits = wtio.Limits(connection_send_buffer=64 * 1024, stream_send_buffer=32 * 1024)
        async with network.serve(drain), network.client(limits=limits) as client:

            async def send(session: wtio.WebTransportSession) -> None:
                stream = await session.create_unidirectional_stream()
                await stream.write(data=bytes(10_000_000))

            greedy, modest = await opened(client, "greedy"), await opened(client, "modest")
            assert client.connections == 1
            tasks = [asyncio.ensure_future(send(session)) for session in [greedy] * 10 + [modest]]
            await asyncio.sleep(20)
            for task in tasks:
                task.cancel()
            assert received["/modest"] > received["/greedy"] / 3

    run(main())
