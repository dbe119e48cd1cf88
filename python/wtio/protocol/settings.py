"""HTTP/3 settings and the table of WebTransport dialects.

One connection speaks one dialect: the newest draft that both sides announced. The data path is the same in all
of them; what differs is in ``DIALECTS``, one row per dialect, and nowhere else.
"""

import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from functools import lru_cache
from typing import Final

from wtio.protocol import varint
from wtio.protocol.codes import ErrorCodes
from wtio.protocol.faults import ConnectionFault
from wtio.protocol.transport_parameters import PeerTransport

__all__ = [
    "DEFAULT_DIALECTS",
    "DIALECTS",
    "GREASE_SETTING",
    "Announcement",
    "Dialect",
    "DialectRow",
    "Setting",
    "announce",
    "decode_settings",
    "encode_settings",
    "local_settings",
    "negotiate",
    "peer_problem",
]

DRAFT02_REQUEST_HEADER: Final = "sec-webtransport-http3-draft02"
DRAFT02_RESPONSE_HEADER: Final = "sec-webtransport-http3-draft"


class Setting(IntEnum):
    """Identifiers of the settings that this implementation sends or reads."""

    QPACK_MAX_TABLE_CAPACITY = 0x01
    MAX_FIELD_SECTION_SIZE = 0x06
    QPACK_BLOCKED_STREAMS = 0x07
    ENABLE_CONNECT_PROTOCOL = 0x08  # RFC 9220
    H3_DATAGRAM = 0x33  # RFC 9297
    H3_DATAGRAM_DRAFT04 = 0xFFD277
    ENABLE_WEBTRANSPORT = 0x2B603742  # D02
    WEBTRANSPORT_MAX_SESSIONS = 0xC671706A  # D07
    WT_MAX_SESSIONS = 0x14E9CD29  # D13
    WT_ENABLED = 0x2C7CF000  # D15
    WT_INITIAL_MAX_DATA = 0x2B61
    WT_INITIAL_MAX_STREAMS_UNI = 0x2B64
    WT_INITIAL_MAX_STREAMS_BIDI = 0x2B65


class Dialect(StrEnum):
    """The drafts of WebTransport over HTTP/3 that can be told apart on the wire, oldest first."""

    D02 = "draft02"
    """Drafts 00 to 05: what Chromium and Firefox speak."""
    D07 = "draft07"
    """Drafts 07 to 12."""
    D13 = "draft13"
    """Drafts 13 and 14: session flow control; what Safari speaks."""
    D15 = "draft15"
    """Drafts 15 and 16, which share their setting."""


_INITIAL = (Setting.WT_INITIAL_MAX_DATA, Setting.WT_INITIAL_MAX_STREAMS_UNI, Setting.WT_INITIAL_MAX_STREAMS_BIDI)


def _never(_: Mapping[int, int]) -> bool:
    return False


def _any_initial_limit(settings: Mapping[int, int]) -> bool:
    return any(settings.get(setting, 0) > 0 for setting in _INITIAL)


def _sessions_or_initial_limit(settings: Mapping[int, int]) -> bool:
    # Draft 14: a side takes part with more than one session or with any initial limit.
    return settings.get(Setting.WT_MAX_SESSIONS, 0) > 1 or _any_initial_limit(settings)


@dataclass(frozen=True, slots=True)
class DialectRow:
    """What one dialect asks for. Everything that tells the dialects apart is a column here."""

    dialect: Dialect
    setting: Setting
    """The setting that announces it."""
    token: str
    """What a client writes into ``:protocol``. A server accepts either token in every dialect."""
    server_settings: tuple[Setting, ...]
    """Settings other than the datagram setting that a client insists on finding at 1 in a server's SETTINGS."""
    legacy_headers: bool
    """A client sends ``sec-webtransport-http3-draft02: 1``."""
    reset_stream_at: bool
    """Both sides must take RESET_STREAM_AT; only ``strict`` connections insist on it."""
    tokens_as_protocols: bool
    """Subprotocol headers may carry tokens beside strings (drafts up to 12)."""
    draft09_protocols: bool
    """A peer may call the subprotocol headers by their names of draft 09."""
    protocol_mismatch_closes: bool
    """A chosen subprotocol that was not offered ends the session (draft 15); otherwise it is ignored."""
    takes_part_in_flow_control: Callable[[Mapping[int, int]], bool]
    """Session flow control is on if this is true of the settings of both sides."""
    equal_limit_is_error: bool
    """A limit that does not grow ends the session (draft 16); otherwise only one that shrinks."""
    session_setting: Setting | None
    """The server's setting that says how many sessions a connection may carry at once."""
    one_session_without_flow_control: bool
    """Without session flow control a connection carries at most one session at a time."""
    not_found_status: int
    """Status for a resource without WebTransport."""


# draft-ietf-webtrans-http3: -02 (D02), -07 (D07), -14 (D13), -16 (D15); newest last, as negotiation goes from the end.
DIALECTS: Final[dict[Dialect, DialectRow]] = {
    row.dialect: row
    for row in (
        DialectRow(
            dialect=Dialect.D02,
            setting=Setting.ENABLE_WEBTRANSPORT,
            token="webtransport",
            server_settings=(),  # draft 02: 0x2b603742 implies extended CONNECT
            legacy_headers=True,
            reset_stream_at=False,
            tokens_as_protocols=True,
            draft09_protocols=False,
            protocol_mismatch_closes=False,
            takes_part_in_flow_control=_never,
            equal_limit_is_error=False,
            session_setting=None,
            one_session_without_flow_control=False,
            not_found_status=404,
        ),
        DialectRow(
            dialect=Dialect.D07,
            setting=Setting.WEBTRANSPORT_MAX_SESSIONS,
            token="webtransport",
            server_settings=(Setting.ENABLE_CONNECT_PROTOCOL,),
            legacy_headers=False,
            reset_stream_at=False,  # draft 10 has it, draft 07 does not, and they look the same
            tokens_as_protocols=True,
            draft09_protocols=True,
            protocol_mismatch_closes=False,
            takes_part_in_flow_control=_never,
            equal_limit_is_error=False,
            session_setting=Setting.WEBTRANSPORT_MAX_SESSIONS,
            one_session_without_flow_control=False,
            not_found_status=404,
        ),
        DialectRow(
            dialect=Dialect.D13,
            setting=Setting.WT_MAX_SESSIONS,
            token="webtransport",
            server_settings=(Setting.ENABLE_CONNECT_PROTOCOL,),
            legacy_headers=False,
            reset_stream_at=True,
            tokens_as_protocols=False,
            draft09_protocols=False,
            protocol_mismatch_closes=False,
            takes_part_in_flow_control=_sessions_or_initial_limit,
            equal_limit_is_error=False,
            session_setting=Setting.WT_MAX_SESSIONS,
            one_session_without_flow_control=True,
            not_found_status=404,
        ),
        DialectRow(
            dialect=Dialect.D15,
            setting=Setting.WT_ENABLED,
            token="webtransport-h3",
            server_settings=(Setting.ENABLE_CONNECT_PROTOCOL,),
            legacy_headers=False,
            reset_stream_at=True,
            tokens_as_protocols=False,
            draft09_protocols=False,
            protocol_mismatch_closes=True,
            takes_part_in_flow_control=_any_initial_limit,
            equal_limit_is_error=True,
            session_setting=None,
            one_session_without_flow_control=True,
            not_found_status=405,
        ),
    )
}
"""The dialects, oldest first."""

DEFAULT_DIALECTS: Final = tuple(DIALECTS)
"""What both sides announce."""

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
    values = {
        # Chromium and Firefox close the connection on anything but 1.
        Dialect.D02: 1,
        # Deployed D07 peers have no flow control, so no number but 1 can be kept.
        Dialect.D07: 1,
        # Safari refuses a number above 1 unless the three limits come with it.
        Dialect.D13: max_sessions if flow_control else 1,
        Dialect.D15: 1,
    }
    settings += [(row.setting, values[row.dialect]) for row in DIALECTS.values() if row.dialect in dialects]
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
_FORBIDDEN = frozenset((0x00, 0x02, 0x03, 0x04, 0x05))
# RFC 9220 with RFC 8441, section 3; RFC 9297, section 2.1.1; draft 02, section 3.1: 0 or 1, nothing else.
_BOOLEAN = frozenset((Setting.ENABLE_CONNECT_PROTOCOL, Setting.H3_DATAGRAM, Setting.ENABLE_WEBTRANSPORT))


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
    for setting in _BOOLEAN:
        if settings.get(setting, 0) > 1:
            raise ConnectionFault(
                ErrorCodes.H3_SETTINGS_ERROR, f"setting {setting.name} is {settings[setting]}, not 0 or 1"
            )
    # Draft 16, section 3.1: only the client checks; to a server any value above 0 counts.
    if is_client and settings.get(Setting.WT_ENABLED, 0) > 1:
        raise ConnectionFault(
            ErrorCodes.H3_SETTINGS_ERROR, f"setting WT_ENABLED is {settings[Setting.WT_ENABLED]}, not 0 or 1"
        )
    unknown = [setting for setting in settings if setting not in _KNOWN]
    if len(unknown) > _MOST_UNKNOWN:
        dropped = frozenset(unknown[_MOST_UNKNOWN:])
        return {setting: value for setting, value in settings.items() if setting not in dropped}
    return settings


def negotiate(local: Mapping[int, int], peer: Mapping[int, int]) -> Dialect | None:
    """Return the newest dialect that both sides announced, or ``None``."""
    for row in reversed(DIALECTS.values()):
        if local.get(row.setting, 0) > 0 and peer.get(row.setting, 0) > 0:
            return row.dialect
    return None


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
        for setting in DIALECTS[dialect].server_settings:
            if peer.get(setting, 0) != 1:
                return f"the server announced WebTransport but not {setting.name} (0x{setting:x})"
    spellings = (Setting.H3_DATAGRAM,) if strict else (Setting.H3_DATAGRAM, Setting.H3_DATAGRAM_DRAFT04)
    if not any(peer.get(setting, 0) for setting in spellings):
        return f"the {whose} did not announce {Setting.H3_DATAGRAM.name} (0x{Setting.H3_DATAGRAM:x})"
    if transport is None:
        return None
    if not transport.max_datagram_frame_size and (is_client or strict):
        return f"the {whose} takes no QUIC DATAGRAM frames (max_datagram_frame_size)"
    if strict and dialect is not None and DIALECTS[dialect].reset_stream_at and not transport.reset_stream_at:
        return f"the {whose} takes no RESET_STREAM_AT frames (reset_stream_at), which {dialect.value} demands"
    return None
