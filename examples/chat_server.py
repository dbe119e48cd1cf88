"""A chat room: each line that somebody says goes to everybody else.

Every client has one bidirectional stream. Its first line is the client's name; after that, lines are messages.

Run `python examples/chat_server.py`, then `python examples/chat_client.py NAME` in several other terminals.
"""

import argparse
import asyncio

import wtio


class Room:
    def __init__(self) -> None:
        self.members: dict[str, asyncio.Queue[str]] = {}

    async def handle(self, session: wtio.WebTransportSession) -> None:
        stream = await anext(session.incoming_bidirectional_streams())
        name = (await stream.readline(limit=100)).decode().strip()
        if not name or name in self.members:
            await session.close(1, f"the name {name!r} is empty or taken")
            return
        outbox = self.members[name] = asyncio.Queue(maxsize=1000)
        outbox.put_nowait(f"welcome, {name}; here: {', '.join(self.members)}")
        self.say(f"{name} joined", besides=name)
        try:
            async with asyncio.TaskGroup() as tasks:
                delivery = tasks.create_task(deliver(outbox, stream))
                while line := await stream.readline(limit=10_000):
                    self.say(f"{name}: {line.decode().rstrip()}", besides=name)
                delivery.cancel()
        except* wtio.StreamError:
            pass  # The client gave the stream up, which is one way to leave.
        finally:
            del self.members[name]
            self.say(f"{name} left")

    def say(self, text: str, besides: str = "") -> None:
        for name, outbox in self.members.items():
            # A member that does not read misses messages, and delays nobody.
            if name != besides and not outbox.full():
                outbox.put_nowait(text)


async def deliver(outbox: asyncio.Queue[str], stream: wtio.WebTransportStream) -> None:
    while True:
        text = await outbox.get()
        await stream.write(data=f"{text}\n".encode())


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=4433)
    options = parser.parse_args()

    certificate = wtio.dev_certificate()
    async with wtio.serve(Room().handle, "localhost", options.port, tls=certificate.server_tls()) as server:
        print(f"listening on https://localhost:{server.addresses[0][1]}/", flush=True)
        await server.wait_closed()


if __name__ == "__main__":
    wtio.run(main())
