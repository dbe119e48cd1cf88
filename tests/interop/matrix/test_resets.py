"""A thousand resets on one connection, with peers in Python: none is lost, and all streams can be had again.

With picoquic (aiopquic) resets travel as RESET_STREAM_AT in both directions, with the others as RESET_STREAM.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from . import ours
from .aioquic_column import AioquicClient, AioquicServer
from .from_pypi import AIOPQUIC_CLIENT, AIOPQUIC_SERVER, WEB_TRANSPORT_QUINN_CLIENT, WEB_TRANSPORT_QUINN_SERVER
from .peer import Missing, Target
from .rows import Row
from .wtio_itself import WtioClient, WtioServer

if TYPE_CHECKING:
    from collections.abc import Callable

    import wtio

    from .peer import ClientPeer, Peer, ServerPeer
    from .rows import Report

STREAMS = 1000
CLIENTS: tuple[ClientPeer, ...] = (WtioClient(), AioquicClient(), AIOPQUIC_CLIENT, WEB_TRANSPORT_QUINN_CLIENT)
SERVERS: tuple[ServerPeer, ...] = (WtioServer(), AioquicServer(), AIOPQUIC_SERVER, WEB_TRANSPORT_QUINN_SERVER)

pytestmark = [
    pytest.mark.timeout(120, func_only=True),
    pytest.mark.parametrize("resetting", ["client", "server"], ids=["client-resets", "server-resets"]),
    # Resets of streams of which nothing has been sent are not reported by every peer; their credit comes back.
    pytest.mark.parametrize("parameters", ["&bytes=5000", "&early=1"], ids=["data-under-way", "early"]),
]


def _row(resetting: str, parameters: str) -> Row:
    saw: Report = {} if "early" in parameters else {"resets": STREAMS}
    was_answered: Report = {"answer": "enough"}
    client, server = (was_answered, saw) if resetting == "client" else (saw, was_answered)
    query = f"?streams={STREAMS}&by={resetting}{parameters}"
    return Row("resets", "resets", client, server, query, seconds=60.0)


def _prepare(peer: Peer, prepare: Callable[[Peer], str | Missing]) -> None:
    version = prepare(peer)
    if isinstance(version, Missing):
        pytest.skip(f"{peer.title} is missing: {version}")


def _compare(row: Row, client: Report, server: Report) -> None:
    assert "error" not in client, client
    assert "error" not in server, server
    assert (client | row.client, server | row.server) == (client, server)


@pytest.mark.parametrize("peer", CLIENTS, ids=lambda peer: peer.name)
async def test_all_streams_can_be_had_again_after_resets_between_our_server_and(
    peer: ClientPeer,
    resetting: str,
    parameters: str,
    certificate: wtio.DevCertificate,
    prepare: Callable[[Peer], str | Missing],
) -> None:
    _prepare(peer, prepare)
    row = _row(resetting, parameters)
    async with ours.serving(certificate) as server, asyncio.timeout(row.seconds):
        client_report = await peer.run(row, Target(server.port, certificate))
        _compare(row, client_report, await server.report())


@pytest.mark.parametrize("peer", SERVERS, ids=lambda peer: peer.name)
async def test_all_streams_can_be_had_again_after_resets_between_our_client_and(
    peer: ServerPeer,
    resetting: str,
    parameters: str,
    certificate: wtio.DevCertificate,
    prepare: Callable[[Peer], str | Missing],
) -> None:
    _prepare(peer, prepare)
    row = _row(resetting, parameters)
    async with peer.serve(certificate, row) as server, asyncio.timeout(row.seconds):
        client_report = await ours.run_client(row, Target(server.port, certificate))
        _compare(row, client_report, await server.report())
