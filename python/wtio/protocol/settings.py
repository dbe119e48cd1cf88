"""SETTINGS: what we announce, how the frame is written and read, and what both sides' settings amount to.

``LocalTerms`` is what one side wants, ``Terms`` what was agreed on one connection. What each draft demands is in
``dialects``.
"""

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from wtio.protocol import qpack, varint
from wtio.protocol.codes import ErrorCodes
from wtio.protocol.dialects import DEFAULT_DIALECTS, STRICT_DIALECT, Dialect, DialectRow, Setting, negotiate
from wtio.protocol.faults import ConnectionFault
from wtio.protocol.frames import FrameType, StreamType, encode_record
from wtio.protocol.messages import Fields
from wtio.protocol.transport_parameters import PeerTransport

__all__ = [
    "DEFAULT_TERMS",
    "GREASE_SETTING",
    "Announcement",
    "LocalTerms",
    "Terms",
    "announce",
    "decode_settings",
    "encode_settings",
    "local_settings",
]

# Four bytes for the identifier and one for the value, so that no packet differs in size.
GREASE_SETTING: Final = (0x1F * random.randrange(0x400, 0x1000000) + 0x21, random.randrange(64))
"""A setting without a meaning, different in each process, so that peers keep ignoring settings they do not know.

Source: RFC 9114, section 7.2.4.1.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalTerms:
    """What one side announces on its connections, and what it demands of its peers. The same for all of an endpoint."""

    initial_max_data: int = 0
    """Bytes of stream payload that the peer may send on a new session before it is given more.

    With this and the two stream counts 0, session flow control stays off."""
    initial_max_streams_bidi: int = 0
    """Bidirectional streams that the peer may open on a new session."""
    initial_max_streams_uni: int = 0
    """Unidirectional streams that the peer may open on a new session."""
    max_sessions: int = 1000
    """Sessions at once on one connection. Some dialects lower it to 1 without session flow control."""
    dialects: tuple[Dialect, ...] | None = None
    """Dialects to announce; None is ``DEFAULT_DIALECTS``, or ``STRICT_DIALECT`` if strict."""
    strict: bool = False
    """Hold the peer to the letter of its dialect.

    Otherwise the peer may leave out what we can do without: reset_stream_at, a client's WebTransport setting, the
    final identifier of the datagram setting, the ``:protocol`` of its dialect."""

    @property
    def flow_control(self) -> bool:
        """Whether session flow control is on if the peer supports it."""
        return any((self.initial_max_data, self.initial_max_streams_bidi, self.initial_max_streams_uni))

    @property
    def announced_dialects(self) -> tuple[Dialect, ...]:
        """Dialects to announce."""
        if self.dialects is not None:
            return self.dialects
        return (STRICT_DIALECT,) if self.strict else DEFAULT_DIALECTS


DEFAULT_TERMS: Final = LocalTerms()


def local_settings(
    is_client: bool, local: LocalTerms = DEFAULT_TERMS, max_field_section_size: int = 65536
) -> list[tuple[int, int]]:
    """Return the settings that we announce, in the order in which they are sent.

    Args:
        is_client: Whether we are the client.
        local: What we announce.
        max_field_section_size: Largest header section that we accept, in bytes as RFC 9114, section 4.2.2, counts.

    Source: draft-ietf-webtrans-http3-16, sections 3.1, 5.5.3 and 7.1.
    """
    settings: list[tuple[int, int]] = [
        (Setting.QPACK_MAX_TABLE_CAPACITY, 0),
        (Setting.MAX_FIELD_SECTION_SIZE, max_field_section_size),
        (Setting.QPACK_BLOCKED_STREAMS, 0),
    ]
    if not is_client:
        settings.append((Setting.ENABLE_CONNECT_PROTOCOL, 1))
    settings += [(Setting.H3_DATAGRAM, 1), (Setting.H3_DATAGRAM_DRAFT04, 1)]
    for dialect in Dialect:
        if dialect in local.announced_dialects:
            value = dialect.row.announced_value(local.max_sessions if local.flow_control else 1)
            settings.append((dialect.row.setting, value))
    if local.flow_control:
        settings += [
            (Setting.WT_INITIAL_MAX_DATA, local.initial_max_data),
            (Setting.WT_INITIAL_MAX_STREAMS_UNI, local.initial_max_streams_uni),
            (Setting.WT_INITIAL_MAX_STREAMS_BIDI, local.initial_max_streams_bidi),
        ]
    return settings


def encode_settings(settings: Collection[tuple[int, int]]) -> bytes:
    """Return the payload of a SETTINGS frame."""
    return b"".join(varint.encode(number) for setting in settings for number in setting)


@dataclass(frozen=True, slots=True)
class Announcement:
    """The settings of one side, in the forms in which they are needed. Shared by connections, so never changed."""

    settings: tuple[tuple[int, int], ...]
    """In the order in which they are sent."""
    values: Mapping[int, int]
    opening: bytes
    """What our control stream begins with: its type, and the SETTINGS frame."""


@lru_cache(maxsize=64)
def announce(is_client: bool, local: LocalTerms, max_field_section_size: int) -> Announcement:
    """``local_settings`` with a reserved one at the end; the same object for the same arguments."""
    settings = local_settings(is_client, local, max_field_section_size)
    settings.append(GREASE_SETTING)
    frame = encode_record(FrameType.SETTINGS, encode_settings(settings))
    return Announcement(tuple(settings), dict(settings), varint.encode(StreamType.CONTROL) + frame)


# RFC 9114, section 7.2.4.1: identifiers of HTTP/2 settings without a meaning in HTTP/3.
_FORBIDDEN: Final = frozenset((0x00, 0x02, 0x03, 0x04, 0x05))
# Settings that must be 0 or 1: RFC 9220 with RFC 8441, section 3; RFC 9297, section 2.1.1. Which announcements of
# dialects must be as well depends on who reads them.
_BOOLEAN: Final = (Setting.ENABLE_CONNECT_PROTOCOL, Setting.H3_DATAGRAM)
_CLIENT_BOOLEAN: Final = (*_BOOLEAN, *(d.row.setting for d in Dialect if "client" in d.row.flag_readers))
_SERVER_BOOLEAN: Final = (*_BOOLEAN, *(d.row.setting for d in Dialect if "server" in d.row.flag_readers))

# A frame of the largest size holds thousands, and a dict of them takes fifty times its bytes.
_MOST_UNKNOWN: Final = 256
_KNOWN: Final = frozenset(Setting)


@lru_cache(maxsize=64)
def decode_settings(payload: bytes, *, is_client: bool) -> Mapping[int, int]:
    """Read the payload of the peer's SETTINGS frame. The first 256 unknown settings are kept; nothing is made of them.

    Most peers say the same again and again; the same payload gives the same object, which nobody may change.

    Args:
        payload: The payload of the frame.
        is_client: Whether we are the client.

    Raises:
        ConnectionFault: H3_FRAME_ERROR for a truncated payload; H3_SETTINGS_ERROR for a setting that comes
            twice, is forbidden in HTTP/3 or has an impossible value.

    Source: RFC 9114, section 7.2.4.
    """
    settings: dict[int, int] = {}
    offset = 0
    while offset < len(payload):
        identifier = varint.decode(payload, offset)
        value = identifier and varint.decode(payload, identifier[1])
        if not identifier or not value:
            raise ConnectionFault(ErrorCodes.H3_FRAME_ERROR, "SETTINGS frame ends inside a setting")
        if identifier[0] in settings:
            raise ConnectionFault(ErrorCodes.H3_SETTINGS_ERROR, f"setting 0x{identifier[0]:x} comes twice")
        if identifier[0] in _FORBIDDEN:
            raise ConnectionFault(ErrorCodes.H3_SETTINGS_ERROR, f"setting 0x{identifier[0]:x} is not allowed in HTTP/3")
        settings[identifier[0]] = value[0]
        offset = value[1]
    for setting in _CLIENT_BOOLEAN if is_client else _SERVER_BOOLEAN:
        if settings.get(setting, 0) > 1:
            raise ConnectionFault(
                ErrorCodes.H3_SETTINGS_ERROR, f"setting {setting.name} is {settings[setting]}, not 0 or 1"
            )
    unknown = [setting for setting in settings if setting not in _KNOWN]
    if len(unknown) > _MOST_UNKNOWN:
        dropped = frozenset(unknown[_MOST_UNKNOWN:])
        return {setting: value for setting, value in settings.items() if setting not in dropped}
    return settings


class Terms:
    """What both sides of a connection have announced, and what follows from it."""

    __slots__ = ("dialect", "flow_control", "is_client", "local", "ours", "problem", "theirs")

    def __init__(self, is_client: bool, local: LocalTerms, max_field_section_size: int) -> None:
        self.is_client: bool = is_client  # we are the client
        self.local: LocalTerms = local  # what we want
        # Our settings, as they are sent.
        self.ours: Announcement = announce(is_client, local, max_field_section_size)

        # All of these are set by ``take``, when the peer's SETTINGS have arrived.
        self.theirs: Mapping[int, int] | None = None
        # The dialect of the connection. If a client announces none, ``ConnectStreams`` sets it at the first request.
        self.dialect: Dialect | None = None
        # Why WebTransport is impossible with this peer, in words.
        self.problem: str | None = None
        # Whether session flow control is on.
        self.flow_control: bool = False

    def take(self, settings: Mapping[int, int], transport: PeerTransport | None) -> None:
        """Take the peer's settings. ``transport`` are its transport parameters; None if they are not known."""
        ours = self.ours.values
        self.theirs = settings
        self.dialect = dialect = negotiate(ours, settings)
        self.problem = self._find_problem(settings, dialect, transport)
        if dialect is not None:
            takes_part = dialect.row.takes_part_in_flow_control
            self.flow_control = takes_part(ours) and takes_part(settings)

    def _find_problem(
        self, settings: Mapping[int, int], dialect: Dialect | None, transport: PeerTransport | None
    ) -> str | None:
        """Say why the peer's settings make WebTransport impossible, or ``None`` if they do not.

        A client cannot use a server without a common dialect. A server can accept a client without one: from draft 09
        on clients need not announce anything, and their requests show the dialect. Only servers announce extended
        CONNECT. Unless strict, a client may leave out transport parameters.

        Source: draft-ietf-webtrans-http3-16, section 3.1.
        """
        is_client = self.is_client
        strict = self.local.strict
        whose = "server" if is_client else "client"
        if dialect is None:
            if is_client or strict:
                return f"the {whose} announced no version of WebTransport that this side speaks"
        elif is_client:
            for setting in dialect.row.server_settings:
                if settings.get(setting, 0) != 1:
                    return f"the server announced WebTransport but not {setting.name} (0x{setting:x})"
        spellings = (Setting.H3_DATAGRAM,) if strict else (Setting.H3_DATAGRAM, Setting.H3_DATAGRAM_DRAFT04)
        if not any(settings.get(setting, 0) for setting in spellings):
            return f"the {whose} did not announce {Setting.H3_DATAGRAM.name} (0x{Setting.H3_DATAGRAM:x})"
        if transport is None:
            return None
        if not transport.max_datagram_frame_size and (is_client or strict):
            return f"the {whose} takes no QUIC DATAGRAM frames (max_datagram_frame_size)"
        if strict and dialect is not None and dialect.row.reset_stream_at and not transport.reset_stream_at:
            return f"the {whose} takes no RESET_STREAM_AT frames (reset_stream_at), which {dialect.value} demands"
        return None

    def allows_request(self, dialect: Dialect, token: str) -> bool:
        """Whether a client may ask for a session in this dialect and with this ``:protocol``."""
        return dialect in self.local.announced_dialects and (not self.local.strict or token == dialect.row.token)

    def session_limit(self, row: DialectRow) -> int:
        """Return how many sessions the connection may carry at once in a dialect (draft 16, section 5.1)."""
        most = self.local.max_sessions
        if row.one_session_without_flow_control and not self.flow_control:
            return min(most, 1)
        if row.session_setting is None:
            return most
        server = self.theirs if self.is_client else self.ours.values
        return min(most, (server or {}).get(row.session_setting, 1))

    @property
    def initial_limits(self) -> tuple[int, int, int]:
        """Initial session limits that the peer announced: bytes, bidirectional streams, unidirectional streams."""
        settings = self.theirs or {}
        return (
            settings.get(Setting.WT_INITIAL_MAX_DATA, 0),
            settings.get(Setting.WT_INITIAL_MAX_STREAMS_BIDI, 0),
            settings.get(Setting.WT_INITIAL_MAX_STREAMS_UNI, 0),
        )

    def check_size(self, fields: Fields) -> None:
        """Raise ValueError for a header section that is larger than the peer takes (RFC 9114, section 4.2.2)."""
        limit = (self.theirs or {}).get(Setting.MAX_FIELD_SECTION_SIZE)
        size = qpack.field_section_size(fields)
        if limit is not None and size > limit:
            raise ValueError(f"headers of {size} bytes exceed the peer's limit of {limit}")
