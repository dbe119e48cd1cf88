"""Request streams: frames, header sections, asking for and answering session requests (requirements 16 to 34)."""

from typing import Any

import pytest

from wtio.protocol import varint
from wtio.protocol.codes import ErrorCodes
from wtio.protocol.dialects import Dialect
from wtio.protocol.faults import SessionStateError
from wtio.protocol.frames import encode_record
from wtio.protocol.limits import ProtocolLimits
from wtio.protocol.outbox import (
    BodyEnded,
    RequestReceived,
    RequestRefused,
    Send,
    SessionAccepted,
    SessionFinished,
    SessionRejected,
    SessionRequested,
    SessionStopping,
    SessionTerminated,
)

from .pair import (
    CHROMIUM,
    CLIENT_CONTROL,
    DRAFT15_SERVER,
    DRAIN,
    GREASE,
    Pair,
    client,
    close,
    connect,
    connect_fields,
    connecting_client,
    control_stream,
    data,
    headers,
    open_client,
    open_server,
    requested_server,
    sent_fields,
    server,
)

DRAFT02_SERVER = [(0x33, 1), (0x2B603742, 1)]
DRAFT07_SERVER = [(0x08, 1), (0x33, 1), (0xC671706A, 4)]
GREASE_FRAME = encode_record(GREASE, b"anything")


# -- what a client sends


def test_r16_r17_h12_connect_has_its_pseudo_headers_first() -> None:
    side = client()
    side.run(
        lambda: side.h3.send_connect(
            0, authority="example.org:444", path="/a?b", headers=[("X-One", "1")], origin="https://example.org"
        )
    )
    assert sent_fields(side) == [
        (":method", "CONNECT"),
        (":scheme", "https"),
        (":authority", "example.org:444"),
        (":path", "/a?b"),
        (":protocol", "webtransport-h3"),
        ("origin", "https://example.org"),
        ("x-one", "1"),
    ]
    assert not side.ended(0)


@pytest.mark.parametrize(
    ("settings", "token", "legacy"),
    [
        (DRAFT02_SERVER, "webtransport", True),
        (DRAFT07_SERVER, "webtransport", False),
        (DRAFT15_SERVER, "webtransport-h3", False),
    ],
)
def test_r16_token_and_legacy_header_follow_the_dialect(
    settings: list[tuple[int, int]], token: str, legacy: bool
) -> None:
    fields = sent_fields(connecting_client(settings))
    assert (":protocol", token) in fields
    assert (("sec-webtransport-http3-draft02", "1") in fields) == legacy


def test_r18_native_client_need_not_send_origin() -> None:
    assert "origin" not in dict(sent_fields(connecting_client()))


def test_r28_offer_is_a_list_of_strings_in_order_of_preference() -> None:
    side = connecting_client(protocols=["moq-01", 'a"b', "z"])
    assert ("wt-available-protocols", '"moq-01", "a\\"b", "z"') in sent_fields(side)


@pytest.mark.parametrize(
    "options",
    [
        {"protocols": ["é"]},
        {"protocols": ["a", "a"]},
        {"protocols": [""]},
        {"protocols": ["a" * 513]},
        {"path": "nowhere"},
        {"path": ""},
        {"path": "/a b"},
        {"path": "/a#b"},
        {"path": "/é"},
        {"authority": ""},
        {"authority": "a b"},
        {"authority": "user@a"},
        {"authority": "a\r\nb"},
        {"headers": [(":path", "/")]},
        {"headers": [("a b", "c")]},
        {"headers": [("", "c")]},
        {"headers": [("a", "b\nc")]},
        {"headers": [("a", " b")]},
        {"headers": [("a", "\u0100")]},
        {"headers": [("Connection", "close")]},
        {"headers": [("te", "trailers")]},
        {"headers": [("Host", "a")]},
        {"headers": [("WT-Available-Protocols", "a")]},
        {"headers": [("origin", "a")], "origin": "b"},
        {"origin": "a\nb"},
        {"headers": [("a", "b" * 70000)]},
    ],
)
def test_connect_that_cannot_be_sent_is_a_value_error_and_sends_nothing(options: dict[str, Any]) -> None:
    side = client([*DRAFT15_SERVER, (0x06, 65536)])
    with pytest.raises(ValueError, match=r"."):
        side.h3.send_connect(0, **{"authority": "a", "path": "/", **options})
    assert side.collect() == []
    assert side.sent(0) == b""
    side.h3.send_connect(0, authority="a", path="/")


@pytest.mark.parametrize("stream_id", [1, 2, 3, 0])
def test_connect_needs_a_fresh_bidirectional_stream(stream_id: int) -> None:
    side = connecting_client()
    with pytest.raises(ValueError, match="fresh"):
        side.h3.send_connect(stream_id, authority="a", path="/")


def test_r10_client_does_not_connect_to_a_server_without_webtransport() -> None:
    with pytest.raises(SessionStateError, match="no WebTransport"):
        client([(0x33, 1), (0x08, 1)]).h3.send_connect(0, authority="a", path="/")


def test_r61_client_has_one_session_without_flow_control() -> None:
    side = open_client()
    with pytest.raises(SessionStateError, match="1 session"):
        side.h3.send_connect(4, authority="a", path="/")
    side.run(lambda: side.h3.close_session(0, 0, ""))
    side.h3.send_connect(4, authority="a", path="/")


def test_draft07_client_keeps_to_the_servers_number_of_sessions() -> None:
    side = client([(0x08, 1), (0x33, 1), (0xC671706A, 2)])
    side.h3.send_connect(0, authority="a", path="/")
    side.h3.send_connect(4, authority="a", path="/")
    with pytest.raises(SessionStateError, match="2 session"):
        side.h3.send_connect(8, authority="a", path="/")


# -- what a server makes of a request


def test_request_is_announced_with_all_its_facts() -> None:
    side = server(CHROMIUM)
    more = (
        ("sec-webtransport-http3-draft02", "1"),
        ("origin", "https://page.example"),
        ("wt-available-protocols", '"b", "a"'),
        ("x", "1"),
        ("x", "2"),
    )
    assert side.receive(0, connect(*more, token="webtransport") + GREASE_FRAME) == [
        SessionRequested(
            stream_id=0,
            method="CONNECT",
            scheme="https",
            authority="example.org",
            path="/chat?room=1",
            protocol_token="webtransport",
            headers=list(more),
            origin="https://page.example",
            protocols=("b", "a"),
            dialect=Dialect.D02,
        )
    ]


def test_h12_chromiums_order_of_pseudo_headers_is_fine() -> None:
    side = server(CHROMIUM)
    fields = connect_fields(token="webtransport")
    side.receive(0, headers(fields[1], fields[0], *fields[2:]))
    assert side.of(SessionRequested)


def test_r19_origin_is_absent_where_the_client_sent_none() -> None:
    assert requested_server().of(SessionRequested)[0].origin is None


@pytest.mark.parametrize("offer", ["a, b", '"a", b', '"a', '"a",', "1"])
def test_r31_malformed_offer_counts_as_none(offer: str) -> None:
    side = requested_server(("wt-available-protocols", offer))
    assert side.of(SessionRequested)[0].protocols == ()


def test_r28_offer_may_come_in_several_lines() -> None:
    side = requested_server(("wt-available-protocols", '"a"'), ("wt-available-protocols", '"b";q=1'))
    assert side.of(SessionRequested)[0].protocols == ("a", "b")


ANNOUNCEMENT = {"draft02": 0x2B603742, "draft07": 0xC671706A, "draft13": 0x14E9CD29, "draft15": 0x2C7CF000}
READS_TOKENS = {"draft02": True, "draft07": True, "draft13": False, "draft15": False}
READS_DRAFT09 = {"draft02": False, "draft07": True, "draft13": False, "draft15": False}
WRONG_CHOICE_CLOSES = {"draft02": False, "draft07": False, "draft13": False, "draft15": True}


@pytest.mark.parametrize("dialect", ANNOUNCEMENT)
def test_r30_r34_older_dialects_offer_tokens(dialect: str) -> None:
    side = server([(0x33, 1), (ANNOUNCEMENT[dialect], 1)])
    side.receive(0, connect(("wt-available-protocols", 'moq-00, "b"')))
    [request] = side.of(SessionRequested)
    assert request.dialect == dialect
    assert request.protocols == (("moq-00", "b") if READS_TOKENS[dialect] else ())


@pytest.mark.parametrize("dialect", ANNOUNCEMENT)
def test_r34_draft_07_may_speak_as_draft_09(dialect: str) -> None:
    side = server([(0x33, 1), (ANNOUNCEMENT[dialect], 1)])
    side.receive(0, connect(("webtransport-subprotocols-available", "old")))
    assert side.of(SessionRequested)[0].protocols == (("old",) if READS_DRAFT09[dialect] else ())


@pytest.mark.parametrize("dialect", ANNOUNCEMENT)
@pytest.mark.parametrize(("value", "protocol"), [("a", "a"), ('"a"', "a"), ('"z"', None)])
def test_r32_r34_choice_is_judged_by_the_dialect(dialect: str, value: str, protocol: str | None) -> None:
    side = connecting_client([(0x08, 1), (0x33, 1), (ANNOUNCEMENT[dialect], 1)], protocols=["a"])
    side.receive(0, headers((":status", "200"), ("wt-protocol", value)))
    if value == '"z"' and WRONG_CHOICE_CLOSES[dialect]:
        assert side.resets(0) == [ErrorCodes.WT_ALPN_ERROR]
        return
    is_read = value != "a" or READS_TOKENS[dialect]
    assert side.of(SessionAccepted)[0].protocol == (protocol if is_read else None)


@pytest.mark.parametrize("value", ["u=0, i", "u=9", "?!", ""])
def test_r90_priority_of_a_request_is_the_applications_to_read(value: str) -> None:
    side = requested_server(("priority", value))
    assert ("priority", value) in side.of(SessionRequested)[0].headers


def test_r25_capsule_protocol_header_means_nothing() -> None:
    assert open_server(("capsule-protocol", "?0")).h3.session_state(0) == "open"


BASE = connect_fields()


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [field for field in BASE if field[0] != ":method"],
        [field for field in BASE if field[0] != ":scheme"],
        [field for field in BASE if field[0] != ":path"],
        [field for field in BASE if field[0] != ":authority"],
        [*BASE, (":path", "/")],
        [*BASE, (":status", "200")],
        [*BASE, (":unknown", "1")],
        [("a", "b"), *BASE],
        [*BASE[:2], ("a", "b"), *BASE[2:]],
        [*BASE, ("Upper", "case")],
        [*BASE, ("", "empty")],
        [*BASE, ("bad name", "1")],
        [*BASE, ("a", "b\r\nc")],
        [*BASE, ("a", "\0")],
        [*BASE, ("a", " padded")],
        [*BASE, ("a", "padded\t")],
        [*BASE, ("connection", "close")],
        [*BASE, ("transfer-encoding", "chunked")],
        [*BASE, ("te", "gzip")],
        [*BASE, ("host", "elsewhere")],
        [*BASE, ("host", "example.org"), ("host", "example.org")],
        [*BASE, ("origin", "a"), ("origin", "b")],
        [*BASE, ("content-length", "x")],
        [*BASE, ("content-length", "1"), ("content-length", "2")],
        [(":method", "CONNECT"), (":scheme", "http"), *BASE[2:]],
        [(":method", "GET"), *BASE[1:]],
        [*BASE[:2], (":authority", ""), *BASE[3:]],
        [*BASE[:2], (":authority", "user@host"), *BASE[3:]],
        [*BASE[:3], (":path", ""), BASE[4]],
        [*BASE[:3], (":path", "chat"), BASE[4]],
        [*BASE[:3], (":path", "*"), BASE[4]],
        [*BASE[:4], (":protocol", "web transport")],
        [(":method", "CONNECT"), (":authority", "a"), (":path", "/")],
        [(":method", "CONNECT"), ("host", "a")],
        [(":method", "GET"), (":scheme", "https"), (":path", "/")],
        [*BASE[:2], *BASE[3:], ("host", "example.org")],
    ],
)
def test_malformed_request_is_message_error_of_its_stream(fields: list[tuple[str, str]]) -> None:
    side = server()
    assert side.receive(0, headers(*fields)) == []
    assert side.resets(0) == side.stops(0) == [ErrorCodes.H3_MESSAGE_ERROR]
    assert side.is_free(0)
    assert side.close_code is None
    side.receive(4, connect())
    assert side.of(SessionRequested)


def test_request_with_matching_host_is_fine() -> None:
    assert requested_server(("host", "EXAMPLE.org"), ("te", "trailers")).of(SessionRequested)


def test_other_extended_connect_is_answered_501() -> None:
    side = server()
    assert side.receive(0, connect(token="websocket")) == [RequestRefused(0, 501)]
    assert (":status", "501") in sent_fields(side)
    assert side.ended(0)
    assert side.is_free(0)


# -- ordinary requests

GET = headers((":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/index?x"), ("accept", "*/*"))


def test_h13_ordinary_request_can_be_answered() -> None:
    side = server()
    assert side.receive(0, GET, True) == [
        RequestReceived(0, "GET", "/index?x", [("accept", "*/*")], "https", "a", None),
        BodyEnded(0),
    ]
    side.run(lambda: side.h3.reject(0, 405, headers=[("Allow", "CONNECT")], body=b"no"))
    assert sent_fields(side) == [(":status", "405"), ("allow", "CONNECT"), ("content-length", "2")]
    assert side.sent(0).endswith(data(b"no"))
    assert side.ended(0)
    assert side.is_free(0)
    assert side.resets(0) == side.stops(0) == []


def test_request_without_webtransport_needs_no_settings() -> None:
    side = server(None)
    assert side.receive(0, GET)


def test_plain_connect_is_an_ordinary_request() -> None:
    side = server()
    assert side.receive(0, headers((":method", "CONNECT"), (":authority", "a:1"))) == [
        RequestReceived(0, "CONNECT", "", [], "", "a:1", None)
    ]


def test_authority_of_an_ordinary_request_may_be_in_host() -> None:
    side = server()
    side.receive(0, headers((":method", "GET"), (":scheme", "https"), (":path", "/"), ("host", "b")))
    assert side.of(RequestReceived)[0].authority == "b"


def test_answer_to_head_has_no_body() -> None:
    side = server()
    side.receive(0, headers((":method", "HEAD"), (":scheme", "https"), (":authority", "a"), (":path", "/")), True)
    side.run(lambda: side.h3.reject(0, 200, body=b"hello"))
    assert sent_fields(side) == [(":status", "200"), ("content-length", "5")]
    assert b"hello" not in side.sent(0)


def test_answer_204_has_no_length() -> None:
    side = server()
    side.receive(0, GET, True)
    side.run(lambda: side.h3.reject(0, 204, body=b"x"))
    assert sent_fields(side) == [(":status", "204")]
    assert not side.sent(0).endswith(b"x")


def test_finished_streams_are_remembered_for_a_while_only() -> None:
    side = server()
    for stream_id in range(0, 4 * 2000, 4):
        side.receive(stream_id, GET, True)
        side.run(lambda number=stream_id: side.h3.reject(number, 404))  # type: ignore[misc]
    assert len(side.h3.outbox._freed or ()) == 512
    assert side.receive(4 * 1999, GET) == []


def test_streams_of_our_own_bring_nothing() -> None:
    for stream_id in (1, 3):
        assert server().receive(stream_id, b"\x00", True) == []
    for stream_id in (0, 2):
        assert client().receive(stream_id, b"\x00", True) == []


def test_answer_before_the_end_of_the_request_stops_it_without_error() -> None:
    side = server()
    side.receive(0, GET)
    side.run(lambda: side.h3.reject(0, 404))
    assert side.stops(0) == [ErrorCodes.H3_NO_ERROR]
    side.receive(0, data(b"late"), True)
    assert side.close_code is None
    with pytest.raises(SessionStateError):
        side.h3.reject(0, 404)


def test_body_of_a_request_is_not_kept() -> None:
    side = server(limits=ProtocolLimits(max_buffered=1000))
    side.receive(0, GET + varint.encode(0) + varint.encode(10_000_000))
    for _ in range(100):
        side.receive(0, bytes(100_000))
    assert side.close_code is None
    side.receive(0, headers(("trailer", "1")), True)
    assert side.close_code is None


@pytest.mark.parametrize(("length", "body"), [("3", b"ab"), ("1", b"ab"), ("1", b"")])
def test_body_that_differs_from_content_length_is_message_error(length: str, body: bytes) -> None:
    side = server()
    fields = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "a"),
        (":path", "/"),
        ("content-length", length),
    ]
    side.receive(0, headers(*fields) + data(body), True)
    assert side.resets(0) == [ErrorCodes.H3_MESSAGE_ERROR]


def test_cancelled_ordinary_request_is_freed() -> None:
    side = server()
    side.receive(0, GET)
    side.reset(0, ErrorCodes.H3_REQUEST_CANCELLED)
    assert side.is_free(0)
    with pytest.raises(SessionStateError):
        side.h3.reject(0, 404)
    side.receive(4, GET)
    side.stop(4, ErrorCodes.H3_REQUEST_CANCELLED)
    assert side.is_free(4)


# -- frames of request streams


def test_data_before_headers_is_unexpected() -> None:
    side = server()
    side.receive(0, data(b"x"))
    assert side.close_code == ErrorCodes.H3_FRAME_UNEXPECTED


def test_data_after_trailers_is_unexpected() -> None:
    side = server()
    side.receive(0, GET + headers(("a", "b")) + data(b""))
    assert side.close_code == ErrorCodes.H3_FRAME_UNEXPECTED


def test_third_header_section_is_unexpected() -> None:
    side = server()
    side.receive(0, GET + headers(("a", "b")) + headers(("a", "b")))
    assert side.close_code == ErrorCodes.H3_FRAME_UNEXPECTED


def test_trailers_with_pseudo_headers_are_message_error() -> None:
    side = server()
    side.receive(0, GET + headers((":path", "/")))
    assert side.resets(0) == [ErrorCodes.H3_MESSAGE_ERROR]


@pytest.mark.parametrize("opened", [open_server, requested_server, open_client])
def test_headers_on_a_session_is_unexpected(opened: Any) -> None:
    side = opened()
    side.receive(0, headers(("a", "b")))
    assert side.close_code == ErrorCodes.H3_FRAME_UNEXPECTED


@pytest.mark.parametrize("kind", [0x3, 0x4, 0x7, 0xD, 0x2, 0x6, 0x8, 0x9, 0xF0700, 0xF0701])
@pytest.mark.parametrize("opened", [server, open_server, open_client])
def test_frame_of_the_control_stream_is_unexpected(kind: int, opened: Any) -> None:
    side = opened()
    side.receive(0 if opened is not server else 8, varint.encode(kind) + varint.encode(2**50))
    assert side.close_code == ErrorCodes.H3_FRAME_UNEXPECTED


def test_push_promise_is_unexpected_at_a_server_and_id_error_at_a_client() -> None:
    side = open_server()
    side.receive(0, encode_record(0x5, b"\x00"))
    assert side.close_code == ErrorCodes.H3_FRAME_UNEXPECTED
    other = open_client()
    other.receive(0, encode_record(0x5, b"\x00"))
    assert other.close_code == ErrorCodes.H3_ID_ERROR


@pytest.mark.parametrize("opened", [requested_server, open_server, open_client, connecting_client])
def test_r39_stream_signal_inside_a_request_stream_is_frame_error(opened: Any) -> None:
    side = opened()
    side.receive(0, b"\x40\x41\x00payload")
    assert side.close_code == ErrorCodes.H3_FRAME_ERROR


@pytest.mark.parametrize("opened", [open_server, open_client])
def test_h1_grease_frames_and_capsules_are_skipped(opened: Any) -> None:
    side = opened()
    stream = GREASE_FRAME + data(encode_record(0x17, b"grease") + encode_record(0x1F * 3 + 0x17, b"")) + GREASE_FRAME
    for byte in stream + DRAIN:
        side.receive(0, bytes((byte,)))
    assert [type(event).__name__ for event in side.events[-1:]] == ["SessionDraining"]
    assert side.close_code is None


def test_stream_that_ends_inside_a_frame_is_frame_error() -> None:
    for piece in (connect()[:-1], connect() + b"\x00\x05abc", connect() + b"\x00", connect() + b"\x40"):
        side = server()
        side.receive(0, piece, True)
        assert side.close_code == ErrorCodes.H3_FRAME_ERROR


@pytest.mark.parametrize("head", [b"", b"\x40", b"\x40\x41", b"\xc0\x00", GREASE_FRAME])
def test_r40_stream_that_ends_before_its_headers_is_request_incomplete(head: bytes) -> None:
    side = server()
    side.receive(0, head, True)
    assert side.close_code is None
    assert side.resets(0) == [ErrorCodes.H3_REQUEST_INCOMPLETE]
    assert side.is_free(0)


def test_headers_too_large_are_answered_431() -> None:
    side = server(limits=ProtocolLimits(max_field_section_size=300))
    side.receive(0, connect(*[("a", "b")] * 10))
    assert (":status", "431") in sent_fields(side)
    assert side.ended(0)
    assert side.is_free(0)
    assert side.events[1:] == [RequestRefused(0, 431)]


def test_x2_headers_frame_too_large_is_answered_before_it_is_read() -> None:
    side = server()
    side.receive(0, b"\x01" + varint.encode(2**40))
    assert (":status", "431") in sent_fields(side)
    side.receive(0, bytes(100_000))
    assert side.close_code is None


def test_client_gives_up_a_response_that_is_too_large() -> None:
    side = connecting_client()
    side.receive(0, b"\x01" + varint.encode(2**40))
    assert side.resets(0) == [ErrorCodes.H3_EXCESSIVE_LOAD]
    assert side.of(SessionTerminated)[0].wire_code == ErrorCodes.H3_EXCESSIVE_LOAD


def test_x2_incomplete_frames_over_all_streams_are_bounded() -> None:
    side = server(limits=ProtocolLimits(max_buffered=200_000))
    for stream_id in range(0, 400, 4):
        side.receive(stream_id, b"\x01" + varint.encode(60_000) + bytes(50_000))
        if side.close_code is not None:
            break
    assert side.close_code == ErrorCodes.H3_EXCESSIVE_LOAD
    assert stream_id == 4 * 4


def test_buffers_are_given_back_when_streams_end() -> None:
    side = server(limits=ProtocolLimits(max_buffered=100_000))
    for stream_id in range(0, 400, 4):
        side.receive(stream_id, b"\x01" + varint.encode(60_000) + bytes(50_000))
        side.reset(stream_id, 0)
    assert side.close_code is None


def test_undecodable_headers_close_the_connection() -> None:
    side = server()
    side.receive(0, encode_record(0x1, b"\x02\x00\x80"))
    assert side.close_code == ErrorCodes.QPACK_DECOMPRESSION_FAILED


# -- answers of a server


def test_accept_answers_200_and_keeps_the_stream_open() -> None:
    side = requested_server()
    assert side.run(lambda: side.h3.accept(0, headers=[("X-Y", "z")])) == []
    assert sent_fields(side) == [(":status", "200"), ("x-y", "z")]
    assert not side.ended(0)
    assert side.h3.session_state(0) == "open"


@pytest.mark.parametrize("settings", [CHROMIUM, [(0x33, 1), (0x2C7CF000, 1), (0x2B603742, 1)]])
def test_draft02_header_is_answered_where_it_was_sent(settings: list[tuple[int, int]]) -> None:
    side = server(settings)
    side.receive(0, connect(("sec-webtransport-http3-draft02", "1")))
    side.run(lambda: side.h3.accept(0))
    assert ("sec-webtransport-http3-draft", "draft02") in sent_fields(side)


def test_r29_choice_is_one_string_of_the_offer() -> None:
    side = requested_server(("wt-available-protocols", '"a", "b\\""'))
    with pytest.raises(ValueError, match="not offered"):
        side.h3.accept(0, protocol="c")
    side.run(lambda: side.h3.accept(0, protocol='b"'))
    assert sent_fields(side) == [(":status", "200"), ("wt-protocol", '"b\\""')]


@pytest.mark.parametrize("field", [("wt-protocol", "a"), ("content-length", "0"), (":x", "y"), ("a", "\n")])
def test_header_that_cannot_be_sent_leaves_the_request_open(field: tuple[str, str]) -> None:
    side = requested_server()
    with pytest.raises(ValueError, match=r"."):
        side.h3.accept(0, headers=[field])
    with pytest.raises(ValueError, match=r"."):
        side.h3.reject(0, 403, headers=[field])
    side.h3.accept(0)


def test_reject_ends_the_stream() -> None:
    side = requested_server()
    assert side.run(lambda: side.h3.reject(0, 403, headers=[("why", "no")], body=b"sorry")) == []
    assert sent_fields(side) == [(":status", "403"), ("why", "no"), ("content-length", "5")]
    assert side.ended(0)
    assert side.stops(0) == []
    assert side.receive(0, b"", True) == [SessionFinished(0)]
    assert side.is_free(0)


@pytest.mark.parametrize("status", [200, 204, 299, 199, 600, 100])
def test_rejecting_needs_a_status_of_rejection(status: int) -> None:
    side = requested_server()
    with pytest.raises(ValueError, match="status"):
        side.h3.reject(0, status)


def test_rejected_client_that_goes_on_sending_is_stopped() -> None:
    side = requested_server(limits=ProtocolLimits(max_discard=1000))
    side.run(lambda: side.h3.reject(0, 404))
    side.receive(0, bytes(1000))
    assert side.stops(0) == []
    assert side.receive(0, b"!") == [SessionFinished(0)]
    assert side.stops(0) == [ErrorCodes.H3_NO_ERROR]


@pytest.mark.parametrize("first", ["accept", "reject"])
@pytest.mark.parametrize("second", ["accept", "reject"])
def test_c6_a_request_is_answered_once(first: str, second: str) -> None:
    side = requested_server()

    def answer(how: str) -> None:
        if how == "accept":
            side.h3.accept(0)
        else:
            side.h3.reject(0, 404)

    answer(first)
    side.collect()
    sent = side.sent(0)
    with pytest.raises(SessionStateError):
        answer(second)
    side.collect()
    assert side.sent(0) == sent


@pytest.mark.parametrize("stream_id", [4, 2])
def test_c6_what_was_never_requested_cannot_be_answered(stream_id: int) -> None:
    side = requested_server()
    with pytest.raises(SessionStateError):
        side.h3.accept(stream_id)
    with pytest.raises(SessionStateError):
        side.h3.reject(stream_id, 404)


def test_c6_request_that_the_client_cancelled_cannot_be_answered() -> None:
    side = requested_server()
    events = side.reset(0, ErrorCodes.H3_REQUEST_CANCELLED)
    assert [type(event) for event in events] == [SessionTerminated, SessionFinished]
    assert side.is_free(0)
    with pytest.raises(SessionStateError):
        side.h3.accept(0)


@pytest.mark.trap("S16")
def test_r62_extra_session_without_flow_control_is_request_rejected() -> None:
    side = open_server()
    assert side.receive(4, connect()) == []
    assert side.resets(4) == side.stops(4) == [ErrorCodes.H3_REQUEST_REJECTED]
    assert side.close_code is None
    assert side.h3.session_state(0) == "open"


def test_r64_session_ends_before_the_next_is_accepted() -> None:
    side = open_server()
    side.receive(0, close(), True)
    assert side.receive(4, connect())
    side.run(lambda: side.h3.reject(4, 404))
    assert side.receive(8, connect())


def test_draft02_connection_carries_as_many_sessions_as_allowed() -> None:
    side = server(CHROMIUM, max_sessions=2)
    for stream_id in (0, 4, 8):
        side.receive(stream_id, connect(token="webtransport"))
    assert [event.stream_id for event in side.of(SessionRequested)] == [0, 4]
    assert side.resets(8) == [ErrorCodes.H3_REQUEST_REJECTED]
    assert side.h3.sessions == 2


def test_r26_capsules_before_the_answer_are_held_until_it() -> None:
    side = requested_server()
    assert side.receive(0, data(encode_record(0x17, bytes(1000))) + DRAIN + close(7, "already"), True) == []
    events = side.run(lambda: side.h3.accept(0))
    assert [type(event).__name__ for event in events] == ["SessionDraining", "SessionTerminated", "SessionFinished"]
    assert events[1] == SessionTerminated(0, 7, "already", clean=True, by="peer", wire_code=None)
    assert side.ended(0)


def test_r26_end_before_the_answer_is_held_until_it() -> None:
    side = requested_server()
    assert side.receive(0, b"", True) == []
    assert [type(event) for event in side.run(lambda: side.h3.accept(0))] == [SessionTerminated, SessionFinished]


@pytest.mark.parametrize("code", [b"\xff", b"\xc3"])
def test_r26_broken_reason_before_the_answer_shows_when_the_session_is_accepted(code: bytes) -> None:
    side = requested_server()
    side.receive(0, data(encode_record(0x2843, bytes(4) + code)))
    [closed, _] = side.run(lambda: side.h3.accept(0))
    assert isinstance(closed, SessionTerminated)
    assert closed.wire_code == ErrorCodes.H3_MESSAGE_ERROR
    assert side.resets(0) == [ErrorCodes.H3_MESSAGE_ERROR]


def test_r26_capsules_of_a_rejected_session_are_dropped() -> None:
    side = requested_server()
    side.receive(0, DRAIN + close(7, "already"), True)
    assert side.run(lambda: side.h3.reject(0, 404)) == [SessionFinished(0)]


def test_r26_capsules_of_a_parked_request_are_held() -> None:
    side = server(None)
    side.receive(0, connect() + DRAIN + close(3, "x"), True)
    side.receive(CLIENT_CONTROL, control_stream([(0x33, 1), (0x2C7CF000, 1)]))
    assert side.run(lambda: side.h3.accept(0))[1] == SessionTerminated(0, 3, "x", clean=True, by="peer", wire_code=None)


def test_x3_held_capsules_are_bounded() -> None:
    side = requested_server()
    side.receive(0, DRAIN * 64)
    assert side.resets(0) == []
    side.receive(0, DRAIN)
    assert side.resets(0) == [ErrorCodes.H3_EXCESSIVE_LOAD]


def test_r26_broken_capsule_before_the_answer_ends_the_request() -> None:
    side = requested_server()
    [closed, finished] = side.receive(0, close() + data(b"x"))
    assert isinstance(closed, SessionTerminated)
    assert (closed.by, closed.wire_code) == ("local", ErrorCodes.H3_MESSAGE_ERROR)
    assert finished == SessionFinished(0)


# -- what a client makes of the answer


@pytest.mark.parametrize("status", ["200", "201", "204", "299"])
def test_r21_h13_any_2xx_establishes(status: str) -> None:
    side = connecting_client()
    assert side.receive(0, headers((":status", status), ("server", "x"))) == [
        SessionAccepted(0, int(status), [("server", "x")], None)
    ]
    assert side.h3.session_state(0) == "open"


@pytest.mark.parametrize("status", ["301", "307", "400", "404", "405", "429", "500"])
def test_r22_h13_any_other_status_rejects_and_redirects_are_not_followed(status: str) -> None:
    side = connecting_client()
    answer = headers((":status", status), ("location", "/x")) + data(b"body")
    assert side.receive(0, answer) == [SessionRejected(0, int(status), [("location", "/x")]), SessionFinished(0)]
    assert side.ended(0)
    assert side.is_free(0)
    assert side.h3.sessions == 0
    assert side.receive(0, data(b"more"), True) == []


def test_interim_responses_are_skipped_and_bounded() -> None:
    side = connecting_client()
    assert side.receive(0, headers((":status", "103"), ("link", "x")) * 16) == []
    side.receive(0, headers((":status", "100")))
    assert side.resets(0) == [ErrorCodes.H3_EXCESSIVE_LOAD]


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [("a", "b")],
        [(":status", "101")],
        [(":status", "20")],
        [(":status", "abc")],
        [(":status", "200"), (":status", "200")],
        [(":status", "200"), (":path", "/")],
        [("a", "b"), (":status", "200")],
        [(":status", "200"), ("A", "b")],
        [(":status", "200"), ("upgrade", "x")],
    ],
)
def test_malformed_response_is_message_error(fields: list[tuple[str, str]]) -> None:
    side = connecting_client()
    [closed, _] = side.receive(0, headers(*fields))
    assert isinstance(closed, SessionTerminated)
    assert (closed.by, closed.wire_code, closed.clean) == ("local", ErrorCodes.H3_MESSAGE_ERROR, False)
    assert side.resets(0) == side.stops(0) == [ErrorCodes.H3_MESSAGE_ERROR]


def test_data_before_the_response_is_unexpected() -> None:
    side = connecting_client()
    side.receive(0, headers((":status", "103")) + data(b"x"))
    assert side.close_code == ErrorCodes.H3_FRAME_UNEXPECTED


def test_end_before_the_response_is_message_error() -> None:
    side = connecting_client()
    [closed, _] = side.receive(0, b"", True)
    assert isinstance(closed, SessionTerminated)
    assert closed.wire_code == ErrorCodes.H3_MESSAGE_ERROR


def test_reset_instead_of_a_response_ends_the_session() -> None:
    side = connecting_client()
    [closed, finished] = side.reset(0, ErrorCodes.H3_REQUEST_REJECTED)
    assert isinstance(closed, SessionTerminated)
    assert (closed.clean, closed.by, closed.wire_code) == (False, "peer", ErrorCodes.H3_REQUEST_REJECTED)
    assert finished == SessionFinished(0)


def test_server_may_stop_a_request_and_still_reject_it() -> None:
    side = connecting_client()
    assert side.stop(0, ErrorCodes.H3_NO_ERROR) == []
    assert side.resets(0) == [ErrorCodes.H3_NO_ERROR]
    assert side.receive(0, headers((":status", "404")), True)[0] == SessionRejected(0, 404, [])


def test_session_accepted_on_a_stopped_stream_is_ending_already() -> None:
    side = connecting_client()
    side.stop(0, ErrorCodes.WT_SESSION_GONE)
    events = side.receive(0, headers((":status", "200")))
    assert events == [SessionAccepted(0, 200, [], None), SessionStopping(0, ErrorCodes.WT_SESSION_GONE)]
    assert side.resets(0) == [ErrorCodes.WT_SESSION_GONE]
    assert side.receive(0, close(5, "at once"), True)[0] == SessionTerminated(
        0, 5, "at once", clean=True, by="peer", wire_code=None
    )


@pytest.mark.parametrize("value", ['"b"', '"b";x=1'])
def test_r29_client_gets_the_choice(value: str) -> None:
    side = connecting_client(protocols=["a", "b"])
    side.receive(0, headers((":status", "200"), ("wt-protocol", value)))
    assert side.of(SessionAccepted)[0].protocol == "b"


def test_r32_h14_choice_that_was_not_offered_is_alpn_error() -> None:
    for offered in (["a"], []):
        side = connecting_client(protocols=offered)
        [closed, _] = side.receive(0, headers((":status", "200"), ("wt-protocol", '"z"')))
        assert isinstance(closed, SessionTerminated)
        assert closed.wire_code == ErrorCodes.WT_ALPN_ERROR
        assert side.resets(0) == side.stops(0) == [ErrorCodes.WT_ALPN_ERROR]
        assert not side.of(SessionAccepted)


@pytest.mark.parametrize(
    "fields", [[], [("wt-protocol", "a")], [("wt-protocol", '"a", "b"')], [("wt-protocol", '"a"')] * 2]
)
def test_r30_r33_absent_or_malformed_choice_is_none_and_a_client_that_needs_one_can_say_so(
    fields: list[tuple[str, str]],
) -> None:
    side = connecting_client(protocols=["a", "b"])
    side.receive(0, headers((":status", "200"), *fields))
    assert side.of(SessionAccepted)[0].protocol is None
    side.run(lambda: side.h3.abort_session(0, ErrorCodes.WT_ALPN_ERROR))
    assert side.resets(0) == side.stops(0) == [ErrorCodes.WT_ALPN_ERROR]


# -- draft 09 calls the headers of the subprotocols by other names

DRAFT07_CLIENT = [(0x33, 1), (0xC671706A, 1)]


@pytest.mark.parametrize(
    ("offer", "choice", "answer"),
    [("moq-00, chat", "chat", "chat"), ('moq-00, "two words"', "two words", '"two words"')],
)
def test_r34_offer_in_the_words_of_draft_09_is_answered_in_them(offer: str, choice: str, answer: str) -> None:
    side = server(DRAFT07_CLIENT)
    side.receive(0, connect(("webtransport-subprotocols-available", offer), token="webtransport"))
    assert side.of(SessionRequested)[0].protocols == ("moq-00", choice)
    side.run(lambda: side.h3.accept(0, protocol=choice))
    assert sent_fields(side) == [(":status", "200"), ("webtransport-subprotocol", answer)]


def test_r34_newer_name_of_the_offer_wins() -> None:
    side = server(DRAFT07_CLIENT)
    offers = (("webtransport-subprotocols-available", "old"), ("wt-available-protocols", '"new"'))
    side.receive(0, connect(*offers, token="webtransport"))
    assert side.of(SessionRequested)[0].protocols == ("new",)
    side.run(lambda: side.h3.accept(0, protocol="new"))
    assert ("wt-protocol", '"new"') in sent_fields(side)


@pytest.mark.parametrize(("settings", "protocol"), [(DRAFT07_SERVER, "a"), (DRAFT15_SERVER, None)])
def test_r34_choice_in_the_words_of_draft_09_is_read(settings: list[tuple[int, int]], protocol: str | None) -> None:
    side = connecting_client(settings, protocols=["a"])
    side.receive(0, headers((":status", "200"), ("webtransport-subprotocol", "a")))
    assert side.of(SessionAccepted)[0].protocol == protocol


def test_whole_exchange_between_our_own_sides() -> None:
    pair = Pair()
    pair.client.h3.send_connect(0, authority="a", path="/p", protocols=["x", "y"], headers=[("k", "v")])
    pair.exchange()
    assert pair.server.of(SessionRequested)[0].protocols == ("x", "y")
    pair.server.h3.accept(0, protocol="y", headers=[("r", "s")])
    pair.exchange()
    [accepted] = pair.client.of(SessionAccepted)
    assert (accepted.protocol, ("r", "s") in accepted.headers) == ("y", True)
    assert [output.end for output in pair.server.of(Send) if output.stream == 0] == [False]
