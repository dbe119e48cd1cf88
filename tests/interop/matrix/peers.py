"""The columns of the matrix: every peer, in the order of the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.interop.safari import Flavour

from . import pywebtransport, webtransport_go, wtransport
from .aioquic_column import AioquicClient, AioquicServer
from .browsers import ChromiumClient, FirefoxClient
from .safari_column import SafariClient
from .wtio_itself import WtioClient, WtioServer

if TYPE_CHECKING:
    from .peer import ClientPeer, ServerPeer

CLIENTS: tuple[ClientPeer, ...] = (
    WtioClient(),
    ChromiumClient(),
    FirefoxClient(),
    SafariClient(Flavour.D07),
    SafariClient(Flavour.D13),
    AioquicClient(),
    webtransport_go.CLIENT,
    wtransport.CLIENT,
    pywebtransport.CLIENT,
)
SERVERS: tuple[ServerPeer, ...] = (
    WtioServer(),
    AioquicServer(),
    webtransport_go.SERVER,
    wtransport.SERVER,
    pywebtransport.SERVER,
)
