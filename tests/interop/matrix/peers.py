"""The columns of the matrix: every peer, in the order of the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.interop.safari import Flavour

from . import from_pypi, webtransport_go, wtio_before, wtransport
from .aioquic_column import AioquicClient, AioquicServer
from .browsers import ChromiumClient, FirefoxClient
from .safari_column import SafariClient
from .wtio_itself import WtioClient, WtioServer

if TYPE_CHECKING:
    from .peer import ClientPeer, ServerPeer

CLIENTS: tuple[ClientPeer, ...] = (
    WtioClient(),
    wtio_before.CLIENT,
    ChromiumClient(),
    FirefoxClient(),
    SafariClient(Flavour.D07),
    SafariClient(Flavour.D13),
    AioquicClient(),
    webtransport_go.CLIENT,
    wtransport.CLIENT,
    from_pypi.PYWEBTRANSPORT_CLIENT,
    from_pypi.AIOPQUIC_CLIENT,
    from_pypi.WEB_TRANSPORT_QUINN_CLIENT,
)
SERVERS: tuple[ServerPeer, ...] = (
    WtioServer(),
    wtio_before.SERVER,
    AioquicServer(),
    webtransport_go.SERVER,
    wtransport.SERVER,
    from_pypi.PYWEBTRANSPORT_SERVER,
    from_pypi.AIOPQUIC_SERVER,
    from_pypi.WEB_TRANSPORT_QUINN_SERVER,
)
