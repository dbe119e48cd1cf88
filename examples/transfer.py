"""File transfer that goes on where it was: after a lost connection, a restart of the server, a killed client.

Run `python examples/transfer.py serve DIRECTORY`, and then, for instance:

    python examples/transfer.py put large.iso
    python examples/transfer.py get large.iso --into /tmp

Each file is a stream. Its sender says the SHA-256, and its receiver how much is there already. At the end the receiver
hashes what it has; until then the file has another name, with the hash in it.
"""

import argparse
import asyncio
import contextlib
import hashlib
import os
import sys
from pathlib import Path

import wtio

CHUNK = 256 * 1024
REASONS = {1: "there is no such file, or its name is not a plain one", 2: "it changed on its way; try again"}


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def send(stream: wtio.WebTransportStream, path: Path) -> int:
    """Send a file; return how much of it was at the receiver."""
    await stream.write(data=f"{await asyncio.to_thread(sha256_of, path)}\n".encode())
    offset = int(await stream.readline(limit=100))
    with path.open("rb") as file:
        file.seek(offset)
        while chunk := await asyncio.to_thread(file.read, CHUNK):
            await stream.write(data=chunk)
    await stream.write(data=b"", end_stream=True)
    await stream.readline(limit=100)  # "stored", or the stream is reset
    return offset


async def receive(stream: wtio.WebTransportStream, path: Path) -> int:
    """Receive what is missing of a file; return how much was there."""
    sha256 = int(await stream.readline(limit=100), 16)
    partial = path.with_name(f".{path.name}.{sha256:064x}")
    partial.touch()
    # Not to append: whoever wrote before may not know yet that it is over, and writes the same to the same place.
    with partial.open("r+b") as file:
        offset = file.seek(0, os.SEEK_END)
        await stream.write(data=b"%d\n" % offset)
        async for chunk in stream:
            await asyncio.to_thread(file.write, chunk)
    if int(await asyncio.to_thread(sha256_of, partial), 16) != sha256:
        partial.unlink()
        await stream.close(error_code=2)
        raise ValueError(REASONS[2])
    partial.replace(path)
    await stream.write(data=b"stored\n", end_stream=True)
    return offset


async def serve(options: argparse.Namespace) -> int:
    async def answer(stream: wtio.WebTransportStream) -> None:
        verb, _, name = (await stream.readline(limit=1000)).decode().strip().partition(" ")
        path = Path(options.names[0], name)
        # Only plain names, so that nobody leaves the directory.
        if verb in ("get", "put") and name == path.name and not name.startswith("."):
            with contextlib.suppress(FileNotFoundError):
                await (send if verb == "get" else receive)(stream, path)
                return
        await stream.close(error_code=1)

    async def handle(session: wtio.WebTransportSession) -> None:
        await session.serve_streams(answer)

    async with wtio.serve(handle, "localhost", options.port, tls=wtio.dev_certificate().server_tls()) as server:
        print(f"listening on https://localhost:{server.addresses[0][1]}/", flush=True)
        await server.wait_closed()
    return 0


async def transfer(options: argparse.Namespace) -> int:
    paths = [Path(name) if options.verb == "put" else options.into / Path(name).name for name in options.names]
    tls, failures = wtio.dev_certificate().client_tls(), 0
    # A server that was killed does not say so; 5 seconds of silence are enough.
    url, timeouts = f"https://localhost:{options.port}/", wtio.Timeouts(idle=5)
    async for session in wtio.connect(url, tls=tls, timeouts=timeouts):
        with contextlib.suppress(wtio.SessionClosed):
            while paths:
                stream = await session.create_bidirectional_stream()
                await stream.write(data=f"{options.verb} {paths[0].name}\n".encode())
                try:
                    offset = await (send if options.verb == "put" else receive)(stream, paths[0])
                    print(f"{paths[0].name}: done, {offset} bytes were there", flush=True)
                except (wtio.StreamResetError, FileNotFoundError, ValueError) as error:
                    reason = REASONS.get(getattr(error, "error_code", 0), error)
                    print(f"{paths[0].name}: {reason}", flush=True)
                    failures += 1
                del paths[0]
            break
    return min(failures, 1)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=("serve", "put", "get"))
    parser.add_argument("names", nargs="+", metavar="NAME", help="files, or the directory that is served")
    parser.add_argument("--port", type=int, default=4433)
    parser.add_argument("--into", type=Path, default=Path(), help="directory for files that are fetched")
    options = parser.parse_args()
    return wtio.run(serve(options) if options.verb == "serve" else transfer(options))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
