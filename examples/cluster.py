"""A chat and a live board for the browser, on two workers that hear each other through NATS.

Run `python examples/cluster.py` and open the page that it prints in several windows. Its buttons start new code beside
the old, kill a worker, and give everybody's connection another address, as a NAT does; the page shows for how long it
has heard nothing. It needs nats-server (Debian has it) and wtio[nats].
"""

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import wtio
from wtio.hub import Hub, NatsBus, datagram
from wtio.workers import Supervisor, WorkerLimits, wait_leaving

# -- what each worker runs

hub = Hub(NatsBus(os.environ["CLUSTER_BUS"]) if "CLUSTER_BUS" in os.environ else None)
router = wtio.Router()


@router.session("/{name}")
async def play(session: wtio.WebTransportSession, name: str) -> None:
    async def hear(stream: wtio.WebTransportReceiveStream) -> None:
        while line := await stream.readline(limit=500):
            # A page that changes sessions hears some lines twice, and knows them by their keys.
            text = f"{name}: {line.decode(errors='replace').strip()}"
            await hub.publish("chat", text.encode(), key=secrets.token_hex(8))

    async def move(position: bytes) -> None:
        number, x, y = struct.unpack("!IHH", position)
        await hub.publish("board", struct.pack("!IIHH", os.getpid(), number, x, y), key=name)

    async def say_goodbye() -> None:
        await wait_leaving()  # there is new code, and browsers do not see the server's GOAWAY
        with contextlib.suppress(wtio.SessionClosed, wtio.StreamError):
            await (await session.create_bidirectional_stream()).write(data=b"come again", end_stream=True)

    goodbye = asyncio.create_task(say_goodbye())
    try:
        async with hub.subscribe(session, "chat"), hub.subscribe(session, "board", policy=datagram):
            await session.serve_streams(unidirectional=hear, datagrams=move)
    finally:
        goodbye.cancel()


# -- what the supervisor's process runs


class Nat(asyncio.DatagramProtocol):
    """Stands between pages and workers, and gives each page another port when it is told to."""

    def __init__(self, server: tuple[str, int]) -> None:
        self.server = server
        self.ways: dict[tuple[str, int], socket.socket] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.inside: Any = transport

    def datagram_received(self, data: bytes, page: tuple[str, int]) -> None:
        if page not in self.ways:
            way = self.ways[page] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            way.setblocking(False)
            way.connect(self.server)
            asyncio.get_running_loop().add_reader(way, self.pass_back, way, page)
        with contextlib.suppress(OSError):
            self.ways[page].send(data)

    def pass_back(self, way: socket.socket, page: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):
            self.inside.sendto(way.recv(65_536), page)

    def rebind(self) -> None:
        for way in self.ways.values():
            asyncio.get_running_loop().remove_reader(way)
            way.close()
        self.ways.clear()


@contextlib.asynccontextmanager
async def bus() -> AsyncIterator[None]:
    """Run a NATS server for the workers."""
    program = shutil.which("nats-server", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        raise SystemExit("this needs nats-server; on Debian: apt-get install nats-server")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    os.environ["CLUSTER_BUS"] = f"nats://127.0.0.1:{port}"
    nats = await asyncio.create_subprocess_exec(program, "-a", "127.0.0.1", "-p", str(port), "-l", os.devnull)
    try:
        yield
    finally:
        nats.terminate()
        await nats.wait()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--page-port", type=int, default=8080)
    page_port = parser.parse_args().page_port
    own = wtio.dev_certificate()
    page = Path(__file__).with_suffix(".html").read_text().replace("/*options*/", own.javascript)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        what = (await reader.readline()).split()[:2]
        if what == [b"POST", b"/deploy"]:
            await cluster.deploy()
        elif what == [b"POST", b"/kill"]:
            os.kill(cluster.pids[-1], signal.SIGKILL)
        elif what == [b"POST", b"/rebind"]:
            nat.rebind()
        facts = json.dumps({"port": port, "name": f"player-{secrets.token_hex(2)}"})
        writer.write(b"HTTP/1.0 200 OK\r\ncontent-type: text/html\r\n\r\n" + page.replace("/*facts*/", facts).encode())
        writer.close()

    supervisor = Supervisor(
        "cluster:router",
        "127.0.0.1",
        0,
        tls=own.server_tls(),
        workers=2,
        directory=Path(__file__).parent,
        origins="*",
        worker_limits=WorkerLimits(drain=60),
        log_level="warning",
    )
    async with bus(), supervisor as cluster:
        loop = asyncio.get_running_loop()
        _, nat = await loop.create_datagram_endpoint(lambda: Nat(cluster.addresses[0]), ("127.0.0.1", 0))
        port = nat.inside.get_extra_info("sockname")[1]
        async with await asyncio.start_server(answer, "localhost", page_port) as pages:
            print(f"open http://localhost:{pages.sockets[0].getsockname()[1]}/", flush=True)
            await asyncio.Event().wait()


if __name__ == "__main__":
    wtio.run(main())
