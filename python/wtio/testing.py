"""A network in memory, with a virtual clock: real sessions, real QUIC and TLS, no sockets and no waiting.

For tests of applications as well as of this library::

    def test_greeting() -> None:
        async def main() -> None:
            async with wtio.testing.session_pair(loss=0.1, seed=7) as (client, server):
                stream = await client.create_bidirectional_stream()
                await stream.write(data=b"hello", end_stream=True)
                incoming = await anext(server.incoming_bidirectional_streams())
                assert await incoming.read_all() == b"hello"

        wtio.testing.run(main())

The same seed gives the same losses, delays and reordering. Keys and connection IDs of TLS and QUIC are not seeded by
it, so packets differ in content between runs, and sometimes by a byte in size.
"""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from wtio._driver.simulated import Conditions, DeadlockError, SimulatedTransport, VirtualTimeLoop, Wire, WireCounts
from wtio.client import Connector, HeaderArgument, make_connector, private_sockets
from wtio.pool import Client
from wtio.server import HttpHook, Server, SessionHandler, make_server
from wtio.tls import ClientTLS, DevCertificate, ServerTLS, dev_certificate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Coroutine, Sequence

    from wtio.config import Limits, Timeouts
    from wtio.session import WebTransportSession

__all__ = [
    "Conditions",
    "DeadlockError",
    "Network",
    "VirtualTimeLoop",
    "WireCounts",
    "run",
    "session_pair",
]

_Result = TypeVar("_Result")


def run(main: Coroutine[Any, Any, _Result], *, debug: bool | None = None) -> _Result:
    """Run a coroutine on a new virtual-time loop, as ``asyncio.run`` does on a real one.

    Args:
        main: What to run.
        debug: asyncio's debug mode; None leaves it to the environment.

    Returns:
        What ``main`` returns.

    Raises:
        DeadlockError: Every task waits and nothing is left that could wake one.
    """
    with asyncio.Runner(debug=debug, loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


@cache
def _certificate() -> DevCertificate:
    # Its own directory: tests must not depend on what lies in the user's cache.
    return dev_certificate(("localhost", "127.0.0.1", "::1"), directory=tempfile.mkdtemp(prefix="wtio-testing-"))


@cache
def _certificate_tls() -> ClientTLS:
    # By authority, as pinned certificates cannot be pooled.
    return ClientTLS(cafile=_certificate().certfile)


class Network:
    """A network in memory. Servers and clients made by it see each other and nobody else.

    ``localhost`` has the addresses ``::1`` and ``127.0.0.1``; ``add_host`` makes more names. Use it inside ``run``, or
    on any other VirtualTimeLoop.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        latency: float = 0.01,
        jitter: float = 0.0,
        loss: float = 0.0,
        reorder: float = 0.0,
        duplicate: float = 0.0,
        mtu: int = 1500,
        bandwidth: float | None = None,
    ) -> None:
        """Make a network.

        Args:
            seed: Of everything random on the way.
            latency: Seconds in one direction. Default 10 ms.
            jitter: Up to so many seconds more, at random. Default 0.
            loss: Share of packets that vanish, 0 … 1. Default 0.
            reorder: Share of packets that others overtake, 0 … 1. Default 0.
            duplicate: Share of packets that arrive twice, 0 … 1. Default 0.
            mtu: Bytes of the largest IP packet that passes. Default 1500.
            bandwidth: Bytes per second in each direction; None (default) is without limit.
        """
        self.conditions = Conditions(
            latency=latency,
            jitter=jitter,
            loss=loss,
            reorder=reorder,
            duplicate=duplicate,
            mtu=mtu,
            bandwidth=bandwidth,
        )
        """What happens to packets; its attributes may be changed at any time, ``blackout`` included."""
        self._wire = Wire(seed, self.conditions)

    @property
    def counts(self) -> WireCounts:
        """What happened to packets so far."""
        return self._wire.counts

    def add_host(self, name: str, *addresses: str) -> None:
        """Give a name one or more IP addresses."""
        self._wire.names[name] = list(addresses)

    def serve(
        self,
        handler: SessionHandler | None = None,
        host: str | Sequence[str] | None = None,
        port: int = 443,
        *,
        tls: ServerTLS | None = None,
        protocols: Sequence[str] = (),
        origins: Collection[str] = (),
        http: HttpHook | None = None,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        congestion: str = "cubic",
        reset_stream_at: bool = True,
        strict: bool = False,
    ) -> Server:
        """As ``wtio.serve``, on this network. Without ``tls`` it has a certificate for ``localhost``."""
        return make_server(
            handler,
            host,
            port,
            tls=tls or _certificate().server_tls(),
            protocols=protocols,
            origins=origins,
            http=http,
            timeouts=timeouts,
            limits=limits,
            congestion=congestion,
            reset_stream_at=reset_stream_at,
            strict=strict,
            transport=SimulatedTransport(self._wire),
        )

    def connect(
        self,
        url: str = "https://localhost/",
        *,
        tls: ClientTLS | None = None,
        headers: HeaderArgument = (),
        protocols: Sequence[str] = (),
        origin: str | None = None,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        congestion: str = "cubic",
        reset_stream_at: bool = True,
        strict: bool = False,
    ) -> Connector:
        """As ``wtio.connect``, on this network. Without ``tls`` it trusts the certificate that ``serve`` has then."""
        return make_connector(
            url,
            tls=tls or _certificate().client_tls(),
            headers=headers,
            protocols=protocols,
            origin=origin,
            strict=strict,
            sockets=private_sockets(
                SimulatedTransport(self._wire),
                limits=limits,
                timeouts=timeouts,
                congestion=congestion,
                reset_stream_at=reset_stream_at,
            ),
        )

    def client(
        self,
        *,
        tls: ClientTLS | None = None,
        headers: HeaderArgument = (),
        protocols: Sequence[str] = (),
        origin: str | None = None,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        congestion: str = "cubic",
        reset_stream_at: bool = True,
        strict: bool = False,
    ) -> Client:
        """As ``wtio.Client``, on this network. Without ``tls`` it trusts the certificate that ``serve`` has then."""
        client = Client(
            tls=tls or _certificate_tls(),
            headers=headers,
            protocols=protocols,
            origin=origin,
            timeouts=timeouts,
            limits=limits,
            congestion=congestion,
            reset_stream_at=reset_stream_at,
            strict=strict,
        )
        client._sockets.transport = SimulatedTransport(self._wire)
        return client


@asynccontextmanager
async def session_pair(
    network: Network | None = None,
    *,
    limits: Limits | None = None,
    timeouts: Timeouts | None = None,
    **conditions: Any,
) -> AsyncIterator[tuple[WebTransportSession, WebTransportSession]]:
    """Give the two ends of a new session, client first, as an asynchronous context manager.

    Args:
        network: Where; None makes a network of its own.
        limits: For both sides.
        timeouts: For both sides.
        **conditions: Keyword arguments of ``Network``, where ``network`` is None.
    """
    if network is None:
        network = Network(**conditions)
    elif conditions:
        raise TypeError("conditions belong to a network; give one or the other")
    server = network.serve(limits=limits, timeouts=timeouts)
    async with server:
        connecting = asyncio.ensure_future(_awaited(network.connect(limits=limits, timeouts=timeouts)))
        try:
            request = await anext(server)
            accepted = await request.accept()
            session = await connecting
        except BaseException:
            connecting.cancel()
            raise
        async with session:
            yield session, accepted


async def _awaited(connector: Connector) -> WebTransportSession:
    return await connector
