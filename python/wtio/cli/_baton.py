"""Devious baton (draft-frindell-webtrans-devious-baton-00), a game that uses every part of WebTransport.

Numbers go back and forth, each on a stream of its own and one higher than the last, until one wraps around to 0. This
module has messages, rules, and the player that both sides are; ``baton`` has the command.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import wtio

PATH = "/webtransport/devious-baton"
VERSION = 0
MOST_BATONS = 64


class SessionCode(IntEnum):
    """Close codes of a session."""

    NO_ERROR = 0x00
    DA_YAMN = 0x01
    """A stream that the rules require cannot be opened."""
    BRUH = 0x02
    """A message is malformed or incomplete."""
    SUS = 0x03
    """A message has an unexpected value."""
    BORED = 0x04
    """Waited too long for a message."""


class StreamCode(IntEnum):
    """Error codes of a stream."""

    IDC = 0x01
    """In STOP_SENDING: the receiver does not want the message."""
    WHATEVER = 0x02
    """In RESET_STREAM: the peer gave the stream up first."""
    I_LIED = 0x03
    """In RESET_STREAM: there will be no baton after all."""


class GameEnd(Exception):
    """The game is over: close the session with ``code``."""

    def __init__(self, code: SessionCode, reason: str) -> None:
        super().__init__(f"{code.name}: {reason}" if code else reason)
        self.code = code


# -- messages: varint length of the padding, padding, one byte of baton


def encode_varint(value: int) -> bytes:
    """RFC 9000, section 16."""
    for prefix, size in ((0, 1), (1, 2), (2, 4), (3, 8)):
        if value < 1 << (8 * size - 2):
            return (prefix << (8 * size - 2) | value).to_bytes(size, "big")
    raise ValueError(f"{value} does not fit into 62 bits")


def encode_message(baton: int, padding: int = 0) -> bytes:
    return encode_varint(padding) + bytes(padding) + bytes((baton,))


class MessageReader:
    """Reads one message from pieces of any size. Padding of any length is skipped, not kept."""

    def __init__(self) -> None:
        self._head = b""
        self._padding: int | None = None
        self._baton: int | None = None

    def feed(self, data: bytes) -> None:
        if self._padding is None:
            self._head += data
            size = 1 << (self._head[0] >> 6) if self._head else 1
            if len(self._head) < size:
                return
            self._padding = int.from_bytes(self._head[:size], "big") & ((1 << (8 * size - 2)) - 1)
            data, self._head = self._head[size:], b""
        skipped = min(self._padding, len(data))
        self._padding -= skipped
        rest = data[skipped:]
        if rest and self._baton is None:
            self._baton, rest = rest[0], rest[1:]
        if rest:
            raise GameEnd(SessionCode.BRUH, f"{len(rest)} bytes follow the baton")

    def finish(self) -> int:
        """The baton, at the end of the stream or datagram."""
        if self._baton is None:
            raise GameEnd(SessionCode.BRUH, "the message ends before its baton")
        return self._baton


def decode_message(data: bytes) -> int:
    reader = MessageReader()
    reader.feed(data)
    return reader.finish()


# -- the request


class BadRequest(Exception):
    """A request that cannot be served; ``status`` is the answer."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class Request:
    """What a client asks for in its URL."""

    count: int = 1
    """Batons at the same time."""
    baton: int | None = None
    """The first value of each, 1 … 255; None lets the server choose."""

    @property
    def path(self) -> str:
        query = {"version": VERSION, "count": self.count}
        if self.baton is not None:
            query["baton"] = self.baton
        return f"{PATH}?{urlencode(query)}"


def parse_request(path: str) -> Request:
    parts = urlsplit(path)
    if parts.path != PATH:
        raise BadRequest(404, f"the only path here is {PATH}")
    query: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if query.setdefault(name, value) != value:
            raise BadRequest(400, f"{name} is given twice")
    _number(query, "version", VERSION, VERSION)
    count = _number(query, "count", 1, MOST_BATONS)
    return Request(1 if count is None else count, _number(query, "baton", 1, 255))


def _number(query: dict[str, str], name: str, least: int, most: int) -> int | None:
    value = query.get(name)
    if value is None:
        return None
    # Few digits: a number of a million digits would take long to convert.
    if not (value.isascii() and value.isdigit() and len(value) <= 10 and least <= int(value) <= most):
        raise BadRequest(400, f"{name} must be a number between {least} and {most}")
    return int(value)


# -- the rules


class Arrival(Enum):
    """How a message arrived, seen from its receiver, and how the next one is sent."""

    UNIDIRECTIONAL = "a unidirectional stream"
    BIDIRECTIONAL = "the peer's bidirectional stream"
    REPLY = "a bidirectional stream of ours"


@dataclass
class Game:
    """The rules, and how many batons are still in play. It does no I/O."""

    is_client: bool
    count: int
    start: int | None
    """The value of the first messages; None allows any value but 0."""
    expected: dict[Arrival, Counter[int]] = field(init=False)
    """The values that may arrive on the peer's streams, and how many of each."""
    unknown: int = field(init=False, default=0)
    """How many first messages may still arrive, if their value is not known."""

    def __post_init__(self) -> None:
        self.expected = {kind: Counter() for kind in (Arrival.UNIDIRECTIONAL, Arrival.BIDIRECTIONAL)}
        if self.is_client and self.start is None:
            self.unknown = self.count
        elif self.is_client:
            self.expected[Arrival.UNIDIRECTIONAL][self.start or 0] = self.count

    def sent(self, baton: int, answered: Arrival | None) -> None:
        """Note a message of ours; ``answered`` says how its predecessor arrived, None for the first ones."""
        if answered in (None, Arrival.REPLY):
            self.expected[Arrival.BIDIRECTIONAL][successor(baton)] += 1
        elif answered is Arrival.BIDIRECTIONAL:
            self.expected[Arrival.UNIDIRECTIONAL][successor(baton)] += 1

    def received(self, baton: int, arrival: Arrival, answers: int = 0) -> int | None:
        """Note a message of the peer: what to send next, or None if this baton is done.

        ``answers`` is what we sent on the stream that brings a reply.
        """
        if arrival is Arrival.REPLY:
            if baton != successor(answers):
                raise GameEnd(SessionCode.SUS, f"{baton} came as the answer to {answers}")
        elif self.expected[arrival][baton]:
            self.expected[arrival][baton] -= 1
        elif arrival is Arrival.UNIDIRECTIONAL and baton and self.unknown:
            self.unknown -= 1
        else:
            raise GameEnd(SessionCode.SUS, f"nobody expected {baton} on {arrival.value}")
        return successor(baton) if baton else None

    def lost(self) -> None:
        """One baton less: it reached 0, or its stream was reset."""
        self.count -= 1
        if self.count <= 0:
            raise GameEnd(SessionCode.NO_ERROR, "all batons have come to their end")

    def wants_datagram(self, baton: int) -> bool:
        """Whether a received message is also sent back as a datagram."""
        return baton % 7 == (1 if self.is_client else 0)


def successor(baton: int) -> int:
    return (baton + 1) % 256


# -- the player


class Player:
    """One side of a session; both sides do the same, only the server begins."""

    def __init__(
        self,
        session: wtio.WebTransportSession,
        request: Request,
        *,
        padding: int = 32,
        patience: float = 30.0,
        deviousness: float = 0.0,
        tell: Callable[[str], None] = print,
    ) -> None:
        """Make a player.

        Args:
            session: Where to play.
            request: What the client asked for; on the server with the value that it chose.
            padding: Most bytes of padding in a message; how many is left to chance. Datagrams have none.
            patience: Seconds without a message after which the session is closed with BORED.
            deviousness: Share of the batons, 0 … 1, that are given up with a reset instead of being passed on.
            tell: Called with one line about each message.
        """
        self.session = session
        self.game = Game(session.is_client, request.count, request.baton)
        self.request = request
        self.padding = padding
        self.patience = patience
        self.deviousness = deviousness
        self.tell = tell
        self._clock = asyncio.timeout(None)

    async def play(self) -> wtio.CloseInfo:
        """Play until the session ends. Code 0 in the result means success, whoever closed it."""
        try:
            async with asyncio.timeout(self.patience) as self._clock, asyncio.TaskGroup() as tasks:
                tasks.create_task(self._serve())
                if not self.session.is_client:
                    if self.request.baton is None:
                        raise ValueError("the server has to choose where the batons start")
                    for _ in range(self.request.count):
                        tasks.create_task(self._ending(self._pass_on(self.request.baton, None)))
        except* wtio.SessionClosed:
            pass  # The peer has ended it; the result says how.
        except* TimeoutError:
            await self.session.close(SessionCode.BORED, f"no message for {self.patience:g} s")
        return await self.session.wait_closed()

    async def _serve(self) -> None:
        async def unidirectional(stream: wtio.WebTransportReceiveStream) -> None:
            await self._ending(self._receive(stream, Arrival.UNIDIRECTIONAL))

        async def bidirectional(stream: wtio.WebTransportStream) -> None:
            await self._ending(self._receive(stream, Arrival.BIDIRECTIONAL))

        async def datagram(data: bytes) -> None:
            await self._ending(self._hear(data))

        await self.session.serve_streams(bidirectional, unidirectional=unidirectional, datagrams=datagram)

    async def _ending(self, part: Coroutine[Any, Any, None]) -> None:
        """Run a part of the game. In this game, one bad stream does end the session."""
        try:
            await part
        except GameEnd as end:
            # If several go wrong at once, the first one is reported.
            await self.session.close(end.code, str(end) if end.code else "")

    async def _hear(self, data: bytes) -> None:
        # Datagrams may be lost, so nothing depends on them.
        self.tell(f"received {decode_message(data)} in a datagram")

    async def _receive(self, stream: wtio.WebTransportReceiveStream, arrival: Arrival, answers: int = 0) -> None:
        """Read the message of one stream, and pass its baton on."""
        reader = MessageReader()
        try:
            async for data in stream:
                reader.feed(data)
        except wtio.StreamResetError as error:
            if isinstance(stream, wtio.WebTransportStream):
                # Does nothing if our message has arrived.
                await stream.reset(error_code=StreamCode.WHATEVER)
            self.tell(f"the peer gave {arrival.value} up with code {error.error_code}")
            self.game.lost()
            return
        baton = reader.finish()
        if not self._clock.expired():
            self._clock.reschedule(asyncio.get_running_loop().time() + self.patience)
        self.tell(f"received {baton} on {arrival.value}")
        following = self.game.received(baton, arrival, answers)
        if self.game.wants_datagram(baton):
            self.session.send_datagram(encode_message(baton))
        if following is None:
            if isinstance(stream, wtio.WebTransportStream):
                await stream.reset(error_code=0)  # There is no answer, which an empty one would not say.
            self.game.lost()
        else:
            await self._pass_on(following, arrival, stream)

    async def _pass_on(
        self, baton: int, answered: Arrival | None, source: wtio.WebTransportReceiveStream | None = None
    ) -> None:
        """Send a baton on the kind of stream that the rules require after ``answered``; None sends a first one."""
        stream: wtio.WebTransportSendStream
        try:
            if isinstance(source, wtio.WebTransportStream) and answered is Arrival.BIDIRECTIONAL:
                stream = source
            elif answered is Arrival.UNIDIRECTIONAL:
                stream = await self.session.create_bidirectional_stream(wait_until_available=False)
            else:
                stream = await self.session.create_unidirectional_stream(wait_until_available=False)
        except wtio.StreamCreditError as error:
            raise GameEnd(SessionCode.DA_YAMN, str(error)) from error

        if random.random() < self.deviousness:
            await stream.reset(error_code=StreamCode.I_LIED)
            if isinstance(stream, wtio.WebTransportStream):
                await stream.stop_receiving(error_code=StreamCode.IDC)
            self.tell(f"gave {baton} up")
            self.game.lost()
            return
        self.game.sent(baton, answered)
        try:
            await stream.write(data=encode_message(baton, random.randint(0, self.padding)), end_stream=True)
            await stream.wait_acked()
        except wtio.StreamStoppedError as error:
            await stream.reset(error_code=StreamCode.WHATEVER)
            self.tell(f"the peer did not want {baton}, with code {error.error_code}")
            # On a bidirectional stream, the other direction shows what became of the baton.
            if answered is not Arrival.UNIDIRECTIONAL:
                self.game.lost()
                return
        if isinstance(stream, wtio.WebTransportStream) and answered is Arrival.UNIDIRECTIONAL:
            await self._receive(stream, Arrival.REPLY, baton)
