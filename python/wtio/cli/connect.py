"""``python -m wtio connect``: send lines or datagrams to a server and print what comes back."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

import wtio
from wtio.cli._options import add_connection_options, header_pairs, trust
from wtio.cli._words import in_options

if TYPE_CHECKING:
    import argparse

    from wtio.cli._types import Subparsers

# Seconds to wait for answers after the end of input.
_PATIENCE: Final = 10.0


def add_parser(commands: Subparsers) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "connect",
        help="talk to a server",
        description="Talk to a server. Each line of standard input goes out on a bidirectional stream of its own, "
        "or as a datagram if it begins with `/datagram `; whatever the server sends is printed. The end of input "
        "ends the session. With --send or --datagram nothing is read: the message is sent, its answer printed, and "
        "that is all.",
    )
    parser.add_argument("url", help="such as https://localhost:4433/")
    message = parser.add_mutually_exclusive_group()
    message.add_argument("--send", metavar="TEXT", help="send this on a stream, print the answer and end")
    message.add_argument("--datagram", metavar="TEXT", help="send this as a datagram, print the answer and end")
    add_connection_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Connect, exchange data, and report how the session ended."""
    return asyncio.run(_connect(options))


async def _connect(options: argparse.Namespace) -> int:
    start = time.perf_counter()
    async with wtio.connect(
        options.url,
        tls=trust(options),
        headers=header_pairs(options.header),
        protocols=options.protocol,
        timeouts=wtio.Timeouts(connect=options.timeout),
    ) as session:
        if options.send is not None:
            print(await _ask(session, options.send))
        elif options.datagram is not None:
            session.send_datagram(options.datagram.encode())
            try:
                async with asyncio.timeout(options.timeout):
                    print(_text(await session.receive_datagram()))
            except TimeoutError:
                print(f"error: no datagram came back within {options.timeout:g} s", file=sys.stderr)
                return 1
        else:
            protocol = f", subprotocol {session.protocol}" if session.protocol else ""
            print(f"connected in {(time.perf_counter() - start) * 1000:.1f} ms, {session.dialect}{protocol}")
            return await _converse(session)
    return 0


async def _ask(session: wtio.WebTransportSession, text: str) -> str:
    async with await session.create_bidirectional_stream() as stream:
        await stream.write(data=text.encode(), end_stream=True)
        return _text(await stream.read_all())


async def _converse(session: wtio.WebTransportSession) -> int:
    """Send what is typed and print what arrives, until either side ends."""
    lines = _standard_input()
    listeners = [
        asyncio.create_task(listener)
        for listener in (_print_datagrams(session), _print_streams(session), _print_calls(session))
    ]
    ended = asyncio.create_task(session.wait_closed())
    asked: set[asyncio.Task[None]] = set()
    try:
        while True:
            line = asyncio.create_task(lines.get())
            await asyncio.wait((line, ended), return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                line.cancel()
                break
            text = line.result()
            if text is None:
                # Answers to what was sent may still arrive.
                if asked:
                    await asyncio.wait(asked, timeout=_PATIENCE)
                break
            if text.startswith("/datagram "):
                _send_datagram(session, text.removeprefix("/datagram "))
            elif text:
                question = asyncio.create_task(_print_answer(session, text))
                asked.add(question)
                question.add_done_callback(asked.discard)
    finally:
        for task in (*listeners, *asked, ended):
            task.cancel()
        await asyncio.gather(*listeners, *asked, ended, return_exceptions=True)
    await session.close()
    info = await session.wait_closed()
    if info.closed_by == "local":
        return 0
    words = f" with code {info.code}" if info.code is not None else ""
    print(f"the session was closed by the {info.closed_by}{words}{': ' + info.reason if info.reason else ''}")
    return 0 if info.code == 0 else 1


def _standard_input() -> asyncio.Queue[str | None]:
    """Lines of standard input, and None at its end. Files and terminals cannot be awaited, so a thread reads them."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | None] = asyncio.Queue()

    def put(line: str | None) -> None:
        # The loop may be closed before the thread ends.
        if not loop.is_closed():
            loop.call_soon_threadsafe(lines.put_nowait, line)

    def read() -> None:
        for line in sys.stdin:
            put(line.rstrip("\r\n"))
        put(None)

    # A daemon thread: a read from a terminal cannot be interrupted, and the program need not wait for it.
    threading.Thread(target=read, name="wtio standard input", daemon=True).start()
    return lines


def _send_datagram(session: wtio.WebTransportSession, text: str) -> None:
    try:
        session.send_datagram(text.encode())
    except wtio.DatagramTooLargeError as error:
        print(f"error: {in_options(str(error))}", file=sys.stderr)


async def _print_answer(session: wtio.WebTransportSession, text: str) -> None:
    try:
        print(f"stream: {await _ask(session, text)}")
    except wtio.StreamError as error:
        print(f"error: {in_options(str(error))}", file=sys.stderr)
    except wtio.SessionClosed:
        pass


async def _print_datagrams(session: wtio.WebTransportSession) -> None:
    async for data in session.incoming_datagrams():
        print(f"datagram: {_text(data)}")


async def _print_streams(session: wtio.WebTransportSession) -> None:
    async for stream in session.incoming_unidirectional_streams():
        await _print_stream(stream)


async def _print_calls(session: wtio.WebTransportSession) -> None:
    async for stream in session.incoming_bidirectional_streams():
        await _print_stream(stream)
        await stream.close()


async def _print_stream(stream: wtio.WebTransportReceiveStream) -> None:
    try:
        async for chunk in stream:
            print(f"stream {stream.stream_id} from the server: {_text(chunk)}")
    except wtio.StreamError as error:
        print(f"error: {in_options(str(error))}", file=sys.stderr)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
