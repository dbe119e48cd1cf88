"""A client of the chat room: says what you type, prints what others say. End of input (Ctrl-D) leaves.

Start `python examples/chat_server.py` first, then run `python examples/chat_client.py NAME`.
"""

import argparse
import asyncio
import sys

import wtio


async def say(stream: wtio.WebTransportStream) -> None:
    """Send lines of standard input until it ends."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        await stream.write(data=line.encode())


async def listen(stream: wtio.WebTransportStream) -> None:
    """Print lines of the others until the room closes."""
    while line := await stream.readline():
        print(line.decode(), end="", flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("url", nargs="?", default="https://localhost:4433/")
    options = parser.parse_args()

    tls = wtio.dev_certificate().client_tls()
    async with (
        wtio.connect(options.url, tls=tls) as session,
        await session.create_bidirectional_stream() as stream,
    ):
        await stream.write(data=f"{options.name}\n".encode())
        talking, listening = asyncio.create_task(say(stream)), asyncio.create_task(listen(stream))
        try:
            await asyncio.wait((talking, listening), return_when=asyncio.FIRST_COMPLETED)
            if listening.done():
                await listening
        except wtio.SessionClosed as end:
            print(f"the room sent you away: {end.reason} (press Enter)")
        finally:
            listening.cancel()


if __name__ == "__main__":
    asyncio.run(main())
