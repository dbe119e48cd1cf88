"""A client of the file server: gets and puts files, several at once, each on its own stream.

Start `python examples/file_server.py DIRECTORY` first, then run, for instance:

    python examples/file_client.py put README.md CHANGELOG.md
    python examples/file_client.py get README.md --into /tmp
"""

import argparse
import asyncio
import sys
from pathlib import Path

import wtio

CHUNK = 256 * 1024


async def get(session: wtio.WebTransportSession, name: str, into: Path) -> None:
    async with await session.create_bidirectional_stream() as stream:
        await stream.write(data=f"get {name}\n".encode(), end_stream=True)
        # Read the first chunk (or the reset, if there is no such file) before a local file is created.
        chunk = await stream.read()
        with (into / name).open("wb") as file:
            while chunk:
                file.write(chunk)
                chunk = await stream.read()
    print(f"{name}: {(into / name).stat().st_size} bytes")


async def put(session: wtio.WebTransportSession, path: Path) -> None:
    async with await session.create_bidirectional_stream() as stream:
        await stream.write(data=f"put {path.name}\n".encode())
        with path.open("rb") as file:
            while chunk := await asyncio.to_thread(file.read, CHUNK):
                await stream.write(data=chunk)
        await stream.write(data=b"", end_stream=True)
        print(f"{path.name}: {int(await stream.read_all())} bytes stored")


async def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=("get", "put"))
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--into", type=Path, default=Path(), help="directory for files that are fetched")
    parser.add_argument("--url", default="https://localhost:4433/")
    options = parser.parse_args()

    tls = wtio.dev_certificate().client_tls()
    async with wtio.connect(options.url, tls=tls) as session:
        transfers = [
            get(session, name, options.into) if options.verb == "get" else put(session, Path(name))
            for name in options.names
        ]
        results = await asyncio.gather(*transfers, return_exceptions=True)

    failures = 0
    for name, result in zip(options.names, results, strict=True):
        if isinstance(result, wtio.StreamResetError):
            print(f"{name}: the server has no such file" if result.error_code == 1 else f"{name}: {result}")
        elif isinstance(result, BaseException):
            print(f"{name}: {result}")
        failures += result is not None
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
