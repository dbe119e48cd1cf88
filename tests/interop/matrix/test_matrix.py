"""Each cell of the interop matrix is one test: a peer, a direction and a row. ``rows`` has the scripts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from . import ours
from .peer import Target
from .peers import CLIENTS, SERVERS
from .rows import ROWS

if TYPE_CHECKING:
    import wtio

    from .peer import ClientPeer, Peer, ServerPeer
    from .rows import Report, Row

# After the client has its result, the server's end of the session needs a moment at most.
_REPORT_SECONDS = 15.0


def _cells(direction: str, column: tuple[ClientPeer, ...] | tuple[ServerPeer, ...]) -> list[object]:
    return [
        pytest.param(
            direction,
            peer,
            row.name,
            id=f"{direction}-{peer.name}-{row.name}",
            # Building and installing peers happens in a fixture and has limits of its own.
            marks=pytest.mark.timeout(row.seconds + _REPORT_SECONDS, func_only=True),
        )
        for peer in column
        for row in ROWS.values()
    ]


def _row(peer: Peer, name: str) -> Row:
    """The row as this peer can play it."""
    difference = peer.differences.get(name)
    row = ROWS[name] if difference is None else difference.row
    assert row is not None
    return row


def _relevant(report: Report, expected: Report) -> Report:
    """What the row asks for, and the error in place of what is not there."""
    return {name: report[name] for name in expected if name in report} | (
        {"error": report["error"]} if "error" in report else {}
    )


@pytest.mark.usefixtures("cell")
@pytest.mark.parametrize(("direction", "peer", "row_name"), _cells("client", CLIENTS))
async def test_peer_as_client(
    direction: str, peer: ClientPeer, row_name: str, certificate: wtio.DevCertificate
) -> None:
    row = _row(peer, row_name)
    async with ours.serving(certificate) as server:
        async with asyncio.timeout(row.seconds):
            client = await peer.run(row, Target(server.port, certificate))
        async with asyncio.timeout(_REPORT_SECONDS):
            report = await server.report()
    assert (_relevant(client, row.client), _relevant(report, row.server)) == (row.client, row.server)


@pytest.mark.usefixtures("cell")
@pytest.mark.parametrize(("direction", "peer", "row_name"), _cells("server", SERVERS))
async def test_peer_as_server(
    direction: str, peer: ServerPeer, row_name: str, certificate: wtio.DevCertificate
) -> None:
    row = _row(peer, row_name)
    async with peer.serve(certificate, row) as server:
        async with asyncio.timeout(row.seconds):
            client = await ours.run_client(row, Target(server.port, certificate))
        async with asyncio.timeout(_REPORT_SECONDS):
            report = await server.report()
    assert (_relevant(client, row.client), _relevant(report, row.server)) == (row.client, row.server)
