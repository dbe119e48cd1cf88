"""An earlier state of wtio, built from the history of this repository: clients and servers are not renewed together."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import types

from benchmarks import trees

from .peer import Missing, PeerFailed
from .program import CRATES, SOURCES, Installed, Program, ProgramClient, ProgramServer

COMMIT = "1a673f8"
"""The state: before servers could ask newcomers for their address, reload certificates and bound their memory."""


def install() -> Installed:
    try:
        tree = dataclasses.replace(trees.unpack(COMMIT, "interop"), target=CRATES)
    except (trees.CommandFailed, FileNotFoundError) as error:
        raise Missing(f"commit {COMMIT} comes with the history of the repository, which is not here") from error
    try:
        # A minute for the first time. A peer has to be built quickly; nobody measures it.
        tree.build_extension(to_measure=False)
    except (trees.CommandFailed, FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise PeerFailed(f"commit {COMMIT} cannot be built: {error}") from error
    command = [sys.executable, str(SOURCES / "wtio_before" / "peer.py"), str(tree.root / "python")]
    return Installed(command, COMMIT)


_PROGRAM = Program("wtio_before", "wtio before", install)
CLIENT = ProgramClient(_PROGRAM, types.MappingProxyType({}))
SERVER = ProgramServer(_PROGRAM, types.MappingProxyType({}))
