"""Answers in the place of a server that is gone: stateless resets (RFC 9000, section 10.3)."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

from wtio._driver.loop import GivenSockets
from wtio._options import EndpointOptions
from wtio.config import Limits, Timeouts

if TYPE_CHECKING:
    from wtio.secret import Secret
    from wtio.steering import ServerId

__all__ = ["ResetResponder"]

# linux/in.h and in6.h, IP_RECVERR and IPV6_RECVERR. Python has no names for them before 3.14.
_OF_IPV4: Final = (socket.IPPROTO_IP, 11)
_OF_IPV6: Final = (socket.IPPROTO_IPV6, 25)
# A socket of IPv6 may serve IPv4, too.
_ERRORS: Final = {socket.AF_INET: (_OF_IPV4,), socket.AF_INET6: (_OF_IPV6, _OF_IPV4)}


class ResetResponder:
    """Tells the clients of a server that was killed that their connections are gone, while nobody else has its socket.

    Made on a running loop, it answers until it is closed. Close it before another server takes the socket: the new
    connections of that one would be gone as well, as far as it knows. First packets of new clients are dropped, so
    nobody may be sent here any more. Answers are bounded: ``Limits.connections`` at once, and one more each
    millisecond.

    Args:
        sock: The socket of the server that is gone. It stays open.
        secret: The secret of that server.
        slot: Its slot.
        server_id: Its server ID, if it had one.
        limits: Its limits, from which ``connections`` is taken.

    Raises:
        OSError: The socket cannot be used.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        secret: Secret,
        slot: int,
        server_id: ServerId | bytes | None = None,
        limits: Limits | None = None,
    ) -> None:
        options = EndpointOptions(
            limits=Limits() if limits is None else limits,
            timeouts=Timeouts(),
            congestion="tolerant",
            reset_stream_at=True,
            strict=False,
            io="loop",
            secret=secret,
            slot=slot,
            server_id=server_id,
        )
        self._sock = sock
        ip, port = sock.getsockname()[:2]
        # An endpoint that accepts nobody and connects to nobody: it knows no connection.
        self._driver = GivenSockets([sock]).open(options, ip=ip, port=port, dual_stack=False, server_tls=None)

    def close(self) -> None:
        """Stop answering, at once. Idempotent; nothing is waited for."""
        self._driver.close()
        if self._sock.fileno() < 0:
            return
        # Whoever has the socket next has the same options. As an endpoint that is no server, the one here has asked for
        # the network's errors, which a server does not read: packets to other clients would fail in their place.
        for level, option in _ERRORS[self._sock.family]:
            self._sock.setsockopt(level, option, 0)
