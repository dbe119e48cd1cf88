"""Qlogs: files in which other programs draw what happened on a connection.

Each connection that begins gets a file in ``QLOGDIR`` (``_qlog_directory``), and ``WebTransportSession.start_qlog``
begins one in the middle. The engine writes the files (``crates/engine/src/qlog.rs``), and the events of packets,
streams and datagrams. HTTP/3, sessions and requests are described here.

No event has a query, a header field, a token or payload.

Source: draft-ietf-quic-qlog-main-schema-13, draft-ietf-quic-qlog-quic-events-12, draft-ietf-quic-qlog-h3-events-12;
docs/qlog.md for the events of sessions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from wtio._log import shown_path
from wtio.protocol.dialects import Setting
from wtio.protocol.frames import FrameType, StreamType
from wtio.protocol.transport_parameters import parameter_name, parameter_value

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wtio import _core
    from wtio._session_state import SessionState
    from wtio.protocol.connection import H3Connection

__all__ = ["ConnectionQlog"]

_STREAM_TYPES: Final = {
    StreamType.CONTROL: "control",
    StreamType.PUSH: "push",
    StreamType.QPACK_ENCODER: "qpack_encode",
    StreamType.QPACK_DECODER: "qpack_decode",
}
_SETTINGS: Final = {
    Setting.QPACK_MAX_TABLE_CAPACITY: ("settings_qpack_max_table_capacity", "max_table_capacity"),
    Setting.MAX_FIELD_SECTION_SIZE: ("settings_max_field_section_size", "max_field_section_size"),
    Setting.QPACK_BLOCKED_STREAMS: ("settings_qpack_blocked_streams", "blocked_streams_count"),
    Setting.ENABLE_CONNECT_PROTOCOL: ("settings_enable_connect_protocol", "extended_connect"),
    Setting.H3_DATAGRAM: ("settings_h3_datagram", "h3_datagram"),
}
# Of the transport parameters those that are plain numbers and secret to nobody.
_PARAMETERS: Final = frozenset(
    (
        *("max_idle_timeout", "max_udp_payload_size", "ack_delay_exponent", "max_ack_delay"),
        *("active_connection_id_limit", "initial_max_data", "initial_max_stream_data_bidi_local"),
        *("initial_max_stream_data_bidi_remote", "initial_max_stream_data_uni", "initial_max_streams_bidi"),
        *("initial_max_streams_uni", "max_datagram_frame_size"),
    )
)


class ConnectionQlog:
    """Describes what HTTP/3 and the sessions of one connection do. Made only if there is a file."""

    __slots__ = ("_core", "_has_settings")

    def __init__(self, core: _core.Connection, number: int) -> None:
        """Begin with the connection's number in the log."""
        # Its engine's connection has the file.
        self._core = core
        # Whether the peer's SETTINGS were described.
        self._has_settings = False
        self._write("webtransport:connection_numbered", {"log_id": number})

    def _write(self, name: str, data: dict[str, Any]) -> None:
        # Every client loads this module, and few write qlogs.
        import json

        self._core.note(name, json.dumps(data, separators=(",", ":")))

    # -- the handshake

    def parameters(self, parameters: Iterable[tuple[int, bytes]]) -> None:
        """The peer's transport parameters are known."""
        values = {}
        for identifier, raw in parameters:
            name, value = parameter_name(identifier), parameter_value(identifier, raw)
            if name in _PARAMETERS and isinstance(value, int):
                values[name] = value
        self._write("quic:parameters_set", {"initiator": "remote", **values, "unknown_parameters": []})

    def note_settings(self, h3: H3Connection) -> None:
        """The peer's SETTINGS may have come."""
        if not self._has_settings and h3.peer_settings is not None:
            self._has_settings = True
            self._settings("remote", h3.peer_settings.items())

    def own_settings(self, h3: H3Connection) -> None:
        """Our SETTINGS are on their way."""
        self._settings("local", h3.sent_settings)

    def _settings(self, initiator: str, settings: Iterable[tuple[int, int]]) -> None:
        values = {_SETTINGS[Setting(key)][1]: value for key, value in settings if key in _SETTINGS}
        self._write("http3:parameters_set", {"initiator": initiator, **values})

    # -- frames

    def note_frame(
        self, h3: H3Connection, kind: str, number: int, size: int | None, stream_id: int, *, sent: bool
    ) -> None:
        """A frame, a capsule or the type of a stream was sent or received; ``size`` is of its payload."""
        if kind == "stream":
            self._stream_type(number, stream_id, sent=sent)
            return
        raw = {"payload_length": size}
        if kind == "capsule":
            name = f"webtransport:capsule_{'created' if sent else 'parsed'}"
            self._write(name, {"stream_id": stream_id, "capsule_type": number, "raw": raw})
            return
        frame: dict[str, Any] = {"frame_type": "unknown", "frame_type_bytes": number}
        if number == FrameType.DATA:
            frame = {"frame_type": "data"}
        elif number == FrameType.HEADERS:
            # Fields may be tokens.
            frame = {"frame_type": "headers", "headers": []}
        elif number == FrameType.SETTINGS:
            settings = h3.sent_settings if sent else (h3.peer_settings or {}).items()
            frame = {"frame_type": "settings", "settings": [_setting(*pair) for pair in settings]}
        elif _is_reserved(number):
            frame = {"frame_type": "reserved", "frame_type_bytes": number}
        name = f"http3:frame_{'created' if sent else 'parsed'}"
        self._write(name, {"stream_id": stream_id, "frame": {**frame, "raw": raw}})

    def _stream_type(self, number: int, stream_id: int, *, sent: bool) -> None:
        data: dict[str, Any] = {"initiator": "local" if sent else "remote", "stream_id": stream_id}
        if number in _STREAM_TYPES:
            data["stream_type"] = _STREAM_TYPES[StreamType(number)]
        elif _is_reserved(number):
            data["stream_type"] = "reserved"
        else:
            data |= {"stream_type": "unknown", "stream_type_bytes": number}
        self._write("http3:stream_type_set", data)

    # -- sessions

    def session_opened(self, session: SessionState, *, is_earlier: bool = False) -> None:
        """A session is established; ``is_earlier`` if it was before the file was begun."""
        facts = session.facts
        data = {
            "session_id": session.session_id,
            "log_id": session.log_id,
            "path": shown_path(facts.path),
            "dialect": facts.dialect,
            "status": facts.status,
        }
        self._write("webtransport:session_opened", data | ({"is_earlier": True} if is_earlier else {}))

    def session_closed(self, session: SessionState) -> None:
        """A session is over on both sides."""
        credit, datagrams = session.credit(), session.datagram_stats()
        data: dict[str, Any] = {"session_id": session.session_id, "log_id": session.log_id}
        if (info := session.close_info) is not None:
            data["closed_by"] = info.closed_by
            if info.code is not None:
                data["code"] = info.code
        data |= {
            "stream_bytes_received": credit.stream_bytes_received,
            "stream_bytes_sent": credit.stream_bytes_sent,
            "datagrams_received": datagrams.received,
            "datagrams_sent": datagrams.sent,
        }
        self._write("webtransport:session_closed", data)

    def session_rejected(self, status: int, path: str | None) -> None:
        """A request was refused with a status; ``path`` is None if it is not known."""
        data: dict[str, Any] = {"status": status}
        if path is not None:
            data["path"] = shown_path(path)
        self._write("webtransport:session_rejected", data)


def _setting(identifier: int, value: int) -> dict[str, Any]:
    if identifier in _SETTINGS:
        return {"name": _SETTINGS[Setting(identifier)][0], "value": value}
    return {"name": "reserved" if _is_reserved(identifier) else "unknown", "name_bytes": identifier, "value": value}


def _is_reserved(number: int) -> bool:
    """Whether a number means nothing on purpose (RFC 9114, sections 6.2.3, 7.2.4.1 and 7.2.8)."""
    return number >= 0x21 and (number - 0x21) % 31 == 0
