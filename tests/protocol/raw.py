"""A QUIC peer on the simulated network that sends exactly the bytes it is given, and remembers what it got.

For claims that can only be seen on the wire: what the library makes of a peer that is early, late, wrong or silent.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import wtio
from wtio import _core
from wtio._core import EngineEvent
from wtio._driver import Address
from wtio._driver.simulated import SimulatedDriver
from wtio._options import EndpointOptions
from wtio.protocol import varint
from wtio.protocol.qpack import decode_field_section
from wtio.testing import Network, _certificate

from .pair import DRAFT15_CLIENT, DRAFT15_SERVER, connect, control_stream, headers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from wtio._driver import Driver


class RawStream:
    """One stream of a raw peer: what came on it, and how it ended."""

    def __init__(self, core: _core.Stream, session_id: int | None = None) -> None:
        self.core = core
        self.session_id = session_id
        """The session that the engine has read from the head of the stream; None for a stream without such a head."""
        self._data = b""

    @property
    def id(self) -> int:
        return self.core.id

    @property
    def data(self) -> bytes:
        """Everything that has arrived, without the head of a data stream."""
        while isinstance(piece := self.core.read(-1), bytes) and piece:
            self._data += piece
        return self._data

    @property
    def has_ended(self) -> bool:
        assert self.data is not None  # an end is seen after the data before it was read
        return self.core.receive_state().is_ended

    @property
    def reset_code(self) -> int | None:
        """Wire code of the peer's RESET_STREAM, once all data before it was read."""
        assert self.data is not None
        state = self.core.receive_state()
        return state.wire_code if state.is_reset else None

    @property
    def stop_code(self) -> int | None:
        """Wire code of the peer's STOP_SENDING."""
        state = self.core.send_state()
        return state.wire_code if state.is_stopped else None

    @property
    def fields(self) -> dict[str, str]:
        """The header section at the beginning of what has arrived."""
        length = varint.decode(self.data, 1)
        assert self.data[:1] == b"\x01"
        assert length
        return dict(decode_field_section(self.data[length[1] : length[0] + length[1]], max_size=100_000))

    def send(self, data: bytes, *, end: bool = False) -> None:
        assert self.core.write(data, 0) == len(data) or not data
        if end:
            self.core.finish()


class RawPeer:
    """One connection of a raw peer."""

    def __init__(self, core: _core.Connection, driver: Driver, options: EndpointOptions) -> None:
        self.core = core
        self.driver = driver
        self.options = options
        self.data_streams: list[RawStream] = []
        """WebTransport streams that the library opened, in the order of their arrival."""
        self.raw_streams: dict[int, RawStream] = {}
        """All other streams, whoever opened them, by id."""
        self.credit: list[tuple[object, ...]] = []
        """What the engine's ledger of session flow control had to say: kind of event, session and numbers."""
        self.closed: tuple[str, int, str] | None = None
        """Cause, code and reason of the connection's end."""
        self.closed_at: float | None = None
        self.connected = asyncio.Event()

    def handle(self, event: EngineEvent) -> None:
        match event:
            case EngineEvent.Ready() | EngineEvent.Connected():
                self.connected.set()
            case EngineEvent.DataStream():
                self.data_streams.append(RawStream(event.stream, event.session_id))
            case EngineEvent.RawStream(stream=stream):
                self.raw_streams[stream.id] = RawStream(stream)
            case EngineEvent.CreditDue() | EngineEvent.CreditBlocked():
                self.credit.append((type(event), event.session_id, event.limit))
            case EngineEvent.StreamsDue():
                self.credit.append((type(event), event.session_id, event.bidirectional, event.limit))
            case EngineEvent.CreditExceeded():
                self.credit.append((type(event), event.session_id))
            case EngineEvent.Closed():
                self.closed = (event.cause.name, event.code, event.reason)
                self.closed_at = asyncio.get_running_loop().time()

    def break_off(self, error: Exception) -> None:
        raise AssertionError("a raw peer has no defects") from error

    def open(self, data: bytes, *, bidirectional: bool = False, end: bool = False) -> RawStream:
        """Open a stream and send bytes, whatever they mean."""
        core = self.core.open_stream(bidirectional, b"", None)
        assert core is not None
        stream = self.raw_streams[core.id] = RawStream(core)
        stream.send(data, end=end)
        return stream

    def open_data_stream(self, session_id: int, data: bytes, *, bidirectional: bool = False) -> RawStream:
        """Open a WebTransport stream."""
        head = (b"\x40\x41" if bidirectional else b"\x40\x54") + varint.encode(session_id)
        return self.open(head + data, bidirectional=bidirectional)

    def add_session(self, session_id: int) -> None:
        """Register a session without flow control: its datagrams can be sent and received."""
        self.core.add_session(session_id, self.options, None)

    def send_settings(self, settings: Sequence[tuple[int, int]]) -> RawStream:
        return self.open(control_stream(settings))

    def request(self, *fields: tuple[str, str], token: str = "webtransport-h3") -> RawStream:
        """Client: ask for a session."""
        return self.open(connect(*fields, token=token), bidirectional=True)

    def close(self) -> None:
        self.core.close(0x100, b"")
        self.driver.close_when_idle()


async def settle() -> None:
    """Let everything arrive that is on its way."""
    await asyncio.sleep(1)


def raw_options(limits: wtio.Limits | None = None, reset_stream_at: bool = True) -> EndpointOptions:
    """Options of a raw peer."""
    return EndpointOptions(
        limits=limits or wtio.Limits(),
        timeouts=wtio.Timeouts(),
        congestion="tolerant",
        reset_stream_at=reset_stream_at,
        strict=False,
        io="loop",
    )


def _driver(network: Network, options: EndpointOptions, server_tls: _core.ServerTls | None) -> SimulatedDriver:
    endpoint = _core.Endpoint(options, server_tls=server_tls, seed=network._wire.next_seed())
    return SimulatedDriver(endpoint, asyncio.get_running_loop(), network._wire, "::", 443 if server_tls else 0)


@asynccontextmanager
async def raw_client(
    network: Network,
    settings: Sequence[tuple[int, int]] | None = DRAFT15_CLIENT,
    *,
    limits: wtio.Limits | None = None,
    reset_stream_at: bool = True,
) -> AsyncIterator[RawPeer]:
    """A raw client, connected to the server on the network; its SETTINGS are sent unless they are None."""
    options = raw_options(limits, reset_stream_at)
    driver = _driver(network, options, None)
    core = driver.connect(Address("::1", 443, True), "localhost", _certificate().client_tls()._engine)
    peer = RawPeer(core, driver, options)
    driver.add(core.id, peer)
    async with asyncio.timeout(10):
        await peer.connected.wait()
    if settings is not None:
        peer.send_settings(settings)
    try:
        yield peer
    finally:
        peer.close()
        await settle()


@asynccontextmanager
async def raw_server(
    network: Network,
    settings: Sequence[tuple[int, int]] | None = DRAFT15_SERVER,
    *,
    limits: wtio.Limits | None = None,
    reset_stream_at: bool = True,
) -> AsyncIterator[list[RawPeer]]:
    """A raw server; its connections appear in the list. Each sends SETTINGS unless they are None."""
    options = raw_options(limits, reset_stream_at)
    driver = _driver(network, options, _certificate().server_tls()._engine)
    peers: list[RawPeer] = []

    class Connected(RawPeer):
        def handle(self, event: EngineEvent) -> None:
            super().handle(event)
            if isinstance(event, EngineEvent.Connected) and settings is not None:
                self.send_settings(settings)

    def incoming(driver: Driver, core: _core.Connection) -> RawPeer:
        peers.append(Connected(core, driver, options))
        return peers[-1]

    driver.on_incoming = incoming
    try:
        yield peers
    finally:
        for peer in peers:
            peer.close()
        await settle()
        driver.close()


def accept(stream: RawStream, *fields: tuple[str, str]) -> None:
    """Server: answer a session request with 200."""
    stream.send(headers((":status", "200"), *fields))
