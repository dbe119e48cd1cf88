"""Sessions: what they are called, how they end and what everybody sees then, incoming streams, datagrams."""

from __future__ import annotations

import asyncio
import inspect
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import wtio
import wtio.testing

from .support import (
    CHANNELS,
    READS,
    Pair,
    first,
    is_pending,
    open_channel,
    opened,
    outcome,
    port_of,
    session_pair,
    until,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

    from wtio import DevCertificate, WebTransportSession

CLOSE_CODES = (0, 1, 7, 2**32 - 1)

# Few streams and small queues, so that every kind of call can be made to wait.
SCARCE = wtio.Limits(
    bidirectional_streams=12,
    unidirectional_streams=12,
    stream_receive_window=4 * 1024,
    stream_send_buffer=2 * 1024,
)


# -- names


@pytest.mark.parametrize(
    ("name", "is_coroutine"),
    [
        ("create_bidirectional_stream", True),
        ("create_unidirectional_stream", True),
        ("incoming_bidirectional_streams", False),
        ("incoming_unidirectional_streams", False),
        ("send_datagram", False),
        ("receive_datagram", True),
        ("incoming_datagrams", False),
        ("close", True),
        ("abort", True),
        ("wait_closed", True),
        ("drain", True),
    ],
)
def test_methods_have_the_promised_names(name: str, is_coroutine: bool) -> None:
    method = getattr(wtio.WebTransportSession, name)
    assert inspect.iscoroutinefunction(method) is is_coroutine


def test_close_takes_code_and_reason_in_this_order() -> None:
    parameters = list(inspect.signature(wtio.WebTransportSession.close).parameters.values())[1:]
    assert [(parameter.name, parameter.default) for parameter in parameters] == [("code", 0), ("reason", "")]
    assert all(parameter.kind is parameter.POSITIONAL_OR_KEYWORD for parameter in parameters)


async def test_properties_have_the_promised_names(pair: Pair) -> None:
    assert pair.client.session_id == pair.accepted.session_id
    assert pair.client.session_id % 4 == 0
    assert pair.client.max_datagram_size > 1000
    assert pair.client.close_info is None
    assert not pair.client.is_closed
    assert pair.client.is_client
    assert not pair.accepted.is_client
    assert "open" in repr(pair.client)


# -- the end of a session, seen by every call


def pending_calls(
    session: WebTransportSession, streams: dict[str, Any]
) -> dict[str, Callable[[], Coroutine[Any, Any, object]]]:
    """Every call that can wait, on objects on which it has to."""
    calls: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
        f"{name} of {kind}": lambda call=call, kind=kind, name=name: call(streams[f"{kind} {name}"])  # type: ignore[misc]
        for name, call in READS.items()
        for kind in ("bidirectional", "unidirectional")
        if f"{kind} {name}" in streams
    }
    calls |= {
        "write": lambda: streams["write"].write(data=bytes(100_000)),
        "write_all": lambda: streams["write_all"].write_all(data=bytes(100_000), chunk_size=1000, end_stream=True),
        "wait_acked": lambda: streams["write"].wait_acked(),
        "create_bidirectional_stream": session.create_bidirectional_stream,
        "create_unidirectional_stream": session.create_unidirectional_stream,
        "incoming_bidirectional_streams": lambda: first(session.incoming_bidirectional_streams()),
        "incoming_unidirectional_streams": lambda: first(session.incoming_unidirectional_streams()),
        "receive_datagram": session.receive_datagram,
        "incoming_datagrams": lambda: first(session.incoming_datagrams()),
        "wait_draining": session.wait_draining,
    }
    return calls


class Stuck:
    """One side of a session on which every call has to wait: no stream, no credit, no room, no data."""

    def __init__(self, session: WebTransportSession) -> None:
        self.session = session
        self.streams: dict[str, Any] = {}
        # Streams that nobody holds are reset, which would give credit back.
        self.kept: list[object] = []

    def calls(self) -> dict[str, Callable[[], Coroutine[Any, Any, object]]]:
        return pending_calls(self.session, self.streams)


async def make_stuck(pair: Pair) -> list[Stuck]:
    """Use up everything in both directions."""
    both = [Stuck(pair.client), Stuck(pair.accepted)]
    for here, there in (both, both[::-1]):
        opener = "client" if here.session is pair.client else "server"
        used = {"bidirectional": 0, "unidirectional": 0}

        async def opens(form: str) -> Any:
            used[form] += 1  # noqa: B023 - called in this iteration of the loop
            return await open_channel(pair, f"{opener}-{'bidi' if form == 'bidirectional' else 'uni'}")  # noqa: B023

        # The other side reads from streams of both forms, and this side writes.
        for index, name in enumerate(READS):
            form = ("bidirectional", "unidirectional")[index % 2]
            channel = await opens(form)
            there.streams[f"{form} {name}"] = channel.reader
            here.kept.append(channel.writer)
        for name in ("write", "write_all"):
            channel = await opens("unidirectional")
            here.streams[name] = channel.writer
            there.kept.append(channel.reader)
        for form, most in (
            ("bidirectional", SCARCE.bidirectional_streams),
            ("unidirectional", SCARCE.unidirectional_streams),
        ):
            while used[form] < most:
                here.kept.append(await opens(form))
            with pytest.raises(wtio.StreamCreditError):
                await getattr(here.session, f"create_{form}_stream")(wait_until_available=False)
    return both


def is_full(writer: wtio.WebTransportSendStream) -> bool:
    # The header takes a few bytes of the window.
    return writer.diagnostics().bytes_acknowledged >= SCARCE.stream_receive_window - 16


async def start(both: list[Stuck]) -> list[tuple[Stuck, dict[str, asyncio.Future[object]]]]:
    """Make every call on both sides."""
    tasks: list[tuple[Stuck, dict[str, asyncio.Future[object]]]] = []
    pending: dict[str, asyncio.Future[object]]
    for stuck in both:
        calls = stuck.calls()
        # Only once the window is full there is something that cannot be acknowledged.
        wait_acked = calls.pop("wait_acked")
        pending = {name: asyncio.ensure_future(call()) for name, call in calls.items()}
        await until(partial(is_full, stuck.streams["write"]))
        tasks.append((stuck, {**pending, "wait_acked": asyncio.ensure_future(wait_acked())}))
    for _, pending in tasks:
        for name, task in pending.items():
            assert await is_pending(task), f"{name}: {task.result()!r}"
    return tasks


@pytest.fixture
async def scarce(certificate: DevCertificate) -> AsyncIterator[Pair]:
    async with session_pair(certificate, client_limits=SCARCE, server_limits=SCARCE) as pair:
        yield pair


def facts(error: object) -> tuple[object, ...]:
    assert isinstance(error, wtio.SessionClosed), repr(error)
    return type(error), error.code, error.reason, error.closed_by


@pytest.mark.parametrize(
    ("code", "reason"), [(0, ""), (0, "done"), (7, "as you wish ä"), (2**32 - 1, "")], ids=["ok", "reason", "7", "max"]
)
@pytest.mark.trap("C5")
async def test_close_ends_every_pending_call_with_the_same_error(
    scarce: Pair, side: str, code: int, reason: str
) -> None:
    closer, other = scarce.sides(side)
    tasks = await start(await make_stuck(scarce))
    # No stream is finished, so nothing is waited for.
    await closer.close(code, reason)
    await other.wait_closed()
    kind = wtio.SessionClosedOK if code == 0 else wtio.SessionClosedError
    for stuck, pending in tasks:
        session = stuck.session
        by = "local" if session is closer else "peer"
        expected = (kind, code, reason, by)
        seen = {name: facts(await outcome(task)) for name, task in pending.items()}
        assert seen == dict.fromkeys(seen, expected)
        # Later calls say the same.
        seen = {name: facts(await outcome(call())) for name, call in stuck.calls().items()}
        assert seen == dict.fromkeys(seen, expected)
        with pytest.raises(kind):
            session.send_datagram(b"late")
        assert session.close_info == wtio.CloseInfo(code, reason, by)  # type: ignore[arg-type]
        assert await session.wait_closed() == session.close_info
        assert session.is_closed


async def test_abort_ends_every_pending_call_without_a_code(scarce: Pair, side: str) -> None:
    aborter, other = scarce.sides(side)
    tasks = await start(await make_stuck(scarce))
    await aborter.abort()
    await other.wait_closed()
    for stuck, pending in tasks:
        seen = {facts(await outcome(task)) for task in pending.values()}
        seen |= {facts(await outcome(call())) for call in stuck.calls().values()}
        assert len(seen) == 1, seen
        kind, code, _, closed_by = seen.pop()
        assert (kind, code) == (wtio.SessionClosedError, None)
        assert closed_by == ("local" if stuck.session is aborter else "peer")


async def test_end_of_the_session_ends_both_properties_of_streams(pair: Pair, channel_kind: str) -> None:
    channel = await open_channel(pair, channel_kind)
    await channel.near.close(3, "over")
    await channel.far.wait_closed()
    assert not channel.writer.can_write
    assert not channel.reader.can_read
    # Ending a stream that is over anyway is no error.
    await channel.writer.reset(error_code=1)
    await channel.writer.close()
    await channel.reader.stop_receiving(error_code=1)
    await channel.reader.close()


# -- close


@pytest.mark.parametrize("code", CLOSE_CODES)
@pytest.mark.parametrize("reason", ["", "short", "ä" * 512, "x" * 1024], ids=["none", "short", "wide", "longest"])
@pytest.mark.unmeasured
async def test_code_and_reason_of_close_reach_the_peer(
    sessions: tuple[WebTransportSession, WebTransportSession], code: int, reason: str
) -> None:
    near, far = sessions
    await near.close(code, reason)
    assert await far.wait_closed() == wtio.CloseInfo(code, reason, "peer")
    assert await near.wait_closed() == wtio.CloseInfo(code, reason, "local")


@pytest.mark.parametrize("letter", ["x", "ä", "€", "🙂"])
@pytest.mark.trap("C3")
async def test_long_reason_is_cut_at_a_character(
    sessions: tuple[WebTransportSession, WebTransportSession], letter: str
) -> None:
    # 1024 bytes of UTF-8 at most.
    near, far = sessions
    await near.close(1, "-" + letter * 2000)
    info = await far.wait_closed()
    size = len(letter.encode())
    assert info.reason == "-" + letter * (1023 // size)
    assert near.close_info is not None
    assert near.close_info.reason == info.reason


@pytest.mark.parametrize("code", [-1, 2**32])
async def test_close_refuses_codes_outside_32_bits(pair: Pair, code: int) -> None:
    with pytest.raises(ValueError, match=str(code)):
        await pair.client.close(code)
    assert not pair.client.is_closed


@pytest.mark.parametrize("reason", [b"bytes", None, 5])
async def test_close_refuses_reasons_that_are_no_text(pair: Pair, reason: object) -> None:
    with pytest.raises(TypeError):
        await pair.client.close(0, reason)  # type: ignore[arg-type]
    assert not pair.client.is_closed


@pytest.mark.trap("C6")
async def test_second_close_changes_nothing(sessions: tuple[WebTransportSession, WebTransportSession]) -> None:
    near, far = sessions
    await near.close(1, "first")
    await near.close(2, "second")
    await near.abort()
    await near.drain()
    assert (await near.wait_closed()).code == 1
    await far.close(3, "third")
    assert await far.wait_closed() == wtio.CloseInfo(1, "first", "peer")


async def test_several_tasks_may_close_at_once(sessions: tuple[WebTransportSession, WebTransportSession]) -> None:
    near, far = sessions
    await asyncio.gather(*(near.close(number, str(number)) for number in range(1, 6)))
    assert near.close_info is not None
    assert await far.wait_closed() == wtio.CloseInfo(near.close_info.code, near.close_info.reason, "peer")


async def test_both_sides_may_close_at_once(pair: Pair) -> None:
    await asyncio.gather(pair.client.close(1, "client"), pair.accepted.close(2, "server"))
    client, server = await pair.client.wait_closed(), await pair.accepted.wait_closed()
    # Each sees its own goodbye, unless the other one's came first.
    assert client in (wtio.CloseInfo(1, "client", "local"), wtio.CloseInfo(2, "server", "peer"))
    assert server in (wtio.CloseInfo(2, "server", "local"), wtio.CloseInfo(1, "client", "peer"))


async def test_finished_streams_are_delivered_before_the_close(
    sessions: tuple[WebTransportSession, WebTransportSession],
) -> None:
    near, far = sessions
    data = bytes(range(256)) * 500
    for _ in range(5):
        stream = await near.create_unidirectional_stream()
        await stream.write(data=data, end_stream=True)

    async def read_all() -> list[bytes]:
        return [await (await first(far.incoming_unidirectional_streams())).read_all() for _ in range(5)]

    reading = asyncio.ensure_future(read_all())
    await near.close(9, "delivered")
    assert await reading == [data] * 5
    assert (await far.wait_closed()).code == 9


async def test_what_has_arrived_is_delivered_after_the_close(
    sessions: tuple[WebTransportSession, WebTransportSession],
) -> None:
    near, far = sessions
    stream = await near.create_bidirectional_stream()
    await stream.write(data=b"finished", end_stream=True)
    near.send_datagram(b"datagram")
    await near.close(9, "over")
    await far.wait_closed()
    late = await first(far.incoming_bidirectional_streams())
    assert await late.read_all() == b"finished"
    assert await far.receive_datagram() == b"datagram"
    for call in (first(far.incoming_bidirectional_streams()), far.receive_datagram()):
        with pytest.raises(wtio.SessionClosedError) as caught:
            await call
        assert caught.value.code == 9


async def test_cancelled_close_still_says_goodbye(sessions: tuple[WebTransportSession, WebTransportSession]) -> None:
    near, far = sessions
    closing = asyncio.ensure_future(near.close(5, "in a hurry"))
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    assert await far.wait_closed() == wtio.CloseInfo(5, "in a hurry", "peer")


async def test_several_tasks_may_wait_for_the_end(pair: Pair) -> None:
    waiting = [asyncio.ensure_future(pair.accepted.wait_closed()) for _ in range(5)]
    cancelled = waiting.pop()
    assert await is_pending(cancelled)
    cancelled.cancel()
    await pair.client.close(4, "end")
    assert await asyncio.gather(*waiting) == [wtio.CloseInfo(4, "end", "peer")] * 4


@pytest.mark.trap("C10")
async def test_ending_one_client_spares_the_others(certificate: DevCertificate) -> None:
    async with session_pair(certificate) as pair:
        connecting = asyncio.ensure_future(
            opened(wtio.connect(f"https://127.0.0.1:{port_of(pair.server)}/", tls=certificate.client_tls()))
        )
        other = await (await anext(aiter(pair.server))).accept()
        client = await connecting
        async with client:
            await pair.client.close(1)
            await pair.accepted.wait_closed()
            stream = await client.create_bidirectional_stream()
            await stream.write(data=b"alive", end_stream=True)
            assert await (await first(other.incoming_bidirectional_streams())).read_all() == b"alive"
            assert pair.server.sessions == [other]


# -- async with


class BodyError(Exception):
    pass


async def test_context_manager_closes_the_session(sessions: tuple[WebTransportSession, WebTransportSession]) -> None:
    near, far = sessions
    async with near as entered:
        assert entered is near
    assert await far.wait_closed() == wtio.CloseInfo(0, "", "peer")


@pytest.mark.parametrize("kind", [BodyError, asyncio.CancelledError])
async def test_context_manager_closes_with_a_code_when_the_body_raises(
    sessions: tuple[WebTransportSession, WebTransportSession], kind: type[BaseException]
) -> None:
    near, far = sessions
    with pytest.raises(kind):
        async with near:
            raise kind
    assert (await far.wait_closed()).code == wtio.BODY_RAISED_CODE


async def test_context_manager_never_masks_the_exception_of_its_body(
    sessions: tuple[WebTransportSession, WebTransportSession],
) -> None:
    near, far = sessions
    with pytest.raises(BodyError):  # noqa: PT012
        async with near:
            await far.close(6, "while you were busy")
            raise BodyError
    assert near.close_info == wtio.CloseInfo(6, "while you were busy", "peer")


async def test_end_of_the_session_goes_through_its_context_manager(pair: Pair) -> None:
    with pytest.raises(wtio.SessionClosedError) as caught:  # noqa: PT012
        async with pair.client:
            await pair.accepted.close(8, "enough")
            await pair.client.receive_datagram()
    assert (caught.value.code, caught.value.reason) == (8, "enough")


# -- drain


async def test_drain_is_seen_and_everything_still_works(
    sessions: tuple[WebTransportSession, WebTransportSession],
) -> None:
    near, far = sessions
    waiting = asyncio.ensure_future(far.wait_draining())
    assert await is_pending(waiting)
    assert not far.is_draining
    await near.drain()
    await near.drain()
    await waiting
    assert far.is_draining
    await far.wait_draining()
    for opener, acceptor in ((near, far), (far, near)):
        stream = await opener.create_bidirectional_stream()
        await stream.write(data=b"still", end_stream=True)
        assert await (await first(acceptor.incoming_bidirectional_streams())).read_all() == b"still"
        opener.send_datagram(b"still")
        assert await acceptor.receive_datagram() == b"still"


# -- incoming streams


async def test_streams_arrive_in_the_order_of_their_opening(
    sessions: tuple[WebTransportSession, WebTransportSession],
) -> None:
    near, far = sessions
    created = []
    for _ in range(50):
        created.append(await near.create_unidirectional_stream())
        await created[-1].write(data=b"x", end_stream=True)
    incoming = aiter(far.incoming_unidirectional_streams())
    assert [(await anext(incoming)).stream_id for _ in created] == [stream.stream_id for stream in created]


@pytest.mark.parametrize("form", ["bidirectional", "unidirectional"])
@pytest.mark.trap("S8")
async def test_each_stream_goes_to_exactly_one_acceptor(
    sessions: tuple[WebTransportSession, WebTransportSession], form: str
) -> None:
    # Some acceptors iterate, some come and go.
    near, far = sessions
    count = 200
    seen: list[int] = []
    everything = asyncio.Event()

    async def take(stream: wtio.WebTransportReceiveStream) -> None:
        seen.append(int(await stream.read_all()))
        if len(seen) == count:
            everything.set()

    async def iterate() -> None:
        async for stream in getattr(far, f"incoming_{form}_streams")():
            await take(stream)

    async def come_and_go() -> None:
        incoming = aiter(getattr(far, f"incoming_{form}_streams")())
        while True:
            try:
                async with asyncio.timeout(0):
                    stream = await anext(incoming)
            except TimeoutError:
                await asyncio.sleep(0)
                continue
            await take(stream)

    acceptors = [asyncio.ensure_future(iterate()) for _ in range(3)]
    acceptors += [asyncio.ensure_future(come_and_go()) for _ in range(2)]
    for number in range(count):
        stream = await getattr(near, f"create_{form}_stream")()
        await stream.write(data=b"%d" % number, end_stream=True)
        if form == "bidirectional":
            await stream.stop_receiving()
    await everything.wait()
    for acceptor in acceptors:
        acceptor.cancel()
    await asyncio.gather(*acceptors, return_exceptions=True)
    assert sorted(seen) == list(range(count))


@pytest.mark.parametrize("form", ["bidirectional", "unidirectional"])
@pytest.mark.trap("H19", "H20")
async def test_credit_comes_back_when_streams_end(certificate: DevCertificate, side: str, form: str) -> None:
    limits = wtio.Limits(bidirectional_streams=3, unidirectional_streams=3)
    async with session_pair(certificate, client_limits=limits, server_limits=limits) as pair:
        near, far = pair.sides(side)

        async def echo() -> None:
            async for stream in getattr(far, f"incoming_{form}_streams")():
                await stream.read_all()
                if form == "bidirectional":
                    await stream.write(data=b"", end_stream=True)

        echoing = asyncio.ensure_future(echo())
        create = getattr(near, f"create_{form}_stream")
        for _ in range(30):
            stream = await create()
            await stream.write(data=b"x", end_stream=True)
            if form == "bidirectional":
                assert await stream.read_all() == b""
        echoing.cancel()
        await asyncio.gather(echoing, return_exceptions=True)


async def test_open_waits_for_credit_or_says_so(certificate: DevCertificate) -> None:
    async with session_pair(certificate, server_limits=wtio.Limits(unidirectional_streams=2)) as pair:
        only, _kept = [await pair.client.create_unidirectional_stream() for _ in range(2)]
        with pytest.raises(wtio.StreamCreditError):
            await pair.client.create_unidirectional_stream(wait_until_available=False)
        creating = asyncio.ensure_future(pair.client.create_unidirectional_stream())
        assert await is_pending(creating)
        await only.close()
        assert await (await first(pair.accepted.incoming_unidirectional_streams())).read_all() == b""
        assert (await creating).stream_id > only.stream_id


@pytest.mark.trap("C7")
async def test_late_streams_are_reset(pair: Pair) -> None:
    # What was opened before the goodbye arrived.
    stream = await pair.client.create_bidirectional_stream()
    await stream.write(data=b"too late")
    closing = asyncio.ensure_future(pair.accepted.close(2, "closed"))
    for call in (stream.read(), stream.write_all(data=bytes(64 * 1024 * 1024))):
        with pytest.raises(wtio.SessionClosedError) as caught:
            await call
        assert (caught.value.code, caught.value.reason) == (2, "closed")
    await closing
    with pytest.raises(wtio.SessionClosedError):
        await pair.client.create_unidirectional_stream()


# -- datagrams


async def test_datagrams_arrive_one_by_one(sessions: tuple[WebTransportSession, WebTransportSession]) -> None:
    near, far = sessions
    sent: list[wtio.Buffer] = [
        b"",
        b"x",
        b"y" * 100,
        bytes(near.max_datagram_size),
        bytearray(b"bytearray"),
        memoryview(b"0123")[1:3],
    ]
    for data in sent:
        near.send_datagram(data)
    assert [await far.receive_datagram() for _ in sent] == [bytes(data) for data in sent]


async def test_datagrams_are_iterated_in_order(sessions: tuple[WebTransportSession, WebTransportSession]) -> None:
    near, far = sessions
    for number in range(100):
        near.send_datagram(b"%d" % number)
    received = []
    async for data in far.incoming_datagrams():
        received.append(int(data))
        if len(received) == 100:
            break
    assert received == list(range(100))


async def test_receive_datagram_waits(sessions: tuple[WebTransportSession, WebTransportSession]) -> None:
    near, far = sessions
    waiting = [asyncio.ensure_future(far.receive_datagram()) for _ in range(3)]
    for task in waiting:
        assert await is_pending(task)
    waiting.pop(1).cancel()
    near.send_datagram(b"one")
    near.send_datagram(b"two")
    assert sorted(await asyncio.gather(*waiting)) == [b"one", b"two"]


@pytest.mark.trap("D1")
async def test_too_large_datagram_fails_at_once(certificate: wtio.DevCertificate, side: str) -> None:
    # Discovery of the path's MTU would raise the limit meanwhile.
    limits = wtio.Limits(max_mtu=1200)
    async with session_pair(certificate, client_limits=limits, server_limits=limits) as pair:
        near, far = pair.sides(side)
        size = 65_536
        with pytest.raises(wtio.DatagramTooLargeError) as caught:
            near.send_datagram(bytes(size))
        assert caught.value.size == size
        assert caught.value.limit == near.max_datagram_size
        assert isinstance(caught.value, ValueError)
        for number in (size, caught.value.limit):
            assert str(number) in str(caught.value)
        with pytest.raises(wtio.DatagramTooLargeError):
            near.send_datagram(bytes(caught.value.limit + 1))
        near.send_datagram(b"fits")
        assert await far.receive_datagram() == b"fits"


@pytest.mark.parametrize(
    ("data", "hint"), [("text", "encode"), (memoryview(b"0123")[::2], "contiguous"), (None, "NoneType"), (5, "int")]
)
async def test_datagram_of_anything_else_is_refused_with_a_hint(pair: Pair, data: object, hint: str) -> None:
    with pytest.raises(TypeError, match=hint):
        pair.client.send_datagram(data)  # type: ignore[arg-type]


async def test_datagram_may_change_after_sending(pair: Pair) -> None:
    data = bytearray(b"before")
    pair.client.send_datagram(data)
    data[:] = b"after!"
    assert await pair.accepted.receive_datagram() == b"before"


@pytest.mark.parametrize(
    ("limits", "size", "kept"),
    [
        (wtio.Limits(datagram_receive_count=5), 10, 5),
        (wtio.Limits(datagram_receive_buffer=1500), 500, 3),
    ],
    ids=["count", "bytes"],
)
@pytest.mark.trap("D2")
async def test_unread_datagrams_are_bounded_and_counted(
    certificate: DevCertificate, side: str, limits: wtio.Limits, size: int, kept: int
) -> None:
    async with session_pair(certificate, client_limits=limits, server_limits=limits) as pair:
        near, far = pair.sides(side)
        for number in range(20):
            near.send_datagram(b"%0*d" % (size, number))
        # A stream that is read shows that what was sent before it has arrived.
        stream = await near.create_unidirectional_stream()
        await stream.write(data=b"x", end_stream=True)
        await (await first(far.incoming_unidirectional_streams())).read_all()
        stats = far.stats()
        assert stats.datagrams_received == 20
        assert stats.datagrams_dropped_incoming == 20 - kept
        assert stats.datagrams_queued_incoming == kept
        assert near.stats().datagrams_sent == 20
        # The oldest went first.
        assert [int(await far.receive_datagram()) for _ in range(kept)] == list(range(20 - kept, 20))


@pytest.mark.trap("D2")
async def test_outgoing_datagrams_are_bounded_and_counted(certificate: DevCertificate) -> None:
    async with session_pair(certificate, client_limits=wtio.Limits(datagram_send_buffer=3000)) as pair:
        for number in range(100):
            # Within one iteration of the loop nothing is sent.
            pair.client.send_datagram(b"%01000d" % number)
        received = []
        async for data in pair.accepted.incoming_datagrams():
            received.append(int(data))
            if received[-1] == 99:
                break
        stats = pair.client.stats()
        assert stats.datagrams_sent + stats.datagrams_dropped_outgoing == 100
        assert stats.datagrams_dropped_outgoing > 0
        assert received == sorted(received)


async def test_datagram_size_after_the_end(pair: Pair) -> None:
    await pair.client.close(1)
    assert pair.client.max_datagram_size == 0
    with pytest.raises(wtio.SessionClosedError):
        pair.client.send_datagram(b"late")
    stats = pair.client.stats()
    assert stats.packets_sent > 0


# -- a connection that is lost


@pytest.mark.unaudited("its connection is lost")
def test_lost_connection_ends_every_pending_call() -> None:
    async def main() -> None:
        network = wtio.testing.Network()
        timeouts = wtio.Timeouts(idle=5, keep_alive=1)
        async with wtio.testing.session_pair(network, timeouts=timeouts, limits=SCARCE) as (client, server):
            outgoing = await client.create_unidirectional_stream()
            both = await client.create_bidirectional_stream()
            incoming = await first(server.incoming_unidirectional_streams())
            calls: list[Awaitable[object]] = [
                outgoing.write(data=bytes(100_000)),
                both.read(),
                client.receive_datagram(),
                first(client.incoming_bidirectional_streams()),
                incoming.readexactly(n=1_000_000),
                server.receive_datagram(),
            ]
            tasks = [asyncio.ensure_future(call) for call in calls]
            network.conditions.blackout = True
            for task in tasks:
                error = await outcome(task)
                assert isinstance(error, wtio.SessionClosedError)
                assert (error.code, error.closed_by) == (None, "transport")
                assert "idle" in error.reason

    wtio.testing.run(main())


def test_channels_cover_every_class_and_direction() -> None:
    assert len(CHANNELS) == 6


@pytest.mark.trap("X3")
async def test_draining_again_and_again_sends_nothing_more(pair: Pair) -> None:
    # A caller in a loop must not fill the CONNECT stream's queue with capsules.
    await pair.client.drain()
    await pair.accepted.wait_draining()
    before = pair.client.stats().bytes_sent
    for _ in range(10_000):
        await pair.client.drain()
    pair.client.send_datagram(b"after")
    assert await pair.accepted.receive_datagram() == b"after"
    assert pair.client.stats().bytes_sent - before < 10_000
