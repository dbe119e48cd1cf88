"""Two hosts behind a balancer that knows them by the ID in connection IDs, and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .lab import run

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="network namespaces need root and iproute2"
)

TOP = Path(__file__).parents[2]
BALANCER = Path(__file__).with_name("balancer.py")
SERVER_IDS = ["0123456789abcdef", "fedcba9876543210"]
# Answers streams with its server ID.
SERVER = """
import asyncio, sys, wtio

me = wtio.ServerId.from_environment()

async def answer(stream):
    await stream.write_all(data=me.value + await stream.read_all(), end_stream=True)

async def handle(session):
    await session.serve_streams(answer)

async def main():
    tls = wtio.dev_certificate(directory=sys.argv[1]).server_tls()
    async with wtio.serve(handle, None, 4433, tls=tls, secret=wtio.Secret.from_environment(), server_id=me):
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)

asyncio.run(main())
"""
# Connects through NATs that change their ports 20 times, and then waits until the first server is gone.
CLIENT = """
import asyncio, contextlib, json, sys, wtio
from tests.support.nat import nat

async def owner(session, data):
    stream = await session.create_bidirectional_stream()
    await stream.write_all(data=data, end_stream=True)
    answer = await stream.read_all()
    assert answer[8:] == data
    return answer[:8].hex()

async def main(directory, ip):
    tls = wtio.dev_certificate(directory=directory).client_tls()
    async with contextlib.AsyncExitStack() as stack:
        nats = [await stack.enter_async_context(nat((ip, 443))) for _ in range(10)]
        sessions = [
            await stack.enter_async_context(wtio.connect(f"https://127.0.0.1:{one.port}/", tls=tls)) for one in nats
        ]
        found = [[await owner(session, b"?") for session in sessions]]
        for rebinding in range(20):
            for one in nats:
                await one.rebind()
            found.append([await owner(session, bytes([rebinding]) * 2000) for session in sessions])
        print(json.dumps(found), flush=True)
        sys.stdin.readline()
        lost = {}
        for session, name in zip(sessions, found[0]):
            with contextlib.suppress(wtio.SessionClosed):
                if name == sys.argv[3]:
                    while True:
                        session.send_datagram(b"position")
                        await asyncio.sleep(0.05)
                else:
                    assert await owner(session, b"?") == name
            if session.is_closed:
                lost[name] = (await session.wait_closed()).reason
        print(json.dumps(lost), flush=True)

asyncio.run(main(*sys.argv[1:3]))
"""


class Site:
    """::

    client ── balancer ─┬─ host 0
                        └─ host 1
    """

    def __init__(self) -> None:
        prefix = f"wtio{os.getpid()}"
        self.client, self.balancer = f"{prefix}c", f"{prefix}b"
        self.hosts = [f"{prefix}{number}" for number in range(2)]
        self.running: list[subprocess.Popen[str]] = []

    @contextlib.contextmanager
    def built(self) -> Iterator[Site]:
        names = [self.client, self.balancer, *self.hosts]
        try:
            for name in names:
                run(f"ip netns add {name}")
                run(f"ip -n {name} link set lo up")
            for name, net in ((self.client, 0), (self.hosts[0], 1), (self.hosts[1], 2)):
                run(f"ip link add eth netns {name} type veth peer name to{net} netns {self.balancer}")
                for place, device, host in ((name, "eth", 2), (self.balancer, f"to{net}", 1)):
                    run(f"ip -n {place} addr add 10.8.{net}.{host}/24 dev {device}")
                    run(f"ip -n {place} link set {device} up")
            yield self
        finally:
            for process in self.running:
                with process:
                    process.kill()
            for name in names:
                subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    def start(self, name: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["ip", "netns", "exec", name, sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=TOP,
            env=os.environ | environment,
        )
        self.running.append(process)
        return process

    def serve(self, number: int, directory: Path) -> subprocess.Popen[str]:
        process = self.start(
            self.hosts[number],
            "-c",
            SERVER,
            str(directory),
            AWS_LBC_QUIC_SERVER_ID=f"0x{SERVER_IDS[number]}",
            WTIO_SECRET="the secret of both hosts and of nobody else",
        )
        assert line_of(process) == "ready"
        return process


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"the program has ended with {process.wait()}"
    return line.rstrip("\n")


def test_connections_stay_with_their_host_although_the_balancer_remembers_none(tmp_path: Path) -> None:
    with Site().built() as site:
        first = site.serve(0, tmp_path)
        site.serve(1, tmp_path)
        routes = [f"{one}=10.8.{number + 1}.2:4433" for number, one in enumerate(SERVER_IDS)]
        balancer = site.start(site.balancer, str(BALANCER), "10.8.0.1:443", *routes)
        assert line_of(balancer) == "443"
        client = site.start(site.client, "-c", CLIENT, str(tmp_path), "10.8.0.1", SERVER_IDS[0])
        before, *after = json.loads(line_of(client))
        assert set(before) == set(SERVER_IDS)
        assert after == [before] * 20
        print(f"{len(before)} sessions, {[before.count(one) for one in SERVER_IDS]} by host, stay over 20 rebindings")
        # One is killed and started again: its clients know, and the others notice nothing.
        with first:
            first.kill()
        site.running.remove(first)
        site.serve(0, tmp_path)
        assert client.stdin is not None
        client.stdin.write("\n")
        client.stdin.flush()
        lost = json.loads(line_of(client))
        assert set(lost) == {SERVER_IDS[0]}
        assert "stateless reset" in lost[SERVER_IDS[0]]
