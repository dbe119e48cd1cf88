"""What one message to many sessions costs a server, beside `websockets.broadcast` over TLS.

    python benchmarks/run.py --fan-out      (or `python -m benchmarks.fan_out`); exit status 1 if a bar is missed

One process serves, another has all clients, new ones for each line, with the same interpreter and event loop. Every
tick, the server sends a message of 64 bytes to each session, which carries its time. Shown are the processor time of
the server's process per message and session (all its threads, and everything that comes back), how it is divided
between program and kernel, and the share of messages that clients had before the next tick. What the kernel does on
loopback for the sockets of clients counts as the server's. The clients of both libraries do as little as they can. If
they have too little of a processor, messages are late because of them.

A line counts only if what was asked for took place. If the server sent more slowly or lost sessions, or clients
received fewer messages, the run ends with an error instead of a figure. There are several rounds, and a ratio is the
median of those within the rounds: processors of virtual machines differ by a third from one minute to the next.

datagram   `wtio.broadcast`
thread     the same in a server with `io="thread"`, whose acknowledgements do not come to Python
one by one `send_datagram` of each session
stream     a unidirectional stream for each session, on which all messages are written
websockets `websockets.broadcast` over TLS, without compression
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import resource
import ssl
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import wtio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

ROOT = Path(__file__).resolve().parent.parent
SIZE = 64
RATE = 30
# Not measured: what only happens in the first moments of a connection.
WARM_UP = 2.0
# The server's processor time against that of websockets, and the share that is delivered within the tick.
BAR, DELIVERED = 0.6, 0.99
KINDS = ("datagram", "thread", "one by one", "stream", "websockets")
# Shares of what was asked for, below which a line is no measurement: of the rate at which the server sends, and of the
# messages that clients receive. Some datagrams may be lost.
PACE, RECEIVED = 0.98, 0.98
# Opened at a time, so that no handshake takes long.
AT_ONCE = 20
STARTING = 120.0


# -- the server


def processor_time() -> tuple[float, float]:
    """Seconds that all threads of this process took so far, in the program and in the kernel."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime, usage.ru_stime


async def tick(seconds: float, send: Callable[[bytes], Awaitable[None]]) -> dict[str, float]:
    """Send a message to all sessions, again and again; the processor time of this process, and how fast that went."""
    begin = time.monotonic()
    warm_up, ticks = int(WARM_UP * RATE), int((WARM_UP + seconds) * RATE)
    before = processor_time()
    for number in range(ticks):
        if number == warm_up:
            before = processor_time()
        await asyncio.sleep(max(0.0, begin + number / RATE - time.monotonic()))
        # Messages of the warm-up carry no time.
        sent = time.monotonic() if number >= warm_up else 0.0
        await send(struct.pack("<d", sent).ljust(SIZE, b"."))
    # The acknowledgements of the last one are part of its price.
    await asyncio.sleep(1 / RATE)
    user, system = (now - then for now, then in zip(processor_time(), before, strict=True))
    pace = (ticks / RATE) / (time.monotonic() - begin)
    return {"user": user, "system": system, "ticks": ticks - warm_up, "pace": pace}


async def serve_wtio(kind: str, directory: Path, count: int, ready: Callable[[int], Awaitable[None]]) -> Any:
    sessions: list[wtio.WebTransportSession] = []
    streams: list[wtio.WebTransportSendStream] = []
    everybody = asyncio.Event()

    async def handler(session: wtio.WebTransportSession) -> None:
        if kind == "stream":
            streams.append(await session.create_unidirectional_stream())
        sessions.append(session)
        if len(sessions) == count:
            everybody.set()
        await session.wait_closed()

    async def send(message: bytes) -> None:
        if kind in {"datagram", "thread"}:
            wtio.broadcast(sessions, message)
        elif kind == "stream":
            for stream in streams:
                # Suspends only if the peer does not read.
                await stream.write(data=message)
        else:
            for session in sessions:
                session.send_datagram(message)

    tls = wtio.dev_certificate(directory=directory).server_tls()
    io: Literal["loop", "thread"] = "thread" if kind == "thread" else "loop"
    async with wtio.serve(handler, "127.0.0.1", 0, tls=tls, io=io) as server:
        await ready(server.addresses[0][1])
        await everybody.wait()
        yield send, lambda: sum(not session.is_closed for session in sessions)


async def serve_websockets(directory: Path, count: int, ready: Callable[[int], Awaitable[None]]) -> Any:
    from websockets.asyncio.server import ServerConnection, broadcast, serve
    from websockets.protocol import State

    connections: set[ServerConnection] = set()
    everybody = asyncio.Event()

    async def handler(connection: ServerConnection) -> None:
        connections.add(connection)
        if len(connections) == count:
            everybody.set()
        await connection.wait_closed()

    async def send(message: bytes) -> None:
        broadcast(connections, message)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(wtio.dev_certificate(directory=directory).certfile)
    async with serve(handler, "127.0.0.1", 0, ssl=context, compression=None, backlog=count) as server:
        await ready(next(iter(server.sockets)).getsockname()[1])
        await everybody.wait()
        yield send, lambda: sum(connection.state is State.OPEN for connection in connections)


async def server_main(options: argparse.Namespace) -> None:
    kind, directory, count = options.kind, options.directory, options.sessions

    async def ready(port: int) -> None:
        print(port, flush=True)

    serving = (
        serve_websockets(directory, count, ready) if kind == "websockets" else serve_wtio(kind, directory, count, ready)
    )
    async with contextlib.aclosing(serving):
        async for send, count_open in serving:
            # The clients are ready when they say so.
            await asyncio.to_thread(sys.stdin.readline)
            result = await tick(options.seconds, send)
            print(json.dumps({**result, "sessions": count_open()}), flush=True)
            # The clients end first.
            await asyncio.to_thread(sys.stdin.readline)


# -- the clients


@dataclass
class Tally:
    """What all clients have received."""

    received: int = 0
    in_time: int = 0
    latencies: list[float] = field(default_factory=list)

    def take(self, message: bytes | memoryview) -> None:
        [sent] = struct.unpack_from("<d", message)
        if sent == 0:
            return
        took = time.monotonic() - sent
        self.received += 1
        self.in_time += took <= 1 / RATE
        if self.received % 100 == 0:
            self.latencies.append(took)


async def connect_wtio(kind: str, port: int, directory: Path, count: int, tally: Tally) -> Any:
    client = wtio.Client(tls=wtio.dev_certificate(directory=directory).client_tls())

    async def read(session: wtio.WebTransportSession) -> None:
        with contextlib.suppress(wtio.SessionClosed, wtio.StreamError):
            if kind != "stream":
                while True:
                    tally.take(await session.receive_datagram())
            stream = await anext(session.incoming_unidirectional_streams())
            while data := await stream.read():
                for offset in range(0, len(data), SIZE):
                    tally.take(memoryview(data)[offset : offset + SIZE])

    async def connect() -> asyncio.Task[None]:
        session = await client.connect(f"https://127.0.0.1:{port}/", allow_pooling=False)
        return asyncio.ensure_future(read(session))

    async with client:
        tasks: list[asyncio.Task[None]] = []
        while len(tasks) < count:
            tasks += await asyncio.gather(*(connect() for _ in range(min(AT_ONCE, count - len(tasks)))))
        yield
    await asyncio.gather(*tasks)


class WebSocket(asyncio.Protocol):
    """As little of a WebSocket as receives these messages."""

    # Two octets in front of a message of fewer than 126 bytes (RFC 6455, section 5.2).
    FRAME = 2 + SIZE

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._buffer = b""
        self.is_open = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        lines = ["GET / HTTP/1.1", "Host: localhost", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}", "Sec-WebSocket-Version: 13"]
        transport.write("\r\n".join([*lines, "", ""]).encode())

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data
        if not self.is_open.done():
            head, found, rest = data.partition(b"\r\n\r\n")
            if found and head.startswith(b"HTTP/1.1 101"):
                self.is_open.set_result(None)
                data = rest
        if self.is_open.done():
            while len(data) >= self.FRAME:
                self._tally.take(data[2 : self.FRAME])
                data = data[self.FRAME :]
        self._buffer = data


async def connect_websockets(port: int, count: int, tally: Tally) -> Any:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    loop = asyncio.get_running_loop()

    async def connect() -> asyncio.Transport:
        transport, protocol = await loop.create_connection(lambda: WebSocket(tally), "127.0.0.1", port, ssl=context)
        await protocol.is_open
        return transport

    transports: list[asyncio.Transport] = []
    while len(transports) < count:
        transports += await asyncio.gather(*(connect() for _ in range(min(AT_ONCE, count - len(transports)))))
    yield
    for transport in transports:
        transport.abort()


async def client_main(kind: str, port: int, directory: Path, count: int) -> None:
    tally = Tally()
    connecting = (
        connect_websockets(port, count, tally)
        if kind == "websockets"
        else connect_wtio(kind, port, directory, count, tally)
    )
    async with contextlib.aclosing(connecting):
        async for _ in connecting:
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
    latencies = sorted(tally.latencies) or [0.0]
    result = {"received": tally.received, "in time": tally.in_time}
    print(json.dumps({**result, "p50": latencies[len(latencies) // 2]}), flush=True)


# -- the table


def start(role: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(wtio.__file__).parent.parent)])}
    command = [sys.executable, "-m", "benchmarks.fan_out", "--role", role, *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def say(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"`{' '.join(map(str, process.args))}` ended")  # type: ignore[arg-type]
    return line


def run(kind: str, directory: Path, options: argparse.Namespace) -> dict[str, float]:
    """One server and one client process: processor time per message and session, share in time, median latency.

    SystemExit if something else took place than what was asked for.
    """
    sizes = ["--kind", kind, "--loop", options.loop, "--directory", str(directory), "--sessions", str(options.sessions)]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(start("server", *sizes, "--seconds", str(options.seconds)))
        stack.callback(server.terminate)
        client = stack.enter_context(start("client", *sizes, "--port", hear(server).strip()))
        stack.callback(client.terminate)
        hear(client)
        profile = profiled(server.pid, kind, options)
        say(server)
        sent = json.loads(hear(server))
        if profile is not None:
            profile.wait()
        say(client)
        got = json.loads(hear(client))
        say(server)
        client.wait()
        server.wait()
    messages = sent["ticks"] * options.sessions
    received = got["received"] / messages
    if sent["sessions"] < options.sessions or sent["pace"] < PACE or received < RECEIVED:
        raise SystemExit(
            f"{kind}: no measurement. In the end, {sent['sessions']} of {options.sessions} sessions were open; the "
            f"server kept {sent['pace']:.1%} of the pace (at least {PACE:.0%}), and clients received {received:.1%} of "
            f"the messages (at least {RECEIVED:.0%}). Try fewer --sessions, or a machine with less to do."
        )
    return {
        "user": sent["user"] / messages,
        "system": sent["system"] / messages,
        "processor": (sent["user"] + sent["system"]) / messages,
        "in time": got["in time"] / messages,
        "received": received,
        "p50": got["p50"],
    }


def profiled(pid: int, kind: str, options: argparse.Namespace) -> subprocess.Popen[bytes] | None:
    """`perf record` of the server, if that is wanted."""
    if options.perf is None:
        return None
    data = options.perf / f"{kind.replace(' ', '-')}.perf"
    command = ["perf", "record", "--quiet", "--call-graph", "dwarf,8192", "--event", "cpu-clock", "--freq", "499"]
    command += ["--pid", str(pid), "--output", str(data)]
    return subprocess.Popen([*command, "--", "sleep", str(WARM_UP + options.seconds)])


def run_loop(loop: str, main: Coroutine[Any, Any, None]) -> None:
    if loop == "uvloop":
        import uvloop

        uvloop.run(main)
    else:
        asyncio.run(main)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--role", choices=("server", "client"), help=argparse.SUPPRESS)
    parser.add_argument("--kind", default=",".join(KINDS), help="comma-separated, all by default")
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each line (default 5)")
    parser.add_argument("--rounds", type=int, default=3, help="in which each line comes once (default 3)")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio", help="of both processes")
    parser.add_argument("--perf", type=Path, metavar="DIRECTORY", help="also record profiles of the servers there")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds is at least 1, not {options.rounds}")
    if options.role == "server":
        run_loop(options.loop, server_main(options))
        return
    if options.role == "client":
        run_loop(options.loop, client_main(options.kind, options.port, options.directory, options.sessions))
        return
    load = os.getloadavg()[0]
    print(
        f"{SIZE} bytes to {options.sessions} sessions, {RATE} times a second, {options.loop}; "
        f"load average before: {load:.1f}"
    )
    kinds = options.kind.split(",")
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        wtio.dev_certificate(directory=directory)
        for number in range(options.rounds):
            # In turns, forth and back: a machine that gets slower or faster meanwhile does so for all.
            for kind in kinds if number % 2 == 0 else reversed(kinds):
                found[kind].append(one := run(kind, directory, options))
                print(
                    f"{kind:<12} {one['processor'] * 1e6:6.2f} µs a message: program {one['user'] * 1e6:.2f}, kernel "
                    f"{one['system'] * 1e6:.2f} ({one['system'] / one['processor']:.0%}); "
                    f"in time {one['in time']:.2%}, received "
                    f"{one['received']:.2%}, median {one['p50'] * 1e3:.1f} ms",
                    flush=True,
                )
    print(f"\nmedian of {options.rounds} rounds:")
    for kind, rounds in found.items():
        print(f"{kind:<12} {statistics.median(one['processor'] for one in rounds) * 1e6:6.2f} µs a message")
    missed = False
    for kind in ("datagram", "thread"):
        if kind not in found or "websockets" not in found:
            continue
        pairs = zip(found[kind], found["websockets"], strict=True)
        ratios = [one["processor"] / other["processor"] for one, other in pairs]
        ratio, in_time = statistics.median(ratios), min(one["in time"] for one in found[kind])
        print(
            f"{kind} against websockets: {ratio:.2f} (bar {BAR}; {min(ratios):.2f} to {max(ratios):.2f}), "
            f"in time at least {in_time:.2%} (bar {DELIVERED:.0%})"
        )
        missed |= ratio > BAR or in_time < DELIVERED
    if missed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
