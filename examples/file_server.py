"""A file server: clients fetch files from a directory, and put files there.

Each transfer is one bidirectional stream. It begins with a line, `get NAME` or `put NAME`. The answer to `get` is the
file's content; `put` is followed by the content, and its answer is the number of bytes that were stored.

Run `python examples/file_server.py DIRECTORY`, then `python examples/file_client.py` in another terminal.
"""

import argparse
import asyncio
import os
import tempfile
from pathlib import Path

import wtio

CHUNK = 256 * 1024
NO_SUCH_FILE = 1
BAD_REQUEST = 2


class FileServer:
    def __init__(self, directory: Path) -> None:
        self.directory = directory

    async def handle(self, session: wtio.WebTransportSession) -> None:
        # Uploads that have arrived are stored even if the client is gone by then.
        await session.serve_streams(self.transfer)

    async def transfer(self, stream: wtio.WebTransportStream) -> None:
        verb, _, name = (await stream.readline(limit=1000)).decode().strip().partition(" ")
        # Only plain names, so that nobody can leave the directory.
        if verb not in ("get", "put") or not name or name != Path(name).name or name == "..":
            await stream.close(error_code=BAD_REQUEST)
        elif verb == "get":
            await self.get(stream, self.directory / name)
        else:
            await self.put(stream, self.directory / name)

    async def get(self, stream: wtio.WebTransportStream, path: Path) -> None:
        try:
            file = await asyncio.to_thread(path.open, "rb")
        except OSError:
            await stream.close(error_code=NO_SUCH_FILE)
            return
        with file:
            # A thread reads the disk; the event loop stays free for the other streams.
            while chunk := await asyncio.to_thread(file.read, CHUNK):
                await stream.write(data=chunk)

    async def put(self, stream: wtio.WebTransportStream, path: Path) -> None:
        # The file gets its name only once it is complete.
        descriptor, temporary = await asyncio.to_thread(tempfile.mkstemp, dir=self.directory, prefix=".incoming-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                async for chunk in stream:
                    await asyncio.to_thread(file.write, chunk)
                size = file.tell()
            await asyncio.to_thread(os.replace, temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        await stream.write(data=str(size).encode(), end_stream=True)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--port", type=int, default=4433)
    options = parser.parse_args()

    certificate = wtio.dev_certificate()
    handler = FileServer(options.directory).handle
    async with wtio.serve(handler, "localhost", options.port, tls=certificate.server_tls()) as server:
        print(f"listening on https://localhost:{server.addresses[0][1]}/", flush=True)
        await server.wait_closed()


if __name__ == "__main__":
    wtio.run(main())
