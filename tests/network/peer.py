"""The programs of the tests in namespaces: they do what the lines on standard input say, and answer each with one."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import sys
from pathlib import Path

import wtio
from wtio import _core


async def serve(directory: Path, io: str) -> None:
    """Echo streams until killed, and tell how sending goes when asked."""

    async def echo(session: wtio.WebTransportSession) -> None:
        async for stream in session.incoming_bidirectional_streams():
            await stream.write_all(data=await stream.read_all(), end_stream=True)

    logging.getLogger("wtio").addHandler(logging.NullHandler())
    tls = wtio.dev_certificate(directory=directory).server_tls()
    async with wtio.serve(echo, None, 4433, tls=tls, io=io) as server:
        print("ready", flush=True)
        endpoint = server._drivers[0].endpoint
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(None, sys.stdin.readline):
            say(gso=endpoint.stats().gso_segments, failures=failures_of(endpoint))


async def connect(directory: Path, url: str, io: str) -> None:
    """Connect once, say what came of it, then echo sizes on demand."""
    records: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record.getMessage())

    logging.getLogger("wtio").addHandler(Keeper())
    tls = wtio.dev_certificate(directory=directory).client_tls()
    # The test ends before this does.
    timeouts = wtio.Timeouts(connect=3600, attempt_delay=3600)
    try:
        session = await wtio.connect(url, tls=tls, timeouts=timeouts, io=io)
    except wtio.ConnectError as error:
        outcomes = [address.outcome for address in error.report.addresses] if error.report else []
        name = errno.errorcode.get(error.errno or 0, "none")
        say(error=type(error).__name__, errno=name, outcomes=outcomes, message=str(error))
        return
    say(error=None)
    link = session._link
    endpoint = link.driver.endpoint  # type: ignore[attr-defined]
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command, _, argument = line.strip().partition(" ")
        if command == "echo":
            data = os.urandom(int(argument))
            stream = await session.create_bidirectional_stream()
            async with asyncio.TaskGroup() as group:
                group.create_task(stream.write_all(data=data, end_stream=True))
                back = group.create_task(stream.read_all())
            say(same=back.result() == data, mtu=session.stats().mtu)
        elif command == "spray":
            # Nobody has to get them.
            for _ in range(int(argument)):
                session.send_datagram(b"?" * 100)
                await asyncio.sleep(0.002)
            say(sprayed=True)
        elif command == "facts":
            say(
                failures=failures_of(endpoint),
                records=records,
                closed=session.is_closed,
                gso=endpoint.stats().gso_segments,
            )


def failures_of(endpoint: _core.Endpoint) -> dict[str, int]:
    return {errno.errorcode.get(number, "?"): count for number, count in endpoint.send_failures()}


def say(**values: object) -> None:
    print(json.dumps(values), flush=True)


def main() -> None:
    role, directory, *rest = sys.argv[1:]
    if role == "serve":
        asyncio.run(serve(Path(directory), *(rest or ["loop"])))
    else:
        asyncio.run(connect(Path(directory), *rest))


if __name__ == "__main__":
    main()
