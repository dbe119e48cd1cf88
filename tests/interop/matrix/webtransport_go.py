"""webtransport-go, built from the Go module proxy."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from .peer import Difference, Missing, PeerFailed
from .program import BUILT, SOURCES, Installed, Program, ProgramClient, ProgramServer, call
from .rows import ROWS

if TYPE_CHECKING:
    from pathlib import Path

_SOURCE = SOURCES / "go"
_MODULE = "github.com/quic-go/webtransport-go"
_ENVIRONMENT = {"CGO_ENABLED": "0"}


def _install() -> Installed:
    # An official installation of Go need not be on the PATH.
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        raise Missing("no `go` on the PATH or in /usr/local/go/bin; see https://go.dev/doc/install")
    call([go, "mod", "download"], cwd=_SOURCE, seconds=300, environment=_ENVIRONMENT)
    binary: Path = BUILT / "webtransport-go"
    call(
        [go, "build", "-buildvcs=false", "-o", binary, "."],
        cwd=_SOURCE,
        seconds=600,
        environment=_ENVIRONMENT,
        failure=PeerFailed,
    )
    version = call([go, "list", "-m", "-f", "{{.Version}}", _MODULE], cwd=_SOURCE, seconds=60)
    return Installed([str(binary)], version.strip().removeprefix("v"))


_PROGRAM = Program("webtransport_go", "webtransport-go", _install)
_DIFFERENCES = {
    "drain": Difference(
        "neither sends nor reports WT_DRAIN_SESSION; a session that gets it goes on",
        ROWS["drain"].without(client=("drained",), server=("drained",)),
        mark="-",
    ),
}
CLIENT = ProgramClient(_PROGRAM, _DIFFERENCES)
SERVER = ProgramServer(_PROGRAM, _DIFFERENCES)
