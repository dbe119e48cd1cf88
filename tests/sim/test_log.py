"""What is in the log about sessions, connections and frames, and what never is, in virtual time."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from tests.protocol.pair import DRAFT15_CLIENT, control_stream
from tests.protocol.raw import raw_client, settle
from tests.support.http3 import HttpClient

import wtio
from wtio import testing
from wtio._connection.raw import RawStreams
from wtio._log import PacedLines
from wtio.testing import Network

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "hunter2"
URL = f"https://localhost/room/1?token={SECRET}"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Everything, for a test that says with ``caplog.set_level`` how much of it is written."""
    caplog.handler.setLevel(logging.DEBUG)
    yield caplog
    assert {record.kind for record in caplog.get_records("call") if hasattr(record, "kind")} <= KINDS


KINDS = {
    "session opened",
    "session ended",
    "session rejected",
    "connection opened",
    "connection lost",
    "handshake failed",
    "frame",
    "capsule",
    "stream",
    "left out",
    "failure",
}


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """What a record has beside what every record has."""
    return {name: value for name, value in vars(record).items() if name not in vars(logging.makeLogRecord({}))} | {
        "message": record.getMessage()
    }


def of_kind(log: pytest.LogCaptureFixture, kind: str, logger: str = "wtio.server") -> list[dict[str, Any]]:
    """Fields of the lines of a kind, in order."""
    return [fields(one) for one in log.records if getattr(one, "kind", "") == kind and one.name == logger]


async def echo(session: wtio.WebTransportSession) -> None:
    async def answer(stream: wtio.WebTransportStream) -> None:
        await stream.write(data=await stream.read_all(), end_stream=True)

    await session.serve_streams(answer, datagrams=session.send_datagram)


async def stay(session: wtio.WebTransportSession) -> None:
    await session.wait_closed()


# -- sessions


def test_a_session_is_one_line_when_it_opens_and_one_when_it_ends(log: pytest.LogCaptureFixture) -> None:
    log.set_level(logging.INFO, "wtio")
    ids: list[int] = []

    async def main() -> None:
        network = Network()
        async with network.serve(echo) as server:
            async with network.connect(URL) as session:
                ids.extend((session.log_id, server.sessions[0].log_id))
                stream = await session.create_bidirectional_stream()
                await stream.write(data=b"x" * 1000, end_stream=True)
                assert len(await stream.read_all()) == 1000
                session.send_datagram(b"y" * 30)
                assert len(await session.receive_datagram()) == 30
                await asyncio.sleep(2)
                await session.close(7, f"bye {SECRET}")
            await asyncio.sleep(1)

    testing.run(main())
    assert [record.levelno for record in log.records] == [logging.INFO] * 4
    for logger, number, by, place in (("wtio.client", ids[0], "local", "to"), ("wtio.server", ids[1], "peer", "from")):
        (opened,) = of_kind(log, "session opened", logger)
        (ended,) = of_kind(log, "session ended", logger)
        where = f"connection {opened['connection']} {place} {opened['peer']} port {opened['peer_port']}"
        assert opened.pop("message") == f"session {number} opened: {where}, path /room/1"
        assert ended.pop("message") == (
            f"session {number} ended: {where}, path /room/1, code 7 by {by}, {ended['seconds']:.3f} s, "
            "1030 bytes received, 1030 sent"
        )
        assert 2 < ended.pop("seconds") < 3
        assert opened == {
            "kind": "session opened",
            "session": number,
            "connection": opened["connection"],
            "peer": "::1",
            "peer_port": opened["peer_port"],
            "path": "/room/1",
        }
        assert ended == opened | {
            "kind": "session ended",
            "code": 7,
            "closed_by": by,
            "bytes_received": 1030,
            "bytes_sent": 1030,
            "datagrams_received": 1,
            "datagrams_sent": 1,
        }


async def one_that_raises(session: wtio.WebTransportSession) -> None:
    """Reset one stream, fail in another and with a datagram, then in the session's own handler."""

    async def answer(stream: wtio.WebTransportStream) -> None:
        if await stream.read_all() == b"!":
            raise ValueError("a stream")

    def take(data: bytes) -> None:
        raise KeyError(data)

    await session.serve_streams(answer, datagrams=take)
    raise RuntimeError(f"the end of {session!r}")


def test_a_session_has_one_name_in_all_lines(log: pytest.LogCaptureFixture) -> None:
    log.set_level(logging.DEBUG, "wtio.server")
    numbers: list[int] = []

    async def main() -> None:
        network = Network()
        async with network.serve(one_that_raises) as server, network.connect(URL) as session:
            (served,) = server.sessions
            numbers.append(served.log_id)
            assert repr(served) == f"<WebTransportSession {served.log_id} localhost/room/1 open>"
            for data in (b"!", b"?"):
                stream = await session.create_bidirectional_stream()
                assert repr(stream).startswith(f"<WebTransportStream {stream.stream_id} session={session.log_id} ")
                await stream.write(data=data, end_stream=data == b"!")
            await stream.reset(error_code=7)
            session.send_datagram(b"!")
            await asyncio.sleep(1)

    testing.run(main())
    name = f"session {numbers[0]}"
    lines = [record.getMessage() for record in log.records if getattr(record, "session", None) == numbers[0]]
    begins = [f"{name} opened: ", f"{name} ended: "]
    begins += [
        f"{name}, path /room/1: {what}"
        for what in (
            "handler of stream 4 failed",
            "handler of stream 8 ended",
            "handler of datagrams",
            "handler failed",
        )
    ]
    assert all(any(line.startswith(begin) for line in lines) for begin in begins), lines
    assert len(lines) == len(begins)


@pytest.mark.unaudited("no session comes of one of its connections")
def test_lines_about_admission_have_the_name_of_the_session_or_else_of_the_connection(
    log: pytest.LogCaptureFixture,
) -> None:
    log.set_level(logging.DEBUG, "wtio.server")

    async def admit(request: wtio.SessionRequest) -> None:
        if "accept" in request.path:
            await request.accept()
        raise RuntimeError("no")

    async def main() -> None:
        network = Network()
        async with network.serve(stay, admit=admit):
            with pytest.raises(wtio.SessionRejectedError):
                await network.connect(URL)
            async with network.connect(f"{URL}&accept") as session:
                await session.wait_closed()

    testing.run(main())
    refused, accepted = of_kind(log, "failure")
    (rejected,) = of_kind(log, "session rejected")
    place = rejected["message"].partition(": ")[0]
    assert (refused["message"], refused["session"]) == (f"{place}, path /room/1: admit failed", None)
    (opened,) = of_kind(log, "session opened")
    name = f"session {opened['session']}"
    assert (accepted["message"], accepted["session"]) == (f"{name}, path /room/1: admit failed", opened["session"])


def test_numbers_of_sessions_are_unique_in_the_process(log: pytest.LogCaptureFixture) -> None:
    log.set_level(logging.INFO, "wtio")
    ids: list[int] = []

    async def main() -> None:
        for _ in range(2):
            network = Network()
            async with network.serve(stay) as server, network.client() as client:
                sessions = [await client.connect(URL, allow_pooling=True) for _ in range(3)]
                ids.extend(session.log_id for session in sessions)
                ids.extend(session.log_id for session in server.sessions)

    testing.run(main())
    assert len(set(ids)) == 12
    lines = [*of_kind(log, "session opened"), *of_kind(log, "session opened", "wtio.client")]
    assert sorted(line["session"] for line in lines) == sorted(ids)
    # Those that share a connection name the same one.
    assert len({line["connection"] for line in lines}) == 4


@pytest.mark.unaudited("its connection is lost")
def test_a_session_that_is_lost_ends_without_a_code(log: pytest.LogCaptureFixture) -> None:
    log.set_level(logging.INFO, "wtio.server")

    async def main() -> None:
        network = Network()
        async with network.serve(stay, timeouts=wtio.Timeouts(idle=5)), network.client() as client:
            session = await client.connect(URL)
            network.blackout(20)
            await asyncio.sleep(10)
            await session.abort()

    testing.run(main())
    (ended,) = of_kind(log, "session ended")
    assert (ended["code"], ended["closed_by"]) == (None, "transport")
    assert "no code by transport" in ended["message"]


def test_a_level_that_changes_counts_from_the_next_session_on(log: pytest.LogCaptureFixture) -> None:
    log.set_level(logging.WARNING, "wtio.server")

    async def main() -> None:
        network = Network()
        async with network.serve(stay), network.connect():
            log.set_level(logging.INFO, "wtio.server")
            async with network.connect():
                pass
            await asyncio.sleep(1)

    testing.run(main())
    assert len(of_kind(log, "session opened")) == 1
    assert len(of_kind(log, "session ended")) == 1


def test_a_path_is_cut(log: pytest.LogCaptureFixture) -> None:
    log.set_level(logging.INFO, "wtio.server")

    async def main() -> None:
        network = Network()
        async with network.serve(stay), network.connect(f"https://localhost/{'a' * 10_000}"):
            pass

    testing.run(main())
    (opened,) = of_kind(log, "session opened")
    assert opened["path"] == f"/{'a' * 199}…"
    assert len(opened["message"]) < 300


def test_failures_of_handlers_have_the_number_of_their_session(log: pytest.LogCaptureFixture) -> None:
    log.set_level(logging.INFO, "wtio.server")

    async def handler(session: wtio.WebTransportSession) -> None:
        async def fail(stream: wtio.WebTransportStream) -> None:
            await stream.read_all()
            raise ValueError("a fault of the application")

        with suppress(wtio.SessionClosed):
            await session.serve_streams(fail)
        raise RuntimeError("another one")

    async def main() -> None:
        network = Network()
        async with network.serve(handler), network.connect() as session:
            for end in ("reset", "close"):
                stream = await session.create_bidirectional_stream()
                await stream.write(data=b"x")
                await (stream.reset() if end == "reset" else stream.write(data=b"", end_stream=True))
                await asyncio.sleep(1)
            await session.close()
            await asyncio.sleep(1)

    testing.run(main())
    (opened,) = of_kind(log, "session opened")
    failures = of_kind(log, "failure")
    assert [line["session"] for line in failures] == [opened["session"]] * 3
    assert {record.levelno for record in log.records if getattr(record, "kind", "") == "failure"} == {
        logging.INFO,
        logging.ERROR,
    }


# -- connections


def test_connections_are_at_debug_with_why_they_were_lost(log: pytest.LogCaptureFixture) -> None:
    log.set_level(logging.DEBUG, "wtio.server")
    log.set_level(logging.DEBUG, "wtio.client")

    async def main() -> None:
        network = Network()
        async with network.serve(stay):
            async with network.connect(URL):
                await asyncio.sleep(2)
            await asyncio.sleep(1)

    testing.run(main())
    for logger, cause in (("wtio.server", "application"), ("wtio.client", "local")):
        (opened,) = of_kind(log, "connection opened", logger)
        (lost,) = of_kind(log, "connection lost", logger)
        (session,) = of_kind(log, "session opened", logger)
        assert opened["connection"] == lost["connection"] == session["connection"]
        assert (lost["cause"], lost["code"], lost["code_name"]) == (cause, 0x100, "H3_NO_ERROR (0x100)")
        assert lost["seconds"] > 2
        assert (lost["peer"], lost["peer_port"]) == (session["peer"], session["peer_port"])
    assert not of_kind(log, "handshake failed")


@pytest.mark.unaudited("no session comes about")
def test_a_handshake_that_fails_says_why(log: pytest.LogCaptureFixture, authority: trustme.CA) -> None:
    log.set_level(logging.DEBUG, "wtio")
    chain = authority.issue_cert("elsewhere.example")
    other = wtio.ServerTLS(
        certdata=b"".join(blob.bytes() for blob in chain.cert_chain_pems), keydata=chain.private_key_pem.bytes()
    )

    async def main() -> None:
        network = Network()
        async with network.serve(stay, tls=other):
            with pytest.raises(wtio.CertificateError):
                await network.connect(URL, tls=wtio.ClientTLS(cadata=authority.cert_pem.bytes()))
            await asyncio.sleep(1)

    testing.run(main())
    # One for each address of the host.
    (at_client, _) = of_kind(log, "handshake failed", "wtio.client")
    assert at_client["cause"] == "tls"
    assert "elsewhere.example" in at_client["message"], "the verifier says what the certificate is for"
    (at_server, _) = of_kind(log, "handshake failed")
    assert at_server["cause"] == "tls"
    assert "TLS alert" in at_server["code_name"]
    assert at_server["message"].startswith(f"connection {at_server['connection']} from ::1 port ")
    # What the client says is the client's.
    assert "elsewhere" not in at_server["message"]


@pytest.mark.unaudited("its client is heard by nobody", entirely=True)
def test_a_handshake_that_takes_too_long_says_so(log: pytest.LogCaptureFixture) -> None:
    log.set_level(logging.DEBUG, "wtio.server")

    async def main() -> None:
        network = Network()
        async with network.serve(stay, timeouts=wtio.Timeouts(handshake=3)):
            network.to_client.loss = 1.0
            task = asyncio.ensure_future(network.connect(URL)._establish())
            await asyncio.sleep(4)
            task.cancel()
            await asyncio.wait([task])

    testing.run(main())
    failed, *_ = of_kind(log, "handshake failed")
    assert failed["cause"] == "local"
    assert "the handshake took too long" in failed["message"]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.mark.unaudited("its peer is a raw one")
def test_a_peer_that_breaks_a_rule_is_named_with_it(log: pytest.LogCaptureFixture) -> None:
    log.set_level(logging.DEBUG, "wtio.server")

    async def main() -> None:
        network = Network()
        async with network.serve(stay), raw_client(network) as peer:
            # A DATA frame before HEADERS.
            peer.open(b"\x00\x01a", bidirectional=True)
            await settle()

    testing.run(main())
    (lost,) = of_kind(log, "connection lost")
    assert (lost["cause"], lost["code_name"]) == ("local", "H3_FRAME_UNEXPECTED (0x105)")
    assert "DATA before HEADERS" in lost["message"]


# -- refusals


REFUSALS: dict[str, tuple[wtio.Limits, list[tuple[str, str]], int]] = {
    "an origin": (wtio.Limits(), [("origin", "https://evil.example")], 403),
    "a limit": (wtio.Limits(sessions=1), [], 429),
}


@pytest.mark.unaudited("its peer is a raw one")
@pytest.mark.parametrize("why", REFUSALS)
def test_refusals_are_at_debug_with_their_status(why: str, log: pytest.LogCaptureFixture) -> None:
    log.set_level(logging.DEBUG, "wtio.server")
    limits, headers, status = REFUSALS[why]

    async def main() -> None:
        network = Network()
        async with network.serve(stay, limits=limits) as server, network.connect(), raw_client(network) as peer:
            peer.request(*headers)
            await settle()
            assert server.stats().sessions_rejected_total == {status: 1}

    testing.run(main())
    (line,) = of_kind(log, "session rejected")
    assert (line["status"], line["path"]) == (status, "/chat")
    assert line["message"].endswith(f": a session for /chat was refused with status {status}")


@pytest.mark.unaudited("its peer is a raw one")
def test_requests_that_are_refused_before_anybody_sees_them_are_written_and_counted(
    log: pytest.LogCaptureFixture,
) -> None:
    log.set_level(logging.DEBUG, "wtio.server")

    async def main() -> None:
        network = Network()
        timeouts = wtio.Timeouts(http_head=2)
        async with network.serve(stay, timeouts=timeouts) as server, raw_client(network) as peer:
            peer.request(token="websocket")
            peer.request(("x", "y" * 70_000))
            peer.open(b"\x01\x40", bidirectional=True)
            await asyncio.sleep(5)
            assert server.stats().sessions_rejected_total == {501: 1, 431: 1, 408: 1}

    testing.run(main())
    assert sorted(line["status"] for line in of_kind(log, "session rejected")) == [408, 431, 501]
    assert {line["path"] for line in of_kind(log, "session rejected")} == {None}


def test_a_client_writes_with_which_status_it_was_refused(log: pytest.LogCaptureFixture) -> None:
    log.set_level(logging.DEBUG, "wtio.client")

    async def main() -> None:
        async def admit(request: wtio.SessionRequest) -> None:
            if "more" not in request.path:
                await request.reject(404, headers={"x-token": SECRET}, body=SECRET.encode())

        network = Network()
        async with network.serve(stay, admit=admit):
            with pytest.raises(wtio.SessionRejectedError):
                await network.connect(URL)
            async with network.connect(f"{URL}&more"):
                pass

    testing.run(main())
    (line,) = of_kind(log, "session rejected", "wtio.client")
    assert (line["status"], line["path"]) == (404, "/room/1")


# -- floods


def test_lines_of_a_kind_beyond_a_bound_are_counted(log: pytest.LogCaptureFixture) -> None:
    log.set_level(logging.DEBUG, "wtio.server")
    lines = PacedLines(logging.getLogger("wtio.server"), most=3)
    for number in range(10):
        lines.write(number, "handshake failed", "number %d", number)
    lines.write(11, "connection lost", "another kind")
    assert log.messages == ["number 0", "number 1", "number 2", "another kind"]
    log.clear()
    lines.write(60, "handshake failed", "later")
    assert log.messages == [
        "7 more lines of the kind `handshake failed` were left out: no more than 3 a minute are written",
        "later",
    ]
    assert fields(log.records[0])["left_out"] == 7


@pytest.mark.unaudited("its peer is a raw one")
@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO])
def test_strangers_cannot_fill_the_log_of_a_server(level: int, log: pytest.LogCaptureFixture) -> None:
    log.set_level(level, "wtio.server")

    async def main() -> None:
        network = Network()
        async with network.serve(stay) as server:
            server._service.lines = PacedLines(logging.getLogger("wtio.server"), most=20)
            async with raw_client(network) as peer:
                for _ in range(50):
                    peer.request(token="websocket")
                    peer.request(("origin", "null"))
                    await asyncio.sleep(0.1)
            for _ in range(30):
                with pytest.raises(wtio.CertificateError):
                    await network.connect(tls=wtio.ClientTLS(certificate_hashes=["00" * 32]))

    testing.run(main())
    expected = 20 if level == logging.DEBUG else 0
    assert len(of_kind(log, "session rejected")) == expected
    assert len(of_kind(log, "handshake failed")) == expected
    # That of the first page from elsewhere.
    assert len([record for record in log.records if record.levelno > logging.DEBUG]) == 1


# -- frames


async def some_of_everything(network: Network) -> None:
    async with network.serve(echo), network.connect(URL, headers={"x-token": SECRET}) as session:
        stream = await session.create_bidirectional_stream()
        await stream.write(data=SECRET.encode(), end_stream=True)
        await stream.read_all()
        await session.drain()
        await session.close(3, SECRET)
    await asyncio.sleep(1)


def test_frames_and_capsules_have_their_names_and_sizes(log: pytest.LogCaptureFixture) -> None:
    log.set_level(logging.DEBUG, "wtio.protocol")
    testing.run(some_of_everything(Network()))
    assert {record.name for record in log.records} == {"wtio.protocol"}
    lines = [fields(record) for record in log.records]
    first = min(line["connection"] for line in lines)
    seen = [
        (line["direction"], line["kind"], line["type_name"], line["stream_id"])
        for line in lines
        if line["connection"] == first
    ]
    # The client's connection began first.
    assert seen[0] == ("sent", "stream", "CONTROL", None)
    for direction in ("sent", "received"):
        assert (direction, "frame", "SETTINGS", None if direction == "sent" else 3) in seen
        assert (direction, "frame", "HEADERS", 0) in seen
    assert ("sent", "capsule", "WT_DRAIN_SESSION", 0) in seen
    (close,) = [line for line in lines if line["type_name"] == "WT_CLOSE_SESSION" and line["direction"] == "received"]
    assert close["size"] == 4 + len(SECRET)
    assert close["type"] == 0x2843
    assert close["message"] == (
        f"connection {close['connection']}, stream 0: received capsule WT_CLOSE_SESSION (0x2843) of 11 bytes"
    )
    # Both sides have seen the same, but for what the client of a server that is closing does not read any more.
    for kind in ("frame", "capsule"):
        sent, received = (
            sorted(line["type_name"] for line in lines if (line["direction"], line["kind"]) == (direction, kind))
            for direction in ("sent", "received")
        )
        assert set(received) <= set(sent)
        assert len(received) >= len(sent) - 1


@pytest.mark.unaudited("its peer is a raw one")
@pytest.mark.parametrize("step", [1, 2, 1000])
def test_frames_are_found_however_they_are_cut(step: int, log: pytest.LogCaptureFixture) -> None:
    log.set_level(logging.DEBUG, "wtio.protocol")

    async def main() -> None:
        network = Network()
        async with network.serve() as server, raw_client(network, None) as peer:
            control = peer.open(b"")
            head = control_stream(DRAFT15_CLIENT) + b"\x21\x03abc"
            for place in range(0, len(head), step):
                control.send(head[place : place + step])
                await asyncio.sleep(0.1)
            # A stream that means nothing here, and one of QPACK.
            peer.open(b"\x21abc")
            peer.open(b"\x02")
            asking = asyncio.ensure_future(anext(aiter(server)))
            stream = peer.request()
            session = await (await asking).accept()
            # WT_DRAIN_SESSION and one that nobody knows, in one DATA frame.
            capsules = b"\x80\x00\x78\xae\x00\x17\x02xy"
            data = bytes((0, len(capsules))) + capsules
            for place in range(0, len(data), step):
                stream.send(data[place : place + step])
                await asyncio.sleep(0.1)
            await session.close()

    testing.run(main())
    seen = [
        (line["kind"], line["type_name"], line["size"])
        for line in map(fields, log.records)
        if line["direction"] == "received"
    ]
    settings = next(size for _, name, size in seen if name == "SETTINGS")
    headers = next(size for _, name, size in seen if name == "HEADERS")
    assert seen == [
        ("stream", "CONTROL", None),
        ("frame", "SETTINGS", settings),
        ("frame", "GREASE", 3),
        ("stream", "GREASE", None),
        ("stream", "QPACK_ENCODER", None),
        ("frame", "HEADERS", headers),
        ("frame", "DATA", 9),
        ("capsule", "WT_DRAIN_SESSION", 0),
        ("capsule", "unknown", 2),
    ]


@pytest.mark.unaudited("its peer is a raw one, which keeps streams")
def test_frames_of_ordinary_requests_are_there_too(log: pytest.LogCaptureFixture) -> None:
    log.set_level(logging.DEBUG, "wtio.protocol")

    async def hook(request: wtio.HttpRequest) -> wtio.HttpResponse:
        return wtio.HttpResponse(status=200, body=await request.body())

    async def main() -> None:
        network = Network()
        async with network.serve(http=hook), HttpClient(network) as client:
            request = await client.ask("POST", f"/?{SECRET}", end=False)
            await request.send_body(SECRET.encode() * 100, end=True)
            await request.answer()
            assert request.status == 200

    testing.run(main())
    seen = [(line["direction"], line["type_name"]) for line in map(fields, log.records) if line["stream_id"] == 0]
    assert seen.count(("received", "DATA")) == 1
    assert seen.count(("sent", "DATA")) == 1
    assert not any(line["kind"] == "capsule" for line in map(fields, log.records))


# -- what is never there


def test_secrets_are_nowhere_at_any_level(log: pytest.LogCaptureFixture) -> None:
    log.set_level(logging.DEBUG)

    async def admit(request: wtio.SessionRequest) -> None:
        if "refuse" in request.path:
            await request.reject(403, headers={"x-token": SECRET}, body=SECRET.encode())
        elif "fail" not in request.path:
            await request.accept(headers={"x-token": SECRET}, protocol=SECRET)

    async def handler(session: wtio.WebTransportSession) -> None:
        if "fail" in session.path:
            raise RuntimeError("a fault of the application")
        if "abort" in session.path:
            await session.abort()
        await echo(session)

    async def hook(request: wtio.HttpRequest) -> wtio.HttpResponse:
        return wtio.HttpResponse(status=404, headers={"x-token": SECRET}, body=await request.body())

    headers = {"authorization": f"Bearer {SECRET}", "cookie": f"a={SECRET}"}

    async def main() -> None:
        network = Network()
        server = await network.serve(handler, admit=admit, http=hook, protocols=[SECRET])
        for way in ("refuse", "fail", "abort", "echo", "close"):
            connector = network.connect(f"{URL}&way={way}", headers=headers, protocols=[SECRET])
            if way in ("refuse", "abort"):
                with pytest.raises(wtio.ConnectError):
                    await connector
                continue
            session = await connector
            if way == "echo":
                stream = await session.create_bidirectional_stream()
                await stream.write(data=SECRET.encode(), end_stream=True)
                assert await stream.read_all() == SECRET.encode()
                session.send_datagram(SECRET.encode())
                assert await session.receive_datagram() == SECRET.encode()
                stream = await session.create_bidirectional_stream()
                await stream.write(data=SECRET.encode())
                await stream.reset(error_code=3)
            if way != "close":
                await asyncio.sleep(1)
                await session.close(1, SECRET)
        async with HttpClient(network) as client:
            request = await client.ask("POST", f"/?{SECRET}", ("authorization", SECRET), end=False)
            await request.send_body(SECRET.encode(), end=True)
            await request.answer()
        await server.close(5, SECRET)
        await session.wait_closed()

    testing.run(main())
    kinds = {getattr(record, "kind", None) for record in log.records}
    assert kinds >= {"session opened", "session ended", "session rejected", "connection opened", "connection lost"}
    assert kinds >= {"frame", "capsule"}
    formatter = logging.Formatter()
    for record in log.records:
        assert SECRET not in formatter.format(record)
        assert SECRET not in repr(vars(record))


@pytest.mark.unaudited("its peer is a raw one")
def test_the_reason_of_a_peer_that_closes_is_not_written(log: pytest.LogCaptureFixture) -> None:
    log.set_level(logging.DEBUG)

    async def main() -> None:
        network = Network()
        async with network.serve(stay), raw_client(network) as peer:
            peer.request()
            await settle()
            # The engine learns what time it is.
            peer.driver.drive()
            peer.core.close(0x107, f"{SECRET}\nan invented line".encode())
            await settle()

    testing.run(main())
    (lost,) = of_kind(log, "connection lost")
    assert (lost["cause"], lost["code_name"]) == ("application", "H3_EXCESSIVE_LOAD (0x107)")
    assert SECRET not in log.text
    assert all("\n" not in message for message in log.messages)


# -- what it costs


def test_nothing_is_prepared_for_lines_that_nobody_wants(log: pytest.LogCaptureFixture) -> None:
    log.set_level(logging.WARNING, "wtio")

    async def main() -> None:
        network = Network()
        async with network.serve(stay) as server, network.connect():
            (connection,) = server._service.connections
            assert connection._log is None
            assert type(connection._raw) is RawStreams
            (state,) = connection.sessions.states()
            assert state.log is None

    testing.run(main())
    assert not log.records


def test_the_number_in_the_log_can_be_read_after_the_end() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(stay), network.connect() as session:
            before = session.log_id
        assert session.log_id == before >= 1

    testing.run(main())
