"""``wtio connect``: talk to a server, by lines, by single messages, or with a pipe."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
import time
from typing import TYPE_CHECKING

import wtio
from wtio._url import without_query
from wtio.cli._conversation import Conversation
from wtio.cli._files import FileError, answer_header, check_name, open_to_put, put
from wtio.cli._options import add_connection_options, connector, refuse
from wtio.cli._progress import progress
from wtio.cli._screen import Screen
from wtio.cli._standard import Aside, has_prompt, read_input, write_output
from wtio.cli._status import Status
from wtio.cli._terminal import decode, visible

if TYPE_CHECKING:
    import argparse

    from wtio.cli._types import Subparsers


def add_parser(commands: Subparsers) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "connect",
        help="talk to a server",
        description="Talk to a server. Each line that is typed goes out on a bidirectional stream of its own, and what "
        "comes back is printed behind `< `. /uni TEXT sends a line on a unidirectional stream, /dgram TEXT as a "
        "datagram; /stats shows figures, /close 7 bye ends the session with a code and a reason, /help lists the "
        "rest. Ctrl-D ends the session, too. A line that begins with a slash is sent with two. Lines from a pipe or a "
        "file are treated the same; behind the last one, and at /close, answers that are missing are waited for, for "
        "--timeout at most. If standard output is a pipe or a file, it gets only what the server sends.",
    )
    parser.add_argument("url", help="such as https://localhost:4433/")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--send", metavar="TEXT", help="send this on a stream, print the answer and end")
    way.add_argument("--datagram", metavar="TEXT", help="send this as a datagram, print the answer and end")
    way.add_argument(
        "--pipe",
        action="store_true",
        help="copy standard input to one bidirectional stream, and what comes back to standard output, byte for byte",
    )
    way.add_argument("--list", action="store_true", help="list the files of `wtio serve --dir`, at the path /files")
    way.add_argument("--get", metavar="NAME", help="print a file of `wtio serve --dir`, or write it to --output")
    way.add_argument("--put", metavar="FILE", help="store a file with `wtio serve --dir`, under its own name")
    way.add_argument("--json", action="store_true", help="print one JSON object per line about all that happens")
    parser.add_argument("--output", metavar="FILE", help="with --get: write to this file, which must not exist")
    add_connection_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Connect, exchange data, and report how the session ended."""
    if options.get is None:
        refuse(options, ("--output",), "is where --get writes a file; add --get NAME")
    if options.get is not None:
        _check_get(options.get, options.output)
    if options.put is not None:
        os.close(open_to_put(options.put))
    return asyncio.run(_connect(options))


async def _connect(options: argparse.Namespace) -> Status:
    start = time.perf_counter()
    async with connector(options) as session:
        if options.send is not None:
            return await _ask(session, options.send, options.timeout)
        if options.datagram is not None:
            return await _ask_by_datagram(session, options.datagram, options.timeout)
        if options.pipe:
            return await _pipe(session)
        if options.list or options.get is not None or options.put is not None:
            return await _use_files(session, options)
        elapsed = time.perf_counter() - start
        protocol = f", subprotocol {session.protocol}" if session.protocol else ""
        screen = Screen(as_json=options.json, has_prompt=has_prompt() and not options.json)
        screen.happened(
            "connected",
            f"connected in {elapsed * 1000:.1f} ms, {session.dialect}{protocol}",
            seconds=elapsed,
            draft=session.dialect,
            protocol=session.protocol,
            address=session.remote_address[0],
            port=session.remote_address[1],
        )
        return await Conversation(session, screen, options.timeout).run()


async def _ask(session: wtio.WebTransportSession, text: str, patience: float) -> Status:
    try:
        async with asyncio.timeout(patience), await session.create_bidirectional_stream() as stream:
            await stream.write(data=os.fsencode(text), end_stream=True)
            answer = await stream.read_all()
    except TimeoutError:
        return _no_answer("answer", patience)
    print(decode(answer, lines=True))
    return Status.OK


async def _ask_by_datagram(session: wtio.WebTransportSession, text: str, patience: float) -> Status:
    session.send_datagram(os.fsencode(text))
    try:
        async with asyncio.timeout(patience):
            answer = await session.receive_datagram()
    except TimeoutError:
        return _no_answer("datagram", patience)
    print(decode(answer, lines=True))
    return Status.OK


def _no_answer(what: str, patience: float) -> Status:
    print(f"error: no {what} came back within {patience:g} s (--timeout)", file=sys.stderr)
    return Status.NO_ANSWER


# -- pipes


async def _pipe(session: wtio.WebTransportSession) -> Status:
    """Copy standard input to a stream and back, until both directions have ended."""
    stream = await session.create_bidirectional_stream()
    sending = asyncio.create_task(_send_input(stream))
    try:
        received = await _write_output(stream)
        await sending
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    await session.close()
    return received


async def _send_input(stream: wtio.WebTransportStream) -> None:
    reader = Aside("standard input")
    with progress("sent", _input_size(), is_printed=True) as shown:
        try:
            while data := await reader.ask(read_input):
                await stream.write(data=data)
                shown.add(len(data))
            await stream.write(data=b"", end_stream=True)
            await stream.wait_acked()
        except wtio.StreamStoppedError:
            # The server has heard enough; what it answers is still wanted.
            return


async def _write_output(stream: wtio.WebTransportStream) -> Status:
    writer = Aside("standard output")
    is_terminal = sys.stdout.isatty()
    async for data in stream:
        # A terminal obeys control characters, whoever sent them.
        await writer.ask(write_output, decode(data, lines=True).encode() if is_terminal else data)
    return Status.OK


def _input_size() -> int | None:
    """How many bytes standard input still has, if it is a file."""
    try:
        found = os.fstat(0)
        return max(0, found.st_size - os.lseek(0, 0, os.SEEK_CUR)) if stat.S_ISREG(found.st_mode) else None
    except OSError:
        return None


# -- files


async def _use_files(session: wtio.WebTransportSession, options: argparse.Namespace) -> Status:
    """List, get or put; what the server refuses is one line on standard error."""
    stream = await session.create_bidirectional_stream()
    url = without_query(options.url)
    try:
        if options.list:
            async with asyncio.timeout(options.timeout):
                await stream.write(data=b"LIST\n", end_stream=True)
                await answer_header(stream, url)
                names = await stream.read_all()
            print(decode(names, lines=True), end="")
        elif options.get is not None:
            await _get(stream, options, url)
        else:
            file = open_to_put(options.put)
            try:
                with progress("sent", os.fstat(file).st_size) as shown:
                    size = await put(stream, os.path.basename(options.put), file, shown.add, url)
            finally:
                os.close(file)
            print(f"stored {size} bytes as {os.path.basename(options.put)}")
    except FileError as error:
        print(f"error: {visible(str(error))}", file=sys.stderr)
        return Status.FAILED
    except TimeoutError:
        return _no_answer("answer", options.timeout)
    await session.close()
    return Status.OK


def _check_get(name: str, output: str | None) -> None:
    """Raise ValueError for what cannot work, before there is a session and a long transfer."""
    try:
        check_name(name)
    except FileError as error:
        raise ValueError(f"--get: {error}") from error
    if output is None:
        return
    if os.path.lexists(output):
        raise ValueError(f"--output: `{output}` exists; give another name, nothing is replaced")
    directory = os.path.dirname(output) or "."
    if not os.path.isdir(directory):
        raise ValueError(f"--output: there is no directory `{directory}`")


async def _get(stream: wtio.WebTransportStream, options: argparse.Namespace, url: str) -> None:
    output: str | None = options.output
    async with asyncio.timeout(options.timeout):
        await stream.write(data=b"GET " + os.fsencode(options.get) + b"\n", end_stream=True)
        size = left = await answer_header(stream, url)
    is_terminal = output is None and sys.stdout.isatty()
    writer = Aside("output")
    # Under its own name only when it is complete.
    unfinished = None if output is None else f"{output}.{os.getpid()}.part"
    try:
        target = None if unfinished is None else os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except OSError as error:
        # Nobody has asked for the other name.
        error.filename = output
        raise
    try:
        with progress("received", size, is_printed=output is None) as shown:
            async for data in stream:
                left -= len(data)
                shown.add(len(data))
                safe = decode(data, lines=True).encode() if is_terminal else data
                await writer.ask(write_output, safe, 1 if target is None else target)
        if left:
            raise FileError(f"{size - left} bytes arrived of {size}")
        if output is not None and unfinished is not None:
            # Unlike a rename, this fails if there is such a file by now.
            try:
                os.link(unfinished, output)
            except FileExistsError as error:
                raise FileError(f"`{output}` exists by now; nothing is replaced") from error
    finally:
        if target is not None and unfinished is not None:
            os.close(target)
            os.unlink(unfinished)
