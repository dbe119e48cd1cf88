"""The drafts of WebTransport over HTTP/3: one table with everything in which they differ.

A dialect is one or more drafts that look the same on the wire. A connection speaks the newest one that both sides
announced. The data path is the same in all of them; each difference is a cell in a row of ``Dialect``. Other modules
read cells and never compare dialects, so adding a draft means adding a row. If a row lacks a cell, the import fails.

``settings`` reads and writes settings, ``handshake`` requests and answers.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final, Literal, NamedTuple, Self

__all__ = [
    "DEFAULT_DIALECTS",
    "MARKS",
    "PROTOCOL_FIELDS",
    "STRICT_DIALECT",
    "TOKENS",
    "Dialect",
    "DialectRow",
    "LeftOut",
    "Mark",
    "ProtocolFields",
    "Setting",
    "announced_dialects",
    "dialect_of_request",
    "negotiate",
]


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


class Mark(NamedTuple):
    """Header fields by which a request and its answer show their draft."""

    request: tuple[str, str]
    answer: tuple[str, str]


class ProtocolFields(NamedTuple):
    """Names of the header fields that negotiate a subprotocol."""

    offer: str
    choice: str
    choice_is_token: bool
    """Whether a server writes its choice as a token (if it can be one) instead of a string."""


class LeftOut(NamedTuple):
    """Clients that cannot connect without a dialect, for the doctor's advice."""

    advice: str
    """Name of the piece of advice."""
    words: str
    """How it begins. The settings that would help follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DialectRow:
    """The cells of one dialect. None has a default, so that none is forgotten in a new row."""

    drafts: tuple[int, int]
    """The first and last draft of the dialect."""

    # Settings.
    setting: Setting
    """The setting that announces the dialect."""
    announced_value: Callable[[int], int]
    """The value that we announce, computed from the number of sessions at once that we accept."""
    flag_readers: frozenset[Literal["client", "server"]]
    """The sides that treat any other value than 0 and 1 as H3_SETTINGS_ERROR."""
    server_settings: tuple[Setting, ...]
    """Settings that a client requires to be 1 in a server's SETTINGS, beside the datagram setting."""
    reset_stream_at: bool
    """Both sides must accept RESET_STREAM_AT. Only strict connections insist on it."""
    strict: bool
    """Strict connections announce this dialect and no other. True in exactly one row."""

    # Requests.
    token: str
    """The client's ``:protocol``. Unless strict, a server accepts the tokens of all dialects in each of them."""
    mark: Mark | None
    """Fields that a client adds to its request, and a server to its answer if the request has its part."""
    is_request_of: Callable[[str, Iterable[tuple[str, str]]], bool]
    """Recognises the request of a client that announced no dialect, by ``:protocol`` and headers."""
    not_found_status: int
    """Status for a resource without WebTransport."""

    # Subprotocols.
    protocol_fields: tuple[ProtocolFields, ...]
    """Fields in which a peer may negotiate a subprotocol. If it uses several, the first of these counts."""
    tokens_as_protocols: bool
    """Subprotocols may be written as tokens as well as strings."""
    protocol_mismatch_closes: bool
    """If a server chooses a subprotocol that was not offered, the session ends. Otherwise the choice is ignored."""

    # Sessions.
    takes_part_in_flow_control: Callable[[Mapping[int, int]], bool]
    """Whether a side with these settings takes part in session flow control. It is on if both sides do."""
    equal_limit_is_error: bool
    """A limit that stays the same ends the session. Otherwise only one that shrinks does."""
    session_setting: Setting | None
    """The server's setting for the number of sessions at once on a connection."""
    one_session_without_flow_control: bool
    """Without session flow control, a connection carries at most one session at a time."""

    # Advice.
    left_out: LeftOut
    """The clients that cannot connect to a server without this dialect. Rows that share them are alternatives."""


def _one(_: int) -> int:
    return 1


def _all_sessions(sessions: int) -> int:
    return sessions


_INITIAL = (Setting.WT_INITIAL_MAX_DATA, Setting.WT_INITIAL_MAX_STREAMS_UNI, Setting.WT_INITIAL_MAX_STREAMS_BIDI)


def _never(_: Mapping[int, int]) -> bool:
    return False


def _any_initial_limit(settings: Mapping[int, int]) -> bool:
    return any(settings.get(setting, 0) > 0 for setting in _INITIAL)


def _sessions_or_initial_limit(settings: Mapping[int, int]) -> bool:
    # Draft 14: a side takes part with more than one session or with any initial limit.
    return settings.get(Setting.WT_MAX_SESSIONS, 0) > 1 or _any_initial_limit(settings)


_OLD_TOKEN: Final = "webtransport"
_NEW_TOKEN: Final = "webtransport-h3"
# Draft 02, section 3.3.
_DRAFT02_MARK: Final = Mark(("sec-webtransport-http3-draft02", "1"), ("sec-webtransport-http3-draft", "draft02"))
PROTOCOL_FIELDS: Final = ProtocolFields("wt-available-protocols", "wt-protocol", choice_is_token=False)
"""The fields in which we offer a subprotocol, in every dialect."""
# Draft 09 had other names for them. We answer a client that uses these, and never offer in them.
_DRAFT09_FIELDS: Final = ProtocolFields(
    "webtransport-subprotocols-available", "webtransport-subprotocol", choice_is_token=True
)
_SAFARI: Final = LeftOut("not_for_safari", "Safari cannot connect: it wants")


def _has_draft02_mark(headers: Iterable[tuple[str, str]]) -> bool:
    return any(name == _DRAFT02_MARK.request[0] for name, _ in headers)


def _has_old_token_and_mark(token: str, headers: Iterable[tuple[str, str]]) -> bool:
    return token == _OLD_TOKEN and _has_draft02_mark(headers)


def _has_old_token_alone(token: str, headers: Iterable[tuple[str, str]]) -> bool:
    return token == _OLD_TOKEN and not _has_draft02_mark(headers)


def _has_new_token(token: str, _: Iterable[tuple[str, str]]) -> bool:
    return token == _NEW_TOKEN


def _no_request(_token: str, _headers: Iterable[tuple[str, str]]) -> bool:
    return False


class Dialect(StrEnum):
    """The dialects, oldest first. Negotiation prefers the newest.

    The value is the public name, as in ``WebTransportSession.dialect``. The cells follow
    draft-ietf-webtrans-http3 -02 (D02), -07 (D07), -14 (D13) and -16 (D15).
    """

    _value_: str
    row: DialectRow

    def __new__(cls, name: str, row: DialectRow) -> Self:
        """Make a member that is the string ``name`` and has its row as ``row``."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.row = row
        return member

    # What Chromium and Firefox speak.
    D02 = (
        "draft02",
        DialectRow(
            drafts=(0, 5),
            setting=Setting.ENABLE_WEBTRANSPORT,
            announced_value=_one,  # Chromium and Firefox close the connection on anything but 1
            flag_readers=frozenset(("client", "server")),  # draft 02, section 3.1
            server_settings=(),  # draft 02: 0x2b603742 implies extended CONNECT
            reset_stream_at=False,
            strict=False,
            token=_OLD_TOKEN,
            mark=_DRAFT02_MARK,
            is_request_of=_has_old_token_and_mark,
            not_found_status=404,
            protocol_fields=(PROTOCOL_FIELDS,),
            tokens_as_protocols=True,
            protocol_mismatch_closes=False,
            takes_part_in_flow_control=_never,
            equal_limit_is_error=False,
            session_setting=None,
            one_session_without_flow_control=False,
            left_out=LeftOut("not_for_chrome_and_firefox", "Chrome, Edge and Firefox cannot connect: they want"),
        ),
    )
    D07 = (
        "draft07",
        DialectRow(
            drafts=(7, 12),
            setting=Setting.WEBTRANSPORT_MAX_SESSIONS,
            announced_value=_one,  # deployed peers have no flow control, so more than 1 could not share a connection
            flag_readers=frozenset(),
            server_settings=(Setting.ENABLE_CONNECT_PROTOCOL,),
            reset_stream_at=False,  # draft 10 demands it, draft 07 does not, and they look the same
            strict=False,
            token=_OLD_TOKEN,
            mark=None,
            is_request_of=_has_old_token_alone,
            not_found_status=404,
            protocol_fields=(PROTOCOL_FIELDS, _DRAFT09_FIELDS),
            tokens_as_protocols=True,
            protocol_mismatch_closes=False,
            takes_part_in_flow_control=_never,
            equal_limit_is_error=False,
            session_setting=Setting.WEBTRANSPORT_MAX_SESSIONS,
            one_session_without_flow_control=False,
            left_out=_SAFARI,
        ),
    )
    # Session flow control; what Safari speaks.
    D13 = (
        "draft13",
        DialectRow(
            drafts=(13, 14),
            setting=Setting.WT_MAX_SESSIONS,
            announced_value=_all_sessions,
            flag_readers=frozenset(),
            server_settings=(Setting.ENABLE_CONNECT_PROTOCOL,),
            reset_stream_at=True,
            strict=False,
            token=_OLD_TOKEN,
            mark=None,
            is_request_of=_no_request,  # looks like a request of D07
            not_found_status=404,
            protocol_fields=(PROTOCOL_FIELDS,),
            tokens_as_protocols=False,
            protocol_mismatch_closes=False,
            takes_part_in_flow_control=_sessions_or_initial_limit,
            equal_limit_is_error=False,
            session_setting=Setting.WT_MAX_SESSIONS,
            one_session_without_flow_control=True,
            left_out=_SAFARI,
        ),
    )
    D15 = (
        "draft15",
        DialectRow(
            drafts=(15, 16),
            setting=Setting.WT_ENABLED,
            announced_value=_one,
            flag_readers=frozenset(("client",)),  # draft 16, section 3.1: to a server any value above 0 counts
            server_settings=(Setting.ENABLE_CONNECT_PROTOCOL,),
            reset_stream_at=True,
            strict=True,
            token=_NEW_TOKEN,
            mark=None,
            is_request_of=_has_new_token,
            not_found_status=405,
            protocol_fields=(PROTOCOL_FIELDS,),
            tokens_as_protocols=False,
            protocol_mismatch_closes=True,
            takes_part_in_flow_control=_any_initial_limit,
            equal_limit_is_error=True,  # draft 16, sections 5.6.2 and 5.6.4
            session_setting=None,
            one_session_without_flow_control=True,
            left_out=LeftOut(
                "no_draft_15",
                "Clients that speak only drafts 15 and 16 (webtransport-go, pywebtransport) cannot connect: they want",
            ),
        ),
    )


DEFAULT_DIALECTS: Final = tuple(Dialect)
"""What both sides announce unless strict."""

[_strict] = [dialect for dialect in Dialect if dialect.row.strict]
STRICT_DIALECT: Final = _strict
"""What both sides announce if strict."""

MARKS: Final = tuple(dialect.row.mark for dialect in Dialect if dialect.row.mark is not None)
"""The marks of all dialects that have one."""

TOKENS: Final = frozenset(dialect.row.token for dialect in Dialect)
"""Values of ``:protocol`` that ask for a session."""

_NEWEST_FIRST: Final = tuple(reversed(Dialect))


def announced_dialects(settings: Mapping[int, int]) -> list[Dialect]:
    """Return the dialects that a side announces by its settings, oldest first."""
    return [dialect for dialect in Dialect if settings.get(dialect.row.setting, 0) > 0]


def negotiate(local: Mapping[int, int], peer: Mapping[int, int]) -> Dialect | None:
    """Return the newest dialect that both sides announced, or ``None``."""
    for dialect in _NEWEST_FIRST:
        setting = dialect.row.setting
        if local.get(setting, 0) > 0 and peer.get(setting, 0) > 0:
            return dialect
    return None


def dialect_of_request(token: str, headers: Iterable[tuple[str, str]]) -> Dialect | None:
    """Return the dialect of a client that announced none, recognised by its request, or ``None``.

    Args:
        token: The ``:protocol`` of the request.
        headers: Its headers.
    """
    return next((dialect for dialect in _NEWEST_FIRST if dialect.row.is_request_of(token, headers)), None)
