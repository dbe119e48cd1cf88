"""pywebtransport, from PyPI, in a virtual environment of its own: it may need a newer Python than ours."""

from __future__ import annotations

import subprocess

from benchmarks.environments import (
    CACHE,
    PYWEBTRANSPORT,
    PYWEBTRANSPORT_PYTHON,
    CannotRun,
    environment_python,
    find_python,
)

from .peer import Difference, Missing
from .program import SOURCES, Installed, Program, ProgramClient, ProgramServer
from .rows import ROWS


def _install() -> Installed:
    base = find_python(PYWEBTRANSPORT_PYTHON)
    if base is None:
        wanted = ".".join(map(str, PYWEBTRANSPORT_PYTHON))
        raise Missing(f"needs Python {wanted} or newer; install one (`python{wanted}`, pyenv)")
    name, version = PYWEBTRANSPORT.split("==")
    try:
        python = environment_python(CACHE, base, name, [PYWEBTRANSPORT])
    except (CannotRun, subprocess.TimeoutExpired) as error:
        raise Missing(str(error)) from error
    return Installed([python, str(SOURCES / "pywebtransport" / "peer.py")], version)


_PROGRAM = Program("pywebtransport", "pywebtransport", _install)
_DRAIN = "reports WT_DRAIN_SESSION and cannot send it"
CLIENT = ProgramClient(
    _PROGRAM,
    {
        "drain": Difference(_DRAIN, ROWS["drain"].without(server=("drained",))),
        "rejection": Difference(
            "tells that it was rejected, not with which status", ROWS["rejection"].without(client=("status",))
        ),
    },
)
SERVER = ProgramServer(_PROGRAM, {"drain": Difference(_DRAIN, ROWS["drain"].without(client=("drained",)))})
