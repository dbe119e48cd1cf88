"""Two ways to exercise the protocol: one side against bytes written by hand, and both sides against each other."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from wtio.protocol import varint
from wtio.protocol.capsules import CapsuleType, encode_close
from wtio.protocol.connection import H3Connection
from wtio.protocol.dialects import Dialect
from wtio.protocol.frames import FrameType, encode_record
from wtio.protocol.limits import DEFAULT_LIMITS, Earnings, ProtocolLimits
from wtio.protocol.outbox import CloseConnection, Event, FreeStream, Output, Reset, Role, Send, SessionRequested, Stop
from wtio.protocol.qpack import decode_field_section, encode_field_section
from wtio.protocol.settings import LocalTerms, decode_settings, encode_settings

Some = TypeVar("Some")

CLIENT_CONTROL, CLIENT_ENCODER, CLIENT_DECODER = 2, 6, 10
SERVER_CONTROL, SERVER_ENCODER, SERVER_DECODER = 3, 7, 11
GREASE = 0x1F * 5 + 0x21  # RFC 9114, section 7.2.8: means nothing, anywhere

# What each kind of peer announces (see also what browsers were seen to send).
CHROMIUM = [(0x01, 65536), (0x06, 16384), (0x07, 100), (0x33, 1), (0xFFD277, 1), (0x2B603742, 1), (GREASE, 7)]
FIREFOX = [(0x01, 65536), (0x07, 20), (0x2B603742, 1), (0xFFD277, 1), (0x33, 1), (0x08, 1), (GREASE, 7)]
DRAFT15_CLIENT = [(0x33, 1), (0x2C7CF000, 1)]
DRAFT15_SERVER = [(0x08, 1), (0x33, 1), (0x2C7CF000, 1)]
FLOW_CONTROL = [(0x2B61, 1000), (0x2B64, 10), (0x2B65, 20)]


def vectors(name: str) -> Any:
    return json.loads((Path(__file__).parent.parent / "vectors" / f"{name}.json").read_text(encoding="utf-8"))


def control_stream(settings: Sequence[tuple[int, int]]) -> bytes:
    return b"\x00" + encode_record(FrameType.SETTINGS, encode_settings(settings))


def headers(*fields: tuple[str, str]) -> bytes:
    return encode_record(FrameType.HEADERS, encode_field_section(fields))


def data(payload: bytes) -> bytes:
    return encode_record(FrameType.DATA, payload)


def connect_fields(*more: tuple[str, str], token: str = "webtransport-h3") -> list[tuple[str, str]]:
    return [
        (":method", "CONNECT"),
        (":scheme", "https"),
        (":authority", "example.org"),
        (":path", "/chat?room=1"),
        (":protocol", token),
        *more,
    ]


def connect(*more: tuple[str, str], token: str = "webtransport-h3") -> bytes:
    return headers(*connect_fields(*more, token=token))


def close(code: int = 0, reason: str = "") -> bytes:
    return data(encode_close(code, reason))


DRAIN = data(encode_record(CapsuleType.WT_DRAIN_SESSION, b""))


class Side:
    """A connection with the outputs and events it has produced."""

    def __init__(self, h3: H3Connection) -> None:
        self.h3 = h3
        self.outputs: list[Output] = []
        self.events: list[Event] = []

    def collect(self) -> list[Event]:
        """Drain the connection; return the new events."""
        self.outputs += self.h3.outbox.take_outputs()
        events = self.h3.outbox.take_events()
        self.events += events
        return events

    def receive(self, stream_id: int, payload: bytes = b"", end: bool = False) -> list[Event]:
        self.h3.receive_data(stream_id, payload, end)
        return self.collect()

    def reset(self, stream_id: int, code: int) -> list[Event]:
        self.h3.receive_reset(stream_id, code)
        return self.collect()

    def stop(self, stream_id: int | Role, code: int) -> list[Event]:
        self.h3.receive_stop(stream_id, code)
        return self.collect()

    def run(self, action: Callable[[], object]) -> list[Event]:
        action()
        return self.collect()

    def of(self, kind: type[Some]) -> list[Some]:
        """All events and outputs of a kind so far."""
        return [item for item in (*self.events, *self.outputs) if isinstance(item, kind)]

    def sent(self, stream: int | Role) -> bytes:
        return b"".join(output.data for output in self.of(Send) if output.stream == stream)

    def ended(self, stream_id: int) -> bool:
        return any(output.stream == stream_id and output.end for output in self.of(Send))

    def resets(self, stream_id: int) -> list[int]:
        return [output.code for output in self.of(Reset) if output.stream_id == stream_id]

    def stops(self, stream_id: int) -> list[int]:
        return [output.code for output in self.of(Stop) if output.stream_id == stream_id]

    def is_free(self, stream_id: int) -> bool:
        return FreeStream(stream_id) in self.outputs

    @property
    def close_code(self) -> int | None:
        closes = self.of(CloseConnection)
        return closes[0].code if closes else None


def sent_fields(side: Side, stream_id: int = 0) -> list[tuple[str, str]]:
    """The first header section that a side has sent on a stream."""
    stream = side.sent(stream_id)
    length = varint.decode(stream, 1)
    assert stream[0] == FrameType.HEADERS
    assert length
    return decode_field_section(stream[length[1] : length[0] + length[1]], max_size=100_000)


def sent_settings(side: Side) -> Mapping[int, int]:
    """The settings that a side has announced."""
    stream = side.sent(Role.CONTROL)
    assert stream[:2] == b"\x00\x04"
    length = varint.decode(stream, 2)
    assert length
    return decode_settings(stream[length[1] : length[0] + length[1]], is_client=not side.h3.is_client)


def connection(
    *,
    is_client: bool,
    limits: ProtocolLimits = DEFAULT_LIMITS,
    earnings: Earnings | None = None,
    dialects: Collection[Dialect] | None = None,
    **local: Any,
) -> H3Connection:
    terms = LocalTerms(dialects=None if dialects is None else tuple(dialects), **local)
    return H3Connection(is_client=is_client, local=terms, limits=limits, earnings=earnings)


def server(settings: Sequence[tuple[int, int]] | None = DRAFT15_CLIENT, **options: Any) -> Side:
    """A server, and a client that has sent these settings (None: nothing yet)."""
    side = Side(connection(is_client=False, **options))
    side.h3.start()
    side.collect()
    if settings is not None:
        side.receive(CLIENT_CONTROL, control_stream(settings))
    return side


def client(settings: Sequence[tuple[int, int]] | None = DRAFT15_SERVER, **options: Any) -> Side:
    """A client, and a server that has sent these settings (None: nothing yet)."""
    side = Side(connection(is_client=True, **options))
    side.h3.start()
    side.collect()
    if settings is not None:
        side.receive(SERVER_CONTROL, control_stream(settings))
    return side


def requested_server(*more: tuple[str, str], **options: Any) -> Side:
    """A server with a session request on stream 0."""
    side = server(**options)
    side.receive(0, connect(*more))
    assert side.of(SessionRequested)
    return side


def open_server(*more: tuple[str, str], **options: Any) -> Side:
    """A server with an open session on stream 0."""
    side = requested_server(*more, **options)
    side.run(lambda: side.h3.accept(0))
    return side


def connecting_client(settings: Sequence[tuple[int, int]] = DRAFT15_SERVER, **connect_options: Any) -> Side:
    """A client that has asked for a session on stream 0."""
    side = client(settings)
    side.run(lambda: side.h3.send_connect(0, authority="example.org", path="/", **connect_options))
    return side


def open_client(settings: Sequence[tuple[int, int]] = DRAFT15_SERVER, **connect_options: Any) -> Side:
    """A client with an open session on stream 0."""
    side = connecting_client(settings, **connect_options)
    side.receive(0, headers((":status", "200")))
    return side


class Pair:
    """A client and a server that are wired to each other."""

    def __init__(self, *, client_options: dict[str, Any] | None = None, **server_options: Any) -> None:
        self.client = Side(connection(is_client=True, **(client_options or {})))
        self.server = Side(connection(is_client=False, **server_options))
        self._carried = {id(self.client): 0, id(self.server): 0}
        self.client.h3.start()
        self.server.h3.start()
        self.exchange()

    def exchange(self) -> None:
        """Carry bytes until both sides have nothing more to say."""
        moved = True
        while moved:
            moved = self._carry(self.client, self.server, CLIENT_CONTROL)
            moved = self._carry(self.server, self.client, SERVER_CONTROL) or moved

    def _carry(self, source: Side, target: Side, first_uni: int) -> bool:
        roles = {Role.CONTROL: first_uni}
        source.collect()
        outputs = source.outputs[self._carried[id(source)] :]
        self._carried[id(source)] = len(source.outputs)
        for output in outputs:
            match output:
                case Send(Role() as role, payload, end):
                    target.receive(roles[role], payload, end)
                case Send(int() as stream_id, payload, end):
                    target.receive(stream_id, payload, end)
                case Reset(stream_id, code):
                    target.reset(stream_id, code)
                case Stop(stream_id, code):
                    target.stop(stream_id, code)
        return bool(outputs)
