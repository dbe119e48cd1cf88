"""Somebody who floods a server with first packets, in a process of its own.

``python -m tests.soak.flooder PORT KIND COUNT`` makes packets, prints ``ready``, and waits
for a line of input. Then it sends COUNT of them to 127.0.0.1 within a second or two, and prints how many answers it
saw. KIND says where they come from:

- ``forged``: each from an address of its own, of those that lead to this host. Nobody reads there, so to the server
  they are no different from forged ones.
- ``one``: from one address, which does nothing about the answers.
- ``shown``: from one address that answers each Retry as a client does, and then says no more.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import sys
import time

from wtio import _core, tls
from wtio._options import EndpointOptions
from wtio.config import Limits, Timeouts

OPTIONS = EndpointOptions(
    limits=Limits(), timeouts=Timeouts(), congestion="tolerant", reset_stream_at=True, strict=False, io="loop"
)
TRUST = tls.client_engine(tls.ClientTLS(dangerously_trust_any_certificate=True))
HERE = ("127.0.0.2", 1)
# Different first packets. A server that has not begun a connection cannot tell those that come again.
DIFFERENT = 2000
# Packets after which there is a short pause: the server's socket has room for about as many.
BURST = 50
PAUSE = 0.002


class Clients:
    """Clients of a server that have just begun, all on one endpoint without a socket."""

    def __init__(self, server: tuple[str, int], count: int) -> None:
        self.server = server
        self.endpoint = _core.Endpoint(OPTIONS, server_tls=None, seed=None)
        for _ in range(count):
            self.endpoint.connect(server, "localhost", TRUST, 0)

    def packets(self) -> list[bytes]:
        """What they have to say."""
        return [data for _, data, _ in self.endpoint.collect(0)]

    def take(self, answer: bytes) -> None:
        """Take an answer if it is a Retry (RFC 9000, section 17.2.5)."""
        if answer[0] & 0xF0 == 0xF0:
            self.endpoint.deliver(0, answer, self.server, HERE, 0)


def answers(own: socket.socket) -> list[bytes]:
    """What has arrived by now."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(own.recv(2000))
    return found


def flood(own: socket.socket, clients: Clients, kind: str, count: int) -> int:
    """Send ``count`` first packets; how many answers were seen."""
    first = clients.packets()
    seen = 0
    for number, packet in enumerate(itertools.islice(itertools.cycle(first), count)):
        if kind == "forged":
            high, low = divmod(number, 250)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                other.bind((f"127.1.{high}.{low + 1}", 0))
                other.sendto(packet, clients.server)
        else:
            own.sendto(packet, clients.server)
        if number % BURST == BURST - 1:
            time.sleep(PAUSE)
            found = answers(own)
            seen += len(found)
            if kind == "shown":
                for answer in found:
                    clients.take(answer)
                for second in clients.packets():
                    own.sendto(second, clients.server)
    return seen


def main() -> None:
    port, kind, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    different = count if kind == "shown" else min(count, DIFFERENT)
    clients = Clients(("127.0.0.1", port), different)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.bind(("127.0.0.2", 0))
        own.setblocking(False)
        print("ready", flush=True)
        sys.stdin.readline()
        print(flood(own, clients, kind, count), flush=True)


if __name__ == "__main__":
    main()
