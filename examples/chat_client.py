"""A client of the chat room: says what you type, prints what others say. End of input (Ctrl-D) or Ctrl-C leaves.

Start `python examples/chat_server.py` first, then run `python examples/chat_client.py NAME`.
"""

import argparse
import asyncio
import contextlib
import threading

import wtio

# Lines that are read ahead, at most.
ROOM = threading.Semaphore(16)


def read_lines(loop: asyncio.AbstractEventLoop, lines: asyncio.Queue[bytes]) -> None:
    """Hand lines of standard input to the loop; an empty one is its end.

    This runs in a daemon thread, which need not end before the program does. It reads without a buffer, because Python
    cannot shut down while such a thread holds the lock of one.
    """
    with open(0, "rb", buffering=0, closefd=False) as keyboard, contextlib.suppress(RuntimeError):
        line = b"\n"
        while line:
            ROOM.acquire()
            line = keyboard.readline()
            loop.call_soon_threadsafe(lines.put_nowait, line)  # RuntimeError: the loop is closed already


async def say(stream: wtio.WebTransportStream, lines: asyncio.Queue[bytes]) -> None:
    """Send lines of standard input until it ends."""
    while line := await lines.get():
        await stream.write(data=line)
        ROOM.release()


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
    lines: asyncio.Queue[bytes] = asyncio.Queue()
    async with (
        wtio.connect(options.url, tls=tls) as session,
        await session.create_bidirectional_stream() as stream,
    ):
        await stream.write(data=f"{options.name}\n".encode())
        threading.Thread(target=read_lines, args=(asyncio.get_running_loop(), lines), daemon=True).start()
        talking, listening = asyncio.create_task(say(stream, lines)), asyncio.create_task(listen(stream))
        try:
            await asyncio.wait((talking, listening), return_when=asyncio.FIRST_COMPLETED)
            if listening.done():
                await listening
        except wtio.SessionClosed as end:
            print(f"the room sent you away: {end.reason}")
        finally:
            talking.cancel()
            listening.cancel()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
