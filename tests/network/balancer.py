"""A load balancer that finds servers by the ID in connection IDs, as QUIC-LB has it, and remembers no connection.

It is told where to listen, and which server is where: ``balancer.py 127.0.0.1:443 0123456789abcdef=127.0.0.1:4433 …``.
Source: draft-ietf-quic-load-balancers-21, sections 3 and 5.2, with server IDs of 8 bytes and configuration 0.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import sys
import zlib

SERVER_ID = 8


def connection_id(packet: bytes) -> bytes:
    """The destination connection ID, as far as it matters here (RFC 8999)."""
    if packet[0] & 0x80:
        return packet[6 : 6 + packet[5]]
    return packet[1 : 2 + SERVER_ID]


def route(packet: bytes, servers: dict[bytes, tuple[str, int]]) -> tuple[str, int]:
    """Which server a packet is for. Those without an ID of a server are spread."""
    found = connection_id(packet)
    if found[:1] and found[0] >> 5 == 0 and found[1 : 1 + SERVER_ID] in servers:
        return servers[found[1 : 1 + SERVER_ID]]
    return list(servers.values())[zlib.crc32(found) % len(servers)]


def address(text: str) -> tuple[str, int]:
    ip, _, port = text.rpartition(":")
    return ip, int(port)


def main(listen: str, *routes: str) -> None:
    servers = {bytes.fromhex(one.partition("=")[0]): address(one.partition("=")[2]) for one in routes}
    front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    front.bind(address(listen))
    selector = selectors.DefaultSelector()
    selector.register(front, selectors.EVENT_READ)
    # The way back: a socket for each client and server.
    behind: dict[tuple[object, object], socket.socket] = {}
    print(front.getsockname()[1], flush=True)
    while True:
        for key, _ in selector.select():
            assert isinstance(key.fileobj, socket.socket)
            if key.data is not None:
                # A server that is not there yet, or any more: the client tries again. The next packet to it takes that
                # error, and then there is nothing to receive.
                with contextlib.suppress(ConnectionRefusedError, BlockingIOError):
                    front.sendto(key.fileobj.recv(65_536), key.data)
                continue
            packet, client = front.recvfrom(65_536)
            server = route(packet, servers)
            if (client, server) not in behind:
                behind[client, server] = made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                made.connect(server)
                made.setblocking(False)
                selector.register(made, selectors.EVENT_READ, client)
            with contextlib.suppress(ConnectionRefusedError, BlockingIOError):
                behind[client, server].send(packet)


if __name__ == "__main__":
    main(*sys.argv[1:])
