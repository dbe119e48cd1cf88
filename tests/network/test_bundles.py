"""Packets of one client for several sockets at one address, which an interface would bundle (GRO)."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
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
PACKETS = 200
# linux/ethtool.h: whether an interface bundles what it receives, and whether it cuts what it sends.
SET_GRO, SET_TSO = 0x2C, 0x1F
SWITCH = """
import array, fcntl, socket, struct, sys
value = array.array("B", struct.pack("II", int(sys.argv[1]), int(sys.argv[2])))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any:
    fcntl.ioctl(any, 0x8946, struct.pack("16sP16x", b"eth", value.buffer_info()[0]))  # SIOCETHTOOL
"""
# Opens two slots, as a server has them or with bundles, and says how many packets came to each that are not its own.
RECEIVE = """
import asyncio, json, select, socket, sys, wtio
from wtio._driver import Address
from wtio._steering import open_slots, steer

async def main(bundles):
    sockets = open_slots(Address("10.6.0.2", 4433, False), 2)
    steer(sockets[0], slots=2, newcomers=[0])
    tls = wtio.dev_certificate().server_tls()
    for slot, sock in enumerate(sockets):
        # It leaves the socket as it needs it.
        await (await wtio.serve(None, tls=tls, sock=sock, slot=slot)).close()
        if bundles:
            sock.setsockopt(socket.SOL_UDP, 104, 1)
    print("ready", flush=True)
    right, astray = 0, 0
    while right + astray < int(sys.argv[2]):
        assert select.select(sockets, [], [], 30)[0], (right, astray)
        for slot, sock in enumerate(sockets):
            try:
                data = sock.recv(65536)
            except BlockingIOError:
                continue
            found = [data[start + 2] for start in range(0, len(data), 100)]
            right += found.count(slot)
            astray += len(found) - found.count(slot)
    print(json.dumps([right, astray]), flush=True)

asyncio.run(main(sys.argv[1] == "bundles"))
"""
# A supervisor of two workers, which says how many packets went astray whenever it reads a line.
SUPERVISE = """
import asyncio, json, os, socket, sys, wtio
from wtio.workers import Supervisor

async def main(directory):
    with open(os.path.join(directory, "bundled_app.py"), "w") as file:
        file.write("async def handle(session): await session.wait_closed()")
    tls = wtio.dev_certificate(directory=directory).server_tls()
    async with Supervisor(
        "bundled_app:handle", "10.6.0.2", 4433, tls=tls, directory=directory, workers=2
    ) as supervisor:
        print(json.dumps("ready"), flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps((await supervisor.stats()).packets_astray_total), flush=True)

asyncio.run(main(sys.argv[1]))
"""
SEND = """
import socket, sys
from tests.steering.packets import id_of, short
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.connect(("10.6.0.2", 4433))
    for number in range(int(sys.argv[1])):
        client.send(short(id_of(number % 2), 100))
"""


@contextlib.contextmanager
def pair() -> Iterator[tuple[str, str]]:
    """Two namespaces with an interface each, of which the second one bundles all that comes within 2 ms."""
    names = (f"wtio{os.getpid()}x", f"wtio{os.getpid()}y")
    try:
        for name in names:
            run(f"ip netns add {name}")
        run(f"ip link add eth netns {names[0]} type veth peer name eth netns {names[1]}")
        for number, name in enumerate(names, 1):
            run(f"ip -n {name} link set lo up")
            run(f"ip -n {name} addr add 10.6.0.{number}/24 dev eth")
            run(f"ip -n {name} link set eth up")
        execute(names[1], "-c", SWITCH, str(SET_GRO), "1")
        # Otherwise the pair passes on what is sent as it is.
        execute(names[0], "-c", SWITCH, str(SET_TSO), "0")
        execute(names[1], "-c", "open('/sys/class/net/eth/gro_flush_timeout', 'w').write('2000000')")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def execute(name: str, *arguments: str) -> None:
    subprocess.run(["ip", "netns", "exec", name, sys.executable, *arguments], check=True, cwd=TOP)


def received(names: tuple[str, str], kind: str) -> list[int]:
    command = ["ip", "netns", "exec", names[1], sys.executable, "-c", RECEIVE, kind, str(PACKETS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=TOP) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        execute(names[0], "-c", SEND, str(PACKETS))
        right, astray = json.loads(process.stdout.readline())
    return [right, astray]


@pytest.mark.timeout(150)
def test_connections_of_one_client_at_several_sockets_get_their_own_packets() -> None:
    with pair() as names:
        right, astray = received(names, "bundles")
        if not astray:
            pytest.skip("this kernel does not bundle packets between namespaces")
        print(f"with bundles {astray} of {right + astray} packets go astray")
        assert received(names, "as it is") == [PACKETS, 0]


@pytest.mark.timeout(150)
def test_workers_get_bundles_until_packets_go_astray_in_them(tmp_path: Path) -> None:
    with pair() as names:
        command = ["ip", "netns", "exec", names[1], sys.executable, "-c", SUPERVISE, str(tmp_path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=TOP) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert json.loads(process.stdout.readline()) == "ready"

            def astray() -> int:
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write("\n")
                process.stdin.flush()
                return int(json.loads(process.stdout.readline()))

            try:
                execute(names[0], "-c", SEND, str(PACKETS))
                # The packets may still be on their way. Asking for figures is also what tells the supervisor of them.
                deadline = time.monotonic() + 30
                while not (first := astray()) and time.monotonic() < deadline:
                    time.sleep(0.1)
                if not first:
                    pytest.skip("this kernel does not bundle packets between namespaces")
                print(f"{first} of {PACKETS} packets went astray before bundles were turned off")
                first = astray()
                execute(names[0], "-c", SEND, str(PACKETS))
                assert astray() == first
            finally:
                process.stdin.close()
