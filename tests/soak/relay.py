"""A UDP relay in front of a server that loses, repeats and delays packets, in a process of its own and in real time.

``python -m tests.soak.relay PORT LOSS DUPLICATES DELAY`` relays to that port of the loopback, prints its own port, and
ends when its input does, with a line of JSON that says what it did.
"""

from __future__ import annotations

import heapq
import json
import random
import selectors
import socket
import sys
import time
from typing import Final

BATCH: Final = 64
# A server, or a client that shares its socket, may answer many at once.
BUFFER: Final = 4 * 1024 * 1024
# Seconds after which a client that has fallen silent is forgotten: longer than any idle timeout.
FORGET: Final = 120.0


class Way:
    """Between one client's address and the server: a socket that stands for the client there."""

    def __init__(self, client: tuple[str, int], server: tuple[str, int]) -> None:
        self.client = client
        self.last = time.monotonic()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self.socket.setblocking(False)
        self.socket.connect(server)


class Relay:
    def __init__(self, port: int, loss: float, duplicates: float, delay: float) -> None:
        self.server = ("127.0.0.1", port)
        self.loss, self.duplicates, self.delay = loss, duplicates, delay
        self.counts = {"packets": 0, "lost": 0, "duplicated": 0, "refused": 0}
        self.ways: dict[tuple[str, int], Way] = {}
        self.selector = selectors.DefaultSelector()
        self.listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self.listener.setsockopt(socket.SOL_SOCKET, option, BUFFER)
        self.listener.setblocking(False)
        self.listener.bind(("127.0.0.1", 0))
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.selector.register(sys.stdin, selectors.EVENT_READ)
        # When, in which order, whose, and whether to the server.
        self.under_way: list[tuple[float, int, Way, bool, bytes]] = []
        self.order = 0
        self.random = random.Random(0)

    def run(self) -> None:
        print(self.listener.getsockname()[1], flush=True)
        forgetting = time.monotonic() + FORGET
        while True:
            wait = max(self.under_way[0][0] - time.monotonic(), 0) if self.under_way else 1.0
            for key, _ in self.selector.select(wait):
                if key.fileobj is sys.stdin:
                    return
                if key.fileobj is self.listener:
                    self.from_clients()
                else:
                    self.from_server(key.data)
            now = time.monotonic()
            while self.under_way and self.under_way[0][0] <= now:
                self.pass_on(*heapq.heappop(self.under_way)[2:])
            if now > forgetting:
                forgetting = now + FORGET
                for way in [way for way in self.ways.values() if way.last < now - FORGET]:
                    self.selector.unregister(way.socket)
                    way.socket.close()
                    del self.ways[way.client]

    def from_clients(self) -> None:
        for _ in range(BATCH):
            try:
                data, client = self.listener.recvfrom(65536)
            except BlockingIOError:
                return
            if (way := self.ways.get(client)) is None:
                way = self.ways[client] = Way(client, self.server)
                self.selector.register(way.socket, selectors.EVENT_READ, way)
            way.last = time.monotonic()
            self.take(way, True, data)

    def from_server(self, way: Way) -> None:
        for _ in range(BATCH):
            try:
                data = way.socket.recv(65536)
            except BlockingIOError:
                return
            except ConnectionRefusedError:
                # The server is gone; its clients notice by themselves.
                self.counts["refused"] += 1
                continue
            self.take(way, False, data)

    def take(self, way: Way, to_server: bool, data: bytes) -> None:
        self.counts["packets"] += 1
        chance = self.random.random
        if chance() < self.loss:
            self.counts["lost"] += 1
            return
        copies = 1
        if chance() < self.duplicates:
            self.counts["duplicated"] += 1
            copies = 2
        for copy in range(copies):
            # A copy may come much later, behind whatever else is sent meanwhile.
            at = time.monotonic() + self.delay * (1 + 10 * copy * chance())
            self.order += 1
            heapq.heappush(self.under_way, (at, self.order, way, to_server, data))

    def pass_on(self, way: Way, to_server: bool, data: bytes) -> None:
        try:
            if to_server:
                way.socket.send(data)
            else:
                self.listener.sendto(data, way.client)
        except (BlockingIOError, ConnectionRefusedError):
            self.counts["refused"] += 1
        except OSError:
            # Closed meanwhile.
            if way.client in self.ways:
                raise


if __name__ == "__main__":
    relay = Relay(int(sys.argv[1]), *map(float, sys.argv[2:]))
    relay.run()
    print(json.dumps(relay.counts), flush=True)
