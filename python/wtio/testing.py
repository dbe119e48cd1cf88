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

The same seed gives the same losses, delays and reordering. Keys and connection IDs of TLS and QUIC do not depend on it,
so packets differ in content between runs, and sometimes by a byte in size.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import tempfile
from contextlib import asynccontextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

from wtio._admission import AdmitHook  # noqa: TC001 - for typing.get_type_hints
from wtio._arguments import check_bool, check_instance, check_integer, check_text
from wtio._connection.sockets import Sockets
from wtio._driver.simulated import (
    BothDirections,
    Conditions,
    DeadlockError,
    Direction,
    SimulatedTransport,
    VirtualTimeLoop,
    Wire,
    WireCounts,
)
from wtio._http_service import HttpHook  # noqa: TC001 - for typing.get_type_hints
from wtio._options import EndpointOptions
from wtio._request import SessionHandler  # noqa: TC001 - for typing.get_type_hints
from wtio.client import Client, Connector, make_connector
from wtio.config import Limits, Timeouts
from wtio.protocol.host import parse_host
from wtio.secret import Secret  # noqa: TC001 - for typing.get_type_hints
from wtio.server import Server, make_server
from wtio.steering import ServerId  # noqa: TC001 - for typing.get_type_hints
from wtio.tls import ClientTLS, DevCertificate, ServerTLS, dev_certificate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
    from contextlib import AbstractAsyncContextManager

    from wtio._headers import HeaderArgument
    from wtio.session import WebTransportSession

__all__ = [
    "Conditions",
    "DeadlockError",
    "Direction",
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
        main: The coroutine to run.
        debug: asyncio's debug mode; None (default) leaves it to the environment.

    Returns:
        The result of ``main``.

    Raises:
        DeadlockError: Every task waits and nothing is left that could wake one.
        TypeError: ``main`` is not a coroutine, or ``debug`` is neither a bool nor None.
    """
    if not asyncio.iscoroutine(main):
        way = "; call it: run(main())" if callable(main) else ""
        raise TypeError(f"main must be a coroutine, not {type(main).__name__}{way}")
    if debug is not None:
        check_bool("debug", debug)
    with asyncio.Runner(debug=debug, loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


@cache
def _certificate() -> DevCertificate:
    # Its own directory, so that tests do not depend on the user's cache.
    return dev_certificate(("localhost", "127.0.0.1", "::1"), directory=tempfile.mkdtemp(prefix="wtio-testing-"))


@cache
def _certificate_tls() -> ClientTLS:
    # By authority, because pinned certificates do not allow pooling.
    return ClientTLS(cafile=_certificate().certfile)


class _SimulatedClient(Client):
    """A client whose connections go over a simulated network."""

    __slots__ = ()

    def __init__(
        self,
        transport: SimulatedTransport,
        options: EndpointOptions,
        *,
        tls: ClientTLS,
        headers: HeaderArgument,
        protocols: Sequence[str],
        origin: str | None,
    ) -> None:
        self._set_up(transport, options, tls=tls, headers=headers, protocols=protocols, origin=origin)


class Network:
    """A network in memory. Its servers and clients can reach each other and nothing else.

    ``localhost`` has the addresses ``::1`` and ``127.0.0.1``; ``add_host`` adds names. Use it inside ``run``, or on any
    other VirtualTimeLoop.

    You can change at any time what it does to packets, for both directions or for one::

        network.conditions.loss = 0.1
        network.to_client.update(latency=0.2, bandwidth=50_000)
        network.blackout(3)
        network.rebind()
        network.after(10, network.to_server.update, ecn="drop")

    ``counts`` says what happened to packets, ``to_server.counts`` and ``to_client.counts`` for one direction each.
    """

    __slots__ = ("__weakref__", "_conditions", "_directions", "_wire")

    def __init__(
        self,
        *,
        seed: int = 0,
        latency: float = 0.01,
        jitter: float = 0.0,
        loss: float = 0.0,
        reorder: float = 0.0,
        duplicate: float = 0.0,
        corrupt: float = 0.0,
        replay: float = 0.0,
        ecn: str = "pass",
        mtu: int = 1500,
        bandwidth: float | None = None,
        queue: float = 0.25,
    ) -> None:
        """Make a network. Everything except ``seed`` can be changed later, and is explained at ``Conditions``.

        Args:
            seed: Seed of everything random on the network. Default 0.
            latency: Seconds in one direction. Default 10 ms.
            jitter: Random extra delay of up to this many seconds. Default 0.
            loss: Share of packets that are lost, 0 … 1. Default 0.
            reorder: Share of packets that later ones overtake, 0 … 1. Default 0.
            duplicate: Share of packets that arrive twice, 0 … 1. Default 0.
            corrupt: Share of packets that arrive with one bit flipped, 0 … 1. Default 0.
            replay: Share of packets after which an older one arrives once more, 0 … 1. Default 0.
            ecn: What happens to packets with ECN marks: ``"pass"`` (default), ``"bleach"``, ``"drop"`` or
                ``"congested"``.
            mtu: Bytes of the largest IP packet that passes. Default 1500.
            bandwidth: Bytes per second of each sender; None (default) means no limit.
            queue: Seconds that packets may wait for ``bandwidth``. Default 0.25 s.

        Raises:
            TypeError: A value is of the wrong type.
            ValueError: A value is out of range.
        """
        check_integer("seed", seed)
        conditions: dict[str, Any] = {
            "latency": latency,
            "jitter": jitter,
            "loss": loss,
            "reorder": reorder,
            "duplicate": duplicate,
            "corrupt": corrupt,
            "replay": replay,
            "ecn": ecn,
            "mtu": mtu,
            "bandwidth": bandwidth,
            "queue": queue,
        }
        self._directions = {"to_server": Direction(**conditions), "to_client": Direction(**conditions)}
        self._conditions = BothDirections(*self._directions.values(), **conditions)
        self._wire = Wire(seed, self.to_server, self.to_client)

    @property
    def conditions(self) -> Conditions:
        """What happens to packets in both directions. Setting an attribute sets it for both.

        Reading an attribute returns what was last set here, even if ``to_server`` or ``to_client`` was changed since.
        """
        return self._conditions

    @property
    def to_server(self) -> Direction:
        """What happens to the packets that clients send."""
        return self._directions["to_server"]

    @property
    def to_client(self) -> Direction:
        """What happens to the packets that servers send."""
        return self._directions["to_client"]

    @property
    def counts(self) -> WireCounts:
        """What has happened to packets so far, in both directions."""
        return self._wire.counts

    def blackout(self, seconds: float, *, direction: str = "both") -> None:
        """Let no packets pass for a time, beginning now. Packets in flight still arrive.

        ``conditions.blackout = True`` lets none pass until it is set to False.

        Args:
            seconds: How long. If another blackout is in effect, the longer one counts.
            direction: ``"both"`` (default), ``"to_server"`` or ``"to_client"``.

        Raises:
            TypeError: ``seconds`` is not a number.
            ValueError: ``seconds`` is negative or not finite, or ``direction`` is unknown.
        """
        if not isinstance(direction, str):
            raise TypeError(f"direction must be a str, not {type(direction).__name__}")
        until = asyncio.get_running_loop().time() + _checked_seconds(seconds)
        if direction != "both" and direction not in self._directions:
            raise ValueError(f"direction is {direction!r}; it must be 'both', 'to_server' or 'to_client'")
        for name, one in self._directions.items():
            if direction in ("both", name):
                self._wire.darken(one, until)

    def rebind(
        self, address: tuple[str, int] | None = None, *, ip: str | None = None
    ) -> dict[tuple[str, int], tuple[str, int]]:
        """Let a NAT give clients another address, like a router that has forgotten a quiet connection.

        From now on, packets of these clients reach servers from another port, and packets to the old port are lost
        (counted as ``unreachable``). Clients do not notice. A connection survives this: the server validates the new
        path and goes on there (RFC 9000, section 9.3).

        Args:
            address: The client's address as servers see it now (``session.remote_address`` on a server); None (default)
                means every client that has sent something.
            ip: The new IP address; None (default) changes only the port.

        Returns:
            A mapping from old addresses to new ones.

        Raises:
            TypeError: ``address`` is not a pair of a str and an int, or ``ip`` is not a str.
            ValueError: There is no client at ``address``, or ``ip`` is not an IP address, or of the other family.
        """
        if address is not None and not (
            isinstance(address, tuple) and len(address) == 2 and isinstance(address[0], str)
        ):
            raise TypeError(f"address must be a tuple of IP address and port, or None, not {address!r}")
        if ip is not None:
            check_text("ip", ip)
            try:
                ip = ipaddress.ip_address(ip).compressed
            except ValueError as error:
                raise ValueError(f"ip: {error}") from None
        return self._wire.rebind(address, ip)

    def after(self, seconds: float, call: Callable[..., object], *arguments: Any, **named: Any) -> asyncio.TimerHandle:
        """Call something after this many virtual seconds, such as ``network.after(2, network.blackout, 0.5)``.

        Returns:
            A handle; its ``cancel()`` takes the call back.

        Raises:
            TypeError: ``seconds`` is not a number, or ``call`` cannot be called.
            ValueError: ``seconds`` is negative or not finite.
        """
        if not callable(call):
            raise TypeError(f"call must be something to call, not {type(call).__name__}")
        return asyncio.get_running_loop().call_later(_checked_seconds(seconds), partial(call, *arguments, **named))

    def add_host(self, name: str, *addresses: str) -> None:
        """Give a name one or more IP addresses.

        Args:
            name: Host name, as in URLs.
            addresses: IPv4 or IPv6 addresses, preferred ones first.

        Raises:
            TypeError: An argument is not a str.
            ValueError: ``name`` is not a host name, or ``addresses`` is empty or contains something else.
        """
        check_text("name", name)
        for address in addresses:
            check_text("addresses", address)
        try:
            host = parse_host(name)
        except ValueError as error:
            raise ValueError(f"name `{name}` {error}") from None
        try:
            found = [ipaddress.ip_address(address).compressed for address in addresses]
        except ValueError as error:
            raise ValueError(f"addresses: {error}") from None
        if not found:
            raise ValueError("addresses is empty; give the host one at least")
        self._wire.names[host] = found

    def serve(
        self,
        handler: SessionHandler | None = None,
        host: str | Sequence[str] | None = None,
        port: int = 443,
        *,
        tls: ServerTLS | Sequence[ServerTLS] | None = None,
        admit: AdmitHook | None = None,
        protocols: Sequence[str] = (),
        origins: Collection[str] = (),
        http: HttpHook | None = None,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        congestion: str = "tolerant",
        reset_stream_at: bool = True,
        strict: bool = False,
        io: str = "loop",
        secret: Secret | None = None,
        slot: int | None = None,
        server_id: ServerId | bytes | None = None,
    ) -> Server:
        """As ``wtio.serve``, on this network. Without ``tls`` the server has a certificate for ``localhost``.

        ``io`` is checked but has no effect: without sockets, no thread can receive.
        """
        options = EndpointOptions(
            limits=Limits() if limits is None else limits,
            timeouts=Timeouts() if timeouts is None else timeouts,
            congestion=congestion,
            reset_stream_at=reset_stream_at,
            strict=strict,
            io=io,
            secret=secret,
            slot=slot,
            server_id=server_id,
        )
        return make_server(
            handler,
            host,
            port,
            # Its file is not watched: nobody changes it, and a test whose tasks all wait shall end.
            tls=ServerTLS(certfile=_certificate().certfile) if tls is None else tls,
            admit=admit,
            protocols=protocols,
            origins=origins,
            http=http,
            options=options,
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
        congestion: str = "tolerant",
        reset_stream_at: bool = True,
        strict: bool = False,
        io: str = "loop",
    ) -> Connector:
        """As ``wtio.connect``, on this network. Without ``tls`` it trusts the default certificate of ``serve``.

        ``io`` is checked but has no effect, as with ``serve``.
        """
        options = EndpointOptions(
            limits=Limits() if limits is None else limits,
            timeouts=Timeouts() if timeouts is None else timeouts,
            congestion=congestion,
            reset_stream_at=reset_stream_at,
            strict=strict,
            io=io,
        )
        return make_connector(
            url,
            tls=_certificate().client_tls() if tls is None else tls,
            headers=headers,
            protocols=protocols,
            origin=origin,
            sockets=Sockets(SimulatedTransport(self._wire), options),
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
        congestion: str = "tolerant",
        reset_stream_at: bool = True,
        strict: bool = False,
        io: str = "loop",
    ) -> Client:
        """As ``wtio.Client``, on this network. Without ``tls`` it trusts the default certificate of ``serve``.

        ``io`` is checked but has no effect, as with ``serve``.
        """
        options = EndpointOptions(
            limits=Limits() if limits is None else limits,
            timeouts=Timeouts() if timeouts is None else timeouts,
            congestion=congestion,
            reset_stream_at=reset_stream_at,
            strict=strict,
            io=io,
        )
        return _SimulatedClient(
            SimulatedTransport(self._wire),
            options,
            tls=_certificate_tls() if tls is None else tls,
            headers=headers,
            protocols=protocols,
            origin=origin,
        )


def session_pair(
    network: Network | None = None,
    *,
    limits: Limits | None = None,
    timeouts: Timeouts | None = None,
    **conditions: Any,
) -> AbstractAsyncContextManager[tuple[WebTransportSession, WebTransportSession]]:
    """Make a session and return both of its ends, client first, as an asynchronous context manager.

    Args:
        network: The network to use; None (default) makes a new one.
        limits: Limits of both sides.
        timeouts: Timeouts of both sides.
        **conditions: Keyword arguments of ``Network``, if ``network`` is None.

    Raises:
        TypeError: An argument is of the wrong type, or both a network and conditions are given.
        ValueError: A condition is out of its range.
    """
    check_instance("network", network, Network, "make one with wtio.testing.Network()")
    check_instance("limits", limits, Limits, "such as wtio.Limits(read_all=None)")
    check_instance("timeouts", timeouts, Timeouts, "such as wtio.Timeouts(connect=5)")
    if network is None:
        network = Network(**conditions)
    elif conditions:
        raise TypeError("conditions belong to a network; give one or the other")
    return _session_pair(network, limits, timeouts)


@asynccontextmanager
async def _session_pair(
    network: Network, limits: Limits | None, timeouts: Timeouts | None
) -> AsyncIterator[tuple[WebTransportSession, WebTransportSession]]:
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


def _checked_seconds(seconds: float) -> float:
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
        raise TypeError(f"seconds must be a number, not {type(seconds).__name__}")
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"seconds is {seconds}; it must be 0 or more, and finite")
    return seconds


async def _awaited(connector: Connector) -> WebTransportSession:
    return await connector
