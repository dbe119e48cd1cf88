"""A server for devious baton: numbers go back and forth on streams of all kinds until one wraps around to 0.

Run `python examples/baton_server.py`, then `python examples/baton_client.py` in another terminal.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import random

import wtio
from baton import BadRequest, Player, parse_request


async def answer(request: wtio.SessionRequest, deviousness: float = 0.0) -> None:
    try:
        game = parse_request(request.path)
    except BadRequest as error:
        await request.reject(error.status, body=f"{error}\n".encode())
        return
    if game.baton is None:
        game = dataclasses.replace(game, baton=random.randint(1, 255))
    host, port = request.remote_address

    def tell(line: str) -> None:
        print(f"{host} port {port}: {line}", flush=True)

    # The client may have left in the meantime.
    with contextlib.suppress(wtio.SessionClosed):
        end = await Player(await request.accept(), game, deviousness=deviousness, tell=tell).play()
        tell(f"ended by {end.closed_by} with code {end.code} {end.reason}".strip())


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=4433)
    parser.add_argument("--deviousness", type=float, default=0.0, help="share of the batons to give up, 0 … 1")
    options = parser.parse_args()

    certificate = wtio.dev_certificate()
    async with (
        wtio.serve(None, "localhost", options.port, tls=certificate.server_tls()) as server,
        asyncio.TaskGroup() as tasks,
    ):
        print(f"listening on https://localhost:{server.addresses[0][1]}/", flush=True)
        async for request in server:
            tasks.create_task(answer(request, options.deviousness))


if __name__ == "__main__":
    wtio.run(main())
