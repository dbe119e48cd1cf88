"""The rows of the interop matrix: what client and server do, and what each of them has to report afterwards.

A row is a script of two halves. The client's half is played by whoever connects, the server's by whoever serves; the
path of the session's URL names the script, its query the parameters. Both halves end with a report, a flat JSON object,
and the test compares it with the row's. Texts are ASCII and are answered in upper case. Unless a script says otherwise
the client closes the session at its end with code 0, and the server reports once the session is over.

connect
    Nothing more. C reports that it is ``connected``, S the ``path``.
bidirectional
    S opens a stream with "server asks", C answers on it. Then C opens one with "client asks", S answers on it.
    Each message ends with FIN. Both report ``question`` (what came) and ``answer``.
unidirectional
    S opens a stream with "server asks", C answers on a stream of its own, S opens another with "server thanks".
    S reports the ``answer``, C reports ``question`` and ``thanks``.
bulk
    C opens a bidirectional stream and sends ``bytes`` bytes, byte i being i modulo 251, with FIN. At the same time S
    sends as many on it; its FIN waits for that of C. Both report ``bytes`` and ``sha256`` of what came.
datagrams
    C sends "client asks" again and again, until an answer comes; then in the same way ``large`` times the letter x.
    S answers every datagram. C reports ``answer`` and the length of the ``large`` answer. S reports ``question``, the
    first datagram, and ``large``, the length of the largest.
reset
    For each of ``codes`` in turn C opens a bidirectional stream and sends the code in decimal and a newline. S resets
    its half of the stream with that code; C, once it has seen this, resets its half with the same code. At last C opens
    a stream with "done" and a newline, FIN, and S answers on it. Both report the ``codes`` of the resets that came.
    With ``first=client`` C resets its half first, once S has sent something.
stop
    As reset, but with STOP_SENDING: S stops C's half, then C stops the half of S, which meanwhile sends something.
    A browser may fail to give its page the code: C may ask for it on a new stream with "again ", the code in decimal
    and a newline, of which S reports nothing. With ``one-way=1`` S does not wait for C's stop, and reports none.
close-by-client
    C closes the session at once with ``code`` and ``reason``. S reports both.
close-by-server
    S closes the session at once with ``code`` and ``reason``. C reports both.
subprotocol
    C offers "first" and "second", S speaks "second" only. Both report the ``protocol``.
rejection
    S refuses the session with ``status``. C reports ``rejected`` and ``status``, S nothing.
many
    C opens ``streams`` bidirectional streams, a hundred or so at a time, each with the eight digits of its number and
    FIN; S sends them back. C reports how many ``streams`` came back right, S how many came.
resets
    Not a row of the table, see ``test_resets.py``. ``by`` says whether client or server resets ``streams`` streams,
    twenty at a time, each with a code of its number modulo 256: bidirectional ones, on which it has sent the number and
    a newline, waited for a byte, and sent ``bytes`` bytes; the other side, once it has seen the reset, resets its half.
    With ``early=1`` they are unidirectional and are reset before anything was sent. Then it opens 100 more streams of
    the same kind, each with "held" and a newline, and keeps them open. When all have come the other side sends "enough"
    on a unidirectional stream, and gets "thanks" on another. Who resets reports the ``answer``, the other one how many
    ``resets`` it saw.
drain
    S asks to wind down, C waits for it and then asks the same. Then C opens a stream with "still here", S answers on
    it. Both report whether they were asked (``drained``), S the ``question``, C the ``answer``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import parse_qs, quote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

Report: TypeAlias = dict[str, object]


@dataclass(frozen=True)
class Row:
    """One row of the table, and one script."""

    name: str
    """Also the first component of ``path``."""
    title: str
    """What the table calls it."""
    client: Report
    """What the client has to report, at least."""
    server: Report
    """What the server has to report, at least."""
    query: str = ""
    """Parameters of the script, with the question mark."""
    seconds: float = 30.0
    """Most time that the test may take."""

    @property
    def path(self) -> str:
        """Where the client connects to."""
        return f"/{self.name}{self.query}"

    def without(self, *, client: Collection[str] = (), server: Collection[str] = ()) -> Row:
        """The same script where less is asked of the reports, for peers that do not know."""
        return replace(
            self,
            client={name: value for name, value in self.client.items() if name not in client},
            server={name: value for name, value in self.server.items() if name not in server},
        )


@dataclass(frozen=True)
class Script:
    """A path taken apart, for servers and clients in Python."""

    name: str
    parameters: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, path: str) -> Script:
        parts = urlsplit(path)
        return cls(parts.path.strip("/"), {name: values[-1] for name, values in parse_qs(parts.query).items()})

    def number(self, name: str) -> int:
        return int(self.parameters[name])

    @property
    def codes(self) -> list[int]:
        return [int(code) for code in self.parameters["codes"].split(",")]


def bulk_data(size: int) -> bytes:
    """What both sides of the bulk script send."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


# At the holes of the mapping to HTTP/3 codes, at the limit of a byte, and at the ends of the 32 bits.
CODES: Final = (0, 1, 29, 30, 31, 255, 256, 2**31, 2**32 - 1)
SUBPROTOCOLS: Final = ("first", "second")
SPOKEN_SUBPROTOCOL: Final = "second"
_CLOSE_CODE: Final = 4_000_000_000
_CLOSE_REASON: Final = "as agreed, schön"
_BULK: Final = 10_000_000
_MANY: Final = 20_000


def codes_row(
    name: str, title: str, *, client: Sequence[int | None] = CODES, server: Sequence[int | None] = CODES
) -> Row:
    """The reset or the stop row, with the codes that each side sees; the script is that of ``CODES``."""
    query = "?codes=" + ",".join(map(str, CODES))
    return Row(name, title, {"codes": list(client)}, {"codes": list(server)}, query)


def _close_row(name: str, title: str, *, by_client: bool) -> Row:
    seen: Report = {"code": _CLOSE_CODE, "reason": _CLOSE_REASON}
    query = f"?code={_CLOSE_CODE}&reason={quote(_CLOSE_REASON)}"
    return Row(name, title, {} if by_client else seen, seen if by_client else {}, query)


def _bulk_row() -> Row:
    seen: Report = {"bytes": _BULK, "sha256": hashlib.sha256(bulk_data(_BULK)).hexdigest()}
    return Row("bulk", "10 MB each way", seen, seen, f"?bytes={_BULK}")


def _rows() -> tuple[Row, ...]:
    return (
        Row("connect", "connect", {"connected": True}, {"path": "/connect?question=1"}, "?question=1"),
        Row(
            "bidirectional",
            "bidirectional streams from both ends",
            {"question": "server asks", "answer": "CLIENT ASKS"},
            {"question": "client asks", "answer": "SERVER ASKS"},
        ),
        Row(
            "unidirectional",
            "unidirectional streams from both ends",
            {"question": "server asks", "thanks": "server thanks"},
            {"answer": "SERVER ASKS"},
        ),
        _bulk_row(),
        Row(
            "datagrams",
            "datagrams",
            {"answer": "CLIENT ASKS", "large": 1000},
            {"question": "client asks", "large": 1000},
            "?large=1000",
        ),
        codes_row("reset", "reset codes, both ways"),
        codes_row("stop", "stop codes, both ways"),
        _close_row("close-by-client", "close code and reason, by the client", by_client=True),
        _close_row("close-by-server", "close code and reason, by the server", by_client=False),
        Row("subprotocol", "subprotocol", {"protocol": SPOKEN_SUBPROTOCOL}, {"protocol": SPOKEN_SUBPROTOCOL}),
        Row("rejection", "rejection status", {"rejected": True, "status": 404}, {}, "?status=404"),
        Row(
            "many",
            "20 000 short streams",
            {"streams": _MANY},
            {"streams": _MANY},
            f"?streams={_MANY}",
            # Implementations in Python need milliseconds for a stream, on a busy machine several.
            seconds=300.0,
        ),
        Row(
            "drain",
            "drain, both ways",
            {"drained": True, "answer": "STILL HERE"},
            {"drained": True, "question": "still here"},
        ),
    )


ROWS: Final = {row.name: row for row in _rows()}
