"""A peer on pywebtransport for the interop matrix; ``tests/interop/matrix/rows.py`` describes the scripts.

::

    python peer.py client <url> <SHA-256 of the certificate> <certificate file>
    python peer.py server <certificate and key file> <port or 0>

The client prints its report as one line of JSON. The server prints ``{"port": …}``, then a report for each session
that is over, and ends with its standard input. It runs in a virtual environment of its own, without wtio; the scripts
are imported from their file.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pywebtransport import ClientConfig, ServerConfig, WebTransportClient, WebTransportError, WebTransportServer
from pywebtransport.constants import ErrorCodes
from pywebtransport.types import EventType

sys.path.insert(0, str(Path(__file__).resolve().parents[4]))

from tests.interop.matrix.rows import SPOKEN_SUBPROTOCOL, SUBPROTOCOLS, Report, Script, bulk_data
from tests.interop.peers.lines import print_line, reported, until_the_end_of_input

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pywebtransport import WebTransportBidirectionalStream as Stream
    from pywebtransport import WebTransportConnection as Connection
    from pywebtransport import WebTransportSession as Session

# By its default, a session may have ten streams of a kind.
STREAMS_AT_ONCE = 10
RESEND_SECONDS = 0.1


# -- both halves


class End:
    """What a session tells about its end and about draining, noted from its beginning."""

    def __init__(self, session: Session) -> None:
        loop = asyncio.get_running_loop()
        self._closed: asyncio.Future[Report] = loop.create_future()
        self.draining = asyncio.Event()
        session.events.once(event_type=EventType.SESSION_CLOSED, handler=self._note_closed)
        session.events.once(event_type=EventType.SESSION_DRAINING, handler=lambda event: self.draining.set())
        session.connection.events.once(event_type=EventType.CONNECTION_CLOSED, handler=self._note_closed)

    def _note_closed(self, event: Any) -> None:
        if not self._closed.done():
            self._closed.set_result({"code": event.data.get("error_code"), "reason": event.data.get("reason")})

    async def wait(self) -> Report:
        return await self._closed


async def ask(stream: Stream, question: str) -> str:
    await stream.write_all(data=question.encode(), end_stream=True)
    answer: bytes = await stream.read_all()
    return answer.decode()


async def answer(stream: Stream) -> str:
    question: bytes = await stream.read_all()
    await stream.write_all(data=question.upper(), end_stream=True)
    return question.decode()


async def code_of_reset(stream: Stream) -> object:
    try:
        data = await stream.read_all()
    except WebTransportError as error:
        return error.error_code
    return f"ended after {data!r}"


async def code_of_stop(stream: Stream) -> object:
    event = await stream.events.wait_for(event_type=EventType.STREAM_STOP_SENDING_RECEIVED)
    code: object = event.data["error_code"]
    return code


def received(data: bytes) -> Report:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


async def say(session: Session, text: str) -> None:
    stream = await session.create_unidirectional_stream()
    await stream.write_all(data=text.encode(), end_stream=True)


async def hear(streams: AsyncIterator[Any]) -> str:
    data: bytes = await (await anext(streams)).read_all()
    return data.decode()


# -- the client


async def client_half(session: Session, end: End, script: Script) -> Report:
    streams = session.incoming_bidirectional_streams()
    match script.name:
        case "connect":
            return {"connected": True}
        case "bidirectional":
            question = await answer(await anext(streams))
            stream = await session.create_bidirectional_stream()
            return {"question": question, "answer": await ask(stream, "client asks")}
        case "unidirectional":
            incoming = session.incoming_unidirectional_streams()
            question = await hear(incoming)
            await say(session, question.upper())
            return {"question": question, "thanks": await hear(incoming)}
        case "bulk":
            stream = await session.create_bidirectional_stream()
            writing = stream.write_all(data=bulk_data(script.number("bytes")), end_stream=True)
            data, _ = await asyncio.gather(stream.read_all(), writing)
            return received(data)
        case "datagrams":
            reply = await ask_with_datagram(session, b"client asks")
            large = await ask_with_datagram(session, b"x" * script.number("large"))
            return {"answer": reply.decode(), "large": len(large)}
        case "reset" | "stop":
            codes = []
            for code in script.codes:
                stream = await session.create_bidirectional_stream()
                if script.name == "stop":
                    waiting = asyncio.ensure_future(code_of_stop(stream))
                    await stream.write(data=b"%d\n" % code)
                    codes.append(await waiting)
                    await stream.stop_receiving(error_code=code)
                else:
                    await stream.write(data=b"%d\n" % code)
                    codes.append(await code_of_reset(stream))
                    await stream.reset(error_code=code)
            await ask(await session.create_bidirectional_stream(), "done\n")
            return {"codes": codes}
        case "close-by-client":
            await session.close(error_code=script.number("code"), reason=script.parameters["reason"])
            return {}
        case "close-by-server":
            return await end.wait()
        case "subprotocol":
            return {"protocol": session.wt_protocol}
        case "many":
            return {"streams": await ask_many(session, script.number("streams"))}
        case "drain":
            await end.draining.wait()
            reply_text = await ask(await session.create_bidirectional_stream(), "still here")
            return {"drained": True, "answer": reply_text}
    return {"error": f"no script `{script.name}`"}


async def ask_with_datagram(session: Session, question: bytes) -> bytes:
    while True:
        await session.send_datagram(data=question)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RESEND_SECONDS):
                while (reply := await session.read_datagram()) != question.upper():
                    pass
                return bytes(reply)


async def ask_many(session: Session, count: int) -> int:
    numbers = iter(range(count))
    right = 0

    async def ask_on() -> None:
        nonlocal right
        for number in numbers:
            question = f"{number:08d}"
            reply = await ask(await session.create_bidirectional_stream(), question)
            right += reply == question

    await asyncio.gather(*(ask_on() for _ in range(STREAMS_AT_ONCE)))
    return right


async def run_client(url: str) -> Report:
    script = Script.of(url)
    offered = list(SUBPROTOCOLS) if script.name == "subprotocol" else None
    async with WebTransportClient(config=ClientConfig(verify_mode=ssl.CERT_NONE)) as client:
        # The usual connect returns so late that a close right behind the answer would go unnoticed.
        session = await client.connect_optimistic(url=url, wt_available_protocols=offered)
        end = End(session)
        try:
            await session.ensure_ready()
        except WebTransportError as error:
            # The code stands for every status; it is the library's own and not from the wire.
            if error.error_code == ErrorCodes.H3_REQUEST_REJECTED:
                return {"rejected": True}
            raise
        report = await client_half(session, end, script)
        connection = session.connection
        await session.close()
        await connection.close()
        return report


# -- the server


async def server_half(session: Session, end: End, script: Script) -> Report:
    streams = session.incoming_bidirectional_streams()
    report: Report = {}
    match script.name:
        case "connect":
            report = {"path": session.path}
        case "bidirectional":
            reply = await ask(await session.create_bidirectional_stream(), "server asks")
            report = {"question": await answer(await anext(streams)), "answer": reply}
        case "unidirectional":
            await say(session, "server asks")
            report = {"answer": await hear(session.incoming_unidirectional_streams())}
            await say(session, "server thanks")
        case "bulk":
            stream = await anext(streams)
            writing = stream.write_all(data=bulk_data(script.number("bytes")))
            data, _ = await asyncio.gather(stream.read_all(), writing)
            await stream.write(data=b"", end_stream=True)
            report = received(data)
        case "datagrams":
            return await answer_datagrams(session)
        case "reset" | "stop":
            report = {"codes": await answer_codes(streams, stop=script.name == "stop")}
        case "close-by-client":
            return await end.wait()
        case "close-by-server":
            await session.close(error_code=script.number("code"), reason=script.parameters["reason"])
            return {}
        case "subprotocol":
            report = {"protocol": session.wt_protocol}
        case "many":
            return {"streams": await answer_many(streams)}
        case "drain":
            report = {"question": await answer(await anext(streams))}
            await end.draining.wait()
            report["drained"] = True
    await end.wait()
    return report


async def answer_datagrams(session: Session) -> Report:
    lengths: list[int] = []
    question = None
    with contextlib.suppress(WebTransportError):
        while True:
            datagram = bytes(await session.read_datagram())
            question = question or datagram.decode()
            lengths.append(len(datagram))
            await session.send_datagram(data=datagram.upper())
    return {"question": question, "large": max(lengths, default=0)}


async def answer_codes(streams: AsyncIterator[Stream], *, stop: bool) -> list[object]:
    codes: list[object] = []
    async for stream in streams:
        line = await stream.readline()
        if line == b"done\n":
            await stream.write(data=b"DONE", end_stream=True)
            break
        if stop:
            waiting = asyncio.ensure_future(code_of_stop(stream))
            await stream.stop_receiving(error_code=int(line))
            codes.append(await waiting)
        else:
            await stream.reset(error_code=int(line))
            codes.append(await code_of_reset(stream))
    return codes


async def answer_many(streams: AsyncIterator[Stream]) -> int:
    count = 0

    async def echo(stream: Stream) -> None:
        nonlocal count
        data = await stream.read_all()
        count += 1
        await stream.write_all(data=data, end_stream=True)

    async with asyncio.TaskGroup() as tasks:
        async for stream in streams:
            tasks.create_task(echo(stream))
    return count


async def serve_session(session: Session) -> None:
    script = Script.of(session.path)
    if script.name == "rejection":
        await session.reject(status_code=script.number("status"))
        print_line({})
        return
    end = End(session)
    offered = session.wt_available_protocols or ()
    await session.accept(wt_protocol=SPOKEN_SUBPROTOCOL if SPOKEN_SUBPROTOCOL in offered else None)
    try:
        report = await server_half(session, end, script)
    except Exception as error:
        report = {"error": f"{type(error).__name__}: {error}"}
    print_line(report)


async def serve_connection(connection: Connection) -> None:
    async with asyncio.TaskGroup() as tasks:
        async for session in connection.incoming_sessions():
            tasks.create_task(serve_session(session))


async def run_server(certificate: str, port: int) -> None:
    if port == 0:
        # It takes no port 0.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
    config = ServerConfig(certfile=certificate, keyfile=certificate, bind_host="127.0.0.1", bind_port=port)
    async with WebTransportServer(config=config) as server:
        await server.listen()
        print_line({"port": port})
        serving = asyncio.create_task(serve_connections(server))
        await until_the_end_of_input()
        serving.cancel()


async def serve_connections(server: WebTransportServer) -> None:
    async with asyncio.TaskGroup() as tasks:
        async for connection in server.incoming_connections():
            tasks.create_task(serve_connection(connection))


def main() -> None:
    match sys.argv[1:]:
        case ["client", url, _, _]:
            print_line(asyncio.run(reported(run_client(url))))
        case ["server", certificate, port]:
            asyncio.run(run_server(certificate, int(port)))
        case _:
            raise SystemExit("usage: peer.py client <url> <hash> <certificate> | peer.py server <certificate> <port>")


if __name__ == "__main__":
    main()
