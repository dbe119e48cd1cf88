"""What all stream classes share: names, signatures, facts, context managers, both sides at once, diagnostics."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import re
from typing import TYPE_CHECKING, Any

import pytest

import wtio
import wtio.stream
import wtio.testing

from .support import Channel, first, open_channel, outcome

if TYPE_CHECKING:
    from .support import Pair

# The reference page: (class, member, signature), where None is a property.
COROUTINES = {
    "WebTransportReceiveStream": {
        "close": "() -> None",
        "read": "(*, max_bytes: int = -1) -> bytes",
        "read_all": "() -> bytes",
        "readexactly": "(*, n: int) -> bytes",
        "readline": "(*, limit: int = -1) -> bytes",
        "readuntil": "(*, separator: bytes, limit: int = -1) -> bytes",
        "stop_receiving": "(*, error_code: int = ErrorCodes.APP_NO_ERROR) -> None",
    },
    "WebTransportSendStream": {
        "close": "(*, error_code: int | None = None) -> None",
        "reset": "(*, error_code: int = ErrorCodes.APP_NO_ERROR) -> None",
        "write": "(*, data: Buffer, end_stream: bool = False) -> None",
        "write_all": "(*, data: Buffer, chunk_size: int = 65536, end_stream: bool = False) -> None",
    },
    "WebTransportStream": {
        "close": "(*, error_code: int | None = None) -> None",
        "read": "(*, max_bytes: int = -1) -> bytes",
        "read_all": "() -> bytes",
        "readexactly": "(*, n: int) -> bytes",
        "readline": "(*, limit: int = -1) -> bytes",
        "readuntil": "(*, separator: bytes, limit: int = -1) -> bytes",
        "reset": "(*, error_code: int = ErrorCodes.APP_NO_ERROR) -> None",
        "stop_receiving": "(*, error_code: int = ErrorCodes.APP_NO_ERROR) -> None",
        "write": "(*, data: Buffer, end_stream: bool = False) -> None",
        "write_all": "(*, data: Buffer, chunk_size: int = 65536, end_stream: bool = False) -> None",
    },
}
PROPERTIES = {
    "WebTransportReceiveStream": {"can_read": "bool", "direction": "StreamDirection"},
    "WebTransportSendStream": {"can_write": "bool", "direction": "StreamDirection"},
    "WebTransportStream": {"can_read": "bool", "can_write": "bool", "direction": "StreamDirection"},
}


# -- the reference page, to the letter


@pytest.mark.parametrize(
    ("class_name", "name", "signature"),
    [(owner, name, signature) for owner, members in COROUTINES.items() for name, signature in members.items()],
)
def test_signature_is_that_of_the_reference(class_name: str, name: str, signature: str) -> None:
    function = getattr(getattr(wtio, class_name), name)
    assert inspect.iscoroutinefunction(function)
    parameters = list(inspect.signature(function).parameters.values())[1:]
    shown = str(inspect.signature(function).replace(parameters=parameters)).replace("'", "")
    # Defaults of an IntEnum show their value; the reference shows their name.
    shown = re.sub(r"(error_code: int) = (0|<ErrorCodes\.APP_NO_ERROR: 0>)", r"\1 = ErrorCodes.APP_NO_ERROR", shown)
    assert shown == signature
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters)
    for parameter in parameters:
        if parameter.name == "error_code" and parameter.default is not None:
            assert parameter.default is wtio.ErrorCodes.APP_NO_ERROR


@pytest.mark.parametrize(
    ("class_name", "name", "kind"),
    [(owner, name, kind) for owner, members in PROPERTIES.items() for name, kind in members.items()],
)
def test_property_is_that_of_the_reference(class_name: str, name: str, kind: str) -> None:
    descriptor = getattr(getattr(wtio, class_name), name)
    assert isinstance(descriptor, property)
    assert descriptor.fset is None
    assert inspect.signature(descriptor.fget).return_annotation == kind  # type: ignore[arg-type]


@pytest.mark.parametrize("class_name", list(COROUTINES))
def test_every_public_member_is_documented(class_name: str) -> None:
    owner = getattr(wtio, class_name)
    assert owner.__doc__
    for name, member in inspect.getmembers(owner):
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
            assert member.__doc__, name


def test_diagnostics_is_a_dataclass() -> None:
    assert dataclasses.is_dataclass(wtio.StreamDiagnostics)
    assert wtio.StreamDiagnostics.__dataclass_params__.frozen  # type: ignore[attr-defined]


def test_directions_are_a_string_enum() -> None:
    assert [direction.name for direction in wtio.StreamDirection] == ["BIDIRECTIONAL", "SEND_ONLY", "RECEIVE_ONLY"]
    for direction in wtio.StreamDirection:
        assert isinstance(direction, str)
        assert wtio.StreamDirection(direction.value) is direction


def test_error_codes_are_ints_with_their_standard_names() -> None:
    codes = wtio.ErrorCodes
    assert int(codes.APP_NO_ERROR) == 0
    assert (codes.H3_NO_ERROR, codes.H3_ID_ERROR, codes.H3_MESSAGE_ERROR) == (0x100, 0x108, 0x10E)
    assert (codes.QPACK_DECOMPRESSION_FAILED, codes.PROTOCOL_VIOLATION) == (0x200, 0x0A)
    assert (codes.WT_SESSION_GONE, codes.WT_BUFFERED_STREAM_REJECTED) == (0x170D7B68, 0x3994BD84)
    assert isinstance(codes.H3_NO_ERROR, int)


# -- facts


async def test_classes_of_streams(pair: Pair, side: str) -> None:
    uni = await open_channel(pair, f"{side}-uni")
    bidi = await open_channel(pair, f"{side}-bidi")
    assert type(uni.writer) is wtio.WebTransportSendStream
    assert type(uni.reader) is wtio.WebTransportReceiveStream
    for stream in (bidi.writer, bidi.reader):
        assert type(stream) is wtio.WebTransportStream
        assert isinstance(stream, wtio.WebTransportSendStream)
        assert isinstance(stream, wtio.WebTransportReceiveStream)
    assert uni.writer.direction is wtio.StreamDirection.SEND_ONLY
    assert uni.reader.direction is wtio.StreamDirection.RECEIVE_ONLY
    assert bidi.reader.direction is bidi.writer.direction is wtio.StreamDirection.BIDIRECTIONAL


async def test_facts_of_streams(channel: Channel) -> None:
    assert channel.writer.stream_id == channel.reader.stream_id
    assert channel.writer.session is channel.near
    assert channel.reader.session is channel.far
    assert channel.reader.is_peer_initiated is channel.opener_writes
    assert channel.writer.is_peer_initiated is not channel.opener_writes
    assert not channel.writer.is_closed
    assert not channel.reader.is_closed
    assert str(channel.writer.stream_id) in repr(channel.writer)


async def test_bidirectional_stream_is_closed_when_both_sides_are(pair: Pair, side: str) -> None:
    channel = await open_channel(pair, f"{side}-bidi")
    there = channel.reader
    assert isinstance(there, wtio.WebTransportStream)
    await channel.writer.write(data=b"to", end_stream=True)
    assert await there.read_all() == b"to"
    assert not there.is_closed
    assert not channel.writer.is_closed
    await there.write(data=b"fro", end_stream=True)
    assert there.is_closed
    here = channel.writer
    assert isinstance(here, wtio.WebTransportStream)
    assert await here.read_all() == b"fro"
    assert here.is_closed


# -- both sides at once


async def test_one_task_may_read_while_another_writes(pair: Pair, side: str) -> None:
    channel = await open_channel(pair, f"{side}-bidi")
    here, there = channel.writer, channel.reader
    assert isinstance(here, wtio.WebTransportStream)
    assert isinstance(there, wtio.WebTransportStream)
    data = bytes(range(256)) * 20_000

    async def echo() -> None:
        async for chunk in there:
            await there.write(data=chunk)
        await there.close()

    echoing = asyncio.ensure_future(echo())
    writing = asyncio.ensure_future(here.write_all(data=data, end_stream=True))
    assert await here.read_all() == data
    await asyncio.gather(echoing, writing)


async def test_close_ends_both_sides(pair: Pair, side: str) -> None:
    channel = await open_channel(pair, f"{side}-bidi")
    here, there = channel.writer, channel.reader
    assert isinstance(there, wtio.WebTransportStream)
    await here.write(data=b"last")
    for _ in range(3):
        await here.close()
    assert here.is_closed
    assert await there.read_all() == b"last"
    with pytest.raises(wtio.StreamStoppedError) as caught:
        await there.write_all(data=bytes(64 * 1024 * 1024))
    assert caught.value.error_code == 0


async def test_close_after_the_end_was_seen_stops_nothing(pair: Pair, side: str) -> None:
    channel = await open_channel(pair, f"{side}-bidi")
    here, there = channel.writer, channel.reader
    assert isinstance(there, wtio.WebTransportStream)
    assert isinstance(here, wtio.WebTransportStream)
    await there.write(data=b"answer", end_stream=True)
    assert await here.read_all() == b"answer"
    await here.close()
    assert await there.read_all() == b""
    await there.wait_acked()
    assert there.diagnostics().send_stop_code is None


async def test_close_with_a_code_resets_and_stops(pair: Pair, side: str) -> None:
    channel = await open_channel(pair, f"{side}-bidi")
    here, there = channel.writer, channel.reader
    assert isinstance(there, wtio.WebTransportStream)
    await here.close(error_code=55)
    assert here.is_closed
    with pytest.raises(wtio.StreamResetError) as reset:
        await there.read()
    with pytest.raises(wtio.StreamStoppedError) as stopped:
        await there.write_all(data=bytes(64 * 1024 * 1024))
    assert reset.value.error_code == stopped.value.error_code == 55


async def test_reset_leaves_the_other_side_open(pair: Pair, side: str) -> None:
    channel = await open_channel(pair, f"{side}-bidi")
    here, there = channel.writer, channel.reader
    assert isinstance(here, wtio.WebTransportStream)
    assert isinstance(there, wtio.WebTransportStream)
    await here.reset(error_code=1)
    assert here.can_read
    await there.write(data=b"still", end_stream=True)
    assert await here.read_all() == b"still"


async def test_stop_leaves_the_other_side_open(pair: Pair, side: str) -> None:
    channel = await open_channel(pair, f"{side}-bidi")
    here, there = channel.writer, channel.reader
    assert isinstance(here, wtio.WebTransportStream)
    await here.stop_receiving(error_code=1)
    assert here.can_write
    await here.write(data=b"still", end_stream=True)
    assert await there.read_all() == b"still"


# -- async with


async def test_context_manager_ends_the_stream(channel: Channel) -> None:
    async with channel.writer as writer:
        assert writer is channel.writer
        await writer.write(data=b"data")
    assert not channel.writer.can_write
    assert channel.writer.is_closed or isinstance(channel.writer, wtio.WebTransportStream)
    assert await channel.reader.read_all() == b"data"


async def test_context_manager_of_a_reader_stops_without_error(channel: Channel) -> None:
    async with channel.reader as reader:
        assert reader is channel.reader
    assert not channel.reader.can_read
    with pytest.raises(wtio.StreamStoppedError) as caught:
        await channel.writer.write_all(data=bytes(64 * 1024 * 1024))
    assert caught.value.error_code == 0


class BodyError(Exception):
    pass


@pytest.mark.parametrize("kind", [BodyError, asyncio.CancelledError, KeyError])
@pytest.mark.unmeasured
async def test_context_manager_resets_when_the_body_raises(channel: Channel, kind: type[BaseException]) -> None:
    with pytest.raises(kind):  # noqa: PT012
        async with channel.writer:
            await channel.writer.write(data=b"data")
            raise kind
    with pytest.raises(wtio.StreamResetError) as caught:
        await channel.reader.read_all()
    assert caught.value.error_code == wtio.BODY_RAISED_CODE


async def test_context_manager_stops_when_the_body_raises(channel: Channel) -> None:
    with pytest.raises(BodyError):
        async with channel.reader:
            raise BodyError
    with pytest.raises(wtio.StreamStoppedError) as caught:
        await channel.writer.write_all(data=bytes(64 * 1024 * 1024))
    assert caught.value.error_code == wtio.BODY_RAISED_CODE


async def test_the_code_of_a_body_that_raises_can_be_chosen(channel: Channel) -> None:
    channel.writer.body_raised_code = 7
    with pytest.raises(BodyError):
        async with channel.writer:
            raise BodyError
    with pytest.raises(wtio.StreamResetError) as caught:
        await channel.reader.read_all()
    assert caught.value.error_code == 7


@pytest.mark.parametrize("wrong", ["1", 1.5, None, -1, 2**32])
async def test_a_wrong_code_for_bodies_that_raise_is_refused_when_it_is_set(channel: Channel, wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="body_raised_code"):
        channel.writer.body_raised_code = wrong
    assert channel.writer.body_raised_code == wtio.BODY_RAISED_CODE


async def test_context_manager_never_masks_the_exception_of_its_body(pair: Pair, channel_kind: str) -> None:
    channel = await open_channel(pair, channel_kind)
    for stream in (channel.writer, channel.reader):
        with pytest.raises(BodyError):  # noqa: PT012
            async with stream:
                await pair.client.close(3, "gone")
                raise BodyError


async def test_context_manager_lets_a_stream_error_through(channel: Channel) -> None:
    await channel.writer.reset(error_code=8)
    with pytest.raises(wtio.StreamResetError) as caught:
        async with channel.reader:
            await channel.reader.read_all()
    assert caught.value.error_code == 8


# -- diagnostics


async def test_diagnostics_of_a_transfer(channel: Channel) -> None:
    await channel.send(b"0123456789")
    await channel.reader.read(max_bytes=4)
    written, read = channel.writer.diagnostics(), channel.reader.diagnostics()
    assert written.stream_id == read.stream_id == channel.writer.stream_id
    assert written.session_id == read.session_id == channel.near.session_id
    assert written.direction is channel.writer.direction
    assert read.is_peer_initiated is channel.reader.is_peer_initiated
    assert (written.send_state, read.receive_state) == ("open", "open")
    assert (written.bytes_written, written.bytes_sent, written.bytes_acknowledged) == (10, 10, 10)
    assert (read.bytes_received, read.bytes_read, read.receive_buffered) == (10, 4, 6)
    assert written.send_buffered == 0
    assert written.created_at is not None
    assert read.created_at is not None
    assert read.first_byte_at is not None
    assert read.first_byte_at >= read.created_at
    assert read.ended_at is None
    # A snapshot: it does not change.
    await channel.reader.read()
    assert read.bytes_read == 4


async def test_diagnostics_count_what_has_arrived_unread(channel: Channel) -> None:
    await channel.send(b"0123456789")
    read = channel.reader.diagnostics()
    assert (read.bytes_received, read.bytes_read, read.receive_buffered) == (10, 0, 10)
    assert read.first_byte_at is not None


async def test_diagnostics_after_the_end(pair: Pair, side: str) -> None:
    channel = await open_channel(pair, f"{side}-uni")
    await channel.send(b"0123456789", end_stream=True)
    assert await channel.reader.read_all() == b"0123456789"
    for _ in range(2):
        written, read = channel.writer.diagnostics(), channel.reader.diagnostics()
        assert (written.send_state, read.receive_state) == ("acked", "ended")
        assert (written.receive_state, read.send_state) == ("none", "none")
        assert (written.bytes_acknowledged, read.bytes_read, read.receive_buffered) == (10, 10, 0)
        assert written.ended_at is not None
        assert read.ended_at is not None
        await pair.client.close()
        await pair.accepted.wait_closed()


async def test_diagnostics_of_reset_and_stop(channel: Channel) -> None:
    await channel.writer.reset(error_code=21)
    await outcome(channel.reader.read())
    assert channel.writer.diagnostics().send_reset_code == 21
    assert channel.reader.diagnostics().receive_reset_code == 21
    assert channel.writer.diagnostics().send_stop_code is None
    assert channel.reader.diagnostics().receive_stop_code is None


async def test_diagnostics_of_a_stop(channel: Channel) -> None:
    await channel.reader.stop_receiving(error_code=22)
    await outcome(channel.writer.write_all(data=bytes(64 * 1024 * 1024)))
    assert channel.reader.diagnostics().receive_stop_code == 22
    assert channel.writer.diagnostics().send_stop_code == 22
    assert channel.writer.diagnostics().send_reset_code is None


@pytest.mark.parametrize("still_going_on", [False, True])
def test_diagnostics_count_the_time_blocked_on_flow_control(still_going_on: bool) -> None:
    size = 3 * wtio.Limits().stream_receive_window

    async def main() -> None:
        async with wtio.testing.session_pair() as (client, server):
            writer = await client.create_unidirectional_stream()
            assert writer.diagnostics().blocked_seconds == 0
            writing = asyncio.ensure_future(writer.write_all(data=bytes(size), end_stream=True))
            await asyncio.sleep(60)
            if still_going_on:
                assert 50 < writer.diagnostics().blocked_seconds <= 60
            reader = await anext(aiter(server.incoming_unidirectional_streams()))
            assert len(await reader.read_all()) == size
            await writing
            assert 50 < writer.diagnostics().blocked_seconds < 70

    wtio.testing.run(main())


async def test_diagnostics_after_the_session_has_ended(channel: Channel) -> None:
    await channel.send(b"data")
    await channel.near.close(1, "over")
    await channel.far.wait_closed()
    written, read = channel.writer.diagnostics(), channel.reader.diagnostics()
    assert written.bytes_written == 4
    assert read.bytes_received == 4
    assert written.send_state != "open"
    assert read.receive_state != "open"


# -- forgotten streams


async def test_forgotten_stream_is_reset_and_stopped(pair: Pair, side: str) -> None:
    channel = await open_channel(pair, f"{side}-bidi")
    there = channel.reader
    assert isinstance(there, wtio.WebTransportStream)
    number = channel.writer.stream_id
    del channel
    with pytest.raises(wtio.StreamResetError) as reset:
        await there.read()
    with pytest.raises(wtio.StreamStoppedError) as stopped:
        await there.write_all(data=bytes(64 * 1024 * 1024))
    assert reset.value.error_code == stopped.value.error_code == 0
    assert there.stream_id == number


async def test_stream_that_nobody_accepts_does_not_hinder_the_others(pair: Pair, side: str) -> None:
    opener, acceptor = pair.sides(side)
    ignored = await opener.create_unidirectional_stream()
    await ignored.write(data=b"never read", end_stream=True)
    stream = await opener.create_bidirectional_stream()
    await stream.write(data=b"read", end_stream=True)
    assert await (await first(acceptor.incoming_bidirectional_streams())).read_all() == b"read"
