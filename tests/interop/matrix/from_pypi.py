"""Peers in Python from PyPI, each in a virtual environment of its own: they may need a newer Python than ours."""

from __future__ import annotations

import subprocess
from functools import partial

from benchmarks.environments import (
    AIOPQUIC,
    CACHE,
    PEERS_PYTHON,
    PYWEBTRANSPORT,
    WEB_TRANSPORT_QUINN,
    CannotRun,
    environment_python,
    find_python,
)

from .peer import Difference, Missing
from .program import SOURCES, Installed, Program, ProgramClient, ProgramServer
from .rows import ROWS


def _install(requirement: str, directory: str) -> Installed:
    base = find_python(PEERS_PYTHON)
    if base is None:
        wanted = ".".join(map(str, PEERS_PYTHON))
        raise Missing(f"needs Python {wanted} or newer; install one (`python{wanted}`, pyenv)")
    name, version = requirement.split("==")
    try:
        python = environment_python(CACHE, base, name, [requirement])
    except (CannotRun, subprocess.TimeoutExpired) as error:
        raise Missing(str(error)) from error
    return Installed([python, str(SOURCES / directory / "peer.py")], version)


def _program(name: str, requirement: str, *, serves_one_path: bool = False) -> Program:
    """The program in the directory of that name."""
    title = requirement.partition("==")[0]
    return Program(name, title, partial(_install, requirement, name), serves_one_path)


_NO_STATUS = Difference(
    "reports that it was rejected, not with which status", ROWS["rejection"].without(client=("status",))
)

_PYWEBTRANSPORT = _program("pywebtransport", PYWEBTRANSPORT)
_HALF_DRAIN = "reports WT_DRAIN_SESSION and cannot send it"
PYWEBTRANSPORT_CLIENT = ProgramClient(
    _PYWEBTRANSPORT,
    {"drain": Difference(_HALF_DRAIN, ROWS["drain"].without(server=("drained",))), "rejection": _NO_STATUS},
)
PYWEBTRANSPORT_SERVER = ProgramServer(
    _PYWEBTRANSPORT, {"drain": Difference(_HALF_DRAIN, ROWS["drain"].without(client=("drained",)))}
)

_AIOPQUIC = _program("aiopquic", AIOPQUIC, serves_one_path=True)
_EMPTY_DATAGRAMS = Difference("takes empty datagrams, and stops sending datagrams at an empty one", ROWS["datagrams"])
_RESETS_WITHOUT_PAYLOAD = Difference(
    "does not report a stream that is reset before its first byte; one that it resets itself before its header has "
    "left is never seen",
    ROWS["reset"],
)
_LONG_REASON = "sends a reason of more than 255 bytes as an empty one"
AIOPQUIC_CLIENT = ProgramClient(
    _AIOPQUIC,
    {
        "datagrams": _EMPTY_DATAGRAMS,
        "reset": _RESETS_WITHOUT_PAYLOAD,
        "close-by-client": Difference(_LONG_REASON, ROWS["close-by-client"]),
    },
)
AIOPQUIC_SERVER = ProgramServer(
    _AIOPQUIC,
    {
        "datagrams": _EMPTY_DATAGRAMS,
        "reset": _RESETS_WITHOUT_PAYLOAD,
        "bidirectional": Difference(
            "does not report a client's stream that ends without a byte", ROWS["bidirectional"]
        ),
        "close-by-server": Difference(_LONG_REASON, ROWS["close-by-server"]),
        "rejection": Difference(
            "answers 404 to every path but one; there is no other way to reject", ROWS["rejection"]
        ),
    },
)

_QUINN = _program("web_transport_quinn", WEB_TRANSPORT_QUINN)
_NO_SUBPROTOCOL = Difference("has no subprotocols")
_NO_DRAIN = Difference(
    "neither sends nor reports WT_DRAIN_SESSION; a session that gets it goes on",
    ROWS["drain"].without(client=("drained",), server=("drained",)),
    mark="-",
)
WEB_TRANSPORT_QUINN_CLIENT = ProgramClient(
    _QUINN,
    {
        "drain": _NO_DRAIN,
        "subprotocol": _NO_SUBPROTOCOL,
        "rejection": Difference("has the status in the text of its error only", ROWS["rejection"]),
    },
)
WEB_TRANSPORT_QUINN_SERVER = ProgramServer(
    _QUINN,
    {
        "drain": _NO_DRAIN,
        "subprotocol": _NO_SUBPROTOCOL,
        "rejection": Difference("closes the QUIC connection when it rejects, and its answer is never sent"),
    },
)
