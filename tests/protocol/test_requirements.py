"""Which test stands for which requirement: every one of them has a test here, or this test fails.

A test names what it stands for in its name, ``test_r12_h6_request_before_settings_waits``, or in a mark,
``@pytest.mark.requirement(12)`` and ``@pytest.mark.trap("H6")``. Requirements are those of
draft-ietf-webtrans-http3-16 and what it builds on; C is a client, S a server, E either end, I an intermediary. Traps
are what other implementations fell into: `traps.py` describes them.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from .traps import TRAPS

REQUIREMENTS = {
    # Establishing: sections 3.1 and 7.1.
    1: "S sends WT_ENABLED = 1",
    2: "S sends ENABLE_CONNECT_PROTOCOL = 1",
    3: "E sends H3_DATAGRAM = 1",
    4: "E sends max_datagram_frame_size above 0",
    5: "E sends an empty reset_stream_at transport parameter",
    6: "C sends WT_ENABLED, for every draft that it speaks",
    7: "E sends one setting per draft and uses the highest common one",
    8: "C sends no CONNECT and no stream before the server's SETTINGS",
    9: "C takes WT_ENABLED above 1 as H3_SETTINGS_ERROR",
    10: "C refuses a server without one of the required settings or parameters",
    11: "C may close with WT_REQUIREMENTS_NOT_MET",
    12: "S lets requests wait for the client's SETTINGS",
    13: "S treats requests as malformed if settings or parameters are wrong",
    14: "E takes a boolean setting other than 0 or 1 as H3_SETTINGS_ERROR",
    15: "E takes a setting that comes twice as H3_SETTINGS_ERROR",
    # New sessions: section 3.2.
    16: "C sends :protocol webtransport-h3, or webtransport in older drafts",
    17: "C sends CONNECT with scheme https, authority and path",
    18: "C of a browser sends Origin; others need not",
    19: "S verifies Origin where it is present; 403",
    20: "S answers 405 where there is no WebTransport, 404 in older drafts",
    21: "S accepts with any 2xx; C takes any 2xx",
    22: "C never follows redirects",
    23: "C never sends CONNECT in 0-RTT",
    24: "S does not lower limits for 0-RTT; C would take it as H3_SETTINGS_ERROR",
    25: "E neither needs nor heeds the capsule-protocol header",
    26: "S holds capsules until it has answered 2xx and drops them otherwise",
    27: "S uses the session once CONNECT has come; C may before the answer",
    # Subprotocols: section 3.3.
    28: "C sends wt-available-protocols as a list of strings in its order of preference",
    29: "S sends wt-protocol as one string of that list",
    30: "E ignores a field with a member that is no string, and all parameters",
    31: "S treats a malformed field as absent",
    32: "C closes with WT_ALPN_ERROR for a choice that was not offered",
    33: "C that needs a choice closes with WT_ALPN_ERROR without one",
    34: "E takes tokens and old names of the fields from older drafts",
    # Session ids, streams, datagrams: sections 4 to 4.5.
    35: "E takes an impossible session id as H3_ID_ERROR",
    36: "E does not take the id of an ended session as an error",
    37: "E begins unidirectional streams with 0x54 and the session id",
    38: "E begins bidirectional streams with 0x41 and the session id",
    39: "E takes 0x41 anywhere else as H3_FRAME_ERROR",
    40: "E puts together a head that comes in pieces",
    41: "E sends datagrams as quarter stream id and payload, which may be empty",
    42: "E sends datagrams only after H3_DATAGRAM went both ways",
    43: "E takes an impossible quarter stream id as H3_DATAGRAM_ERROR",
    # Resets: section 4.4.
    44: "E maps application codes to the range set aside for them",
    45: "E resets reliably at least up to the end of the head",
    46: "E delivers a code outside of the range as a reset without application code",
    47: "E delivers codes unchanged; I forwards them as they came",
    # Early data: section 4.6.
    48: "E keeps streams and datagrams for sessions that it does not know yet",
    49: "E bounds what it keeps",
    50: "E refuses further streams with WT_BUFFERED_STREAM_REJECTED",
    51: "E drops further datagrams",
    52: "C does so before the answer has come",
    # GOAWAY and drain: section 4.7.
    53: "C opens a new connection for new sessions after GOAWAY",
    54: "E takes GOAWAY as draining of all sessions",
    55: "E takes an empty WT_DRAIN_SESSION as draining of its session",
    56: "E lets streams and datagrams go on while draining",
    57: "I turns GOAWAY into WT_DRAIN_SESSION",
    # Exporter: section 4.8.
    58: "E derives keys under EXPORTER-WebTransport and a context of session, label and context",
    # Flow control: section 5.
    59: "E controls the flow of sessions only if both announced an initial limit",
    60: "E shares a connection between sessions only with flow control",
    61: "C has one session at most without flow control",
    62: "S resets extra requests without flow control with H3_REQUEST_REJECTED",
    63: "E ignores the capsules of flow control without flow control",
    64: "E takes one session after another without flow control",
    65: "E counts all streams ever opened in a session, and not its CONNECT stream",
    66: "E never opens more streams than allowed",
    67: "E closes a session with too many streams with WT_FLOW_CONTROL_ERROR",
    68: "E closes a session that allows over 2^60 streams with WT_FLOW_CONTROL_ERROR",
    69: "E closes a session whose limit of streams does not grow with WT_FLOW_CONTROL_ERROR",
    70: "E counts payload alone as data",
    71: "E never sends more data than allowed, and closes a session that does",
    72: "E closes a session whose limit of data does not grow with WT_FLOW_CONTROL_ERROR",
    73: "E gives new credit without being asked",
    74: "E says when it is blocked",
    75: "E takes WT_MAX_STREAM_DATA and WT_STREAM_DATA_BLOCKED as an error of the session",
    76: "I consumes the capsules of flow control and makes its own",
    77: "E applies the initial limits to every session; 0 means wait",
    78: "E counts the same streams as its peer though resets overtake heads",
    # The end: section 6.
    79: "E ends a session with its CONNECT stream and with WT_CLOSE_SESSION",
    80: "E then resets and stops all of its streams with WT_SESSION_GONE",
    81: "E then opens no stream and sends no datagram",
    82: "E sends at most 1024 bytes of reason, cut between characters",
    83: "E takes a longer reason, or one that is not UTF-8, as H3_MESSAGE_ERROR",
    84: "E ends its stream right after WT_CLOSE_SESSION",
    85: "E that received WT_CLOSE_SESSION ends the CONNECT stream",
    86: "E takes bytes after WT_CLOSE_SESSION as H3_MESSAGE_ERROR",
    87: "E takes a clean end as code 0 without reason",
    88: "E waits for the peer's end of the CONNECT stream before it closes the connection",
    89: "E reads capsules in any pieces, skips unknown ones and refuses malformed ones",
    # Priorities and safety: sections 3.4 and 8.
    90: "E tolerates priorities of requests",
    91: "E shares fairly, limits sessions, and may close with H3_EXCESSIVE_LOAD",
    92: "E decides by the settings, not by the token, what webtransport means",
}

TESTS = Path(__file__).parent.parent


def claims(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (what it stands for, name of the test) for each test of a file: ``R12``, ``H6``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or not node.name.startswith("test_"):
            continue
        if named := re.match(r"test_((?:[rhcsdx][0-9]+_)+)", node.name):
            for label in named[1].strip("_").split("_"):
                yield label.upper(), node.name
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Call):
                mark = ast.unparse(decorator.func)
                for argument in decorator.args:
                    if mark == "pytest.mark.requirement" and isinstance(argument, ast.Constant):
                        yield f"R{argument.value!r}", node.name
                    elif mark == "pytest.mark.trap" and isinstance(argument, ast.Constant):
                        yield str(argument.value), node.name


@cache
def all_claims(root: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(root.rglob("test_*.py")):
        for label, name in claims(path):
            found[label].append(name)
    return found


def test_every_requirement_has_a_test_of_the_protocol() -> None:
    found = all_claims(TESTS / "protocol")
    missing = {number: claim for number, claim in REQUIREMENTS.items() if f"R{number}" not in found}
    assert not missing
    assert list(REQUIREMENTS) == list(range(1, 93))


def test_every_trap_has_a_test() -> None:
    found = all_claims(TESTS)
    assert not {label: trap for label, trap in TRAPS.items() if label not in found}
    counts = {"H": 21, "C": 11, "S": 19, "D": 6, "X": 7}
    assert list(TRAPS) == [f"{kind}{number}" for kind, count in counts.items() for number in range(1, count + 1)]


def test_no_test_stands_for_what_does_not_exist() -> None:
    labels = {f"R{number}" for number in REQUIREMENTS} | set(TRAPS)
    assert not {label: names for label, names in all_claims(TESTS).items() if label not in labels}
