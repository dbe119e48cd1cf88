"""The columns of the matrix: every peer, in the order of the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import pywebtransport, webtransport_go, wtransport
from .browsers import ChromiumClient, FirefoxClient
from .wtio_itself import WtioClient, WtioServer

if TYPE_CHECKING:
    from .peer import ClientPeer, ServerPeer

CLIENTS: tuple[ClientPeer, ...] = (
    WtioClient(),
    ChromiumClient(),
    FirefoxClient(),
    webtransport_go.CLIENT,
    wtransport.CLIENT,
    pywebtransport.CLIENT,
)
SERVERS: tuple[ServerPeer, ...] = (
    WtioServer(),
    webtransport_go.SERVER,
    wtransport.SERVER,
    pywebtransport.SERVER,
)
