"""An earlier state of wtio as a peer for the interop matrix; ``tests/interop/matrix/rows.py`` describes the scripts.

::

    python peer.py <directory with its package> client <url> <SHA-256 of the certificate> <certificate file>
    python peer.py <directory with its package> server <certificate and key file> 0

The client prints its report as one line of JSON. The server prints ``{"port": …}``, then a report for each session
that is over, and ends with its standard input. The scripts are those of today; they use only what the earlier state
had, too.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[4]))
sys.path.insert(0, sys.argv[1])

from tests.interop.matrix import ours
from tests.interop.matrix.peer import Target
from tests.interop.matrix.rows import ROWS, Report
from tests.interop.peers.lines import print_line, reported, until_the_end_of_input

import wtio


@dataclass(frozen=True)
class Certificate:
    """As much of a ``wtio.DevCertificate`` as the scripts need."""

    file: str = ""
    sha256: str = ""

    def server_tls(self) -> wtio.ServerTLS:
        return wtio.ServerTLS(certfile=self.file)

    def client_tls(self) -> wtio.ClientTLS:
        return wtio.ClientTLS(certificate_hashes=[self.sha256])


async def run_client(url: str, sha256: str) -> Report:
    parts = urlsplit(url)
    assert parts.port is not None
    certificate = cast("wtio.DevCertificate", Certificate(sha256=sha256))
    row = replace(ROWS[parts.path.strip("/")], query=f"?{parts.query}" if parts.query else "")
    return await ours.run_client(row, Target(parts.port, certificate))


async def run_server(file: str) -> None:
    async with ours.serving(cast("wtio.DevCertificate", Certificate(file=file))) as server:
        print_line({"port": server.port})
        reporting = asyncio.create_task(print_reports(server))
        await until_the_end_of_input()
        reporting.cancel()


async def print_reports(server: ours.OurServer) -> None:
    while True:
        print_line(await server.report())


def main() -> None:
    assert Path(wtio.__file__).is_relative_to(Path(sys.argv[1]).resolve()), f"this is another wtio: {wtio.__file__}"
    match sys.argv[2:]:
        case ["client", url, sha256, _]:
            print_line(asyncio.run(reported(run_client(url, sha256))))
        case ["server", file, "0"]:
            asyncio.run(run_server(file))
        case _:
            raise SystemExit(
                "usage: peer.py <package> client <url> <hash> <certificate> | peer.py <package> server <certificate> 0"
            )


if __name__ == "__main__":
    main()
