"""``python -m wtio run`` in a process of its own: signals, exit statuses, systemd, the pid file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest

import wtio
from wtio.workers import Supervisor, _supervisor

from .site import SECONDS, Site, ask, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

# Becomes a process to which systemd has passed sockets.
ACTIVATE = """
import os, socket, sys
count = int(sys.argv[1])
opened = []
port = 0
for _ in range(count):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.bind(("127.0.0.1", port))
    port = s.getsockname()[1]
    opened.append(s)
moved = [os.dup2(s.fileno(), 100 + index) for index, s in enumerate(opened)]
for index, descriptor in enumerate(moved):
    os.dup2(descriptor, 3 + index)
os.environ |= {"LISTEN_FDS": str(count), "LISTEN_PID": str(os.getpid())}
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


class Program:
    """A process and its log."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.log: list[str] = []
        self.reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        while line := (await self.process.stderr.readline()).decode():
            self.log.append(line)

    def has(self, words: str) -> bool:
        return any(words in line for line in self.log)

    async def serves(self) -> int:
        """Wait until it serves; its port."""
        await until(lambda: self.has(" serves") or self.reading.done(), "a server")
        lines = [line for line in self.log if "<Supervisor" in line and " serves" in line]
        assert lines, self.log
        return int(lines[0].split(" port ")[1].split(">")[0].split(",")[0])

    async def end(self) -> int:
        async with asyncio.timeout(SECONDS):
            status = await self.process.wait()
            await self.reading
        return status


@contextlib.asynccontextmanager
async def run(site: Site, *options: str, before: tuple[str, ...] = (), **environment: str) -> AsyncIterator[Program]:
    certificate = str(site.certificate.certfile)
    address = ("--host", "127.0.0.1", "--port", "0") if "--systemd" not in options else ()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *before, "-m", "wtio", "run", "site_app:router", "--app-dir", str(site.directory)),
        *("--certfile", certificate, *address, *options),
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | environment,
    )
    program = Program(process)
    try:
        yield program
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await program.reading


async def test_a_program_deploys_on_sighup_and_ends_in_good_order_on_sigterm(site: Site, tmp_path: Path) -> None:
    pid_file = tmp_path / "run.pid"
    async with run(site, "--workers", "2", "--drain", "20", "--pid-file", str(pid_file)) as program:
        port = await program.serves()
        assert int(pid_file.read_text()) == program.process.pid
        async with site.connect(port) as old:
            assert (await ask(old)).version == "first"
            site.write("second")
            program.process.send_signal(signal.SIGHUP)
            await until(lambda: program.has("deployment 2 serves"), "the deployment")
            async with site.connect(port) as new:
                assert (await ask(new)).version == "second"
                assert (await ask(old)).version == "first"
                program.process.send_signal(signal.SIGUSR1)
                await until(lambda: program.has("read their certificates again"), "new certificates")
                program.process.terminate()
                async with asyncio.timeout(SECONDS):
                    await new.wait_draining()
                # As long as --drain.
                assert (await ask(new)).version == "second"
                assert (await ask(old)).version == "first"
        assert await program.end() == 0, program.log
    assert not pid_file.exists()
    assert not program.has("ERROR")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_a_second_signal_ends_a_program_at_once(site: Site, number: signal.Signals) -> None:
    async with run(site, "--drain", "1000") as program:
        port = await program.serves()
        async with site.connect(port) as session:
            await ask(session)
            program.process.terminate()
            async with asyncio.timeout(SECONDS):
                await session.wait_draining()
                program.process.send_signal(number)
                assert (await session.wait_closed()).code is None
        assert await program.end() == 128 + number


async def test_workers_of_a_supervisor_that_was_killed_end_and_tell_their_clients(site: Site) -> None:
    async with run(site, "--workers", "2") as program:
        port = await program.serves()
        async with site.connect(port) as session:
            worker = (await ask(session)).pid
            program.process.kill()
            async with asyncio.timeout(SECONDS):
                info = await session.wait_closed()
        assert (info.code, info.closed_by) == (0, "peer")

        def is_gone() -> bool:
            try:
                os.kill(worker, 0)
            except ProcessLookupError:
                return True
            # Nobody may wait for it in a container without an init process.
            with open(f"/proc/{worker}/stat") as file:
                return file.read().split()[2] == "Z"

        await until(is_gone, "the end of the worker")


async def test_a_program_that_does_not_start_says_why_in_one_line(site: Site) -> None:
    site.write("first", "import no_such_module")
    async with run(site) as program:
        assert await program.end() == 2
    (line,) = program.log
    assert line.startswith("error: `site_app:router` does not start: ModuleNotFoundError")


async def test_files_that_change_are_deployed_with_reload(site: Site) -> None:
    async with run(site, "--reload") as program:
        port = await program.serves()
        async with site.connect(port) as session:
            assert (await ask(session)).version == "first"
            site.write("second")
            # The old code does not stay.
            async with asyncio.timeout(SECONDS):
                await session.wait_closed()
        async with site.connect(port) as session:
            assert (await ask(session)).version == "second"


async def test_systemd_passes_sockets_and_hears_of_everything(site: Site, tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.setblocking(False)
        loop = asyncio.get_running_loop()

        async def heard(word: str) -> str:
            async with asyncio.timeout(SECONDS):
                while word not in (text := (await loop.sock_recv(manager, 4096)).decode()):
                    pass
            return text

        variables = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "500000"}
        async with run(site, "--systemd", "--workers", "2", before=("-c", ACTIVATE, "4"), **variables) as program:
            assert f"MAINPID={program.process.pid}" in await heard("READY=1")
            port = await program.serves()
            await heard("WATCHDOG=1")
            async with site.connect(port) as session:
                await ask(session)
            site.write("second")
            program.process.send_signal(signal.SIGHUP)
            await heard("RELOADING=1\nMONOTONIC_USEC=")
            assert "deployment 2: 2 of 2 workers serve" in await heard("READY=1")
            program.process.terminate()
            await heard("STOPPING=1")
            assert await program.end() == 0


async def test_too_few_sockets_of_systemd_are_named(site: Site) -> None:
    async with run(site, "--systemd", "--workers", "2", before=("-c", ACTIVATE, "3")) as program:
        assert await program.end() == 2
    assert program.has("sock has 3 sockets for each address; it must have 4")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--health", "8081"), "HOST:PORT"),
        (("--workers", "0"), "workers is 0"),
        (("--secret", "/nonexistent"), "/nonexistent: there is no such file or directory"),
    ],
)
async def test_wrong_options_are_named(site: Site, options: tuple[str, ...], words: str) -> None:
    async with run(site, *options) as program:
        assert await program.end() == 2
    assert words in program.log[-1]


def test_without_a_way_to_steer_one_process_serves_and_says_so(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    served: list[Any] = []
    monkeypatch.setattr(_supervisor, "is_supported", lambda: False)
    monkeypatch.setattr(_supervisor, "run_alone", lambda server, **_: served.append(server))
    limits = wtio.Limits(sessions=10)
    tls = site.certificate.server_tls()
    Supervisor("site_app:router", "127.0.0.1", 0, tls=tls, directory=site.directory, workers=4, limits=limits).run()
    (server,) = served
    assert server.limits.sessions == 10
    assert "one process serves" in caplog.text
