"""A peer on aiopquic for the interop matrix; ``tests/interop/matrix/rows.py`` describes the scripts.

::

    python peer.py client <url> <SHA-256 of the certificate> <certificate file>
    python peer.py server <certificate and key file> <port or 0> <path>

The client prints its report as one line of JSON. The server prints ``{"port": …}``, then a report for each session
that is over, and ends with its standard input; it takes sessions on one path. It runs in a virtual environment of its
own, without wtio; the scripts are imported from their file.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[4]))

from tests.interop.aiopquic_peer import AiopquicSession, connect, serve
from tests.interop.matrix.halves import offered, play_client, play_server
from tests.interop.matrix.rows import SPOKEN_SUBPROTOCOL, Report, Script
from tests.interop.peer_session import PeerSessionRejected
from tests.interop.peers.lines import print_line, reported, until_the_end_of_input


async def run_client(url: str, certificate: str) -> Report:
    parts = urlsplit(url)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    assert parts.hostname is not None
    assert parts.port is not None
    connecting = connect(parts.hostname, parts.port, path, cafile=certificate, protocols=offered(path))
    try:
        async with connecting as session:
            return await play_client(session)
    except PeerSessionRejected as rejection:
        return {"rejected": True, "status": rejection.status}


async def run_server(certificate: str, port: int, path: str) -> None:
    if port == 0:
        # It does not tell which port the system gave it.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
    # A request for another path gets 404, which is all that it can refuse, and nobody hears of it.
    is_rejection = Script.of(path).name == "rejection"
    served = "/elsewhere" if is_rejection else path

    async def play(session: AiopquicSession) -> None:
        print_line(await play_server(session))

    async with serve(play, port, served, certificate=certificate, key=certificate, protocols=(SPOKEN_SUBPROTOCOL,)):
        print_line({"port": port})
        if is_rejection:
            print_line({})
        await until_the_end_of_input()


def main() -> None:
    match sys.argv[1:]:
        case ["client", url, _, certificate]:
            print_line(asyncio.run(reported(run_client(url, certificate))))
        case ["server", certificate, port, path]:
            asyncio.run(run_server(certificate, int(port), path))
        case _:
            raise SystemExit(
                "usage: peer.py client <url> <hash> <certificate> | peer.py server <certificate> <port> <path>"
            )


if __name__ == "__main__":
    main()
