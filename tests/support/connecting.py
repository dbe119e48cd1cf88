"""A client's connection without a session, for tests of what happens below sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wtio._connection.client import ClientConnection
    from wtio.testing import Network


async def dial(network: Network) -> ClientConnection:
    """Make a connection to the network's ``localhost`` that is ready for sessions, and request none."""
    return await network.connect()._dialer.dial()
