"""What an installed wtio has to do on every platform: `python try_wheel.py`, with the Python that has it.

It needs nothing but wtio and the standard library, and takes the README's server and client from the package's
metadata. Each claim is a line; the exit status is the number of those that do not hold. `python try_wheel.py NAME ...`
tries some of them. `make test-wheels` runs it for every wheel that this machine can run.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.metadata
import os
import platform
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import wtio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

# The address of this machine. Wine has no IPv4 sockets as quinn-udp wants them, so there it is `::1`.
HOST = os.environ.get("WTIO_HOST", "localhost")
URL = "https://[::1]:{}/" if HOST == "::1" else "https://localhost:{}/"
MIB = 1024 * 1024
BULK = 16 * MIB
# Everything here takes moments; an emulated processor on a busy machine takes longer.
PATIENCE = float(os.environ.get("WTIO_PATIENCE", "120"))


@contextlib.asynccontextmanager
async def echo_session() -> AsyncIterator[wtio.WebTransportSession]:
    """A session with a server in the same process that sends everything back."""

    async def echo(stream: wtio.WebTransportStream) -> None:
        async for chunk in stream:
            await stream.write(data=chunk)

    async def handle(session: wtio.WebTransportSession) -> None:
        await session.serve_streams(echo, datagrams=session.send_datagram)

    certificate = wtio.dev_certificate()
    async with wtio.serve(handle, HOST, 0, tls=certificate.server_tls()) as server:
        url = URL.format(server.addresses[0][1])
        async with wtio.connect(url, tls=certificate.client_tls()) as session:
            yield session


async def echo() -> str:
    """A message on a stream comes back."""
    async with echo_session() as session:
        times = []
        for number in range(200):
            begin = time.perf_counter()
            stream = await session.create_bidirectional_stream()
            await stream.write(data=b"hello %d" % number, end_stream=True)
            answer = await stream.read_all()
            times.append(time.perf_counter() - begin)
            assert answer == b"hello %d" % number, answer
        return f"{statistics.median(times) * 1e6:.0f} us each (median of {len(times)})"


async def datagrams() -> str:
    """Datagrams come back."""
    async with echo_session() as session:
        lost = 0
        for number in range(200):
            while True:
                session.send_datagram(b"datagram %d" % number)
                try:
                    # One that got lost may come back late, before another of the same contents.
                    while await asyncio.wait_for(session.receive_datagram(), 5) != b"datagram %d" % number:
                        pass
                except TimeoutError:
                    lost += 1
                    assert lost < 20, "more datagrams get lost than a machine loses on its way to itself"
                else:
                    break
        return f"200, of which {lost} again since they were lost"


async def bulk() -> str:
    """16 MiB go each way on one stream, and arrive as they were."""
    data = hashlib.shake_128(b"wtio").digest(MIB) * (BULK // MIB)
    async with echo_session() as session:
        stream = await session.create_bidirectional_stream()
        received = hashlib.sha256()
        begin = time.perf_counter()

        async def read() -> int:
            size = 0
            async for chunk in stream:
                received.update(chunk)
                size += len(chunk)
            return size

        reading = asyncio.create_task(read())
        await stream.write(data=data, end_stream=True)
        assert await reading == len(data)
        elapsed = time.perf_counter() - begin
        assert received.digest() == hashlib.sha256(data).digest(), "other bytes came back"
        return f"{BULK / MIB / elapsed:.0f} MiB/s each way at once"


async def certificates() -> str:
    """A certificate that is not trusted is refused by both ways of trusting, with words that say why."""

    async def handle(session: wtio.WebTransportSession) -> None:
        await session.wait_closed()

    messages = []
    certificate = wtio.dev_certificate()
    async with wtio.serve(handle, HOST, 0, tls=certificate.server_tls()) as server:
        url = URL.format(server.addresses[0][1])
        # The system's authorities do not know it; and it is not the one that is expected.
        for tls in (wtio.ClientTLS(), wtio.ClientTLS(certificate_hashes=[bytes(32)])):
            try:
                async with wtio.connect(url, tls=tls):
                    raise AssertionError(f"{tls} trusts a certificate that it cannot know")
            except wtio.CertificateError as error:
                message = str(error)
                # Windows' codes are numbers such as 0x800B0109 or -2146762487; a reader needs words.
                words = re.findall(r"[a-z]{3,}", message)
                assert len(words) > 8, f"no words: {message}"
                assert not re.search(r"-?\b2146\d{6}\b", message), f"a bare number: {message}"
                messages.append(message)
        async with wtio.connect(url, tls=certificate.client_tls()):
            pass
    return " / ".join(message[:160] for message in messages)


SERVER = """
import wtio

async def handle(session):
    await session.wait_closed()

async def main():
    certificate = wtio.dev_certificate()
    async with wtio.serve(handle, "localhost", 0, tls=certificate.server_tls()) as server:
        print("port", server.addresses[0][1], flush=True)
        await server.wait_closed()
    print("closed in good order", flush=True)

wtio.run(main(), code=7, reason="bye")
"""


async def ctrl_c() -> str:
    """Ctrl-C closes a server's sessions with a code, and ends the program by itself."""
    with Program(SERVER.replace("localhost", HOST)) as server:
        port = await asyncio.to_thread(server.wait_for, r"port (\d+)")
        session = await wtio.connect(URL.format(port), tls=wtio.dev_certificate().client_tls())
        server.interrupt()
        try:
            await session.receive_datagram()
        except wtio.SessionClosed as closed:
            end = closed
        else:
            raise AssertionError("a datagram came instead of the end")
        assert (end.code, end.reason) == (7, "bye"), end
        await asyncio.to_thread(server.wait_for, "(closed in good order)")
        status = await asyncio.to_thread(server.process.wait, PATIENCE)
    return f"code 7 at the client, exit status {status}"


async def readme() -> str:
    """The README's server and client work as they are, but for the port."""
    text = importlib.metadata.metadata("wtio")["Description"]
    server_code, client_code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[:2]
    assert "wtio.serve" in server_code
    assert "wtio.connect" in client_code
    port = free_port()
    # The port may be taken, and the host may be the one that is asked for in the environment.
    server_code = server_code.replace("4433", port).replace('"localhost"', f'"{HOST}"')
    client_code = client_code.replace("https://localhost:4433/", URL.format(port))
    with Program(server_code) as server:
        await asyncio.to_thread(server.wait_for, "(serverCertificateHashes)")
        with Program(client_code) as client:
            status = await asyncio.to_thread(client.process.wait, PATIENCE)
            output = "".join(client.lines)
            assert status == 0, f"the client ended with {status}: {output}"
            assert "b'hello'" in output, output
        server.interrupt()
        await asyncio.to_thread(server.process.wait, PATIENCE)
    return "the client printed b'hello'"


def free_port() -> str:
    """A UDP port that nobody has at the moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        return str(taken.getsockname()[1])


class Program:
    """A Python program in a process of its own, whose lines are read by a thread.

    Ctrl-C is a signal where there are signals. On Windows a process cannot send Ctrl-C to one that is not on its
    console; there the program raises it itself when it is told to.
    """

    def __init__(self, code: str) -> None:
        if sys.platform == "win32":
            code = (
                "import signal, sys, threading\n"
                "def _interrupt():\n"
                "    if sys.stdin.readline(): signal.raise_signal(signal.SIGINT)\n"
                "threading.Thread(target=_interrupt, daemon=True).start()\n"
            ) + code
        # What the program has printed.
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._directory = tempfile.TemporaryDirectory()
        file = Path(self._directory.name) / "program.py"
        file.write_text(code, encoding="utf-8")
        command = [*PYTHON, str(file)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self.lines.append("<end>\n")
            self._changed.notify_all()

    def wait_for(self, pattern: str) -> str:
        """Wait until a line has a pattern, and return its group."""
        with self._changed:
            found = self._changed.wait_for(lambda: self._search(pattern) or "<end>\n" in self.lines, PATIENCE)
            match = self._search(pattern)
            assert found, f"the program has not said {pattern} in time: {''.join(self.lines)}"
            assert match, f"the program has not said {pattern}: {''.join(self.lines)}"
            return match

    def _search(self, pattern: str) -> str | None:
        found = re.search(pattern, "".join(self.lines))
        return found[1] if found else None

    def interrupt(self) -> None:
        """As Ctrl-C."""
        if sys.platform == "win32":
            assert self.process.stdin
            self.process.stdin.write("interrupt\n")
            self.process.stdin.flush()
        else:
            self.process.send_signal(signal.SIGINT)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)
        self._reading.join(PATIENCE)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            with contextlib.suppress(OSError):
                pipe.close()
        self._directory.cleanup()


# How to start this Python: an emulator may have to be in front of it.
PYTHON = os.environ.get("WTIO_PYTHON", sys.executable).split("\n")
CLAIMS: dict[str, Callable[[], Awaitable[str]]] = {
    claim.__name__: claim for claim in (echo, datagrams, bulk, certificates, ctrl_c, readme)
}


def main(names: list[str]) -> int:
    """Try each claim, and say what came of it."""
    print(f"wtio {wtio.__version__}, Python {platform.python_version()}, {platform.platform()}", flush=True)
    failed = 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        # The certificate for development is one of this run.
        os.environ["XDG_CACHE_HOME"] = os.environ["LOCALAPPDATA"] = home
        for name in names or CLAIMS:
            begin = time.monotonic()
            try:
                said = asyncio.run(asyncio.wait_for(CLAIMS[name](), PATIENCE))
            except Exception:
                failed += 1
                print(f"FAILED  {name}: {CLAIMS[name].__doc__}\n{traceback.format_exc()}", flush=True)
            else:
                print(f"holds   {name:13} {time.monotonic() - begin:5.1f} s  {said}", flush=True)
    print(f"{len(names or CLAIMS) - failed} passed, {failed} failed")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
