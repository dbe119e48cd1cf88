"""``wtio.run`` in a process of its own: real signals, exit statuses, and clients that see them."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from typing import TYPE_CHECKING

import pytest

import wtio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="on Windows, signals of others end a process at once")

PROGRAM = """
import asyncio, signal, sys
import uvloop, wtio

# A shell starts what runs in its background with SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

async def handler(session):
    await session.wait_closed()

async def main():
    tls = wtio.dev_certificate(directory=sys.argv[1]).server_tls()
    timeouts = wtio.Timeouts(drain_delay=float(sys.argv[3]))
    async with wtio.serve(handler, "127.0.0.1", 0, tls=tls, timeouts=timeouts) as server:
        print(server.addresses[0][1], flush=True)
        await server.wait_closed()
    print("went on", flush=True)

factory = {"asyncio": None, "uvloop": uvloop.new_event_loop}[sys.argv[2]]
wtio.run(main(), code=7, reason="deploy", loop_factory=factory)
"""


@pytest.fixture(params=["asyncio", "uvloop"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextlib.asynccontextmanager
async def served(directory: Path, kind: str, delay: float) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A process with a server, and where that is."""
    wtio.dev_certificate(directory=directory)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, str(directory), kind, str(delay)), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        port = (await process.stdout.readline()).decode().strip()
        yield process, f"https://127.0.0.1:{port}/"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_a_signal_closes_sessions_with_a_code_and_the_process_ends_well(
    tmp_path: Path, kind: str, number: signal.Signals
) -> None:
    async with served(tmp_path, kind, 0) as (process, url):
        tls = wtio.dev_certificate(directory=tmp_path).client_tls()
        async with wtio.connect(url, tls=tls) as session:
            process.send_signal(number)
            info = await session.wait_closed()
        assert (info.code, info.reason, info.closed_by) == (7, "deploy", "peer")
        assert process.stdout is not None
        assert await process.stdout.read() == b"went on\n"
        assert await process.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_a_second_signal_ends_the_process_and_tells_its_clients(
    tmp_path: Path, kind: str, number: signal.Signals
) -> None:
    async with served(tmp_path, kind, 1000) as (process, url):
        tls = wtio.dev_certificate(directory=tmp_path).client_tls()
        async with wtio.connect(url, tls=tls) as session:
            process.send_signal(signal.SIGTERM)
            # During the delay, newcomers are served. Until there is one, the first signal may not have been handled.
            async with wtio.connect(url, tls=tls):
                pass
            process.send_signal(number)
            info = await session.wait_closed()
        assert (info.code, info.closed_by) == (None, "peer")
        assert process.stdout is not None
        assert await process.stdout.read() == b""
        # Python ends itself by the signal after a KeyboardInterrupt.
        assert await process.wait() == (143 if number == signal.SIGTERM else -signal.SIGINT)


@pytest.mark.parametrize("way", ["wtio.run", "asyncio.run"])
async def test_a_program_that_exits_says_only_what_it_says(way: str) -> None:
    program = f"import asyncio, sys, wtio\nasync def main(): sys.exit('no configuration')\n{way}(main())"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    assert (process.returncode, output, errors.decode()) == (1, b"", "no configuration\n")


STUBBORN = """
import asyncio, signal, sys
import uvloop, wtio

signal.signal(signal.SIGINT, signal.default_int_handler)

async def stubborn(session):
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

tls = wtio.dev_certificate(directory=sys.argv[1]).server_tls()
timeouts = wtio.Timeouts(close=0.1)
server = wtio.serve(stubborn, "127.0.0.1", 0, tls=tls, timeouts=timeouts)

async def main():
    async with server:
        print(server.addresses[0][1], flush=True)
        await server.wait_closed()

wtio.run(main(), loop_factory={"asyncio": None, "uvloop": uvloop.new_event_loop}[sys.argv[2]])
"""


async def test_a_program_says_what_it_waits_for_and_how_it_is_ended(tmp_path: Path, kind: str) -> None:
    tls = wtio.dev_certificate(directory=tmp_path).client_tls()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", STUBBORN, str(tmp_path), kind),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        port = (await process.stdout.readline()).decode().strip()
        async with wtio.connect(f"https://127.0.0.1:{port}/", tls=tls) as session:
            process.send_signal(signal.SIGTERM)
            await session.wait_closed()
        while "does not end before these tasks" not in (line := (await process.stderr.readline()).decode()):
            assert line
        assert line.endswith("Ctrl-C or SIGTERM ends it: wtio handler of session 1, path /\n")
        process.send_signal(signal.SIGTERM)
        await process.communicate()
        assert process.returncode == -signal.SIGTERM
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
