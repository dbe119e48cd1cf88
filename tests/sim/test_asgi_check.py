"""``wtio.asgi.check`` finds what an application does against the specification, and leaves a right one alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest

import wtio.asgi

if TYPE_CHECKING:
    from wtio.asgi import ASGIApplication, Message, Receive, Scope, Send

CONNECT: dict[str, Any] = {"type": "webtransport.connect"}
ACCEPT: dict[str, Any] = {"type": "webtransport.accept"}
# The client's streams: a bidirectional and a unidirectional one.
BOTH: dict[str, Any] = {"type": "webtransport.stream.open", "stream": 4, "bidirectional": True}
UP: dict[str, Any] = {"type": "webtransport.stream.open", "stream": 2, "bidirectional": False}
DISCONNECT: dict[str, Any] = {"type": "webtransport.disconnect", "code": 0, "reason": ""}


async def play(application: ASGIApplication, scope: Scope, *received: Message) -> list[Message]:
    """Run a checked application without a server; what it sent."""
    waiting = deque(received)
    sent: list[Message] = []

    async def receive() -> Message:
        await asyncio.sleep(0)
        if not waiting:
            await asyncio.sleep(3600)
        return waiting.popleft()

    async def send(message: Message) -> None:
        await asyncio.sleep(0)
        sent.append(message)

    async with asyncio.timeout(10):
        await wtio.asgi.check(application)(scope, receive, send)
    return sent


def sends(*messages: Any, receives: int = 1) -> ASGIApplication:
    """An application that receives so many messages and then sends these."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(receives):
            await receive()
        for message in messages:
            await send(message)

    return application


def stream(verb: str, name: object = 4, **named: object) -> dict[str, Any]:
    return {"type": f"webtransport.stream.{verb}", "stream": name, **named}


SESSION: Scope = {"type": "webtransport", "subprotocols": ["chat"]}
OPENED = (CONNECT, BOTH, UP)


async def _two_receive(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send(ACCEPT)
    await asyncio.gather(receive(), receive())


async def _two_send(scope: Scope, receive: Receive, send: Send) -> None:
    await sends(ACCEPT, receives=2)(scope, receive, send)
    await asyncio.gather(send(stream("send", data=b"a")), send(stream("send", data=b"b")))


async def _swallows(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send(ACCEPT)
    with contextlib.suppress(Exception):
        await send({"type": "webtransport.datagram.send", "data": "text"})


async def _returns_something(scope: Scope, receive: Receive, send: Send) -> Any:
    await receive()
    await send(ACCEPT)
    return True


@pytest.mark.parametrize(
    ("application", "words"),
    [
        # What a message is.
        (sends("accept"), "a message is a dict"),
        (sends({"kind": "webtransport.accept"}), "a dict with a `type`"),
        (sends({"type": "websocket.accept"}), "`websocket.accept` is no message that may be sent here"),
        (sends({"type": "webtransport.connect"}), "`webtransport.connect` is no message"),
        (sends(ACCEPT | {"protocol": "chat"}), "has no key `protocol`; there are: subprotocol, headers"),
        (sends(ACCEPT | {"headers": {"a": "b"}}), "`headers` .* pairs of bytes"),
        (sends(ACCEPT | {"headers": [("a", "b")]}), "`headers` .* pairs of bytes"),
        (sends(ACCEPT | {"headers": [(b":status", b"b")]}), "pseudo-header"),
        (sends(ACCEPT | {"headers": [(b"X-A", b"b")]}), "lower case"),
        # The answer.
        (sends(ACCEPT | {"subprotocol": "game"}), "none of those that the client offers"),
        (sends(), "without an answer"),
        (sends(ACCEPT, ACCEPT), "`webtransport.accept` was sent after `webtransport.accept`"),
        (sends({"type": "webtransport.reject"}, ACCEPT), "after `webtransport.reject`"),
        (sends({"type": "webtransport.reject", "status": 200}), "an int from 300 to 599"),
        (sends({"type": "webtransport.drain"}), "before `webtransport.accept`"),
        (sends({"type": "webtransport.reject"}, {"type": "webtransport.close"}), "after `webtransport.reject`"),
        # Streams.
        (sends(ACCEPT, stream("read", 8)), "unknown, or over"),
        (sends(ACCEPT, stream("read", 4), receives=1), "unknown, or over"),  # it has not been told of it
        (sends(ACCEPT, stream("send", None)), "`stream` .* must be int or str"),
        (sends(ACCEPT, {"type": "webtransport.stream.send"}), "needs `stream`"),
        (sends(ACCEPT, stream("send", data="text"), receives=2), "`data` .* must be bytes; it is of type str"),
        (sends(ACCEPT, stream("send", end=1), receives=2), "`end` .* must be bool"),
        (sends(ACCEPT, stream("send", end=True), stream("send"), receives=2), "cannot be sent on, or was ended"),
        (sends(ACCEPT, stream("reset"), stream("send"), receives=2), "cannot be sent on, or was ended"),
        (sends(ACCEPT, stream("send", 2), receives=3), "cannot be sent on"),
        (sends(ACCEPT, stream("reset", code=2**32), receives=2), "`code` .* 4294967295"),
        (sends(ACCEPT, stream("stop", code=-1), receives=2), "`code` .* 4294967295"),
        (sends(ACCEPT, stream("read"), stream("read"), receives=2), "before the answer to the one before"),
        (sends(ACCEPT, stream("stop"), stream("read"), receives=2), "cannot be read, or has ended"),
        (sends(ACCEPT, stream("read", max_bytes=0), receives=2), "above 0"),
        (sends(ACCEPT, stream("open", 5)), "`stream` .* must be str"),
        (sends(ACCEPT, stream("open", "a"), stream("open", "a")), "name of a stream that is open"),
        (sends(ACCEPT, stream("open", "a", bidirectional=False), stream("read", "a")), "cannot be read"),
        (
            sends(
                ACCEPT, stream("open", "a", bidirectional=False), stream("send", "a", end=True), stream("reset", "a")
            ),
            "unknown, or over",
        ),
        # The rest.
        (sends(ACCEPT, {"type": "webtransport.datagram.send"}), "needs `data`"),
        (sends(ACCEPT, {"type": "webtransport.datagram.send", "data": "text"}), "must be bytes"),
        (sends(ACCEPT, {"type": "webtransport.close", "code": "0"}), "`code`"),
        (sends(ACCEPT, {"type": "webtransport.close", "reason": b"x"}), "`reason` .* must be str"),
        (sends(ACCEPT, {"type": "webtransport.close", "reason": "ä" * 513}), "1024 bytes"),
        (_two_receive, "two tasks are in `receive`"),
        (_two_send, "two tasks are sending on one stream"),
        (_swallows, "must be bytes"),
        (_returns_something, "returned bool; it returns None"),
    ],
)
async def test_a_fault_in_a_session_is_found(application: ASGIApplication, words: str) -> None:
    with pytest.raises(wtio.asgi.SpecificationError, match=words):
        await play(application, SESSION, *OPENED)


START: dict[str, Any] = {"type": "http.response.start", "status": 200}
BODY: dict[str, Any] = {"type": "http.response.body"}
LENGTH = [(b"content-length", b"5")]
REQUEST: dict[str, Any] = {"type": "http.request", "body": b"", "more_body": False}


@pytest.mark.parametrize(
    ("application", "words"),
    [
        (sends(BODY), "before `http.response.start`"),
        (sends(START, START), "sent twice"),
        (sends(START, BODY, BODY), "after the response was complete"),
        (sends(), "without starting a response"),
        (sends(START), "without completing its response"),
        (sends(START, BODY | {"more_body": True}), "without completing its response"),
        (sends({"type": "http.response.start"}), "needs `status`"),
        (sends(START | {"status": "200"}), "`status`"),
        (sends(START | {"status": 101}), "from 200 to 599"),
        (sends(START | {"headers": [("a", "b")]}), "pairs of bytes"),
        (sends(START, BODY | {"body": "text"}), "must be bytes; it is of type str"),
        (sends(START, BODY | {"more": True}), "has no key `more`; there are: body, more_body"),
        (sends(START | {"trailers": True}), "has no key `trailers`"),
        (sends(START, {"type": "http.response.pathsend", "path": "/etc/motd"}), "no message that may be sent here"),
        (sends(START | {"headers": LENGTH}, BODY | {"body": b"1234"}), "1 bytes shorter"),
        (sends(START | {"headers": LENGTH}, BODY | {"body": b"123456"}), "longer than its content-length"),
        (sends(START | {"headers": [(b"content-length", b"five")]}), "must be one number"),
    ],
)
async def test_a_fault_in_an_answer_is_found(application: ASGIApplication, words: str) -> None:
    with pytest.raises(wtio.asgi.SpecificationError, match=words):
        await play(application, {"type": "http", "method": "GET"}, REQUEST)


LIFESPAN = ({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})


@pytest.mark.parametrize(
    ("application", "words"),
    [
        (sends({"type": "lifespan.startup.complete"}, receives=0), "before `lifespan.startup` was received"),
        (sends({"type": "lifespan.shutdown.complete"}), "before `lifespan.shutdown` was received"),
        (sends(*[{"type": "lifespan.startup.complete"}] * 2), "answered before"),
        (sends(), "without an answer to `lifespan.startup`"),
        (sends({"type": "lifespan.startup.failed", "message": b"x"}), "`message` .* must be str"),
        (sends({"type": "lifespan.complete"}), "no message"),
    ],
)
async def test_a_fault_in_a_lifespan_is_found(application: ASGIApplication, words: str) -> None:
    with pytest.raises(wtio.asgi.SpecificationError, match=words):
        await play(application, {"type": "lifespan"}, *LIFESPAN)


# -- what is right


async def test_a_right_application_is_left_alone() -> None:
    session = sends(
        ACCEPT | {"subprotocol": "chat", "headers": [(b"x-a", b"B")]},
        stream("open", "a"),
        stream("send", "a", data=bytearray(b"x")),
        stream("read", "a", max_bytes=5),
        stream("stop", "a"),
        stream("send", "a", data=memoryview(b"x"), end=True),
        stream("open", "a", bidirectional=False),  # the name is free again
        stream("reset", "a", code=5),
        stream("read"),
        stream("stop"),
        stream("reset"),
        stream("stop", 2),
        {"type": "webtransport.datagram.send", "data": b""},
        {"type": "webtransport.drain"},
        {"type": "webtransport.close", "code": 5, "reason": "ä" * 512},
        receives=3,
    )
    assert len(await play(session, SESSION, *OPENED)) == 15
    assert len(await play(sends({"type": "webtransport.reject", "body": b"no"}), SESSION, CONNECT)) == 1
    # Without an answer to a client that is gone.
    assert await play(sends(receives=2), SESSION, CONNECT, DISCONNECT) == []
    answer = sends(START | {"headers": LENGTH}, BODY | {"body": b"123", "more_body": True}, BODY | {"body": b"45"})
    assert len(await play(answer, {"type": "http", "method": "GET"}, REQUEST)) == 3
    head = sends(START | {"headers": LENGTH}, BODY)
    assert len(await play(head, {"type": "http", "method": "HEAD"}, REQUEST)) == 2
    assert await play(sends(), {"type": "http", "method": "GET"}, {"type": "http.disconnect"}) == []
    # Another scope is none of its business.
    assert len(await play(sends({"type": "websocket.accept"}), {"type": "websocket"}, {})) == 1


async def test_messages_may_cross_the_clients_stop() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await send(stream("open", "a", bidirectional=False))
        assert (await receive())["type"] == "webtransport.stream.stop"
        await send(stream("send", "a", data=b"late"))
        await send(stream("reset", "a"))
        await send(stream("open", "a", bidirectional=False))
        await send(stream("send", "a", end=True))

    stop = {"type": "webtransport.stream.stop", "stream": "a", "code": 1}
    assert len(await play(application, SESSION, CONNECT, stop)) == 6


async def test_a_stream_that_is_reset_cannot_be_read_on() -> None:
    reset = {"type": "webtransport.stream.reset", "stream": 2, "code": 1}

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await receive()
        await send(stream("read", 2))
        await receive()
        await send(stream("read", 2))

    with pytest.raises(wtio.asgi.SpecificationError, match="unknown, or over"):
        await play(application, SESSION, CONNECT, UP, reset)
