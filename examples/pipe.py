"""A pipe to a command on another machine: standard input goes there, and what the command prints comes back.

Run `python examples/pipe.py serve sort -n`, then in another terminal, for instance:

    du -s /usr/* | python examples/pipe.py connect

Each client gets a process of its own, and ends with the status of that process. If the environment variable PIPE_TOKEN
is set, the server takes only clients that have the same.
"""

import argparse
import asyncio
import contextlib
import hmac
import os
import sys
import threading

import wtio

CHUNK = 64 * 1024


class Commands:
    """The server's side: a process for each stream."""

    def __init__(self, command: list[str], token: str) -> None:
        self.command = command
        self.token = token

    async def admit(self, request: wtio.SessionRequest) -> None:
        given = dict(request.headers).get("authorization", "")
        if self.token and not hmac.compare_digest(given.encode(), f"Bearer {self.token}".encode()):
            await request.reject(401)

    async def handle(self, session: wtio.WebTransportSession) -> None:
        await session.serve_streams(self.run)

    async def run(self, stream: wtio.WebTransportStream) -> None:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*self.command, stdin=pipe, stdout=pipe)
        assert process.stdout is not None
        feeding = asyncio.create_task(feed(process, stream))
        try:
            # If the client reads slowly, this waits, and with it the command.
            while data := await process.stdout.read(CHUNK):
                await stream.write(data=data)
            await stream.write(data=b"", end_stream=True)
            status = await stream.session.create_unidirectional_stream()
            await status.write(data=b"%d" % await process.wait(), end_stream=True)
        finally:
            feeding.cancel()
            kill(process)


async def feed(process: asyncio.subprocess.Process, stream: wtio.WebTransportStream) -> None:
    """Give a command what the client sends, until one of them wants no more."""
    assert process.stdin is not None
    with contextlib.suppress(ConnectionError):
        async for data in stream:
            process.stdin.write(data)
            await process.stdin.drain()
    process.stdin.close()
    with contextlib.suppress(wtio.SessionClosed):
        await stream.stop_receiving()
    # After that, nobody takes what it says.
    await stream.session.wait_closed()
    kill(process)


def kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()


async def serve(options: argparse.Namespace) -> int:
    commands = Commands(options.command, os.environ.get("PIPE_TOKEN", ""))
    tls = wtio.dev_certificate().server_tls()
    async with wtio.serve(commands.handle, "localhost", options.port, tls=tls, admit=commands.admit) as server:
        print(f"listening on https://localhost:{server.addresses[0][1]}/", flush=True)
        await server.wait_closed()
    return 0


async def connect(options: argparse.Namespace) -> int:
    token = os.environ.get("PIPE_TOKEN")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    tls = wtio.dev_certificate().client_tls()
    async with wtio.connect(f"https://localhost:{options.port}/", tls=tls, headers=headers) as session:
        stream = await session.create_bidirectional_stream()
        # A thread that waits for input does not keep the program from ending.
        threading.Thread(target=send_input, args=(stream, asyncio.get_running_loop()), daemon=True).start()
        async for data in stream:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        status = await anext(session.incoming_unidirectional_streams())
        return int(await status.read_all())


def send_input(stream: wtio.WebTransportStream, loop: asyncio.AbstractEventLoop) -> None:
    """Send standard input until its end, or until the command wants no more. Runs in a thread, for reading waits."""
    with contextlib.suppress(wtio.WebTransportError):
        while data := os.read(sys.stdin.fileno(), CHUNK):
            asyncio.run_coroutine_threadsafe(stream.write(data=data), loop).result()
        asyncio.run_coroutine_threadsafe(stream.write(data=b"", end_stream=True), loop).result()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=("serve", "connect"))
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what the server runs")
    parser.add_argument("--port", type=int, default=4433)
    options = parser.parse_args()
    return wtio.run(serve(options) if options.verb == "serve" else connect(options))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
