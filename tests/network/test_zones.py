"""Link-local addresses, which need an interface, over a veth pair between two namespaces."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import wtio

from .lab import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="network namespaces need root and iproute2"
)

SERVER = """
import sys, wtio

async def tell(session):
    ip, port = session.remote_address
    stream = await session.create_unidirectional_stream()
    await stream.write(data=f"{ip} {session.authority}".encode(), end_stream=True)
    await session.wait_closed()

async def main():
    tls = wtio.dev_certificate(("fe80::1",), directory=sys.argv[1]).server_tls()
    async with wtio.serve(tell, sys.argv[2], 4433, tls=tls) as server:
        print(*server.addresses[0], flush=True)
        await server.wait_closed()

wtio.run(main())
"""
CLIENT = """
import asyncio, json, sys, wtio

async def main():
    tls = wtio.dev_certificate(("fe80::1",), directory=sys.argv[1]).client_tls()
    url, local = sys.argv[2:4]
    try:
        async with wtio.connect(url, tls=tls, local_addr=(local, 0) if local else None) as session:
            stream = await anext(session.incoming_unidirectional_streams())
            said = (await stream.read_all()).decode().split()
            print(json.dumps([*said, session.remote_address[0], session.report.url]))
    except wtio.ConnectError as error:
        print(json.dumps([type(error).__name__, str(error)]))

asyncio.run(main())
"""


class Link:
    """Two namespaces, and a process with a server in one of them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.near, self.far = (f"wtio{os.getpid()}{name}" for name in "nf")
        self._server: subprocess.Popen[str] | None = None

    def build(self) -> None:
        for name in (self.near, self.far):
            run(f"ip netns add {name}")
        # A second pair, with the same addresses: only the zone tells them apart.
        for link, far in (("eth7", "fe80::1"), ("eth8", "fe80::9")):
            run(f"ip link add {link} netns {self.near} type veth peer name r{link} netns {self.far}")
            for name, device, address in ((self.near, link, "fe80::2"), (self.far, f"r{link}", far)):
                # No address of the kernel's choice.
                run(f"ip -n {name} link set {device} addrgenmode none")
                run(f"ip -n {name} addr add {address}/64 dev {device} nodad")
                run(f"ip -n {name} link set {device} up")

    def serve(self, host: str) -> str:
        self._server = self._start(self.far, SERVER, host)
        assert self._server.stdout is not None
        return self._server.stdout.readline().strip()

    def connect(self, url: str, local: str = "") -> Any:
        with self._start(self.near, CLIENT, url, local) as process:
            output, _ = process.communicate(timeout=30)
        return json.loads(output)

    def number(self, name: str, device: str) -> int:
        done = subprocess.run(
            ["ip", "-j", "-n", name, "link", "show", device], capture_output=True, text=True, check=True
        )
        number: int = json.loads(done.stdout)[0]["ifindex"]
        return number

    def _start(self, name: str, program: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["ip", "netns", "exec", name, sys.executable, "-c", program, str(self._directory), *arguments],
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        if self._server is not None:
            with self._server as process:
                process.terminate()
        for name in (self.near, self.far):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.fixture
def link(tmp_path: Path) -> Iterator[Link]:
    wtio.dev_certificate(("fe80::1",), directory=tmp_path)
    link = Link(tmp_path)
    try:
        link.build()
        yield link
    finally:
        link.close()


@pytest.mark.parametrize("host", ["fe80::1%reth7", "::"])
def test_a_session_over_link_local_addresses(link: Link, host: str) -> None:
    near, far = link.number(link.near, "eth7"), link.number(link.far, "reth7")
    where = link.serve(host)
    assert where == (f"fe80::1%{far} 4433" if "%" in host else ":: 4433")
    for zone in ("eth7", str(near)):
        peer, authority, server, url = link.connect(f"https://[fe80::1%25{zone}]:4433/")
        # Where the other side's is, by the number of the interface here.
        assert (peer, server) == (f"fe80::2%{far}", f"fe80::1%{near}")
        # The zone means nothing to the server.
        assert authority == "[fe80::1]:4433"
        assert url == f"https://[fe80::1%25{zone}]:4433/"


def test_a_client_may_choose_the_interface_with_its_local_address(link: Link) -> None:
    link.serve("::")
    far = link.number(link.far, "reth7")
    assert link.connect("https://[fe80::1%25eth7]:4433/", "fe80::2%eth7")[0] == f"fe80::2%{far}"


def test_an_interface_that_does_not_exist_is_named(link: Link) -> None:
    kind, words = link.connect("https://[fe80::1%25eth99]:4433/")
    assert kind == "NameResolutionError"
    assert "fe80::1%eth99" in words
    kind, words = link.connect("https://[fe80::1%25eth7]:4433/", "fe80::2%eth99")
    assert kind == "ConnectError"
    assert "no network interface `eth99`" in words
