"""A NAT that gives its client another port whenever it is told to."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class Nat(asyncio.DatagramProtocol):
    """Passes the packets of one client on, from a port that it changes when it is told to."""

    def __init__(self, server: tuple[str, int], passes: Callable[[bytes], bool] = lambda _: True) -> None:
        self._server = server
        # Whether a packet of the client's is passed on.
        self._passes = passes
        self._inside: asyncio.DatagramTransport | None = None
        self._outside: asyncio.DatagramTransport | None = None
        self._client: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._inside = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, address: Any) -> None:
        self._client = address
        if self._outside is not None and self._passes(data):
            self._outside.sendto(data)

    async def rebind(self) -> None:
        """Use another port."""
        before = self._outside
        nat = self

        class Outside(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, _: Any) -> None:
                if nat._inside is not None:
                    nat._inside.sendto(data, nat._client)

        loop = asyncio.get_running_loop()
        self._outside, _ = await loop.create_datagram_endpoint(Outside, remote_addr=self._server)
        if before is not None:
            before.close()

    @property
    def port(self) -> int:
        assert self._inside is not None
        return int(self._inside.get_extra_info("sockname")[1])

    def close(self) -> None:
        for transport in (self._inside, self._outside):
            if transport is not None:
                transport.close()


@contextlib.asynccontextmanager
async def nat(server: tuple[str, int], passes: Callable[[bytes], bool] = lambda _: True) -> AsyncIterator[Nat]:
    """A NAT on loopback, in front of a server."""
    loop = asyncio.get_running_loop()
    _, made = await loop.create_datagram_endpoint(lambda: Nat(server, passes), local_addr=("127.0.0.1", 0))
    try:
        await made.rebind()
        yield made
    finally:
        made.close()
