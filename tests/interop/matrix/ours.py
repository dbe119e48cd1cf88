"""wtio's own halves of every script: the server that peers connect to, and the client that connects to peers."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import TYPE_CHECKING

import wtio

from .halves import HELD_STREAMS, RESETS_AT_ONCE
from .rows import SPOKEN_SUBPROTOCOL, SUBPROTOCOLS, Script, bulk_data

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from .peer import Target
    from .rows import Report, Row

    ServerHalf = Callable[[wtio.WebTransportSession, Script], Awaitable[Report]]
    ClientHalf = Callable[[wtio.WebTransportSession, Row], Awaitable[Report]]

CLIENT_STREAMS_AT_ONCE = 100
_RESEND_SECONDS = 0.1


# -- both halves


async def _ask(stream: wtio.WebTransportStream, question: bytes) -> str:
    await stream.write(data=question, end_stream=True)
    return (await stream.read_all()).decode()


async def _answer(stream: wtio.WebTransportStream) -> str:
    question = await stream.read_all()
    await stream.write(data=question.upper(), end_stream=True)
    return question.decode()


async def _code_of_reset(stream: wtio.WebTransportStream) -> int | str | None:
    """Read until the peer resets the stream."""
    try:
        data = await stream.read_all()
    except wtio.StreamResetError as error:
        return error.error_code
    return f"ended after {data!r}"


async def _code_of_stop(stream: wtio.WebTransportStream) -> int | str | None:
    """Write until the peer stops the stream."""
    try:
        while True:
            await stream.write(data=b"x")
            await asyncio.sleep(0.001)
    except wtio.StreamStoppedError as error:
        return error.error_code


def _received(data: bytes) -> Report:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


async def _reset_many(session: wtio.WebTransportSession, script: Script) -> Report:
    numbers = iter(range(script.number("streams")))

    async def reset() -> None:
        for number in numbers:
            await (await session.create_unidirectional_stream()).reset(error_code=number % 256)

    async def reset_with_data_under_way() -> None:
        for number in numbers:
            stream = await session.create_bidirectional_stream()
            await stream.write(data=b"%d\n" % number)
            await stream.readexactly(n=1)
            await stream.write_all(data=bytes(script.number("bytes")))
            await stream.reset(error_code=number % 256)
            await _code_of_reset(stream)

    is_early = "early" in script.parameters
    async with asyncio.TaskGroup() as tasks:
        for _ in range(RESETS_AT_ONCE):
            tasks.create_task(reset() if is_early else reset_with_data_under_way())
    held: list[wtio.WebTransportSendStream | wtio.WebTransportStream] = []
    for _ in range(HELD_STREAMS):
        creating = session.create_unidirectional_stream if is_early else session.create_bidirectional_stream
        held.append(await creating())
        await held[-1].write(data=b"held\n")
    answer = await (await anext(session.incoming_unidirectional_streams())).read_all()
    await (await session.create_unidirectional_stream()).write(data=b"thanks\n", end_stream=True)
    return {"answer": answer.decode()}


async def _take_resets(session: wtio.WebTransportSession, *, is_client: bool) -> Report:
    resets = held = 0
    thanked = asyncio.Event()

    async def take(stream: wtio.WebTransportReceiveStream | wtio.WebTransportStream) -> None:
        nonlocal resets, held
        try:
            line = await stream.readline()
            if line == b"held\n":
                held += 1
                if held == HELD_STREAMS:
                    await (await session.create_unidirectional_stream()).write(data=b"enough", end_stream=True)
            elif line == b"thanks\n":
                thanked.set()
            elif isinstance(stream, wtio.WebTransportStream):
                await stream.write(data=b"x")
                await stream.read_all()
        except wtio.StreamResetError as error:
            resets += 1
            if isinstance(stream, wtio.WebTransportStream):
                await stream.reset(error_code=error.error_code or 0)
        except wtio.SessionClosed:
            """What is still under way at the end does not count."""

    async def take_all(
        streams: AsyncIterator[wtio.WebTransportStream] | AsyncIterator[wtio.WebTransportReceiveStream],
    ) -> None:
        with contextlib.suppress(wtio.SessionClosed):
            async for stream in streams:
                tasks.create_task(take(stream))

    async with asyncio.TaskGroup() as tasks:
        taking = [
            tasks.create_task(take_all(session.incoming_bidirectional_streams())),
            tasks.create_task(take_all(session.incoming_unidirectional_streams())),
        ]
        await (thanked.wait() if is_client else session.wait_closed())
        for task in taking:
            task.cancel()
    return {"resets": resets}


# -- the server's halves


async def _serve_connect(session: wtio.WebTransportSession, script: Script) -> Report:
    await session.wait_closed()
    return {"path": session.path}


async def _serve_bidirectional(session: wtio.WebTransportSession, script: Script) -> Report:
    answer = await _ask(await session.create_bidirectional_stream(), b"server asks")
    question = await _answer(await anext(session.incoming_bidirectional_streams()))
    await session.wait_closed()
    return {"question": question, "answer": answer}


async def _serve_unidirectional(session: wtio.WebTransportSession, script: Script) -> Report:
    await (await session.create_unidirectional_stream()).write(data=b"server asks", end_stream=True)
    answer = await (await anext(session.incoming_unidirectional_streams())).read_all()
    await (await session.create_unidirectional_stream()).write(data=b"server thanks", end_stream=True)
    await session.wait_closed()
    return {"answer": answer.decode()}


async def _serve_bulk(session: wtio.WebTransportSession, script: Script) -> Report:
    stream = await anext(session.incoming_bidirectional_streams())
    data, _ = await asyncio.gather(stream.read_all(), stream.write_all(data=bulk_data(script.number("bytes"))))
    await stream.close()
    await session.wait_closed()
    return _received(data)


async def _serve_datagrams(session: wtio.WebTransportSession, script: Script) -> Report:
    received = []
    with contextlib.suppress(wtio.SessionClosed):
        async for datagram in session.incoming_datagrams():
            received.append(datagram)
            session.send_datagram(datagram.upper())
    return {"question": received[0].decode() if received else None, "large": max(map(len, received), default=0)}


async def _serve_reset(session: wtio.WebTransportSession, script: Script) -> Report:
    codes: list[int | str | None] = []
    client_first = script.parameters.get("first") == "client"
    with contextlib.suppress(wtio.SessionClosed):
        async for stream in session.incoming_bidirectional_streams():
            line = await stream.readline()
            if line == b"done\n":
                await stream.write(data=b"DONE", end_stream=True)
            elif client_first:
                await stream.write(data=b"x")
                codes.append(await _code_of_reset(stream))
                await stream.reset(error_code=int(line))
            else:
                await stream.reset(error_code=int(line))
                codes.append(await _code_of_reset(stream))
    return {"codes": codes}


async def _serve_stop(session: wtio.WebTransportSession, script: Script) -> Report:
    codes: list[int | str | None] = []
    one_way = "one-way" in script.parameters
    with contextlib.suppress(wtio.SessionClosed):
        async for stream in session.incoming_bidirectional_streams():
            *again, line = (await stream.readline()).split()
            if line == b"done":
                await stream.write(data=b"DONE", end_stream=True)
            else:
                await stream.stop_receiving(error_code=int(line))
                code = None if one_way else await _code_of_stop(stream)
                if not again and not one_way:
                    codes.append(code)
    return {"codes": codes}


async def _serve_close_by_client(session: wtio.WebTransportSession, script: Script) -> Report:
    info = await session.wait_closed()
    return {"code": info.code, "reason": info.reason}


async def _serve_close_by_server(session: wtio.WebTransportSession, script: Script) -> Report:
    await session.close(script.number("code"), script.parameters["reason"])
    return {}


async def _serve_subprotocol(session: wtio.WebTransportSession, script: Script) -> Report:
    await session.wait_closed()
    return {"protocol": session.protocol}


async def _serve_many(session: wtio.WebTransportSession, script: Script) -> Report:
    count = 0

    async def echo(stream: wtio.WebTransportStream) -> None:
        nonlocal count
        data = await stream.read_all()
        count += 1
        await stream.write(data=data, end_stream=True)

    async with asyncio.TaskGroup() as tasks:
        with contextlib.suppress(wtio.SessionClosed):
            async for stream in session.incoming_bidirectional_streams():
                tasks.create_task(echo(stream))
    return {"streams": count}


async def _serve_resets(session: wtio.WebTransportSession, script: Script) -> Report:
    if script.parameters["by"] == "client":
        return await _take_resets(session, is_client=False)
    report = await _reset_many(session, script)
    await session.wait_closed()
    return report


async def _serve_drain(session: wtio.WebTransportSession, script: Script) -> Report:
    await session.drain()
    question = await _answer(await anext(session.incoming_bidirectional_streams()))
    await session.wait_closed()
    # The client's request came on the same stream as its goodbye, and before it.
    return {"question": question, "drained": session.is_draining}


_SERVER_HALVES: dict[str, ServerHalf] = {
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


class OurServer:
    """wtio serving every script, one session after the other."""

    def __init__(self, server: wtio.Server) -> None:
        self._server = server
        self._reports: asyncio.Queue[Report] = asyncio.Queue()

    @property
    def port(self) -> int:
        return self._server.addresses[0][1]

    async def report(self) -> Report:
        return await self._reports.get()

    async def take_requests(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            async for request in self._server:
                script = Script.of(request.path)
                if script.name == "rejection":
                    await request.reject(script.number("status"))
                    self._reports.put_nowait({})
                else:
                    tasks.create_task(self._play(await request.accept(), script))

    async def _play(self, session: wtio.WebTransportSession, script: Script) -> None:
        try:
            async with session:
                report = await _SERVER_HALVES[script.name](session, script)
        except Exception as error:
            report = {"error": f"{type(error).__name__}: {error}"}
        self._reports.put_nowait(report)


@contextlib.asynccontextmanager
async def serving(certificate: wtio.DevCertificate) -> AsyncIterator[OurServer]:
    """Our server with its default settings, on a port of its own."""
    async with wtio.serve(
        None, "127.0.0.1", 0, tls=certificate.server_tls(), protocols=(SPOKEN_SUBPROTOCOL,)
    ) as server:
        ours = OurServer(server)
        requests = asyncio.create_task(ours.take_requests())
        try:
            yield ours
        finally:
            requests.cancel()
            await asyncio.gather(requests, return_exceptions=True)


# -- the client's halves


async def _run_connect(session: wtio.WebTransportSession, row: Row) -> Report:
    return {"connected": True}


async def _run_bidirectional(session: wtio.WebTransportSession, row: Row) -> Report:
    question = await _answer(await anext(session.incoming_bidirectional_streams()))
    answer = await _ask(await session.create_bidirectional_stream(), b"client asks")
    return {"question": question, "answer": answer}


async def _run_unidirectional(session: wtio.WebTransportSession, row: Row) -> Report:
    question = await (await anext(session.incoming_unidirectional_streams())).read_all()
    await (await session.create_unidirectional_stream()).write(data=question.upper(), end_stream=True)
    thanks = await (await anext(session.incoming_unidirectional_streams())).read_all()
    return {"question": question.decode(), "thanks": thanks.decode()}


async def _run_bulk(session: wtio.WebTransportSession, row: Row) -> Report:
    stream = await session.create_bidirectional_stream()
    data = bulk_data(Script.of(row.path).number("bytes"))
    received, _ = await asyncio.gather(stream.read_all(), stream.write_all(data=data, end_stream=True))
    return _received(received)


async def _run_datagrams(session: wtio.WebTransportSession, row: Row) -> Report:
    async def ask(question: bytes) -> bytes:
        while True:
            session.send_datagram(question)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RESEND_SECONDS):
                    # Answers to repetitions of an earlier question may still be under way.
                    while (answer := await session.receive_datagram()) != question.upper():
                        pass
                    return answer

    answer = await ask(b"client asks")
    large = await ask(b"x" * Script.of(row.path).number("large"))
    return {"answer": answer.decode(), "large": len(large)}


async def _run_codes(session: wtio.WebTransportSession, row: Row, *, stop: bool) -> Report:
    codes: list[int | str | None] = []
    for code in Script.of(row.path).codes:
        stream = await session.create_bidirectional_stream()
        await stream.write(data=b"%d\n" % code)
        if stop:
            codes.append(await _code_of_stop(stream))
            await stream.stop_receiving(error_code=code)
        else:
            codes.append(await _code_of_reset(stream))
            await stream.reset(error_code=code)
    await _ask(await session.create_bidirectional_stream(), b"done\n")
    return {"codes": codes}


async def _run_reset(session: wtio.WebTransportSession, row: Row) -> Report:
    return await _run_codes(session, row, stop=False)


async def _run_stop(session: wtio.WebTransportSession, row: Row) -> Report:
    return await _run_codes(session, row, stop=True)


async def _run_close_by_client(session: wtio.WebTransportSession, row: Row) -> Report:
    script = Script.of(row.path)
    await session.close(script.number("code"), script.parameters["reason"])
    return {}


async def _run_close_by_server(session: wtio.WebTransportSession, row: Row) -> Report:
    info = await session.wait_closed()
    return {"code": info.code, "reason": info.reason}


async def _run_subprotocol(session: wtio.WebTransportSession, row: Row) -> Report:
    return {"protocol": session.protocol}


async def _run_many(session: wtio.WebTransportSession, row: Row) -> Report:
    numbers = iter(range(Script.of(row.path).number("streams")))
    right = 0

    async def ask_on() -> None:
        nonlocal right
        for number in numbers:
            question = b"%08d" % number
            answer = await _ask(await session.create_bidirectional_stream(), question)
            right += answer == question.decode()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CLIENT_STREAMS_AT_ONCE):
            tasks.create_task(ask_on())
    return {"streams": right}


async def _run_resets(session: wtio.WebTransportSession, row: Row) -> Report:
    script = Script.of(row.path)
    if script.parameters["by"] == "client":
        return await _reset_many(session, script)
    return await _take_resets(session, is_client=True)


async def _run_drain(session: wtio.WebTransportSession, row: Row) -> Report:
    if "drained" in row.client:
        await session.wait_draining()
    await session.drain()
    answer = await _ask(await session.create_bidirectional_stream(), b"still here")
    return {"answer": answer, "drained": session.is_draining}


_CLIENT_HALVES: dict[str, ClientHalf] = {
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


async def run_client(row: Row, target: Target) -> Report:
    """Play the client's half of a row with wtio."""
    offered = SUBPROTOCOLS if row.name == "subprotocol" else ()
    connecting = wtio.connect(target.url(row), tls=target.certificate.client_tls(), protocols=offered)
    try:
        async with connecting as session:
            return await _CLIENT_HALVES[row.name](session, row)
    except wtio.SessionRejectedError as error:
        return {"rejected": True, "status": error.status}
