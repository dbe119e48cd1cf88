"""A client for devious baton; its exit status says whether the game ended as it should.

Start `python examples/baton_server.py` first, then run `python examples/baton_client.py --baton 250 --count 3`.
"""

import argparse
import asyncio
import sys

import wtio
from baton import Player, Request


async def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("url", nargs="?", default="https://localhost:4433/", help="scheme, host and port")
    parser.add_argument("--baton", type=int, help="where to start, 1 … 255; the server's choice by default")
    parser.add_argument("--count", type=int, default=1, help="batons at the same time")
    parser.add_argument("--deviousness", type=float, default=0.0, help="share of the batons to give up, 0 … 1")
    parser.add_argument("--public", action="store_true", help="trust the system's authorities")
    options = parser.parse_args()

    game = Request(options.count, options.baton)
    tls = None if options.public else wtio.dev_certificate().client_tls()
    try:
        session = await wtio.connect(options.url.rstrip("/") + game.path, tls=tls)
    except wtio.SessionRejectedError as error:
        print(f"the server refused with status {error.status}")
        return 1
    end = await Player(session, game, deviousness=options.deviousness).play()
    print(f"ended by {end.closed_by} with code {end.code} {end.reason}".strip())
    return 0 if end.code == 0 else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
