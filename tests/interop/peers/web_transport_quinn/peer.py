"""A peer on web-transport-quinn for the interop matrix; ``tests/interop/matrix/rows.py`` describes the scripts.

::

    python peer.py client <url> <SHA-256 of the certificate> <certificate file>
    python peer.py server <certificate and key file> <port or 0>

The client prints its report as one line of JSON. The server prints ``{"port": …}``, then a report for each session
that is over, and ends with its standard input. It runs in a virtual environment of its own, without wtio; the scripts
are imported from their file.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[4]))

from tests.interop.matrix.halves import play_client, play_server
from tests.interop.matrix.rows import Report, Script
from tests.interop.peer_session import PeerSessionRejected
from tests.interop.peers.lines import print_line, reported, until_the_end_of_input
from tests.interop.web_transport_quinn_peer import QuinnSession, connect, serve

if TYPE_CHECKING:
    import web_transport


async def run_client(url: str, certificate_hash: str) -> Report:
    try:
        async with connect(url, certificate_hash=bytes.fromhex(certificate_hash)) as session:
            return await play_client(session)
    except PeerSessionRejected as rejection:
        return {"rejected": True, "status": rejection.status}


async def serve_request(request: web_transport.SessionRequest) -> None:
    script = Script.of(request.url)
    if script.name == "rejection":
        await request.reject(script.number("status"))
        print_line({})
        return
    print_line(await play_server(QuinnSession(await request.accept(), request.url)))


async def run_server(certificate: str, port: int) -> None:
    async with serve(port, certificate=certificate, key=certificate) as server, asyncio.TaskGroup() as tasks:
        print_line({"port": server.local_addr[1]})

        async def take_requests() -> None:
            async for request in server:
                tasks.create_task(serve_request(request))

        taking = tasks.create_task(take_requests())
        await until_the_end_of_input()
        taking.cancel()


def main() -> None:
    match sys.argv[1:]:
        case ["client", url, certificate_hash, _]:
            print_line(asyncio.run(reported(run_client(url, certificate_hash))))
        case ["server", certificate, port]:
            asyncio.run(run_server(certificate, int(port)))
        case _:
            raise SystemExit("usage: peer.py client <url> <hash> <certificate> | peer.py server <certificate> <port>")


if __name__ == "__main__":
    main()
