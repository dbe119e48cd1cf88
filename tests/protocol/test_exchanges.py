"""Ordinary requests on a server: their bodies, their answers, and how an exchange ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from wtio.protocol.codes import ErrorCodes
from wtio.protocol.outbox import BodyEnded, BodyReceived, FreeStream, RequestReceived, RequestTerminated

from .pair import Side, connect, data, headers, sent_fields, server

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wtio.protocol.exchanges import AnswerHead

POST = headers((":method", "POST"), (":scheme", "https"), (":authority", "a"), (":path", "/"))
POST_OF_5 = headers(
    (":method", "POST"), (":scheme", "https"), (":authority", "a"), (":path", "/"), ("content-length", "5")
)


def posted(head: bytes = POST) -> Side:
    side = server()
    assert isinstance(side.receive(0, head)[0], RequestReceived)
    return side


def begin(
    side: Side, status: int = 200, fields: Mapping[str, str] = {}, *, size: int | None = None, method: str = "POST"
) -> AnswerHead:
    head = side.h3.exchanges.compose(method, status, list(fields.items()), size)
    side.run(lambda: side.h3.exchanges.begin(0, head))
    return head


def send(side: Side, payload: bytes, *, end: bool = False) -> None:
    side.run(lambda: side.h3.exchanges.send(0, payload, end=end))


def test_a_body_is_passed_on_piece_by_piece_and_then_its_end() -> None:
    side = posted(POST_OF_5)
    assert side.of(RequestReceived)[0].content_length == 5
    assert side.receive(0, data(b"abc")[:4]) == [BodyReceived(0, b"ab")]
    assert side.receive(0, b"c") == [BodyReceived(0, b"c")]
    assert side.receive(0, data(b"de") + headers(("checksum", "1")), True) == [BodyReceived(0, b"de"), BodyEnded(0)]


def test_a_frame_of_which_only_the_head_has_arrived_is_no_piece_of_a_body() -> None:
    side = posted()
    assert side.receive(0, data(b"abc")[:2]) == []
    assert side.receive(0, data(b"abc")[2:]) == [BodyReceived(0, b"abc")]
    assert side.receive(0, data(b"") + data(b"d")) == [BodyReceived(0, b"d")]


def test_only_bodies_of_ordinary_requests_are_read_on_demand() -> None:
    side = server()
    exchanges = side.h3.exchanges
    assert not exchanges.is_on_demand(0)
    assert not exchanges.awaits_head(0)
    side.receive(0, POST[:5])
    assert exchanges.awaits_head(0)
    assert not exchanges.is_on_demand(0)
    side.receive(0, POST[5:])
    assert not exchanges.awaits_head(0)
    assert exchanges.is_on_demand(0)
    side.receive(4, connect())
    assert not exchanges.is_on_demand(4)


@pytest.mark.parametrize("body", [data(b"longer"), data(b"shrt")])
def test_a_body_that_is_not_as_long_as_announced_ends_its_exchange(body: bytes) -> None:
    side = posted(POST_OF_5)
    assert isinstance(side.receive(0, body, True)[-1], RequestTerminated)
    assert side.resets(0) == side.stops(0) == [ErrorCodes.H3_MESSAGE_ERROR]
    assert side.is_free(0)
    assert not side.h3.closed


@pytest.mark.parametrize("has_begun", [False, True])
@pytest.mark.parametrize("how", ["reset", "stop"])
def test_a_client_that_leaves_is_reported_once(how: str, has_begun: bool) -> None:
    side = posted()
    if has_begun:
        begin(side)
    take = side.reset if how == "reset" else side.stop
    (event,) = take(0, ErrorCodes.H3_REQUEST_CANCELLED)
    assert isinstance(event, RequestTerminated)
    assert "H3_REQUEST_CANCELLED" in event.reason
    assert side.resets(0) == [ErrorCodes.H3_REQUEST_CANCELLED]
    assert take(0, 5) == side.receive(0, data(b"late")) == []
    send(side, b"late", end=True)
    side.run(lambda: side.h3.exchanges.abort(0, 1))
    assert side.resets(0) == [ErrorCodes.H3_REQUEST_CANCELLED]
    assert side.outputs.count(FreeStream(0)) == 1


def test_clients_that_take_their_answers_and_leave_are_no_flood() -> None:
    side = server()
    for number in range(0, 8000, 4):
        side.receive(number, POST)
        head = side.h3.exchanges.compose("POST", 200, (), None)
        side.h3.exchanges.begin(number, head)
        side.stop(number, ErrorCodes.H3_REQUEST_CANCELLED)
    assert not side.h3.closed
    for number in range(8000, 16000, 4):
        side.receive(number, POST)
        side.stop(number, ErrorCodes.H3_REQUEST_CANCELLED)
    assert side.close_code == ErrorCodes.H3_EXCESSIVE_LOAD


def test_an_answer_in_pieces_ends_its_stream_and_stops_the_request() -> None:
    side = posted()
    begin(side, 200, {"content-type": "text/plain"})
    assert sent_fields(side) == [(":status", "200"), ("content-type", "text/plain")]
    head = side.sent(0)
    send(side, b"one")
    send(side, b"")
    send(side, b"two", end=True)
    assert side.sent(0) == head + data(b"one") + data(b"two")
    assert side.ended(0)
    assert side.stops(0) == [ErrorCodes.H3_NO_ERROR]
    assert side.is_free(0)


def test_a_complete_request_is_not_stopped() -> None:
    side = posted()
    side.receive(0, b"", True)
    begin(side)
    send(side, b"", end=True)
    assert side.ended(0)
    assert side.stops(0) == []


@pytest.mark.parametrize(("payload", "end"), [(b"longer", False), (b"shrt", True)])
def test_an_answer_keeps_to_its_length(payload: bytes, end: bool) -> None:
    side = posted()
    begin(side, 200, {"content-length": "5"})
    sent = side.sent(0)
    with pytest.raises(ValueError, match="content-length"):
        side.h3.exchanges.send(0, payload, end=end)
    side.collect()
    assert side.sent(0) == sent
    side.run(lambda: side.h3.exchanges.abort(0, ErrorCodes.H3_INTERNAL_ERROR))
    assert side.resets(0) == side.stops(0) == [ErrorCodes.H3_INTERNAL_ERROR]


@pytest.mark.parametrize("fields", [{"content-length": "x"}, {"content-length": "4"}, {"connection": "close"}])
def test_an_answer_that_cannot_be_sent_is_a_value_error(fields: dict[str, str]) -> None:
    side = posted()
    with pytest.raises(ValueError, match=r"content-length|connection"):
        begin(side, 200, fields, size=5)
    assert side.sent(0) == b""
    begin(side)


@pytest.mark.parametrize(
    ("method", "status", "given", "size", "sent", "has_content"),
    [
        ("GET", 200, None, 5, "5", True),
        ("GET", 200, None, 0, "0", True),
        ("GET", 200, None, None, None, True),
        ("GET", 200, "5", None, "5", True),
        ("HEAD", 200, None, 5, "5", False),
        ("HEAD", 200, None, 0, None, False),
        ("HEAD", 200, "7", 0, "7", False),
        ("GET", 204, "7", 0, None, False),
        ("GET", 205, "7", 7, "0", False),
        ("GET", 304, None, 0, None, False),
        ("GET", 304, "7", 0, "7", False),
    ],
)
def test_content_length_follows_method_and_status(
    method: str, status: int, given: str | None, size: int | None, sent: str | None, has_content: bool
) -> None:
    side = posted()
    head = begin(side, status, {} if given is None else {"content-length": given}, size=size, method=method)
    assert dict(sent_fields(side)).get("content-length") == sent
    assert head.has_content == has_content


def test_a_head_that_takes_too_long_is_408() -> None:
    side = server()
    side.receive(0, POST[:5])
    side.run(lambda: side.h3.expire_head(0))
    assert dict(sent_fields(side))[":status"] == "408"
    assert side.ended(0)
    assert side.stops(0) == [ErrorCodes.H3_NO_ERROR]
    side = posted()
    assert side.run(lambda: side.h3.expire_head(0)) == []
    assert side.sent(0) == b""
