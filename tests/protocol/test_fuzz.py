"""Anything a peer can send leads to documented events and outputs, in bounded memory, however it is cut."""

from collections.abc import Callable, Iterable
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wtio.protocol import varint
from wtio.protocol.capsules import CapsuleType
from wtio.protocol.faults import SessionStateError
from wtio.protocol.frames import FrameType, encode_record
from wtio.protocol.limits import ProtocolLimits
from wtio.protocol.outbox import (
    BodyReceived,
    CloseConnection,
    ConnectionFailed,
    Reset,
    Role,
    Send,
    SessionFinished,
    SessionRequested,
    SessionTerminated,
    Stop,
)

from .pair import (
    CHROMIUM,
    DRAFT15_CLIENT,
    DRAFT15_SERVER,
    FLOW_CONTROL,
    GREASE,
    Side,
    client,
    close,
    connect,
    control_stream,
    data,
    headers,
    server,
)

# The other files here run every line of it by hand.
pytestmark = pytest.mark.unmeasured

LIMITS = ProtocolLimits(
    max_field_section_size=2000,
    max_settings_size=500,
    max_buffered=4000,
    max_held_capsules=8,
    max_idle_records=20,
    max_refused_requests=5,
)
LARGEST_OUTPUT = 300  # bytes that we say in answer to one input, at most
INITIAL = {"initial_max_data": 1, "initial_max_streams_bidi": 1, "initial_max_streams_uni": 1}

kinds = st.one_of(
    st.sampled_from([*FrameType, *CapsuleType, GREASE, 0x17, 0x2, 0x54]), st.integers(0, varint.MAX_VARINT)
)
lengths = st.one_of(st.integers(0, 20), st.integers(0, varint.MAX_VARINT))
lying_record = st.builds(
    lambda kind, length, value: varint.encode(kind) + varint.encode(length) + value,
    kinds,
    lengths,
    st.binary(max_size=30),
)
capsule = st.one_of(
    st.builds(encode_record, st.sampled_from(list(CapsuleType)), st.binary(max_size=12)),
    st.builds(
        lambda kind, value: encode_record(kind, varint.encode(value)),
        st.sampled_from(list(CapsuleType)),
        st.integers(0, 2**60),
    ),
    lying_record,
)
fields = st.tuples(
    st.one_of(
        st.sampled_from([":path", ":status", "origin", "wt-protocol", "wt-available-protocols", "te"]),
        st.text("ab:\n", max_size=5),
    ),
    st.one_of(st.sampled_from(["200", "404", '"a"', "/"]), st.text(st.characters(max_codepoint=255), max_size=10)),
)
chunk = st.one_of(
    st.just(connect()),
    st.just(connect(token="webtransport")),
    st.just(headers((":status", "200"))),
    st.just(headers((":status", "404"))),
    st.just(headers((":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/"))),
    st.builds(lambda some: connect(*some), st.lists(fields, max_size=4)),
    st.builds(lambda some: headers(*some), st.lists(fields, max_size=4)),
    st.builds(data, capsule),
    st.builds(lambda some: data(b"".join(some)), st.lists(capsule, max_size=4)),
    st.just(close(3, "x")),
    st.builds(encode_record, kinds, st.binary(max_size=20)),
    lying_record,
    st.binary(max_size=40),
)
streams = st.builds(b"".join, st.lists(chunk, max_size=6))
uni_streams = st.builds(
    lambda head, rest: head + rest,
    st.one_of(
        st.sampled_from([b"", b"\x00", b"\x02", b"\x03", b"\x40\x54", b"\x01"]),
        st.sampled_from([control_stream(DRAFT15_CLIENT), control_stream(CHROMIUM)]),
        st.binary(max_size=3),
    ),
    streams,
)


def bidirectional_ids(is_client: bool) -> st.SearchStrategy[int]:
    return st.sampled_from([0, 0, 0, 4, 8, 1] if is_client else [0, 0, 0, 4, 8])


def act(is_client: bool) -> st.SearchStrategy[Callable[[Side], object]]:
    """One thing that the peer, or our own application, may do."""
    own = 3 if is_client else 2
    peer_ids = st.one_of(bidirectional_ids(is_client), st.sampled_from([own, own + 4, own + 8, own + 12]))
    codes = st.integers(0, varint.MAX_VARINT)

    def cut(stream_id: int, payload: bytes, places: list[int], end: bool) -> Callable[[Side], object]:
        borders = [0, *sorted(min(place, len(payload)) for place in places), len(payload)]

        def run(side: Side) -> None:
            for start, stop in pairwise(borders):
                side.receive(stream_id, payload[start:stop], end and stop == len(payload))

        return run

    def tolerant(action: Callable[[Side], object]) -> Callable[[Side], object]:
        def run(side: Side) -> None:
            try:
                action(side)
            except (SessionStateError, ValueError):
                return

        return run

    sessions = st.sampled_from([0, 4, 8])
    choices: list[st.SearchStrategy[Callable[[Side], object]]] = [
        st.builds(cut, bidirectional_ids(is_client), streams, st.lists(st.integers(0, 200), max_size=3), st.booleans()),
        st.builds(
            cut, st.sampled_from([own, own + 4]), uni_streams, st.lists(st.integers(0, 99), max_size=3), st.booleans()
        ),
        st.builds(lambda stream_id, code: lambda side: side.reset(stream_id, code), peer_ids, codes),
        st.builds(
            lambda stream_id, code: lambda side: side.stop(stream_id, code),
            st.one_of(sessions, st.sampled_from(Role)),
            codes,
        ),
        st.builds(lambda session: tolerant(lambda side: side.h3.check_session_id(session)), st.integers(0, 16)),
        st.builds(lambda session: tolerant(lambda side: side.h3.accept(session)), sessions),
        st.builds(lambda session: tolerant(lambda side: side.h3.reject(session, 404, body=b"x")), sessions),
        st.builds(lambda session: tolerant(lambda side: side.h3.close_session(session, 1, "y")), sessions),
        st.builds(lambda session: tolerant(lambda side: side.h3.abort_session(session, 2)), sessions),
        st.builds(lambda session: tolerant(lambda side: side.h3.drain_session(session)), sessions),
        st.just(lambda side: side.h3.send_goaway()),
        st.just(lambda side: side.h3.expire_parked()),
    ]
    if is_client:
        choices.append(
            st.builds(
                lambda session: tolerant(
                    lambda side: side.h3.send_connect(session, authority="a", path="/", protocols=["a"])
                ),
                sessions,
            )
        )
    return st.one_of(choices)


def check(side: Side, actions: list[Callable[[Side], object]]) -> None:
    for action in actions:
        before = len(side.outputs)
        action(side)
        side.collect()
        said = sum(len(output.data) for output in side.outputs[before:] if isinstance(output, Send))
        assert said <= LARGEST_OUTPUT * 4
        assert side.h3._requests.buffered <= LIMITS.max_buffered
        assert side.h3._requests.buffered >= sum(stream.counted for stream in side.h3._requests)
    # One end of the connection, with nothing after it.
    closes = side.of(CloseConnection)
    assert len(closes) == len(side.of(ConnectionFailed)) <= 1
    assert not closes or side.outputs[-1] is closes[0]
    # One end of each session, and at most one reason for it.
    requested = {event.stream_id for event in side.of(SessionRequested)}
    closed = [event.stream_id for event in side.of(SessionTerminated)]
    finished = [event.stream_id for event in side.of(SessionFinished)]
    assert len(set(closed)) == len(closed)
    assert len(set(finished)) == len(finished)
    assert side.h3.is_client or set(closed) | set(finished) <= requested
    # Nothing is sent after our end or reset; a reset comes once.
    ended: set[int] = set()
    was_reset: set[int] = set()
    for output in side.outputs:
        match output:
            case Send(int() as stream_id, payload, end):
                assert stream_id not in ended
                assert stream_id not in was_reset
                assert payload or end
                if end:
                    ended.add(stream_id)
            case Reset(stream_id, code):
                assert stream_id not in was_reset
                assert 0 <= code <= varint.MAX_VARINT
                was_reset.add(stream_id)
            case Stop(_, code):
                assert 0 <= code <= varint.MAX_VARINT


server_settings = st.sampled_from([None, DRAFT15_CLIENT, CHROMIUM, [*DRAFT15_CLIENT, *FLOW_CONTROL], [(0x33, 1)]])
client_settings = st.sampled_from(
    [None, DRAFT15_SERVER, [*DRAFT15_SERVER, *FLOW_CONTROL], [(0x33, 1), (0x2B603742, 1)]]
)


@settings(max_examples=400, deadline=None)
@given(server_settings, st.booleans(), st.lists(act(is_client=False), max_size=12))
def test_x4_server_withstands_anything(
    peer: list[tuple[int, int]] | None, controlled: bool, actions: list[Callable[[Side], object]]
) -> None:
    check(server(peer, limits=LIMITS, **(INITIAL if controlled else {})), actions)


@settings(max_examples=400, deadline=None)
@given(client_settings, st.booleans(), st.booleans(), st.lists(act(is_client=True), max_size=12))
def test_x4_client_withstands_anything(
    peer: list[tuple[int, int]] | None, controlled: bool, connected: bool, actions: list[Callable[[Side], object]]
) -> None:
    side = client(peer, limits=LIMITS, **(INITIAL if controlled else {}))
    if connected and peer is not None:
        side.run(lambda: side.h3.send_connect(0, authority="a", path="/"))
    check(side, actions)


def produced(is_client: bool, payload: bytes, end: bool, places: list[int]) -> list[object]:
    """What comes of bytes on stream 0 that arrive in these pieces."""
    side = client(limits=LIMITS) if is_client else server(limits=LIMITS)
    if is_client:
        side.run(lambda: side.h3.send_connect(0, authority="a", path="/"))
    borders = [0, *sorted(min(place, len(payload)) for place in places), len(payload)]
    for index, (start, stop) in enumerate(pairwise(borders)):
        side.receive(0, payload[start:stop], end and index == len(borders) - 2)
        if not is_client and side.h3.session_state(0) == "requested" and payload[-1:] < b"\x80":
            side.run(lambda: side.h3.accept(0))
    side.run(lambda: side.h3.close_session(0, 0, ""))
    return [*side.events, *side.outputs]


@settings(max_examples=300, deadline=None)
@given(st.booleans(), st.lists(chunk, max_size=5), st.lists(st.integers(0, 300), max_size=10))
def test_how_a_stream_is_cut_changes_nothing(is_client: bool, chunks: list[bytes], places: list[int]) -> None:
    head = headers((":status", "200")) if is_client else connect()
    payload = b"".join((head, *chunks))
    # An open session first, so that both runs accept at the same point of the stream.
    whole = produced(is_client, payload, False, [len(head)])
    assert produced(is_client, payload, False, [len(head), *(place + len(head) for place in places)]) == whole


def whole_bodies(events: Iterable[object]) -> list[object]:
    """Events with the pieces of each body joined: pieces are cut as the stream is."""
    joined: list[object] = []
    for event in events:
        last = joined[-1] if joined else None
        if isinstance(event, BodyReceived):
            assert event.data, "a piece has a byte at least"
        if isinstance(event, BodyReceived) and isinstance(last, BodyReceived) and last.stream_id == event.stream_id:
            joined[-1] = BodyReceived(event.stream_id, last.data + event.data)
        else:
            joined.append(event)
    return joined


POST_WITH_BODY = headers((":method", "POST"), (":scheme", "https"), (":authority", "a"), (":path", "/")) + data(b":")


@settings(max_examples=200, deadline=None)
@example(is_client=False, payload=POST_WITH_BODY, end=True, places=[len(POST_WITH_BODY) - 1])
@given(st.booleans(), streams, st.booleans(), st.lists(st.integers(0, 300), max_size=10))
def test_bytes_are_judged_alike_in_one_piece_and_in_many(
    is_client: bool, payload: bytes, end: bool, places: list[int]
) -> None:
    def run(cuts: list[int]) -> list[object]:
        side = client(limits=LIMITS) if is_client else server(limits=LIMITS)
        if is_client:
            side.run(lambda: side.h3.send_connect(0, authority="a", path="/"))
        borders = [0, *sorted(min(place, len(payload)) for place in cuts), len(payload)]
        for index, (start, stop) in enumerate(pairwise(borders)):
            side.receive(0, payload[start:stop], end and index == len(borders) - 2)
        return [*whole_bodies(side.events), *side.outputs]

    assert run(places) == run([])


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=8), st.sampled_from([2, 6, 10, 0, 4]), st.booleans()
)
def test_x4_random_bytes_on_any_stream(payload: bytes, places: list[int], stream_id: int, is_client: bool) -> None:
    side = client(None, limits=LIMITS) if is_client else server(None, limits=LIMITS)
    borders = [0, *sorted(min(place, len(payload)) for place in places), len(payload)]
    for start, stop in pairwise(borders):
        side.receive(stream_id + (is_client and stream_id % 4 == 2), payload[start:stop], stop == len(payload))
    check(side, [])
