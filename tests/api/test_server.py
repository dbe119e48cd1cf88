"""Servers and clients: addresses, requests, answers, handlers, shutdown, ordinary HTTP/3 requests."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING

import pytest
from aioquic.asyncio.client import connect as quic_connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN
from aioquic.h3.connection import H3Connection as PeerH3
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration

import wtio
import wtio.testing

from .support import first, opened, outcome, port_of, session_pair, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aioquic.quic.events import QuicEvent

    from wtio import DevCertificate, Server, SessionRequest, WebTransportSession


class BodyError(Exception):
    pass


def url_of(server: Server, path: str = "/", host: str = "127.0.0.1") -> str:
    return f"https://{host}:{port_of(server)}{path}"


async def echo(session: WebTransportSession) -> None:
    """A handler."""
    async for stream in session.incoming_bidirectional_streams():
        await stream.write_all(data=await stream.read_all(), end_stream=True)


async def ask(session: WebTransportSession, data: bytes = b"hello") -> bytes:
    """Have a stream echoed."""
    stream = await session.create_bidirectional_stream()
    await stream.write(data=data, end_stream=True)
    return await stream.read_all()


@pytest.fixture
async def server(certificate: DevCertificate) -> AsyncIterator[Server]:
    async with wtio.serve(None, "127.0.0.1", 0, tls=certificate.server_tls()) as server:
        yield server


# -- requests


async def test_request_has_all_facts(server: Server, certificate: DevCertificate) -> None:
    connecting = asyncio.ensure_future(
        opened(
            wtio.connect(
                url_of(server, "/path/to%20it?query=1&x=%C3%A4"),
                tls=certificate.client_tls(),
                headers=[("x-first", "1"), ("X-Second", "two"), ("x-first", "again")],
                protocols=["v2", "v1"],
                origin=f"https://127.0.0.1:{port_of(server)}",
            )
        )
    )
    request = await anext(aiter(server))
    assert request.path == "/path/to%20it?query=1&x=%C3%A4"
    assert request.authority == f"127.0.0.1:{port_of(server)}"
    assert request.origin == f"https://127.0.0.1:{port_of(server)}"
    assert request.protocols == ("v2", "v1")
    assert [pair for pair in request.headers if pair[0].startswith("x-")] == [
        ("x-first", "1"),
        ("x-second", "two"),
        ("x-first", "again"),
    ]
    assert not [name for name, _ in request.headers if name.startswith(":")]
    assert request.remote_address[0] == "127.0.0.1"
    assert request.remote_address[1] > 0
    assert not request.is_answered
    accepted = await request.accept(protocol="v1", headers=[("x-answer", "yes"), ("x-answer", "twice")])
    assert request.is_answered
    session = await connecting
    for end in (session, accepted):
        assert end.protocol == "v1"
        assert end.path == request.path
        assert end.authority == request.authority
        assert end.origin == request.origin
        assert [pair for pair in end.response_headers if pair[0] == "x-answer"] == [
            ("x-answer", "yes"),
            ("x-answer", "twice"),
        ]
    assert accepted.remote_address == request.remote_address
    assert session.remote_address == ("127.0.0.1", port_of(server))
    await session.close()


async def test_plain_request_has_neither_origin_nor_protocols(server: Server, certificate: DevCertificate) -> None:
    connecting = asyncio.ensure_future(opened(wtio.connect(url_of(server, ""), tls=certificate.client_tls())))
    request = await anext(aiter(server))
    assert (request.path, request.origin, request.protocols) == ("/", None, ())
    await request.accept()
    session = await connecting
    assert session.protocol is None
    await session.close()


@pytest.mark.parametrize("status", [300, 307, 400, 403, 404, 405, 429, 500, 503, 599])
async def test_rejection_carries_status_and_headers(server: Server, certificate: DevCertificate, status: int) -> None:
    connecting = asyncio.ensure_future(outcome(opened(wtio.connect(url_of(server), tls=certificate.client_tls()))))
    request = await anext(aiter(server))
    await request.reject(status, headers={"x-why": "because", "location": "https://elsewhere.example/"})
    error = await connecting
    assert isinstance(error, wtio.SessionRejectedError)
    assert isinstance(error, ConnectionError)
    assert error.status == status
    assert ("x-why", "because") in error.headers
    assert str(status) in str(error)
    assert url_of(server) in str(error)


@pytest.mark.parametrize("status", [0, 100, 200, 299, 600, -404])
async def test_statuses_that_reject_nothing_are_refused(
    server: Server, certificate: DevCertificate, status: int
) -> None:
    connecting = asyncio.ensure_future(opened(wtio.connect(url_of(server), tls=certificate.client_tls())))
    request = await anext(aiter(server))
    with pytest.raises(ValueError, match=str(status)):
        await request.reject(status)
    # The request can still be answered.
    await request.accept()
    await (await connecting).close()


@pytest.mark.parametrize(
    "headers",
    [
        [("bad name", "x")],
        [("x-bad", "line\nbreak")],
        [(":status", "200")],
        [("", "empty")],
        [("x-bad", "nul\0")],
        {"connection": "keep-alive"},
    ],
)
async def test_headers_that_cannot_be_sent_are_refused(
    server: Server, certificate: DevCertificate, headers: list[tuple[str, str]]
) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each has its own words
        await wtio.connect(url_of(server), tls=certificate.client_tls(), headers=headers)
    connecting = asyncio.ensure_future(opened(wtio.connect(url_of(server), tls=certificate.client_tls())))
    request = await anext(aiter(server))
    with pytest.raises(ValueError):  # noqa: PT011
        await request.accept(headers=headers)
    with pytest.raises(ValueError):  # noqa: PT011
        await request.reject(404, headers=headers)
    await request.accept()
    await (await connecting).close()


async def test_protocol_that_was_not_offered_is_refused(server: Server, certificate: DevCertificate) -> None:
    connecting = asyncio.ensure_future(
        opened(wtio.connect(url_of(server), tls=certificate.client_tls(), protocols=["v1"]))
    )
    request = await anext(aiter(server))
    with pytest.raises(ValueError, match="v2"):
        await request.accept(protocol="v2")
    assert not request.is_answered
    assert (await request.accept(protocol="v1")).protocol == "v1"
    session = await connecting
    assert session.protocol == "v1"
    await session.close()


@pytest.mark.parametrize("protocols", [["v1", "v1"], [""], ["x" * 513], "v1", ["ä"], [5]])
async def test_protocols_that_cannot_be_offered_are_refused(certificate: DevCertificate, protocols: list[str]) -> None:
    with pytest.raises((ValueError, TypeError)):
        await wtio.connect("https://127.0.0.1:1/", tls=certificate.client_tls(), protocols=protocols)


async def test_server_chooses_among_offered_protocols(certificate: DevCertificate) -> None:
    chosen: list[str | None] = []

    async def handler(session: WebTransportSession) -> None:
        chosen.append(session.protocol)

    async with wtio.serve(handler, "127.0.0.1", 0, tls=certificate.server_tls(), protocols=["v3", "v2"]) as server:
        for offered in (["v1", "v2", "v3"], ["v1"], []):
            async with wtio.connect(url_of(server), tls=certificate.client_tls(), protocols=offered) as session:
                chosen.append(session.protocol)
                await session.wait_closed()
    assert chosen == ["v3", "v3", None, None, None, None]


@pytest.mark.trap("C6")
async def test_request_is_answered_once(server: Server, certificate: DevCertificate) -> None:
    for answers in ("accept accept", "accept reject", "reject accept", "reject reject"):
        one, two = answers.split()
        connecting = asyncio.ensure_future(outcome(opened(wtio.connect(url_of(server), tls=certificate.client_tls()))))
        request = await anext(aiter(server))
        await (request.accept() if one == "accept" else request.reject(404))
        with pytest.raises(wtio.LocalProtocolError):
            await (request.accept() if two == "accept" else request.reject(404))
        result = await connecting
        if isinstance(result, wtio.WebTransportSession):
            assert one == "accept"
            await result.close()
        else:
            assert isinstance(result, wtio.SessionRejectedError)
            assert result.status == 404


@pytest.mark.trap("C6")
async def test_answer_to_a_client_that_has_left(server: Server, certificate: DevCertificate) -> None:
    for answer in ("accept", "reject"):
        connecting = asyncio.ensure_future(opened(wtio.connect(url_of(server), tls=certificate.client_tls())))
        request = await anext(aiter(server))
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
        # Another client, served, shows that the first one's goodbye has arrived.
        other = asyncio.ensure_future(opened(wtio.connect(url_of(server), tls=certificate.client_tls())))
        await (await anext(aiter(server))).accept()
        await (await other).close()
        if answer == "accept":
            with pytest.raises(wtio.SessionClosed):
                await request.accept()
        else:
            await request.reject(403)


async def test_session_closed_right_after_accept(server: Server, certificate: DevCertificate) -> None:
    connecting = asyncio.ensure_future(opened(wtio.connect(url_of(server), tls=certificate.client_tls())))
    request = await anext(aiter(server))
    accepted = await request.accept()
    closing = asyncio.ensure_future(accepted.close(5, "at once"))
    session = await connecting
    assert await session.wait_closed() == wtio.CloseInfo(5, "at once", "peer")
    await closing


async def test_each_request_goes_to_one_of_several_iterators(server: Server, certificate: DevCertificate) -> None:
    paths: list[str] = []

    async def iterate() -> None:
        async for request in server:
            paths.append(request.path)
            await request.reject(404)

    iterators = [asyncio.ensure_future(iterate()) for _ in range(3)]
    await asyncio.gather(
        *(
            outcome(opened(wtio.connect(url_of(server, f"/{number}"), tls=certificate.client_tls())))
            for number in range(20)
        )
    )
    assert sorted(paths) == sorted(f"/{number}" for number in range(20))
    # The iteration ends with the server.
    await server.close()
    await asyncio.gather(*iterators)


async def test_a_server_that_was_not_started_is_not_waited_for(certificate: DevCertificate) -> None:
    for handler in (echo, None):
        server = wtio.serve(handler, "127.0.0.1", 0, tls=certificate.server_tls())
        for waiting in (server.wait_closed(), anext(aiter(server))):
            with pytest.raises(wtio.LocalProtocolError, match="not started; use `async with"):
                await waiting
    # One that was closed before it was started is over.
    await server.close()
    await server.wait_closed()


async def test_iteration_of_a_server_with_a_handler_is_refused(certificate: DevCertificate) -> None:
    async with wtio.serve(echo, "127.0.0.1", 0, tls=certificate.server_tls()) as server:
        with pytest.raises(wtio.LocalProtocolError, match="handler"):
            await anext(aiter(server))


@pytest.mark.trap("H7")
async def test_streams_may_come_before_accept(server: Server, certificate: DevCertificate) -> None:
    # The client may send as soon as it has asked. Our own client waits; so the server side opens first.
    connecting = asyncio.ensure_future(opened(wtio.connect(url_of(server), tls=certificate.client_tls())))
    accepted = await (await anext(aiter(server))).accept()
    stream = await accepted.create_unidirectional_stream()
    await stream.write(data=b"early", end_stream=True)
    accepted.send_datagram(b"early")
    session = await connecting
    assert await (await first(session.incoming_unidirectional_streams())).read_all() == b"early"
    assert await session.receive_datagram() == b"early"
    await session.close()


# -- handlers


async def test_handler_serves_sessions(certificate: DevCertificate) -> None:
    async with (
        wtio.serve(echo, "127.0.0.1", 0, tls=certificate.server_tls()) as server,
        wtio.connect(url_of(server), tls=certificate.client_tls()) as one,
        wtio.connect(url_of(server), tls=certificate.client_tls()) as two,
    ):
        assert [*await asyncio.gather(ask(one, b"one"), ask(two, b"two"))] == [b"one", b"two"]
        assert len(server.sessions) == 2


async def test_admitted_sessions_have_their_streams_served(certificate: DevCertificate) -> None:
    stored: list[tuple[str, bytes]] = []

    async def admit(request: SessionRequest) -> None:
        request.state.user = request.cookies.get("user", "")
        if not request.state.user:
            await asyncio.sleep(0)
            await request.reject(401)

    async def handler(session: WebTransportSession) -> None:
        async def store(stream: wtio.WebTransportReceiveStream) -> None:
            stored.append((session.state.user, await stream.read_all()))

        async def answer(stream: wtio.WebTransportStream) -> None:
            await stream.write_all(data=await stream.read_all(), end_stream=True)

        await session.serve_streams(answer, unidirectional=store, datagrams=session.send_datagram, limit=2)

    async with wtio.serve(handler, "127.0.0.1", 0, tls=certificate.server_tls(), admit=admit) as server:
        tls = certificate.client_tls()
        error = await outcome(opened(wtio.connect(url_of(server), tls=tls)))
        assert isinstance(error, wtio.SessionRejectedError)
        assert error.status == 401
        async with wtio.connect(url_of(server), tls=tls, headers={"cookie": "user=ada"}) as session:
            assert [*await asyncio.gather(*(ask(session, b"%d" % number) for number in range(20)))] == [
                b"%d" % number for number in range(20)
            ]
            session.send_datagram(b"hello")
            assert await session.receive_datagram() == b"hello"
            for _ in range(10):
                stream = await session.create_unidirectional_stream()
                await stream.write(data=b"sample", end_stream=True)
                await stream.wait_acked()
    assert stored == [("ada", b"sample")] * 10


async def test_session_is_closed_when_its_handler_returns(certificate: DevCertificate) -> None:
    async def handler(session: WebTransportSession) -> None:
        stream = await session.create_unidirectional_stream()
        await stream.write(data=b"bye", end_stream=True)

    async with (
        wtio.serve(handler, "127.0.0.1", 0, tls=certificate.server_tls()) as server,
        wtio.connect(url_of(server), tls=certificate.client_tls()) as session,
    ):
        assert await (await first(session.incoming_unidirectional_streams())).read_all() == b"bye"
        assert await session.wait_closed() == wtio.CloseInfo(0, "", "peer")


async def test_exception_in_a_handler_is_logged_and_the_server_lives_on(
    certificate: DevCertificate, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(session: WebTransportSession) -> None:
        if session.path == "/bad":
            raise BodyError("in the handler")
        await echo(session)

    async with wtio.serve(handler, "127.0.0.1", 0, tls=certificate.server_tls()) as server:
        for _ in range(3):
            async with wtio.connect(url_of(server, "/bad"), tls=certificate.client_tls()) as session:
                info = await session.wait_closed()
                assert (info.code, info.closed_by) == (wtio.BODY_RAISED_CODE, "peer")
                # The peer learns nothing of what went wrong inside.
                assert "in the handler" not in info.reason
        async with wtio.connect(url_of(server), tls=certificate.client_tls()) as session:
            assert await ask(session) == b"hello"
    failures = [record for record in caplog.records if record.name == "wtio.server"]
    assert [record.levelno for record in failures] == [logging.ERROR] * 3
    assert all(record.exc_info and record.exc_info[0] is BodyError for record in failures)
    caplog.clear()


async def test_end_of_the_session_in_a_handler_is_no_failure(certificate: DevCertificate) -> None:
    ended: list[wtio.SessionClosed] = []

    async def handler(session: WebTransportSession) -> None:
        try:
            await session.receive_datagram()
        except wtio.SessionClosed as error:
            ended.append(error)
            raise

    async with (
        wtio.serve(handler, "127.0.0.1", 0, tls=certificate.server_tls()) as server,
        wtio.connect(url_of(server), tls=certificate.client_tls()) as session,
    ):
        await session.close(3, "enough")
    assert [(error.code, error.reason) for error in ended] == [(3, "enough")]
    # Nothing is logged as an error: see the fixture no_logged_errors.


async def test_handler_may_close_its_session(certificate: DevCertificate) -> None:
    async def handler(session: WebTransportSession) -> None:
        await session.close(17, "from the handler")

    async with (
        wtio.serve(handler, "127.0.0.1", 0, tls=certificate.server_tls()) as server,
        wtio.connect(url_of(server), tls=certificate.client_tls()) as session,
    ):
        assert await session.wait_closed() == wtio.CloseInfo(17, "from the handler", "peer")


# -- addresses


async def test_port_0_is_any_free_port(certificate: DevCertificate) -> None:
    async with wtio.serve(echo, "127.0.0.1", 0, tls=certificate.server_tls()) as server:
        [(ip, port)] = server.addresses
        assert ip == "127.0.0.1"
        assert port > 0
        assert repr(server) == f"<wtio.Server 127.0.0.1 port {port}>"
    assert repr(server) == "<wtio.Server closed>"


@pytest.mark.parametrize("host", [None, "", "::"])
async def test_dual_stack(certificate: DevCertificate, host: str | None) -> None:
    async with wtio.serve(echo, host, 0, tls=certificate.server_tls()) as server:
        for name in ("127.0.0.1", "[::1]", "localhost"):
            async with wtio.connect(url_of(server, host=name), tls=certificate.client_tls()) as session:
                assert await ask(session) == b"hello"


@pytest.mark.trap("H17")
async def test_localhost_is_all_of_its_addresses(certificate: DevCertificate) -> None:
    async with wtio.serve(echo, "localhost", 0, tls=certificate.server_tls()) as server:
        assert len({port for _, port in server.addresses}) == 1
        for name in ("localhost", "127.0.0.1"):
            async with wtio.connect(url_of(server, host=name), tls=certificate.client_tls()) as session:
                assert await ask(session) == b"hello"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.trap("H17")
def test_localhost_reaches_a_server_of_one_family(host: str) -> None:
    # Not every machine has both addresses under this name; the simulated network has.
    async def main() -> None:
        network = wtio.testing.Network()
        async with network.serve(echo, host) as server, network.connect("https://localhost/") as session:
            assert await ask(session) == b"hello"
            assert session.remote_address == server.addresses[0]

    wtio.testing.run(main())


async def test_several_hosts(certificate: DevCertificate) -> None:
    async with wtio.serve(echo, ["127.0.0.1", "::1"], 0, tls=certificate.server_tls()) as server:
        assert {ip for ip, _ in server.addresses} == {"127.0.0.1", "::1"}
        assert len({port for _, port in server.addresses}) == 1


async def test_two_servers_in_one_process(certificate: DevCertificate) -> None:
    async with (
        wtio.serve(echo, "127.0.0.1", 0, tls=certificate.server_tls()) as one,
        wtio.serve(echo, "127.0.0.1", 0, tls=certificate.server_tls()) as two,
        wtio.connect(url_of(one), tls=certificate.client_tls()) as to_one,
        wtio.connect(url_of(two), tls=certificate.client_tls()) as to_two,
    ):
        assert port_of(one) != port_of(two)
        assert [*await asyncio.gather(ask(to_one, b"1"), ask(to_two, b"2"))] == [b"1", b"2"]
        await one.close()
        assert await ask(to_two) == b"hello"


@pytest.mark.trap("C11")
async def test_restart_on_the_same_port(certificate: DevCertificate) -> None:
    # Also after a client was connected.
    port = 0
    for _ in range(5):
        async with wtio.serve(echo, "127.0.0.1", port, tls=certificate.server_tls()) as server:
            port = port_of(server)
            session = await wtio.connect(url_of(server), tls=certificate.client_tls())
            assert await ask(session) == b"hello"
        await session.wait_closed()
        await session.close()


async def test_server_can_be_awaited(certificate: DevCertificate) -> None:
    server = await wtio.serve(echo, "127.0.0.1", 0, tls=certificate.server_tls())
    async with wtio.connect(url_of(server), tls=certificate.client_tls()) as session:
        assert await ask(session) == b"hello"
    await server.close()
    await server.close()
    await server.wait_closed()


async def test_handles_of_a_gone_connection_touch_no_later_one(server: Server, certificate: DevCertificate) -> None:
    kept = None
    for _ in range(3):
        connecting = asyncio.ensure_future(opened(wtio.connect(url_of(server), tls=certificate.client_tls())))
        accepted = await (await anext(aiter(server))).accept()
        session = await connecting
        outgoing = await session.create_unidirectional_stream()
        await outgoing.write(data=b"hello")
        incoming = await first(accepted.incoming_unidirectional_streams())
        # The stream of the connection before is dropped here; it had the same number.
        kept = incoming
        await outgoing.write(data=b" world", end_stream=True)
        assert await kept.read_all() == b"hello world"
        await session.close()
        # Until the server has forgotten the connection altogether.
        await until(lambda: not server._drivers[0].endpoint.connections)


# -- shutdown


@pytest.mark.trap("C11")
async def test_closing_the_server_says_goodbye_to_all(certificate: DevCertificate) -> None:
    async with wtio.serve(echo, "127.0.0.1", 0, tls=certificate.server_tls()) as server:
        port = port_of(server)
        sessions = [await wtio.connect(url_of(server), tls=certificate.client_tls()) for _ in range(5)]
        for session in sessions:
            assert await ask(session) == b"hello"
        pending = [asyncio.ensure_future(session.receive_datagram()) for session in sessions]
        await server.close(21, "closing time")
        assert server.sessions == []
        for session, task in zip(sessions, pending, strict=True):
            assert await session.wait_closed() == wtio.CloseInfo(21, "closing time", "peer")
            assert isinstance(await outcome(task), wtio.SessionClosedError)
            await session.close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", port))


async def test_body_of_serve_may_raise(certificate: DevCertificate) -> None:
    with pytest.raises(BodyError):
        async with wtio.serve(echo, "127.0.0.1", 0, tls=certificate.server_tls()):
            raise BodyError


async def test_closing_the_server_answers_waiting_requests(server: Server, certificate: DevCertificate) -> None:
    connecting = asyncio.ensure_future(outcome(opened(wtio.connect(url_of(server), tls=certificate.client_tls()))))
    request: SessionRequest = await anext(aiter(server))
    await server.close()
    error = await connecting
    assert isinstance(error, wtio.ConnectError)
    assert "503" in str(error) or "closed" in str(error)
    assert request.is_answered


async def test_server_that_closes_takes_no_new_clients(server: Server, certificate: DevCertificate) -> None:
    url = url_of(server)
    await server.close()
    error = await outcome(opened(wtio.connect(url, tls=certificate.client_tls(), timeouts=wtio.Timeouts(connect=1))))
    assert isinstance(error, wtio.ConnectError)


# -- limits


async def test_sessions_beyond_the_limit_are_told(certificate: DevCertificate) -> None:
    limits = wtio.Limits(sessions=1)
    async with (
        wtio.serve(echo, "127.0.0.1", 0, tls=certificate.server_tls(), limits=limits) as server,
        wtio.connect(url_of(server), tls=certificate.client_tls()) as session,
    ):
        error = await outcome(opened(wtio.connect(url_of(server), tls=certificate.client_tls())))
        assert isinstance(error, wtio.SessionRejectedError)
        assert error.status == 429
        assert await ask(session) == b"hello"


async def test_connections_beyond_the_limit_are_told(certificate: DevCertificate) -> None:
    limits = wtio.Limits(connections=1)
    async with (
        wtio.serve(echo, "127.0.0.1", 0, tls=certificate.server_tls(), limits=limits) as server,
        wtio.connect(url_of(server), tls=certificate.client_tls()) as session,
    ):
        error = await outcome(opened(wtio.connect(url_of(server), tls=certificate.client_tls())))
        assert isinstance(error, wtio.ConnectionRefused)
        assert await ask(session) == b"hello"


async def test_allowed_origins(certificate: DevCertificate) -> None:
    async with wtio.serve(
        echo, "127.0.0.1", 0, tls=certificate.server_tls(), origins=["https://good.example"]
    ) as server:
        for origin, allowed in (("https://good.example", True), ("https://evil.example", False), (None, True)):
            result = await outcome(opened(wtio.connect(url_of(server), tls=certificate.client_tls(), origin=origin)))
            if isinstance(result, wtio.WebTransportSession):
                assert allowed
                await result.close()
            else:
                assert not allowed
                assert isinstance(result, wtio.SessionRejectedError)
                assert result.status == 403


async def test_header_size_limit(certificate: DevCertificate) -> None:
    async with wtio.serve(
        echo, "127.0.0.1", 0, tls=certificate.server_tls(), limits=wtio.Limits(header_size=2000)
    ) as server:
        large = {"x-large": "x" * 3000}
        error = await outcome(opened(wtio.connect(url_of(server), tls=certificate.client_tls(), headers=large)))
        assert isinstance(error, (wtio.ConnectError, ValueError))
        async with wtio.connect(url_of(server), tls=certificate.client_tls()) as session:
            assert await ask(session) == b"hello"


# -- ordinary HTTP/3 requests, from another implementation


class HttpClient(QuicConnectionProtocol):
    """Just enough of HTTP/3 to ask for a page."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._http = PeerH3(self._quic)
        self._answers: dict[int, tuple[dict[str, str], bytearray, asyncio.Future[tuple[dict[str, str], bytes]]]] = {}

    async def get(self, method: str, authority: str, path: str) -> tuple[dict[str, str], bytes]:
        number = self._quic.get_next_available_stream_id()
        answer: asyncio.Future[tuple[dict[str, str], bytes]] = asyncio.get_running_loop().create_future()
        self._answers[number] = ({}, bytearray(), answer)
        headers = {":method": method, ":scheme": "https", ":authority": authority, ":path": path, "x-test": "1"}
        self._http.send_headers(number, [(n.encode(), v.encode()) for n, v in headers.items()], end_stream=True)
        self.transmit()
        return await answer

    def quic_event_received(self, event: QuicEvent) -> None:
        for happened in self._http.handle_event(event):
            if isinstance(happened, (HeadersReceived, DataReceived)):
                headers, body, answer = self._answers[happened.stream_id]
                if isinstance(happened, HeadersReceived):
                    headers.update((name.decode(), value.decode()) for name, value in happened.headers)
                else:
                    body += happened.data
                if happened.stream_ended:
                    answer.set_result((headers, bytes(body)))


def hook(request: wtio.HttpRequest) -> wtio.HttpResponse | None:
    if request.path == "/health":
        assert (request.method, dict(request.headers)["x-test"]) == ("GET", "1")
        assert request.remote_address[0] == "127.0.0.1"
        return wtio.HttpResponse(status=200, headers={"content-type": "text/plain"}, body=b"ok")
    if request.path == "/fails":
        raise BodyError
    return None


@pytest.mark.trap("H13")
async def test_ordinary_requests_are_answered(certificate: DevCertificate, caplog: pytest.LogCaptureFixture) -> None:
    configuration = QuicConfiguration(alpn_protocols=H3_ALPN, is_client=True, verify_mode=0)
    async with wtio.serve(echo, "127.0.0.1", 0, tls=certificate.server_tls(), http=hook) as server:
        authority = f"127.0.0.1:{port_of(server)}"
        async with quic_connect(
            "127.0.0.1", port_of(server), configuration=configuration, create_protocol=HttpClient
        ) as client:
            assert isinstance(client, HttpClient)
            headers, body = await client.get("GET", authority, "/health")
            assert (headers[":status"], headers["content-type"], body) == ("200", "text/plain", b"ok")
            headers, _ = await client.get("GET", authority, "/")
            assert (headers[":status"], headers["allow"]) == ("405", "CONNECT")
            headers, _ = await client.get("POST", authority, "/other?x=1")
            assert headers[":status"] == "405"
            headers, _ = await client.get("GET", authority, "/fails")
            assert headers[":status"] == "500"
            caplog.clear()
        async with wtio.connect(url_of(server), tls=certificate.client_tls()) as session:
            assert await ask(session) == b"hello"


# -- the client


async def test_connector_can_be_awaited(server: Server, certificate: DevCertificate) -> None:
    connecting = asyncio.ensure_future(opened(wtio.connect(url_of(server), tls=certificate.client_tls())))
    accepted = await (await anext(aiter(server))).accept()
    session = await connecting
    await session.close(1, "by hand")
    assert (await accepted.wait_closed()).code == 1


async def test_body_of_connect_may_raise(certificate: DevCertificate) -> None:
    seen: list[wtio.CloseInfo] = []

    async def handler(session: WebTransportSession) -> None:
        seen.append(await session.wait_closed())

    async with wtio.serve(handler, "127.0.0.1", 0, tls=certificate.server_tls()) as server:
        with pytest.raises(BodyError):
            async with wtio.connect(url_of(server), tls=certificate.client_tls()):
                raise BodyError
    assert [info.code for info in seen] == [wtio.BODY_RAISED_CODE]


async def test_many_clients_at_once(certificate: DevCertificate) -> None:
    async with wtio.serve(echo, "127.0.0.1", 0, tls=certificate.server_tls()) as server:

        async def client(number: int) -> bytes:
            async with wtio.connect(url_of(server), tls=certificate.client_tls()) as session:
                return await ask(session, b"%d" % number * 1000)

        answers = await asyncio.gather(*(client(number) for number in range(50)))
        assert answers == [b"%d" % number * 1000 for number in range(50)]
    assert server.sessions == []


@pytest.mark.trap("X7")
async def test_busy_client_does_not_starve_the_others(certificate: DevCertificate) -> None:
    async with (
        wtio.serve(echo, "127.0.0.1", 0, tls=certificate.server_tls()) as server,
        wtio.connect(url_of(server), tls=certificate.client_tls()) as busy,
        wtio.connect(url_of(server), tls=certificate.client_tls()) as quiet,
    ):
        bulk = asyncio.ensure_future(ask(busy, bytes(30 * 1024 * 1024)))
        answers = 0
        while not bulk.done():
            assert await ask(quiet) == b"hello"
            answers += 1
        assert len(await bulk) == 30 * 1024 * 1024
        assert answers > 3


async def test_settings_are_checked() -> None:
    for name, size in (("read_all", -1), ("line", 0), ("max_mtu", 1), ("stream_receive_window", 10)):
        with pytest.raises(ValueError, match=f"Limits.{name}.*{size}"):
            wtio.Limits(**{name: size})
    assert wtio.Limits(stream_receive_window=16 * 1024 * 1024)
    with pytest.raises(ValueError, match=r"Limits\.stream_receive_window is 67108864; .* 16777216; .* several streams"):
        wtio.Limits(stream_receive_window=64 * 1024 * 1024)
    for name, seconds in (("connect", 0.0), ("idle", -1.0), ("close", float("nan"))):
        with pytest.raises(ValueError, match=f"Timeouts.{name}"):
            wtio.Timeouts(**{name: seconds})
    with pytest.raises(TypeError):
        wtio.Limits(line="many")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        wtio.Timeouts(idle=None)  # type: ignore[arg-type]


async def test_facts_of_a_pair(certificate: DevCertificate) -> None:
    async with session_pair(certificate, path="/chat?room=1") as pair:
        assert pair.request.path == pair.client.path == pair.accepted.path == "/chat?room=1"
        assert pair.client.dialect == pair.accepted.dialect == pair.request.dialect == "draft15"
