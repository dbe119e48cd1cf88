"""An emulated Safari: a client that insists on what Safari 26 was reported to insist on, in either of its dialects.

It stands on aioquic's QUIC and HTTP/3. What is its own: which settings and transport parameters it demands before it
sends a request, the session flow control of drafts 13 and 14 with a check of every credit that is used, and
RESET_STREAM_AT on receipt. Where reports about Safari contradict each other, the stricter reading is taken.

Everything that the server does and this Safari would not bear ends the session and is kept in ``complaints``.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from aioquic._buffer import Buffer
from aioquic.asyncio.client import connect as quic_connect
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection, QuicConnectionError
from aioquic.quic.events import StreamDataReceived, StreamReset
from aioquic.quic.packet import QuicErrorCode
from aioquic.quic.stream import FinalSizeError

from wtio.protocol import varint

from .aioquic_peer import PeerProtocol, PeerSession, PeerSessionClosed, PeerSessionRejected, PeerStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from aioquic.asyncio.protocol import QuicStreamHandler
    from aioquic.quic.connection import NetworkAddress
    from aioquic.quic.events import QuicEvent

H3_REQUEST_CANCELLED = 0x10C
FLOW_CONTROL_ERROR = 0x045D4487
RESET_STREAM_AT_FRAME = 0x24
RESET_STREAM_AT_DRAFT05 = 0x17F7586D2CB571  # the transport parameter that Safari knows; 0x1d is none to it

CONNECT_PROTOCOL, H3_DATAGRAM = 0x08, 0x33
MAX_SESSIONS_D07, MAX_SESSIONS_D13 = 0xC671706A, 0x14E9CD29
INITIAL_MAX_DATA, INITIAL_MAX_STREAMS_UNI, INITIAL_MAX_STREAMS_BIDI = 0x2B61, 0x2B64, 0x2B65

MAX_DATA, DATA_BLOCKED = 0x190B4D3D, 0x190B4D41
MAX_STREAMS_BIDI, MAX_STREAMS_UNI = 0x190B4D3F, 0x190B4D40
STREAMS_BLOCKED_BIDI, STREAMS_BLOCKED_UNI = 0x190B4D43, 0x190B4D44
PROHIBITED = {0x190B4D3E: "WT_MAX_STREAM_DATA", 0x190B4D42: "WT_STREAM_DATA_BLOCKED"}

GRANTED_DATA = 1 << 20
GRANTED_STREAMS = 100


class Flavour(Enum):
    """Which of its two dialects this Safari speaks."""

    D07 = "draft07"
    D13 = "draft13"


class SafariRefused(Exception):
    """The server does not announce what Safari wants; it got 0x10c on a CONNECT stream without a request."""


def refusal(
    flavour: Flavour, settings: dict[int, int], parameters: dict[int, bytes], max_datagram_frame_size: int | None
) -> str | None:
    """Why Safari sends no request to a server with these settings and transport parameters; None if it does."""
    for setting in (CONNECT_PROTOCOL, H3_DATAGRAM):
        if settings.get(setting) != 1:
            return f"setting 0x{setting:x} is {settings.get(setting)}"
    if not max_datagram_frame_size:
        return "no max_datagram_frame_size"
    if flavour is Flavour.D07:
        return None if settings.get(MAX_SESSIONS_D07, 0) >= 1 else "no setting 0xc671706a"
    sessions = settings.get(MAX_SESSIONS_D13, 0)
    if sessions < 1:
        return "no setting 0x14e9cd29"
    if sessions > 1:
        for setting in (INITIAL_MAX_DATA, INITIAL_MAX_STREAMS_UNI, INITIAL_MAX_STREAMS_BIDI):
            if not settings.get(setting):
                return f"setting 0x14e9cd29 is {sessions}, but 0x{setting:x} is {settings.get(setting)}"
    if parameters.get(RESET_STREAM_AT_DRAFT05) != b"":
        return "no reset_stream_at (0x17f7586d2cb571)"
    return None


class SafariQuic(QuicConnection):
    """aioquic's QUIC that shows all transport parameters of the server and, for draft 13, takes RESET_STREAM_AT."""

    def __init__(self, configuration: QuicConfiguration, flavour: Flavour) -> None:
        super().__init__(configuration=configuration)
        self.peer_parameters: dict[int, bytes] = {}
        self._flavour = flavour
        self.reliable_resets: dict[int, tuple[int, int]] = {}
        """Wire code and reliable size of every RESET_STREAM_AT that came, by stream."""
        self._reliable_resets: dict[int, tuple[int, int, int]] = {}
        handlers = self._QuicConnection__frame_handlers  # type: ignore[attr-defined]
        if flavour is Flavour.D13:
            handlers[RESET_STREAM_AT_FRAME] = (self._reset_stream_at, handlers[0x04][1])

    def receive_datagram(self, data: bytes, addr: NetworkAddress, now: float) -> None:
        super().receive_datagram(data, addr, now)
        for stream_id, (code, final_size, reliable_size) in list(self._reliable_resets.items()):
            stream = self._streams.get(stream_id)
            if stream is not None and stream.receiver.starting_offset() < reliable_size:
                continue
            del self._reliable_resets[stream_id]
            if stream is not None and not stream.receiver.is_finished:
                self._local_max_data.used += max(0, final_size - stream.receiver.highest_offset)
                with contextlib.suppress(FinalSizeError):
                    event = stream.receiver.handle_reset(error_code=code, final_size=final_size)
                    if event is not None:
                        self._events.append(event)

    def final_size(self, stream_id: int) -> int:
        """Bytes that the server sent on a stream, lost ones of a reset included."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else stream.receiver.highest_offset

    def _reset_stream_at(self, context: object, frame_type: int, buf: Buffer) -> None:
        stream_id, code = buf.pull_uint_var(), buf.pull_uint_var()
        final_size, reliable_size = buf.pull_uint_var(), buf.pull_uint_var()
        self._assert_stream_can_receive(frame_type, stream_id)
        stream = self._get_or_create_stream(frame_type, stream_id)
        if reliable_size > final_size:
            raise QuicConnectionError(QuicErrorCode.FRAME_ENCODING_ERROR, frame_type, "reliable size above final size")
        if final_size > stream.max_stream_data_local:
            raise QuicConnectionError(QuicErrorCode.FLOW_CONTROL_ERROR, frame_type, "over stream data limit")
        self.reliable_resets[stream_id] = (code, reliable_size)
        known = self._reliable_resets.get(stream_id)
        if known is None or reliable_size < known[2]:
            self._reliable_resets[stream_id] = (code, final_size, reliable_size)

    def _parse_transport_parameters(self, data: bytes, from_session_ticket: bool = False) -> None:
        buffer = Buffer(data=data)
        while not buffer.eof():
            number, length = buffer.pull_uint_var(), buffer.pull_uint_var()
            self.peer_parameters[number] = buffer.pull_bytes(length)
        super()._parse_transport_parameters(data, from_session_ticket)

    def _serialize_transport_parameters(self) -> bytes:
        parameters: bytes = super()._serialize_transport_parameters()
        if self._flavour is Flavour.D13:
            parameters += varint.encode(RESET_STREAM_AT_DRAFT05) + varint.encode(0)
        return parameters


class SafariHttp(H3Connection):
    """aioquic's HTTP/3 with the settings of a Safari."""

    def __init__(self, quic: QuicConnection, flavour: Flavour) -> None:
        self._flavour = flavour
        super().__init__(quic)

    def _get_local_settings(self) -> dict[int, int]:
        settings = {0x01: 0, 0x07: 0, H3_DATAGRAM: 1}
        if self._flavour is Flavour.D07:
            return settings | {MAX_SESSIONS_D07: 1}
        return settings | {
            MAX_SESSIONS_D13: 1,
            INITIAL_MAX_DATA: GRANTED_DATA,
            INITIAL_MAX_STREAMS_UNI: GRANTED_STREAMS,
            INITIAL_MAX_STREAMS_BIDI: GRANTED_STREAMS,
        }


@dataclass
class SentCredit:
    """What the server allows us: a limit that only its settings and capsules raise."""

    limit: int
    blocked_capsule: int
    used: int = 0
    blocked_at: int = -1


@dataclass
class GrantedCredit:
    """What we allow the server: used as it comes, granted anew as it is done with."""

    window: int
    capsule: int
    limit: int = field(init=False)
    used: int = 0
    done: int = 0

    def __post_init__(self) -> None:
        self.limit = self.window


class SafariStream(PeerStream):
    """A stream whose payload counts against the credit of its session."""

    def __init__(self, session: SafariSession, protocol: SafariProtocol, stream_id: int) -> None:
        super().__init__(session, protocol, stream_id)
        self._safari = session
        self._quic = protocol.quic
        self._received = 0
        self._taken = 0

    async def read(self) -> bytes:
        data = await super().read()
        self._taken += len(data)
        self._safari.data_taken(len(data))
        return data

    async def write(self, data: bytes, end: bool = False) -> None:
        rest = memoryview(data)
        while rest:
            allowed = await self._safari.use_data(len(rest))
            await super().write(bytes(rest[:allowed]), end and allowed == len(rest))
            rest = rest[allowed:]
        if not data:
            await super().write(b"", end)

    def data_arrived(self, data: bytes, end: bool) -> None:
        self._received += len(data)
        self._safari.data_received(len(data))
        super().data_arrived(data, end)

    def reset_arrived(self, code: int | None) -> None:
        # draft-ietf-webtrans-http3-14, section 5.4: what counts is the final size without the stream's header.
        # The server's half of a stream that we opened has none.
        header = self._safari.header_size if self.stream_id & 1 else 0
        payload = max(self._received, self._quic.final_size(self.stream_id) - header)
        self._safari.data_received(payload - self._received)
        self._safari.data_taken(payload - self._taken)
        super().reset_arrived(code)


class SafariSession(PeerSession):
    """A session that keeps and checks session flow control, if its dialect has any."""

    def __init__(
        self, protocol: SafariProtocol, session_id: int, path: str, headers: Sequence[tuple[str, str]]
    ) -> None:
        super().__init__(protocol, session_id, path, headers)
        self.complaints: list[str] = []
        self.capsules: list[int] = []
        """Types of the capsules that came, in order."""
        self.header_size = 2 + len(varint.encode(session_id))
        self.connection = protocol
        self._capsule_came = asyncio.Event()
        self._flow_control = protocol.flavour is Flavour.D13
        self._progress = asyncio.Event()
        settings = protocol.settings.result()
        self._data = SentCredit(settings.get(INITIAL_MAX_DATA, 0), DATA_BLOCKED)
        self._streams_allowed = {
            True: SentCredit(settings.get(INITIAL_MAX_STREAMS_BIDI, 0), STREAMS_BLOCKED_BIDI),
            False: SentCredit(settings.get(INITIAL_MAX_STREAMS_UNI, 0), STREAMS_BLOCKED_UNI),
        }
        self._data_granted = GrantedCredit(GRANTED_DATA, MAX_DATA)
        self._streams_granted = {
            True: GrantedCredit(GRANTED_STREAMS, MAX_STREAMS_BIDI),
            False: GrantedCredit(GRANTED_STREAMS, MAX_STREAMS_UNI),
        }

    # -- what we use

    async def create_stream(self, *, bidirectional: bool = True) -> PeerStream:
        if self._flow_control:
            await self._use(self._streams_allowed[bidirectional], 1)
        return self.open_stream(bidirectional=bidirectional)

    async def use_data(self, wanted: int) -> int:
        """Wait for credit and take at most ``wanted`` bytes of it."""
        return await self._use(self._data, wanted) if self._flow_control else wanted

    async def _use(self, credit: SentCredit, wanted: int) -> int:
        while credit.used >= credit.limit:
            if self.closed.done():
                raise self.closed.result()
            if credit.blocked_at != credit.limit:
                credit.blocked_at = credit.limit
                self.send_capsule(credit.blocked_capsule, varint.encode(credit.limit))
            self._progress.clear()
            await self._progress.wait()
        taken = min(wanted, credit.limit - credit.used)
        credit.used += taken
        return taken

    # -- what the server uses

    @property
    def data_counted(self) -> int:
        """Payload bytes that came, those that a reset discarded included."""
        return self._data_granted.used

    def make_stream(self, stream_id: int) -> PeerStream:
        # The client's own streams have even numbers.
        if stream_id & 1 and self._flow_control:
            self._count(self._streams_granted[not stream_id & 2], 1, "streams")
        return SafariStream(self, self.connection, stream_id)

    def forget(self, stream_id: int) -> None:
        if stream_id & 1 and self.known_stream(stream_id) is not None:
            self._done(self._streams_granted[not stream_id & 2], 1)
        super().forget(stream_id)

    def data_received(self, size: int) -> None:
        self._count(self._data_granted, size, "bytes")

    def data_taken(self, size: int) -> None:
        self._done(self._data_granted, size)

    def _count(self, credit: GrantedCredit, size: int, what: str) -> None:
        if self._flow_control:
            credit.used += size
            if credit.used > credit.limit:
                self.complain(f"the server used {credit.used} {what} where {credit.limit} were allowed")

    def _done(self, credit: GrantedCredit, size: int) -> None:
        credit.done += size
        due = credit.limit - credit.done < credit.window // 2
        if self._flow_control and due and self.connection.refills and not self.closed.done():
            credit.limit = credit.done + credit.window
            self.send_capsule(credit.capsule, varint.encode(credit.limit))

    # -- capsules

    async def wait_capsule(self) -> None:
        """Wait for one more capsule."""
        self._capsule_came.clear()
        await self._capsule_came.wait()

    def capsule_arrived(self, kind: int, value: bytes) -> None:
        self.capsules.append(kind)
        self._capsule_came.set()
        raised = {
            MAX_DATA: self._data,
            MAX_STREAMS_BIDI: self._streams_allowed[True],
            MAX_STREAMS_UNI: self._streams_allowed[False],
        }.get(kind)
        if raised is not None and self._flow_control:
            number = varint.decode(value)
            if number is None or number[1] != len(value):
                self.complain(f"capsule 0x{kind:x} holds {value.hex()}, which is no number")
            elif number[0] < raised.limit or (kind != MAX_DATA and number[0] > 1 << 60):
                self.complain(f"capsule 0x{kind:x} takes the limit from {raised.limit} to {number[0]}")
            else:
                raised.limit = number[0]
                self._progress.set()
        elif kind in PROHIBITED:
            self.complain(f"{PROHIBITED[kind]} is prohibited over HTTP/3")
        super().capsule_arrived(kind, value)

    def complain(self, what: str) -> None:
        """End the session over something that the server must not do."""
        self.complaints.append(what)
        if not self.connection.terminated:
            self.connection.quic.reset_stream(self.session_id, FLOW_CONTROL_ERROR)
            self.connection.quic.stop_stream(self.session_id, FLOW_CONTROL_ERROR)
            self.connection.transmit_soon()
        self.ended(PeerSessionClosed(None, what))

    def ended(self, error: PeerSessionClosed) -> None:
        super().ended(error)
        self._progress.set()


class SafariProtocol(PeerProtocol):
    """A connection of Safari's."""

    quic: SafariQuic

    def __init__(
        self,
        quic: QuicConnection,
        stream_handler: QuicStreamHandler | None = None,
        *,
        flavour: Flavour,
        refills: bool = True,
        protocols: Sequence[str] = (),
    ) -> None:
        self.flavour = flavour
        self.refills = refills
        self.first_data: dict[int, bytes] = {}
        """The first piece of each stream of the server, in the order of arrival."""
        super().__init__(SafariQuic(quic.configuration, flavour), stream_handler, protocols=protocols)

    async def open_session(self, authority: str, path: str) -> SafariSession:
        """CONNECT if the server is to Safari's liking, and the session once the server accepted it.

        Raises:
            SafariRefused: It is not.
            PeerSessionRejected: The server answered with a status outside 2xx.
        """
        settings = await self.settings
        reason = refusal(self.flavour, settings, self.quic.peer_parameters, self.quic._remote_max_datagram_frame_size)
        if reason is not None:
            stream_id = self.quic.get_next_available_stream_id()
            self.quic.send_stream_data(stream_id, b"")
            self.quic.reset_stream(stream_id, H3_REQUEST_CANCELLED)
            self.quic.stop_stream(stream_id, H3_REQUEST_CANCELLED)
            self.transmit()
            raise SafariRefused(reason)
        session = await self.request_session(authority, path)
        assert isinstance(session, SafariSession)
        return session

    def make_http(self, quic: QuicConnection) -> H3Connection:
        return SafariHttp(quic, self.flavour)

    def make_session(self, session_id: int, path: str, headers: Sequence[tuple[str, str]]) -> PeerSession:
        return SafariSession(self, session_id, path, headers)

    def request_headers(self, authority: str, path: str) -> list[tuple[bytes, bytes]]:
        return [
            (b":method", b"CONNECT"),
            (b":scheme", b"https"),
            (b":authority", authority.encode()),
            (b":path", path.encode()),
            # Not webtransport-h3, whatever the server announces.
            (b":protocol", b"webtransport"),
            (b"origin", b"https://" + authority.encode()),
        ]

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, StreamDataReceived) and event.stream_id & 1:
            self.first_data.setdefault(event.stream_id, event.data)
        elif isinstance(event, StreamReset) and event.stream_id & 1:
            # aioquic reports a stream with its first payload, which a stream that is reset may not have.
            header = self.http._stream.get(event.stream_id)
            session = self._sessions.get(-1 if header is None or header.session_id is None else header.session_id)
            if session is not None:
                session.stream(event.stream_id)
        super().quic_event_received(event)


@contextlib.asynccontextmanager
async def connect(
    host: str, port: int, path: str, *, flavour: Flavour, refills: bool = True, protocols: Sequence[str] = ()
) -> AsyncIterator[SafariSession]:
    """Open a session; any certificate is accepted. Without ``refills`` the server gets its first credit only."""

    def create(quic: QuicConnection, stream_handler: QuicStreamHandler | None = None) -> SafariProtocol:
        return SafariProtocol(quic, stream_handler, flavour=flavour, refills=refills, protocols=protocols)

    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, max_datagram_frame_size=65536)
    configuration.verify_mode = ssl.CERT_NONE
    async with quic_connect(host, port, configuration=configuration, create_protocol=create) as protocol:
        assert isinstance(protocol, SafariProtocol)
        session = await protocol.open_session(f"{host}:{port}", path)
        yield session
        session.close()


__all__ = [
    "Flavour",
    "PeerSessionRejected",
    "SafariProtocol",
    "SafariRefused",
    "SafariSession",
    "connect",
    "refusal",
]
