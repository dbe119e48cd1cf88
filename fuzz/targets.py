"""The Python fuzz targets: each takes any bytes, and raises where the protocol layer breaks a promise.

A promise is more than not to crash: only the documented exceptions, in bounded memory; the same result however the
bytes are cut into pieces; what is written again reads the same; where there is a second, simpler way to say what is
right, the same result as that one.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fuzz.reference import reference_item, reference_list, reference_records
from wtio.protocol import capsules, codes, fields, frames, huffman, messages, qpack, settings, varint
from wtio.protocol.connection import H3Connection
from wtio.protocol.dialects import Dialect
from wtio.protocol.faults import ConnectionFault, SessionStateError, StreamFault
from wtio.protocol.limits import ProtocolLimits
from wtio.protocol.outbox import (
    CloseConnection,
    ConnectionFailed,
    Event,
    Output,
    Reset,
    Role,
    Send,
    SessionFinished,
    SessionTerminated,
    Stop,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["TARGETS"]

_LARGEST_VARINT: Final = 2**62 - 1


class _Input:
    """Takes an input apart: numbers that choose, and bytes. At the end there are only zeros."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0

    def __bool__(self) -> bool:
        return self._offset < len(self._data)

    def byte(self) -> int:
        self._offset += 1
        return self._data[self._offset - 1] if self._offset <= len(self._data) else 0

    def take(self, count: int) -> bytes:
        self._offset += count
        return self._data[self._offset - count : self._offset]

    def rest(self) -> bytes:
        return self.take(max(len(self._data) - self._offset, 0))


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    """Cut ``data`` into pieces of ``size`` bytes; no bytes are one empty piece."""
    for start in range(0, max(len(data), 1), size):
        yield data[start : start + size]


# -- targets


def fuzz_varint(data: bytes) -> None:
    offset = data[0] % 4 if data else 0
    decoded = varint.decode(data, offset)
    if decoded is None:
        assert len(data) <= offset or len(data) < offset + (1 << (data[offset] >> 6))
    else:
        value, end = decoded
        assert 0 <= value <= _LARGEST_VARINT
        assert end - offset in (1, 2, 4, 8)
        assert varint.decode(bytearray(data[offset:end])) == (value, end - offset)
        assert varint.decode(data[offset : end - 1]) is None
        written = varint.encode(value)
        assert len(written) <= end - offset
        assert varint.decode(written + data) == (value, len(written))
    number = int.from_bytes(data[:9], "big", signed=True)
    try:
        written = varint.encode(number)
    except ValueError:
        assert not 0 <= number <= _LARGEST_VARINT
    else:
        assert varint.decode(written) == (number, len(written))
    # Application error codes, which travel as varints.
    application = codes.from_wire(abs(number))
    assert application is None or codes.to_wire(application) == abs(number)


def fuzz_frames(data: bytes) -> None:
    most_collected = 64
    source = _Input(data)
    choice, size = source.byte(), source.byte() + 1
    data = source.rest()

    def handling(kind: int, length: int) -> frames.Handling:
        form = (frames.Handling.COLLECT, frames.Handling.STREAM, frames.Handling.SKIP)[(kind ^ choice) % 3]
        return frames.Handling.STREAM if length > most_collected else form

    seen: list[tuple[int, int, bytes]] = []
    kinds: list[frames.Handling] = []

    def classify(kind: int, length: int) -> frames.Handling:
        kinds.append(handling(kind, length))
        return kinds[-1]

    reader = frames.RecordReader()
    for piece in pieces(data, size):
        for kind, value in reader.feed(piece, classify):
            if seen and seen[-1][0] == len(kinds):
                # Another piece of a streamed value.
                seen[-1] = (len(kinds), kind, seen[-1][2] + value)
            elif value or kinds[-1] is frames.Handling.COLLECT:
                seen.append((len(kinds), kind, value))
        assert reader.buffered <= most_collected + 15
    records, is_complete = reference_records(data)
    expected = []
    for number, (kind, length, value) in enumerate(records, 1):
        form = handling(kind, length)
        if (form is frames.Handling.COLLECT and len(value) == length) or (form is frames.Handling.STREAM and value):
            expected.append((number, kind, value))
    assert seen == expected
    assert len(kinds) == len(records)
    assert reader.at_boundary == is_complete
    for kind, _, value in records:
        assert reference_records(frames.encode_record(kind, value)) == ([(kind, len(value), value)], True)


def fuzz_qpack(data: bytes) -> None:
    source = _Input(data)
    max_size, size = source.byte() * 4, source.byte() % 16 + 1
    data = source.rest()
    try:
        decoded = qpack.decode_field_section(data, max_size=max_size)
    except qpack.FieldSectionTooLargeError:
        pass
    except ConnectionFault as fault:
        assert fault.code == codes.ErrorCodes.QPACK_DECOMPRESSION_FAILED
    else:
        actual = qpack.field_section_size(decoded)
        assert actual <= max_size
        assert qpack.decode_field_section(data, max_size=actual) == decoded
        if decoded:
            try:
                qpack.decode_field_section(data, max_size=actual - 1)
            except qpack.FieldSectionTooLargeError:
                pass
            else:
                raise AssertionError(f"{actual} bytes pass a limit of {actual - 1}")
        for use_huffman in (False, True):
            written = qpack.encode_field_section(decoded, use_huffman=use_huffman)
            assert qpack.decode_field_section(written, max_size=actual) == decoded
    coded = huffman.encode(data)
    assert huffman.decode(coded) == data
    try:
        plain = huffman.decode(data)
    except huffman.HuffmanError:
        pass
    else:
        assert len(plain) * 5 <= len(data) * 8
        assert huffman.encode(plain) == data
    for stream in (qpack.EncoderStream, qpack.DecoderStream):
        assert _judged(stream, data, len(data) + 1) == _judged(stream, data, size)


def _judged(stream: type[qpack.EncoderStream | qpack.DecoderStream], data: bytes, size: int) -> int | None:
    """The error code of a QPACK stream that arrives in pieces."""
    reader = stream()
    try:
        for piece in pieces(data, size):
            reader.feed(piece)
    except ConnectionFault as fault:
        assert fault.code in (
            codes.ErrorCodes.QPACK_ENCODER_STREAM_ERROR,
            codes.ErrorCodes.QPACK_DECODER_STREAM_ERROR,
        )
        return fault.code
    return None


def fuzz_capsules(data: bytes) -> None:
    source = _Input(data)
    flow_control, size = bool(source.byte() & 1), source.byte() + 1
    data = source.rest()
    whole = _read_capsules(data, flow_control, len(data) + 1)
    assert _read_capsules(data, flow_control, size) == whole
    for kind, value in whole:
        if kind == capsules.CapsuleType.WT_CLOSE_SESSION:
            code, reason = value
            written = capsules.encode_close(code, reason)
        elif kind in capsules.FLOW_CONTROL_CAPSULES:
            written = capsules.encode_limit(kind, value)
        else:
            continue
        assert _read_capsules(written, flow_control, len(written)) == [(kind, value)]
    reason = data.decode("utf-16-le", "surrogatepass" if flow_control else "ignore") if len(data) % 2 == 0 else ""
    cut = capsules.cut_reason(reason)
    assert len(cut) <= capsules.MAX_REASON
    assert capsules.cut_reason(cut.decode()) == cut
    assert len(reason) > len(cut.decode()) or "\ufffd" in cut.decode() or cut.decode() == reason


def _read_capsules(data: bytes, flow_control: bool, size: int) -> list[tuple[int, Any]]:
    """The capsules in ``data`` with what they say; at the end the error, where there is one."""
    found: list[tuple[int, Any]] = []
    reader = frames.RecordReader()
    classify = partial(capsules.classify_capsule, flow_control=flow_control)
    try:
        for piece in pieces(data, size):
            for kind, value in reader.feed(piece, classify):
                if kind == capsules.CapsuleType.WT_CLOSE_SESSION:
                    found.append((kind, capsules.decode_close(value)))
                elif kind in capsules.FLOW_CONTROL_CAPSULES:
                    found.append((kind, capsules.decode_limit(kind, value)))
                else:
                    assert (kind, value) == (capsules.CapsuleType.WT_DRAIN_SESSION, b"")
                    found.append((kind, None))
            assert reader.buffered <= 4 + capsules.MAX_REASON + 15
    except StreamFault as fault:
        assert fault.code in (codes.ErrorCodes.H3_MESSAGE_ERROR, codes.ErrorCodes.WT_FLOW_CONTROL_ERROR)
        found.append((-1, fault.code))
    return found


def fuzz_fields(data: bytes) -> None:
    text = data.decode("latin-1")
    for tokens in (False, True):
        lines = text.split("\n")
        strings = fields.parse_string_list(lines, tokens=tokens)
        assert strings == reference_list(",".join(lines), tokens)
        if strings is not None and not tokens:
            assert fields.parse_string_list([fields.serialize_string_list(strings)]) == strings
        item = fields.parse_string_item(text, tokens=tokens)
        assert item == reference_item(text, tokens)
        if item is not None:
            assert fields.parse_string_item(fields.serialize_string(item)) == item
    try:
        written = fields.serialize_string(text)
    except ValueError:
        assert not text.isascii() or not text.isprintable()
    else:
        assert fields.parse_string_item(written) == text


def fuzz_settings(data: bytes) -> None:
    for is_client in (False, True):
        try:
            decoded = settings.decode_settings(data, is_client=is_client)
        except ConnectionFault as fault:
            assert fault.code in (codes.ErrorCodes.H3_FRAME_ERROR, codes.ErrorCodes.H3_SETTINGS_ERROR)
            continue
        written = settings.encode_settings(decoded.items())
        assert len(written) <= len(data)
        assert settings.decode_settings(written, is_client=is_client) == decoded
        for strict in (False, True):
            local = settings.LocalTerms(dialects=tuple(Dialect), strict=strict)
            terms = settings.Terms(is_client, local, _LIMITS.max_field_section_size)
            terms.take(decoded, None)
            assert terms.dialect is None or decoded[terms.dialect.row.setting] > 0
            assert terms.problem is None or len(terms.problem) < 200
            assert not (is_client and terms.dialect is None and terms.problem is None)


def fuzz_messages(data: bytes) -> None:
    section = []
    for line in data.decode("latin-1").split("\n"):
        name, _, value = line[1:].partition(":")
        section.append((line[:1] + name, value))
    try:
        request = messages.read_request(section)
    except StreamFault as fault:
        assert fault.code == codes.ErrorCodes.H3_MESSAGE_ERROR
    else:
        assert messages.read_request(_again(section)) == request
        if request.protocol:
            assert (request.method, request.authority == "") == ("CONNECT", False)
        _check_headers(request.headers)
    try:
        status, headers = messages.read_response(section)
    except StreamFault as fault:
        assert fault.code == codes.ErrorCodes.H3_MESSAGE_ERROR
    else:
        assert 100 <= status <= 999
        _check_headers(headers)
    try:
        messages.check_trailers(section)
    except StreamFault as fault:
        assert fault.code == codes.ErrorCodes.H3_MESSAGE_ERROR
    else:
        _check_headers(section)
    try:
        checked = messages.check_headers(section)
    except ValueError:
        pass
    else:
        # What we let an application send, we would take ourselves.
        messages.check_trailers(_again(checked))


def _again(section: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return qpack.decode_field_section(
        qpack.encode_field_section(section, use_huffman=True), max_size=qpack.field_section_size(section)
    )


def _check_headers(headers: list[tuple[str, str]]) -> None:
    """What was taken from a peer is free of everything that could be smuggled on."""
    for name, value in headers:
        assert name == name.lower()
        assert ":" not in name
        assert not set(value) & set("\0\r\n")


# -- a whole connection

_LIMITS: Final = ProtocolLimits(
    max_field_section_size=1000,
    max_settings_size=300,
    max_buffered=3000,
    max_held_capsules=4,
    max_idle_records=12,
    max_refused_requests=3,
)
_MOST_SAID: Final = 1200  # bytes in answer to one input
_CONTROL_STREAM: Final = b"\x00" + frames.encode_record(
    frames.FrameType.SETTINGS, settings.encode_settings([(0x08, 1), (0x33, 1), (0x2C7CF000, 1), (0x2B603742, 1)])
)
_FLOW_CONTROLLED: Final = b"\x00" + frames.encode_record(
    frames.FrameType.SETTINGS,
    settings.encode_settings(
        [(0x08, 1), (0x33, 1), (0x2C7CF000, 1), (0x14E9CD29, 2), (0x2B61, 9), (0x2B64, 9), (0x2B65, 9)]
    ),
)
_CONNECT: Final = (
    (":method", "CONNECT"),
    (":scheme", "https"),
    (":authority", "a"),
    (":path", "/"),
    (":protocol", "webtransport-h3"),
)
_KINDS: Final = (*frames.FrameType, 0x02, 0x21, 0x2F)
_CAPSULES: Final = (*capsules.CapsuleType, 0x17)


@dataclass(frozen=True)
class _Data:
    """The peer sends."""

    stream_id: int
    data: bytes
    end: bool = False


@dataclass(frozen=True)
class _Signal:
    """The peer does something else."""

    run: Callable[[H3Connection], object]


@dataclass(frozen=True)
class _Call:
    """The application calls; what it may not do raises."""

    run: Callable[[H3Connection], object]


_Act = _Data | _Signal | _Call


def fuzz_connection(data: bytes) -> None:
    """A small language: a byte says what the peer or the application does, the bytes after it how."""
    source = _Input(data)
    flags, size = source.byte(), source.byte() % 32 + 1
    acts: list[_Act] = []
    if flags & 4:
        acts.append(_Data(3 if flags & 1 else 2, _FLOW_CONTROLLED if flags & 8 else _CONTROL_STREAM))
    if flags & 1 and flags & 16:
        acts.append(_Call(lambda h3: h3.send_connect(0, authority="a", path="/", protocols=["a"])))
    while source and len(acts) < 100:
        acts.append(_next_act(source, is_client=bool(flags & 1)))
    assert _run(acts, flags, 2**20) == _run(acts, flags, size)


def _next_act(source: _Input, is_client: bool) -> _Act:
    choice = source.byte()
    stream_id = _stream_id(choice >> 4, is_client)
    match choice & 0x0F:
        case 0 | 1:
            return _Data(stream_id, source.take(source.byte()), bool(choice & 1))
        case 2 | 3:
            kind = _KINDS[source.byte() % len(_KINDS)]
            return _Data(stream_id, frames.encode_record(kind, source.take(source.byte() % 64)), bool(choice & 1))
        case 4:
            kind = _CAPSULES[source.byte() % len(_CAPSULES)]
            record = frames.encode_record(kind, source.take(source.byte() % 32))
            return _Data(stream_id, frames.encode_record(frames.FrameType.DATA, record))
        case 5:
            section = [(":status", "200")] if is_client else list(_CONNECT)
            for _ in range(source.byte() % 4):
                name = ("wt-protocol", "wt-available-protocols", "origin", "te", ":path", "a")[source.byte() % 6]
                section.append((name, source.take(source.byte() % 16).decode("latin-1")))
            payload = qpack.encode_field_section(section)
            return _Data(stream_id, frames.encode_record(frames.FrameType.HEADERS, payload))
        case 6:
            code = int.from_bytes(source.take(7), "big")
            return _Signal(lambda h3: h3.receive_reset(stream_id, code))
        case 7:
            code = int.from_bytes(source.take(7), "big")
            stream = Role.CONTROL if choice & 0x10 else stream_id
            return _Signal(lambda h3: h3.receive_stop(stream, code))
        case 8:
            return _Call(lambda h3: h3.accept(stream_id))
        case 9:
            status = 200 + source.byte() * 2
            return _Call(lambda h3: h3.reject(stream_id, status, body=b"no"))
        case 10:
            code, reason = source.byte() << 25, source.take(8).decode("latin-1")
            return _Call(lambda h3: h3.close_session(stream_id, code, reason))
        case 11:
            return _Call(lambda h3: h3.abort_session(stream_id, codes.ErrorCodes.H3_REQUEST_CANCELLED))
        case 12:
            return _Call(lambda h3: h3.drain_session(stream_id))
        case 13:
            session_id = int.from_bytes(source.take(2), "big")
            return _Call(lambda h3: h3.check_session_id(session_id))
        case 14:
            if is_client:
                return _Call(lambda h3: h3.send_connect(stream_id, authority="a", path="/", protocols=["a"]))
            return _Call(lambda h3: h3.expire_parked())
        case _:
            return _Call(lambda h3: h3.send_goaway())


def _stream_id(choice: int, is_client: bool) -> int:
    """One of a few streams on which the peer can send: requests, unidirectional ones, for clients also stray ones."""
    if choice < 8:
        return 4 * (choice % 4)
    return 4 * (choice % 4) + (3 if is_client else 2) if choice < 14 or not is_client else 4 * (choice % 2) + 1


def _run(acts: list[_Act], flags: int, size: int) -> list[object]:
    """All events and outputs of a connection on which received bytes come in pieces of ``size``."""
    window = 9 if flags & 2 else 0
    h3 = H3Connection(
        is_client=bool(flags & 1),
        local=settings.LocalTerms(
            initial_max_data=window,
            initial_max_streams_bidi=window,
            initial_max_streams_uni=window,
            max_sessions=1 + (flags >> 6),
            dialects=tuple(Dialect),
            strict=bool(flags & 32),
        ),
        limits=_LIMITS,
    )
    h3.start()
    produced: list[Event | Output] = []
    finished: set[int] = set()
    for act in acts:
        before = len(produced)
        match act:
            # A transport delivers nothing after the end of a stream.
            case _Data(stream_id, data, end) if stream_id not in finished:
                parts = list(pieces(data, size))
                for index, part in enumerate(parts):
                    h3.receive_data(stream_id, part, end and index == len(parts) - 1)
                    produced += [*h3.outbox.take_events(), *h3.outbox.take_outputs()]
                    assert h3._requests.buffered <= _LIMITS.max_buffered
                if end:
                    finished.add(stream_id)
            case _Signal(run):
                run(h3)
            case _Call(run):
                with contextlib.suppress(SessionStateError, ValueError):
                    run(h3)
        produced += [*h3.outbox.take_events(), *h3.outbox.take_outputs()]
        assert sum(len(item.data) for item in produced[before:] if isinstance(item, Send)) <= _MOST_SAID
    _check_outputs(h3, produced)
    # The order of events and outputs relative to each other depends on when they are taken.
    return [item for kind in (Event, Output) for item in produced if isinstance(item, kind)]


def _check_outputs(h3: H3Connection, produced: list[Event | Output]) -> None:
    closes = [item for item in produced if isinstance(item, CloseConnection)]
    assert len(closes) == sum(isinstance(item, ConnectionFailed) for item in produced) <= 1
    assert h3.closed == bool(closes)
    for close in closes:
        assert len(close.reason) < 300
    for kind in (SessionTerminated, SessionFinished):
        ended = [item.stream_id for item in produced if isinstance(item, kind)]
        assert len(set(ended)) == len(ended)
    sealed: set[int | Role] = set()
    for item in produced:
        match item:
            case Send(stream, data, end):
                assert stream not in sealed
                assert data or end
                if end:
                    sealed.add(stream)
            case Reset(stream_id, code):
                assert 0 <= code <= _LARGEST_VARINT
                sealed.add(stream_id)
            case Stop(_, code):
                assert 0 <= code <= _LARGEST_VARINT


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "varint": fuzz_varint,
    "frames": fuzz_frames,
    "qpack": fuzz_qpack,
    "capsules": fuzz_capsules,
    "structured_fields": fuzz_fields,
    "settings": fuzz_settings,
    "messages": fuzz_messages,
    "connection": fuzz_connection,
}
