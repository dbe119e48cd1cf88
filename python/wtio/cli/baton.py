"""``wtio baton``: devious baton, the interoperability game of the working group, with a server or as one.

Numbers go back and forth on streams of all kinds until one wraps around to 0. ``_baton`` has the rules.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import sys
from typing import TYPE_CHECKING

import wtio
from wtio.cli._baton import BadRequest, Player, Request, parse_request
from wtio.cli._options import CONNECTION_OPTIONS, add_connection_options, connector, refuse
from wtio.cli._status import Status, status_of_end
from wtio.cli._terminal import visible

if TYPE_CHECKING:
    import argparse

    from wtio.cli._types import Subparsers


def add_parser(commands: Subparsers) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "baton",
        help="play devious baton with a server, or serve it",
        description="Play devious baton (draft-frindell-webtrans-devious-baton), a game that uses every part of "
        "WebTransport, to see whether two implementations understand each other. The exit status is 0 if the game "
        "ended as it should. --serve is the other side, with the certificate for development.",
    )
    parser.add_argument("url", nargs="?", default="https://localhost:4433/", help="scheme, host and port")
    parser.add_argument("--baton", type=int, help="where to start, 1 to 255 (default: the server's choice)")
    parser.add_argument("--count", type=int, default=1, help="batons at the same time (default: 1)")
    parser.add_argument(
        "--deviousness", type=float, default=0.0, metavar="SHARE", help="share of the batons to give up, 0 to 1"
    )
    parser.add_argument("--serve", action="store_true", help="serve the game on this machine")
    parser.add_argument("--port", type=int, default=4433, help="with --serve: UDP port; 0 takes a free one")
    add_connection_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Play, or serve until interrupted."""
    if options.serve:
        players = ("URL", "--baton", "--count", *CONNECTION_OPTIONS)
        refuse(options, players, "is for whoever plays and does nothing with --serve; leave one of them out")
    else:
        refuse(options, ("--port",), "is where --serve listens; add --serve, or write the port into the URL")
    if not 0 <= options.deviousness <= 1:
        raise ValueError(f"--deviousness is {options.deviousness:g}; it must be 0 to 1")
    if options.serve:
        wtio.run(_serve(options))
        return Status.OK
    return asyncio.run(_play(options))


async def _play(options: argparse.Namespace) -> Status:
    game = Request(options.count, options.baton)
    options.url = options.url.rstrip("/") + game.path
    async with connector(options) as session:
        end = await Player(session, game, deviousness=options.deviousness, tell=_tell).play()
    _tell(f"ended by {end.closed_by} with code {end.code} {end.reason}".strip())
    return status_of_end(end.code)


async def _serve(options: argparse.Namespace) -> None:
    tls = wtio.dev_certificate().server_tls()
    async with wtio.serve(None, "localhost", options.port, tls=tls) as server, asyncio.TaskGroup() as tasks:
        _tell(f"listening on https://localhost:{server.addresses[0][1]}/")
        async for request in server:
            tasks.create_task(answer(request, options.deviousness))


async def answer(request: wtio.SessionRequest, deviousness: float = 0.0) -> None:
    """Play with one client, or refuse its request."""
    try:
        game = parse_request(request.path)
    except BadRequest as error:
        await request.reject(error.status, body=f"{error}\n".encode())
        return
    if game.baton is None:
        game = dataclasses.replace(game, baton=random.randint(1, 255))
    host, port = request.remote_address

    def tell(line: str) -> None:
        _tell(f"{host} port {port}: {line}")

    # The client may have left in the meantime.
    with contextlib.suppress(wtio.SessionClosed):
        end = await Player(await request.accept(), game, deviousness=deviousness, tell=tell).play()
        tell(f"ended by {end.closed_by} with code {end.code} {end.reason}".strip())


def _tell(line: str) -> None:
    # Reasons are the peer's.
    print(visible(line), file=sys.stdout, flush=True)
