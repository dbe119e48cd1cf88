"""What a peer is to the matrix: something that plays one half of a row's script and reports.

A new peer is an object with these attributes and methods, and a line in ``peers.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractAsyncContextManager

    import wtio

    from .rows import Report, Row


class Missing(Exception):
    """A peer cannot be had here; the text says why and how to get it."""


class PeerFailed(Exception):
    """A peer's program went wrong; the text holds what it said."""


@dataclass(frozen=True)
class Target:
    """Where a client connects to, and whom it may trust."""

    port: int
    certificate: wtio.DevCertificate

    def url(self, row: Row) -> str:
        return f"https://127.0.0.1:{self.port}{row.path}"


@dataclass(frozen=True)
class Difference:
    """A row that a peer cannot play as it stands."""

    note: str
    """The fact, for the footnote: what the peer lacks, not what we do about it."""
    row: Row | None = None
    """What is tested instead; None where nothing is left to test, and the test is skipped with the note."""
    mark: Literal["ok", "-"] = "ok"
    """What the table shows if that test passes; ``-`` where it does not show what the row is about."""


class Peer(Protocol):
    """What client and server peers share."""

    @property
    def name(self) -> str:
        """For test ids, such as ``webtransport_go``."""

    @property
    def title(self) -> str:
        """For the table, without a version."""

    @property
    def differences(self) -> Mapping[str, Difference]:
        """By the name of the row."""

    def prepare(self) -> str:
        """Build, install or start what the peer needs, once per run and within bounded time; return its version.

        Raises:
            Missing: It cannot be had.
        """

    def close(self) -> None:
        """Undo what ``prepare`` started, at the end of the run; called only after ``prepare``."""


class ClientPeer(Peer, Protocol):
    """A peer that connects to our server."""

    async def run(self, row: Row, target: Target) -> Report:
        """Play the client's half of the row."""


class RunningServer(Protocol):
    """A server that takes sessions now."""

    @property
    def port(self) -> int:
        """UDP port on 127.0.0.1."""

    async def report(self) -> Report:
        """Wait for the report of the next session that is over."""


class ServerPeer(Peer, Protocol):
    """A peer that our client connects to."""

    def serve(self, certificate: wtio.DevCertificate, row: Row) -> AbstractAsyncContextManager[RunningServer]:
        """Serve until the end of the context: every script, or that of ``row`` where a server has to know its path."""
