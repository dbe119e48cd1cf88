"""The SETTINGS of both sides: what we announce, how the frame is written and read, and what comes of the peer's.

``Terms`` holds what was agreed on one connection. What each draft demands of the settings is in ``dialects``.
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
from wtio.protocol.messages import Fields
from wtio.protocol.transport_parameters import PeerTransport

__all__ = [
    "GREASE_SETTING",
    "Announcement",
    "Terms",
    "announce",
    "decode_settings",
    "encode_settings",
    "local_settings",
    "peer_problem",
]

# Four bytes for the identifier and one for the value, so that no packet differs in size.
GREASE_SETTING: Final = (0x1F * random.randrange(0x400, 0x1000000) + 0x21, random.randrange(64))
"""A setting that means nothing, another one in each process, so that peers do not unlearn to ignore such.

Source: RFC 9114, section 7.2.4.1.
"""


def local_settings(
    is_client: bool,
    *,
    max_field_section_size: int = 65536,
    initial_max_data: int = 0,
    initial_max_streams_bidi: int = 0,
    initial_max_streams_uni: int = 0,
    max_sessions: int = 1,
    dialects: Collection[Dialect] = DEFAULT_DIALECTS,
) -> list[tuple[int, int]]:
    """Return the settings that we announce, in the order in which they are sent.

    Args:
        is_client: Whether we are the client.
        max_field_section_size: Largest header section that we take, in bytes as RFC 9114, section 4.2.2, counts.
        initial_max_data: Bytes of stream payload that the peer may send on a new session before it is given
            more. With this and the two stream counts 0, session flow control stays off.
        initial_max_streams_bidi: Bidirectional streams that the peer may open on a new session.
        initial_max_streams_uni: Unidirectional streams that the peer may open on a new session.
        max_sessions: Sessions that a server carries at once on one connection, where session flow control
            is on; without it one is announced.
        dialects: Dialects to announce.

    Source: draft-ietf-webtrans-http3-16, sections 3.1, 5.5.3 and 7.1.
    """
    flow_control = any((initial_max_data, initial_max_streams_bidi, initial_max_streams_uni))
    settings: list[tuple[int, int]] = [
        (Setting.QPACK_MAX_TABLE_CAPACITY, 0),
        (Setting.MAX_FIELD_SECTION_SIZE, max_field_section_size),
        (Setting.QPACK_BLOCKED_STREAMS, 0),
    ]
    if not is_client:
        settings.append((Setting.ENABLE_CONNECT_PROTOCOL, 1))
    settings += [(Setting.H3_DATAGRAM, 1), (Setting.H3_DATAGRAM_DRAFT04, 1)]
    for dialect in Dialect:
        if dialect in dialects:
            value = dialect.row.announced_value(max_sessions if flow_control else 1)
            settings.append((dialect.row.setting, value))
    if flow_control:
        settings += [
            (Setting.WT_INITIAL_MAX_DATA, initial_max_data),
            (Setting.WT_INITIAL_MAX_STREAMS_UNI, initial_max_streams_uni),
            (Setting.WT_INITIAL_MAX_STREAMS_BIDI, initial_max_streams_bidi),
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
    payload: bytes
    """What the SETTINGS frame carries."""


@lru_cache(maxsize=64)
def announce(
    is_client: bool,
    max_field_section_size: int,
    initial_max_data: int,
    initial_max_streams_bidi: int,
    initial_max_streams_uni: int,
    max_sessions: int,
    dialects: tuple[Dialect, ...],
) -> Announcement:
    """``local_settings`` with a reserved one at the end; the same object for the same arguments."""
    settings = local_settings(
        is_client,
        max_field_section_size=max_field_section_size,
        initial_max_data=initial_max_data,
        initial_max_streams_bidi=initial_max_streams_bidi,
        initial_max_streams_uni=initial_max_streams_uni,
        max_sessions=max_sessions,
        dialects=dialects,
    )
    settings.append(GREASE_SETTING)
    return Announcement(tuple(settings), dict(settings), encode_settings(settings))


# RFC 9114, section 7.2.4.1: identifiers of HTTP/2 settings without a meaning in HTTP/3.
_FORBIDDEN: Final = frozenset((0x00, 0x02, 0x03, 0x04, 0x05))
# Settings that must be 0 or 1 (RFC 9220 with RFC 8441, section 3; RFC 9297, section 2.1.1), and those announcements of
# dialects for which a client, or a server, checks this, too.
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


def peer_problem(
    peer: Mapping[int, int],
    dialect: Dialect | None,
    *,
    is_client: bool,
    strict: bool = False,
    transport: PeerTransport | None = None,
) -> str | None:
    """Say why the peer's settings make WebTransport impossible, or ``None`` if they do not.

    A server without a common dialect is no use to a client. A client without one is: from draft 09 on it need
    not announce anything, so a server goes by the token of each request. Only a server announces extended
    CONNECT.

    Args:
        peer: The peer's settings.
        dialect: The newest common dialect.
        is_client: Whether we are the client.
        strict: Insist on everything that the dialect demands, also on what can be done without.
        transport: The peer's transport parameters; ``None`` where they are not known, then they are not judged.

    Source: draft-ietf-webtrans-http3-16, section 3.1.
    """
    whose = "server" if is_client else "client"
    if dialect is None:
        if is_client or strict:
            return f"the {whose} announced no version of WebTransport that this side speaks"
    elif is_client:
        for setting in dialect.row.server_settings:
            if peer.get(setting, 0) != 1:
                return f"the server announced WebTransport but not {setting.name} (0x{setting:x})"
    spellings = (Setting.H3_DATAGRAM,) if strict else (Setting.H3_DATAGRAM, Setting.H3_DATAGRAM_DRAFT04)
    if not any(peer.get(setting, 0) for setting in spellings):
        return f"the {whose} did not announce {Setting.H3_DATAGRAM.name} (0x{Setting.H3_DATAGRAM:x})"
    if transport is None:
        return None
    if not transport.max_datagram_frame_size and (is_client or strict):
        return f"the {whose} takes no QUIC DATAGRAM frames (max_datagram_frame_size)"
    if strict and dialect is not None and dialect.row.reset_stream_at and not transport.reset_stream_at:
        return f"the {whose} takes no RESET_STREAM_AT frames (reset_stream_at), which {dialect.value} demands"
    return None


class Terms:
    """What both sides of a connection have announced, and what that comes to."""

    __slots__ = (
        "_dialects",
        "_max_sessions",
        "dialect",
        "flow_control",
        "is_client",
        "may_control_flow",
        "ours",
        "problem",
        "strict",
        "theirs",
    )

    def __init__(
        self,
        *,
        is_client: bool,
        max_field_section_size: int,
        initial_max_data: int,
        initial_max_streams_bidi: int,
        initial_max_streams_uni: int,
        max_sessions: int,
        dialects: Collection[Dialect] | None,
        strict: bool,
    ) -> None:
        if dialects is None:
            dialects = (STRICT_DIALECT,) if strict else DEFAULT_DIALECTS
        self.is_client = is_client  # we are the client
        self.strict = strict  # the peer is held to the letter of its dialect
        self._dialects = dialects  # those that we speak
        self._max_sessions = max_sessions  # at once, as far as we are concerned
        self.ours = announce(
            is_client,
            max_field_section_size,
            initial_max_data,
            initial_max_streams_bidi,
            initial_max_streams_uni,
            max_sessions,
            tuple(dialects),
        )
        # Whether session flow control is on if the peer wants it, too.
        self.may_control_flow = any((initial_max_data, initial_max_streams_bidi, initial_max_streams_uni))

        # From here on: set by ``take``, when the peer's SETTINGS have arrived.
        self.theirs: Mapping[int, int] | None = None
        # The dialect of the connection. A server whose client announced none learns it from the first request.
        self.dialect: Dialect | None = None
        # Why there can be no WebTransport with this peer, in words.
        self.problem: str | None = None
        # Whether session flow control is on.
        self.flow_control = False

    def take(self, settings: Mapping[int, int], transport: PeerTransport | None) -> None:
        """Take the peer's settings, and judge them together with its transport parameters (None: not known)."""
        local = self.ours.values
        self.theirs = settings
        self.dialect = dialect = negotiate(local, settings)
        self.problem = peer_problem(
            settings, dialect, is_client=self.is_client, strict=self.strict, transport=transport
        )
        if dialect is not None:
            takes_part = dialect.row.takes_part_in_flow_control
            self.flow_control = takes_part(local) and takes_part(settings)

    def allows_request(self, dialect: Dialect, token: str) -> bool:
        """Whether a client may ask in this dialect, with this ``:protocol``."""
        return dialect in self._dialects and (not self.strict or token == dialect.row.token)

    def session_limit(self, row: DialectRow) -> int:
        """Return how many sessions the connection may carry at once in a dialect (draft 16, section 5.1)."""
        if row.one_session_without_flow_control and not self.flow_control:
            return min(self._max_sessions, 1)
        if row.session_setting is None:
            return self._max_sessions
        server = self.theirs if self.is_client else self.ours.values
        return min(self._max_sessions, (server or {}).get(row.session_setting, 1))

    @property
    def initial_limits(self) -> tuple[int, int, int]:
        """Initial session limits of the peer's: bytes, bidirectional streams, unidirectional streams."""
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
