"""Both halves of every row for peers in Python: the client's and the server's, over sessions and streams as
``tests.interop.peer_session`` has them. Nothing here imports a library, so that programs in environments of their own
can play them, too."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import TYPE_CHECKING

from tests.interop.peer_session import PeerSessionClosed, PeerStreamReset, PeerStreamStopped

from .rows import SUBPROTOCOLS, Script, bulk_data

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.interop.peer_session import Session, Stream

    from .rows import Report

    Half = Callable[[Session, Script], Awaitable[Report]]

STREAMS_AT_ONCE = 100
RESETS_AT_ONCE = 20
HELD_STREAMS = 100
_RESEND_SECONDS = 0.1
_CHUNK = 65536


# -- both halves


async def _ask(session: Session, question: bytes) -> str:
    stream = await session.create_stream()
    await stream.write(question, True)
    return (await stream.read_all()).decode()


async def _answer(session: Session) -> str:
    stream = await session.accept_stream()
    question = await stream.read_all()
    await stream.write(question.upper(), True)
    return question.decode()


async def _say(session: Session, data: bytes) -> None:
    await (await session.create_stream(bidirectional=False)).write(data, True)


async def _hear(session: Session) -> bytes:
    return await (await session.accept_stream(bidirectional=False)).read_all()


async def _write_bulk(stream: Stream, data: bytes) -> None:
    for start in range(0, len(data), _CHUNK):
        await stream.write(data[start : start + _CHUNK])


def _received(data: bytes) -> Report:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


async def _code_of_reset(stream: Stream) -> int | str | None:
    try:
        data = await stream.read_all()
    except PeerStreamReset as reset:
        return reset.code
    return f"ended after {data!r}"


async def _read_line(stream: Stream) -> bytes:
    """The first line without its end; what comes with it is of no interest."""
    data = b""
    while b"\n" not in data:
        data += await stream.read()
    return data.partition(b"\n")[0]


async def _reset_many(session: Session, script: Script) -> Report:
    is_early = "early" in script.parameters
    numbers = iter(range(script.number("streams")))

    async def work() -> None:
        for number in numbers:
            stream = await session.create_stream(bidirectional=not is_early)
            if not is_early:
                await stream.write(b"%d\n" % number)
                await stream.read()
                await stream.write(bytes(script.number("bytes")))
            stream.reset(number % 256)
            if not is_early:
                await _code_of_reset(stream)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(RESETS_AT_ONCE):
            tasks.create_task(work())
    held = [await session.create_stream(bidirectional=not is_early) for _ in range(HELD_STREAMS)]
    for stream in held:
        await stream.write(b"held\n")
    answer = await _hear(session)
    await _say(session, b"thanks\n")
    return {"answer": answer.decode()}


async def _take_resets(session: Session, script: Script, *, is_client: bool) -> Report:
    is_early = "early" in script.parameters
    resets = held = 0
    thanked = asyncio.Event()

    async def take(stream: Stream) -> None:
        nonlocal resets, held
        try:
            line = await _read_line(stream)
            if line == b"held":
                held += 1
                if held == HELD_STREAMS:
                    await _say(session, b"enough")
            elif line == b"thanks":
                thanked.set()
            else:
                await stream.write(b"x")
                await stream.read_all()
        except PeerStreamReset as reset:
            resets += 1
            if not is_early:
                stream.reset(reset.code or 0)
        except PeerSessionClosed:
            """What is still under way at the end does not count."""

    async def take_all(*, bidirectional: bool) -> None:
        with contextlib.suppress(PeerSessionClosed):
            while True:
                tasks.create_task(take(await session.accept_stream(bidirectional=bidirectional)))

    async with asyncio.TaskGroup() as tasks:
        taking = [tasks.create_task(take_all(bidirectional=value)) for value in (True, False)]
        await (thanked.wait() if is_client else session.closed)
        for task in taking:
            task.cancel()
    return {"resets": resets}


# -- the client's halves


async def _run_connect(session: Session, script: Script) -> Report:
    return {"connected": True}


async def _run_bidirectional(session: Session, script: Script) -> Report:
    question = await _answer(session)
    return {"question": question, "answer": await _ask(session, b"client asks")}


async def _run_unidirectional(session: Session, script: Script) -> Report:
    question = await _hear(session)
    await _say(session, question.upper())
    return {"question": question.decode(), "thanks": (await _hear(session)).decode()}


async def _run_bulk(session: Session, script: Script) -> Report:
    stream = await session.create_stream()

    async def write() -> None:
        await _write_bulk(stream, bulk_data(script.number("bytes")))
        await stream.write(b"", True)

    received, _ = await asyncio.gather(stream.read_all(), write())
    return _received(received)


async def _run_datagrams(session: Session, script: Script) -> Report:
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


async def _run_reset(session: Session, script: Script) -> Report:
    codes = []
    for code in script.codes:
        stream = await session.create_stream()
        await stream.write(b"%d\n" % code)
        codes.append(await _code_of_reset(stream))
        stream.reset(code)
    await _ask(session, b"done\n")
    return {"codes": codes}


async def _run_stop(session: Session, script: Script) -> Report:
    codes = []
    for code in script.codes:
        stream = await session.create_stream()
        await stream.write(b"%d\n" % code)
        codes.append(await stream.stopped)
        stream.stop(code)
    await _ask(session, b"done\n")
    return {"codes": codes}


async def _run_close_by_client(session: Session, script: Script) -> Report:
    session.close(script.number("code"), script.parameters["reason"])
    # Whoever closes the connection now takes the packet with the capsule with it.
    await session.closed
    return {}


async def _run_close_by_server(session: Session, script: Script) -> Report:
    closed = await session.closed
    return {"code": closed.code, "reason": closed.reason}


async def _run_subprotocol(session: Session, script: Script) -> Report:
    return {"protocol": session.protocol}


async def _run_many(session: Session, script: Script) -> Report:
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


async def _run_resets(session: Session, script: Script) -> Report:
    if script.parameters["by"] == "client":
        return await _reset_many(session, script)
    return await _take_resets(session, script, is_client=True)


async def _run_drain(session: Session, script: Script) -> Report:
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
    "resets": _run_resets,
    "drain": _run_drain,
}


def offered(path: str) -> tuple[str, ...]:
    """The subprotocols that a client offers in the row of this path."""
    return SUBPROTOCOLS if Script.of(path).name == "subprotocol" else ()


async def play_client(session: Session) -> Report:
    """Play the client's half of the row that the path of the session names."""
    script = Script.of(session.path)
    return await _CLIENT_HALVES[script.name](session, script)


# -- the server's halves


async def _serve_connect(session: Session, script: Script) -> Report:
    await session.closed
    return {"path": session.path}


async def _serve_bidirectional(session: Session, script: Script) -> Report:
    answer = await _ask(session, b"server asks")
    question = await _answer(session)
    await session.closed
    return {"question": question, "answer": answer}


async def _serve_unidirectional(session: Session, script: Script) -> Report:
    await _say(session, b"server asks")
    answer = await _hear(session)
    await _say(session, b"server thanks")
    await session.closed
    return {"answer": answer.decode()}


async def _serve_bulk(session: Session, script: Script) -> Report:
    stream = await session.accept_stream()
    data, _ = await asyncio.gather(stream.read_all(), _write_bulk(stream, bulk_data(script.number("bytes"))))
    await stream.write(b"", True)
    await session.closed
    return _received(data)


async def _serve_datagrams(session: Session, script: Script) -> Report:
    received = []
    with contextlib.suppress(PeerSessionClosed):
        while True:
            received.append(await session.receive_datagram())
            session.send_datagram(received[-1].upper())
    return {"question": received[0].decode() if received else None, "large": max(map(len, received), default=0)}


async def _serve_codes(session: Session, serve_one: Callable[[Stream, int], Awaitable[object]]) -> Report:
    codes = []
    with contextlib.suppress(PeerSessionClosed):
        while True:
            stream = await session.accept_stream()
            line = await _read_line(stream)
            if line == b"done":
                await stream.write(b"DONE", True)
            else:
                codes.append(await serve_one(stream, int(line)))
    return {"codes": codes}


async def _serve_reset(session: Session, script: Script) -> Report:
    async def serve_one(stream: Stream, code: int) -> int | str | None:
        stream.reset(code)
        return await _code_of_reset(stream)

    return await _serve_codes(session, serve_one)


async def _serve_stop(session: Session, script: Script) -> Report:
    async def serve_one(stream: Stream, code: int) -> int | None:
        stream.stop(code)
        try:
            await stream.write(b"x")
        except PeerStreamStopped as stopped:
            # The client's answer can be here before this is written.
            return stopped.code
        return await stream.stopped

    return await _serve_codes(session, serve_one)


async def _serve_close_by_client(session: Session, script: Script) -> Report:
    closed = await session.closed
    return {"code": closed.code, "reason": closed.reason}


async def _serve_close_by_server(session: Session, script: Script) -> Report:
    session.close(script.number("code"), script.parameters["reason"])
    await session.closed
    return {}


async def _serve_subprotocol(session: Session, script: Script) -> Report:
    await session.closed
    return {"protocol": session.protocol}


async def _serve_many(session: Session, script: Script) -> Report:
    count = 0

    async def echo(stream: Stream) -> None:
        nonlocal count
        data = await stream.read_all()
        count += 1
        await stream.write(data, True)

    async with asyncio.TaskGroup() as tasks:
        with contextlib.suppress(PeerSessionClosed):
            while True:
                tasks.create_task(echo(await session.accept_stream()))
    return {"streams": count}


async def _serve_resets(session: Session, script: Script) -> Report:
    if script.parameters["by"] == "client":
        return await _take_resets(session, script, is_client=False)
    report = await _reset_many(session, script)
    await session.closed
    return report


async def _serve_drain(session: Session, script: Script) -> Report:
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
    "resets": _serve_resets,
    "drain": _serve_drain,
}


async def play_server(session: Session) -> Report:
    """Play the server's half of the row that the path of the session names; an error takes the place of the report."""
    script = Script.of(session.path)
    try:
        return await _SERVER_HALVES[script.name](session, script)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
