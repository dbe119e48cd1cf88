"""aioquic on either side, in this process. Its client half is also that of the emulated Safari."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from types import MappingProxyType
from typing import TYPE_CHECKING

import aioquic
from tests.interop import aioquic_peer

from .rows import SPOKEN_SUBPROTOCOL, SUBPROTOCOLS, Script, bulk_data

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from tests.interop.aioquic_peer import PeerSession, PeerStream

    import wtio

    from .peer import Difference, Target
    from .rows import Report, Row

    Half = Callable[[PeerSession, Script], Awaitable[Report]]

STREAMS_AT_ONCE = 100
_RESEND_SECONDS = 0.1
_CHUNK = 65536


# -- both halves


async def _ask(session: PeerSession, question: bytes) -> str:
    stream = await session.create_stream()
    await stream.write(question, True)
    return (await stream.read_all()).decode()


async def _answer(session: PeerSession) -> str:
    stream = await session.accept_stream()
    question = await stream.read_all()
    await stream.write(question.upper(), True)
    return question.decode()


async def _say(session: PeerSession, data: bytes) -> None:
    await (await session.create_stream(bidirectional=False)).write(data, True)


async def _hear(session: PeerSession) -> bytes:
    return await (await session.accept_stream(bidirectional=False)).read_all()


async def _write_bulk(stream: PeerStream, data: bytes) -> None:
    for start in range(0, len(data), _CHUNK):
        await stream.write(data[start : start + _CHUNK])


def _received(data: bytes) -> Report:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


async def _code_of_reset(stream: PeerStream) -> int | str | None:
    try:
        data = await stream.read_all()
    except aioquic_peer.PeerStreamReset as reset:
        return reset.code
    return f"ended after {data!r}"


async def _read_line(stream: PeerStream) -> bytes:
    """The first line without its end; what comes with it is of no interest."""
    data = b""
    while b"\n" not in data:
        data += await stream.read()
    return data.partition(b"\n")[0]


# -- the client's halves


async def _run_connect(session: PeerSession, script: Script) -> Report:
    return {"connected": True}


async def _run_bidirectional(session: PeerSession, script: Script) -> Report:
    question = await _answer(session)
    return {"question": question, "answer": await _ask(session, b"client asks")}


async def _run_unidirectional(session: PeerSession, script: Script) -> Report:
    question = await _hear(session)
    await _say(session, question.upper())
    return {"question": question.decode(), "thanks": (await _hear(session)).decode()}


async def _run_bulk(session: PeerSession, script: Script) -> Report:
    stream = await session.create_stream()

    async def write() -> None:
        await _write_bulk(stream, bulk_data(script.number("bytes")))
        await stream.write(b"", True)

    received, _ = await asyncio.gather(stream.read_all(), write())
    return _received(received)


async def _run_datagrams(session: PeerSession, script: Script) -> Report:
    async def ask(question: bytes) -> bytes:
        while True:
            session.send_datagram(question)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RESEND_SECONDS):
                    while (answer := await session.receive_datagram()) != question.upper():
                        pass
                    return answer

    answer = await ask(b"client asks")
    return {"answer": answer.decode(), "large": len(await ask(b"x" * script.number("large")))}


async def _run_reset(session: PeerSession, script: Script) -> Report:
    codes = []
    for code in script.codes:
        stream = await session.create_stream()
        await stream.write(b"%d\n" % code)
        codes.append(await _code_of_reset(stream))
        stream.reset(code)
    await _ask(session, b"done\n")
    return {"codes": codes}


async def _run_stop(session: PeerSession, script: Script) -> Report:
    codes = []
    for code in script.codes:
        stream = await session.create_stream()
        await stream.write(b"%d\n" % code)
        codes.append(await stream.stopped)
        stream.stop(code)
    await _ask(session, b"done\n")
    return {"codes": codes}


async def _run_close_by_client(session: PeerSession, script: Script) -> Report:
    session.close(script.number("code"), script.parameters["reason"])
    # Whoever closes the connection now takes the packet with the capsule with it.
    await session.closed
    return {}


async def _run_close_by_server(session: PeerSession, script: Script) -> Report:
    closed = await session.closed
    return {"code": closed.code, "reason": closed.reason}


async def _run_subprotocol(session: PeerSession, script: Script) -> Report:
    return {"protocol": session.protocol}


async def _run_many(session: PeerSession, script: Script) -> Report:
    numbers = iter(range(script.number("streams")))
    right = 0

    async def work() -> None:
        nonlocal right
        for number in numbers:
            question = b"%08d" % number
            answer = await _ask(session, question)
            right += answer == question.decode()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(STREAMS_AT_ONCE):
            tasks.create_task(work())
    return {"streams": right}


async def _run_drain(session: PeerSession, script: Script) -> Report:
    await session.draining
    session.drain()
    return {"drained": True, "answer": await _ask(session, b"still here")}


_CLIENT_HALVES: dict[str, Half] = {
    "connect": _run_connect,
    "bidirectional": _run_bidirectional,
    "unidirectional": _run_unidirectional,
    "bulk": _run_bulk,
    "datagrams": _run_datagrams,
    "reset": _run_reset,
    "stop": _run_stop,
    "close-by-client": _run_close_by_client,
    "close-by-server": _run_close_by_server,
    "subprotocol": _run_subprotocol,
    "many": _run_many,
    "drain": _run_drain,
}


def offered(row: Row) -> tuple[str, ...]:
    """The subprotocols that a client offers in this row."""
    return SUBPROTOCOLS if row.name == "subprotocol" else ()


async def play_client(session: PeerSession, row: Row) -> Report:
    """Play the client's half of a row on an open session."""
    script = Script.of(row.path)
    return await _CLIENT_HALVES[script.name](session, script)


# -- the server's halves


async def _serve_connect(session: PeerSession, script: Script) -> Report:
    await session.closed
    return {"path": session.path}


async def _serve_bidirectional(session: PeerSession, script: Script) -> Report:
    answer = await _ask(session, b"server asks")
    question = await _answer(session)
    await session.closed
    return {"question": question, "answer": answer}


async def _serve_unidirectional(session: PeerSession, script: Script) -> Report:
    await _say(session, b"server asks")
    answer = await _hear(session)
    await _say(session, b"server thanks")
    await session.closed
    return {"answer": answer.decode()}


async def _serve_bulk(session: PeerSession, script: Script) -> Report:
    stream = await session.accept_stream()
    data, _ = await asyncio.gather(stream.read_all(), _write_bulk(stream, bulk_data(script.number("bytes"))))
    await stream.write(b"", True)
    await session.closed
    return _received(data)


async def _serve_datagrams(session: PeerSession, script: Script) -> Report:
    received = []
    with contextlib.suppress(aioquic_peer.PeerSessionClosed):
        while True:
            received.append(await session.receive_datagram())
            session.send_datagram(received[-1].upper())
    return {"question": received[0].decode() if received else None, "large": max(map(len, received), default=0)}


async def _serve_codes(session: PeerSession, turn: Callable[[PeerStream, int], Awaitable[object]]) -> Report:
    codes = []
    with contextlib.suppress(aioquic_peer.PeerSessionClosed):
        while True:
            stream = await session.accept_stream()
            line = await _read_line(stream)
            if line == b"done":
                await stream.write(b"DONE", True)
            else:
                codes.append(await turn(stream, int(line)))
    return {"codes": codes}


async def _serve_reset(session: PeerSession, script: Script) -> Report:
    async def turn(stream: PeerStream, code: int) -> int | str | None:
        stream.reset(code)
        return await _code_of_reset(stream)

    return await _serve_codes(session, turn)


async def _serve_stop(session: PeerSession, script: Script) -> Report:
    async def turn(stream: PeerStream, code: int) -> int | None:
        stream.stop(code)
        await stream.write(b"x")
        return await stream.stopped

    return await _serve_codes(session, turn)


async def _serve_close_by_client(session: PeerSession, script: Script) -> Report:
    closed = await session.closed
    return {"code": closed.code, "reason": closed.reason}


async def _serve_close_by_server(session: PeerSession, script: Script) -> Report:
    session.close(script.number("code"), script.parameters["reason"])
    await session.closed
    return {}


async def _serve_subprotocol(session: PeerSession, script: Script) -> Report:
    await session.closed
    return {"protocol": session.protocol}


async def _serve_many(session: PeerSession, script: Script) -> Report:
    count = 0

    async def echo(stream: PeerStream) -> None:
        nonlocal count
        data = await stream.read_all()
        count += 1
        await stream.write(data, True)

    async with asyncio.TaskGroup() as tasks:
        with contextlib.suppress(aioquic_peer.PeerSessionClosed):
            while True:
                tasks.create_task(echo(await session.accept_stream()))
    return {"streams": count}


async def _serve_drain(session: PeerSession, script: Script) -> Report:
    session.drain()
    question = await _answer(session)
    await session.closed
    return {"question": question, "drained": session.draining.done()}


_SERVER_HALVES: dict[str, Half] = {
    "connect": _serve_connect,
    "bidirectional": _serve_bidirectional,
    "unidirectional": _serve_unidirectional,
    "bulk": _serve_bulk,
    "datagrams": _serve_datagrams,
    "reset": _serve_reset,
    "stop": _serve_stop,
    "close-by-client": _serve_close_by_client,
    "close-by-server": _serve_close_by_server,
    "subprotocol": _serve_subprotocol,
    "many": _serve_many,
    "drain": _serve_drain,
}


class _Serving:
    """aioquic serving every script, one session after the other."""

    def __init__(self) -> None:
        self.port = 0
        self._reports: asyncio.Queue[Report] = asyncio.Queue()

    async def report(self) -> Report:
        return await self._reports.get()

    def decide(self, session: PeerSession) -> int:
        script = Script.of(session.path)
        if script.name != "rejection":
            return 200
        self._reports.put_nowait({})
        return script.number("status")

    async def play(self, session: PeerSession) -> None:
        script = Script.of(session.path)
        try:
            report = await _SERVER_HALVES[script.name](session, script)
        except Exception as error:
            report = {"error": f"{type(error).__name__}: {error}"}
        self._reports.put_nowait(report)


# -- the columns


class _Aioquic:
    name = "aioquic"
    title = "aioquic"
    differences: Mapping[str, Difference] = MappingProxyType({})

    def prepare(self) -> str:
        return aioquic.__version__

    def close(self) -> None:
        """Nothing was started."""


class AioquicClient(_Aioquic):
    """aioquic's client, for our server."""

    async def run(self, row: Row, target: Target) -> Report:
        connecting = aioquic_peer.connect(
            "127.0.0.1", target.port, row.path, cafile=target.certificate.certfile, protocols=offered(row)
        )
        try:
            async with connecting as session:
                return await play_client(session, row)
        except aioquic_peer.PeerSessionRejected as rejection:
            return {"rejected": True, "status": rejection.status}


class AioquicServer(_Aioquic):
    """aioquic's server, for our client."""

    @contextlib.asynccontextmanager
    async def serve(self, certificate: wtio.DevCertificate) -> AsyncIterator[_Serving]:
        serving = _Serving()
        async with aioquic_peer.serve(
            serving.play,
            "127.0.0.1",
            0,
            certificate=certificate.certfile,
            key=certificate.keyfile,
            decide=serving.decide,
            protocols=(SPOKEN_SUBPROTOCOL,),
        ) as port:
            serving.port = port
            yield serving
