"""A game for the browser: in each room, everybody sees everybody move, and there is a chat.

Run `python examples/game.py` and open the page that it prints in several windows; its path is the room. Positions are
datagrams, because a lost one is followed by a newer one; the chat is a stream each way. A page gets a token when it is
loaded, without which nobody is let in. It shows the server's counters, which answer any HTTP/3 request, too.
"""

import argparse
import asyncio
import contextlib
import hmac
import json
import secrets
import struct
from collections import Counter, defaultdict, deque
from pathlib import Path

import wtio

TICK = 0.05  # seconds between two pictures of a room
MOST_PLAYERS = 16  # in a room; its picture has to fit into a datagram
KEY = secrets.token_bytes(32)  # for tokens, which are valid until the server ends


class Player:
    def __init__(self, name: str) -> None:
        self.name = name
        self.x, self.y, self.newest = 0, 0, -1  # datagrams may overtake each other
        self.lines: deque[str] = deque(maxlen=100)  # who does not read misses some, and delays nobody


class Game:
    def __init__(self) -> None:
        self.rooms: defaultdict[str, set[Player]] = defaultdict(set)
        self.counters = Counter(players=0, sessions=0, refused=0, positions=0, lines=0)

    async def admit(self, request: wtio.SessionRequest) -> None:
        name, _, signature = dict(request.query).get("token", "").rpartition(".")
        request.state.name, request.state.room = name, request.path.partition("?")[0]
        if not hmac.compare_digest(signature.encode(), sign(name)):
            self.counters["refused"] += 1
            await request.reject(403)
        elif len(self.rooms.get(request.state.room, ())) >= MOST_PLAYERS:
            # A page is told why it was closed, but not why it was refused.
            await (await request.accept(flush=False)).close(1, "the room is full")

    async def play(self, session: wtio.WebTransportSession) -> None:
        player, room = Player(session.state.name), self.rooms[session.state.room]

        def say(text: str) -> None:
            for other in room:
                other.lines.append(f"{player.name}{text}\n")

        def move(datagram: bytes) -> None:
            number, x, y = struct.unpack("!IHH", datagram)
            if number > player.newest:
                player.x, player.y, player.newest = x, y, number
                self.counters["positions"] += 1

        async def hear(stream: wtio.WebTransportReceiveStream) -> None:
            while line := await stream.readline(limit=500):
                say(f": {line.decode(errors='replace').strip()}")
                self.counters["lines"] += 1

        async def show() -> None:
            with contextlib.suppress(wtio.SessionClosed, wtio.StreamError):
                chat = await session.create_unidirectional_stream()
                while True:
                    players = [(other.name, other.x, other.y) for other in room]
                    session.send_datagram(json.dumps([players, self.counters]).encode())
                    lines, player.lines = player.lines, deque(maxlen=100)
                    await chat.write(data="".join(lines).encode())
                    await asyncio.sleep(TICK)

        room.add(player)
        say(" joined")
        self.counters.update(players=1, sessions=1)
        showing = asyncio.create_task(show())
        try:
            await session.serve_streams(unidirectional=hear, datagrams=move)
        finally:
            showing.cancel()
            room.remove(player)
            say(" left")
            self.counters["players"] -= 1
            if not room:
                del self.rooms[session.state.room]

    def answer(self, request: wtio.HttpRequest) -> wtio.HttpResponse:
        return wtio.HttpResponse(status=200, body=json.dumps(self.counters).encode())


def sign(name: str) -> bytes:
    return hmac.digest(KEY, name.encode(), "sha256").hex().encode()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--page-port", type=int, default=8080)
    page_port = parser.parse_args().page_port
    game, own = Game(), wtio.dev_certificate()
    html = Path(__file__).with_suffix(".html").read_text().replace("/*options*/", own.javascript)

    async def send_page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()  # whatever is asked for, there is one page
        name = f"player {secrets.token_hex(2)}"
        facts = json.dumps({"port": server.addresses[0][1], "name": name, "token": f"{name}.{sign(name).decode()}"})
        writer.write(b"HTTP/1.0 200 OK\r\ncontent-type: text/html\r\n\r\n")
        writer.write(html.replace("/*facts*/", facts).encode())
        writer.close()

    serving = wtio.serve(game.play, "localhost", 0, tls=own.server_tls(), admit=game.admit, http=game.answer)
    async with serving as server, await asyncio.start_server(send_page, "localhost", page_port) as pages:
        print(f"open http://localhost:{pages.sockets[0].getsockname()[1]}/lobby", flush=True)
        await server.wait_closed()


if __name__ == "__main__":
    wtio.run(main())
