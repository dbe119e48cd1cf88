"""wtransport, a Rust library on quinn, built from crates.io."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from .peer import Difference, Missing, PeerFailed
from .program import CRATES, SOURCES, Installed, Program, ProgramClient, ProgramServer, call
from .rows import ROWS

_SOURCE = SOURCES / "wtransport"
# A hundred crates, on a machine that may do other things as well.
_BUILD_SECONDS = 1500.0


def _install() -> Installed:
    # An installation for this user need not be on the PATH.
    cargo = shutil.which("cargo") or shutil.which("cargo", path=str(Path.home() / ".cargo" / "bin"))
    if cargo is None:
        raise Missing("no `cargo`; see https://rustup.rs")
    call([cargo, "fetch", "--locked"], cwd=_SOURCE, seconds=300)
    call(
        [cargo, "build", "--locked", "--quiet"],
        cwd=_SOURCE,
        seconds=_BUILD_SECONDS,
        environment={"CARGO_TARGET_DIR": str(CRATES)},
        failure=PeerFailed,
    )
    packages = json.loads(call([cargo, "metadata", "--format-version=1", "--locked"], cwd=_SOURCE, seconds=60))
    version = next(package["version"] for package in packages["packages"] if package["name"] == "wtransport")
    return Installed([str(CRATES / "debug" / "wtransport-peer")], version)


_PROGRAM = Program("wtransport", "wtransport", _install)
_DRAIN = Difference(
    "neither sends nor reports WT_DRAIN_SESSION; a session that gets it goes on",
    ROWS["drain"].without(client=("drained",), server=("drained",)),
    mark="-",
)
_CODES = "passes stream codes as they are on the wire; the peer's program maps them"
_SUBPROTOCOL = Difference("has no subprotocols")
CLIENT = ProgramClient(
    _PROGRAM,
    {
        "reset": Difference(_CODES, ROWS["reset"]),
        "stop": Difference(_CODES, ROWS["stop"]),
        "drain": _DRAIN,
        "subprotocol": _SUBPROTOCOL,
        "rejection": Difference(
            "reports that it was rejected, not with which status", ROWS["rejection"].without(client=("status",))
        ),
        "close-by-client": Difference(
            "ends the QUIC connection with its code and sends no WT_CLOSE_SESSION",
            ROWS["close-by-client"].without(server=("code", "reason")),
            mark="-",
        ),
    },
)
SERVER = ProgramServer(
    _PROGRAM,
    {
        "reset": Difference(_CODES, ROWS["reset"]),
        "stop": Difference(_CODES, ROWS["stop"]),
        "drain": _DRAIN,
        "subprotocol": _SUBPROTOCOL,
        "close-by-server": Difference("ends the QUIC connection with its code and sends no WT_CLOSE_SESSION"),
    },
)
