"""Network namespaces: a client with two uplinks, a router, a server. They need root and iproute2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

PEER = Path(__file__).with_name("peer.py")
# Addresses of the server.
SERVERS = {"ipv4": "10.9.3.2", "ipv6": "fd09:3::2"}
# Behind the router, where nothing is.
NOWHERE = {"ipv4": "10.9.4.2", "ipv6": "fd09:4::2"}


class Lab:
    """::

    client ── first ──┐
       └───── second ─┴─ router ── eth ── server
    """

    def __init__(self) -> None:
        prefix = f"wtio{os.getpid()}"
        self.client, self.router, self.server = (f"{prefix}{name}" for name in "crs")
        self._running: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Lab:
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            with process:
                process.kill()
        for name in (self.client, self.router, self.server):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    def _build(self) -> None:
        for name in (self.client, self.router, self.server):
            run(f"ip netns add {name}")
            run(f"ip -n {name} link set lo up")
        for near, link, net in ((self.client, "first", 1), (self.client, "second", 2), (self.server, "eth", 3)):
            run(f"ip link add {link} netns {near} type veth peer name r{link} netns {self.router}")
            for name, device, host in ((near, link, 2), (self.router, f"r{link}", 1)):
                run(f"ip -n {name} addr add 10.9.{net}.{host}/24 dev {device}")
                run(f"ip -n {name} addr add fd09:{net}::{host}/64 dev {device} nodad")
                run(f"ip -n {name} link set {device} up")
        self.within(self.router, "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        for name, net in ((self.server, 3), (self.client, 1)):
            run(f"ip -n {name} route add default via 10.9.{net}.1 metric 10")
            run(f"ip -n {name} -6 route add default via fd09:{net}::1 metric 10")
        run(f"ip -n {self.router} route add unreachable 10.9.4.0/24")
        run(f"ip -n {self.router} -6 route add unreachable fd09:4::/64")

    def within(self, name: str, command: str) -> None:
        """Run a command in a namespace."""
        run(f"ip netns exec {name} {command}")

    def start(self, name: str, *arguments: str) -> Peer:
        """Run the test program in a namespace."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", name, sys.executable, str(PEER), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._running.append(process)
        return Peer(process)

    def serve(self, directory: Path, *options: str) -> Peer:
        """Start an echo server."""
        peer = self.start(self.server, "serve", str(directory), *options)
        assert peer.line() == "ready"
        return peer

    def second_uplink(self, family: str, *, with_first: str = "lost") -> None:
        """Let packets of the client go over the other uplink from now on."""
        six = "-6 " if family == "ipv6" else ""
        via = "fd09:2::1" if family == "ipv6" else "10.9.2.1"
        self._end_first(family, with_first)
        run(f"ip -n {self.client} {six}route add default via {via} metric 5")

    def without_network(self, family: str, with_first: str) -> None:
        """Leave the client without a way to the server."""
        self._end_first(family, with_first)
        if with_first == "address gone" and family == "ipv6":
            # Other than with IPv4, its routes stay.
            run(f"ip -n {self.client} -6 route del default")

    def _end_first(self, family: str, how: str) -> None:
        if how == "address gone":
            address = "fd09:1::2/64" if family == "ipv6" else "10.9.1.2/24"
            run(f"ip -n {self.client} addr del {address} dev first")
        elif how == "link down":
            run(f"ip -n {self.client} link set first down")


class Peer:
    """The test program, by the lines that it reads and writes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @property
    def _output(self) -> IO[str]:
        assert self._process.stdout is not None
        return self._process.stdout

    def line(self) -> str:
        """The next line."""
        line = self._output.readline()
        assert line, f"the program has ended with {self._process.wait()}"
        return line.rstrip("\n")

    def ask(self, line: str) -> str:
        """Give it a line, and get its answer."""
        self.send_line(line)
        return self.line()

    def send_line(self, line: str) -> None:
        """Give it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


def run(command: str) -> None:
    """Run a command that has to succeed."""
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
