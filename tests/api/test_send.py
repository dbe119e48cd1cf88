"""The sending half of the contract, row by row, for every class of stream and both ways."""

from __future__ import annotations

import array
import asyncio
import ctypes
import mmap
import random
from typing import TYPE_CHECKING

import pytest

import wtio
import wtio.testing

from .support import CODES, Channel, is_pending, open_channel, outcome, session_pair, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from wtio import DevCertificate

    from .support import Pair

BULK = bytes(range(256)) * 4096  # 1 MiB

# With these a writer soon waits for its reader.
TIGHT = wtio.Limits(
    stream_receive_window=16 * 1024,
    connection_receive_window=1024 * 1024,
    stream_send_buffer=8 * 1024,
)


@pytest.fixture
async def tight(certificate: DevCertificate, channel_kind: str) -> AsyncIterator[Channel]:
    """A channel whose queue is full after 24 KiB that nobody reads."""
    async with session_pair(certificate, client_limits=TIGHT, server_limits=TIGHT) as pair:
        yield await open_channel(pair, channel_kind)


async def fill(channel: Channel) -> asyncio.Task[None]:
    """Begin a write that cannot finish until somebody reads, and wait until it waits."""
    writing = asyncio.ensure_future(channel.writer.write(data=bytes(100 * 1024)))
    # The window is used up when the rest of the queue stays where it is; the header takes a few bytes of it.
    await until(lambda: channel.writer.diagnostics().bytes_acknowledged >= TIGHT.stream_receive_window - 16)
    assert await is_pending(writing)
    return writing


# -- write


async def test_write_delivers_all_of_its_data(channel: Channel) -> None:
    await channel.writer.write(data=b"hello ")
    await channel.writer.write(data=b"world", end_stream=True)
    assert await channel.reader.read_all() == b"hello world"


async def test_write_of_nothing_sends_nothing(channel: Channel) -> None:
    await channel.writer.write(data=b"")
    assert channel.writer.can_write
    await channel.writer.write(data=b"x", end_stream=True)
    assert await channel.reader.read_all() == b"x"


async def test_write_of_nothing_can_send_the_end(channel: Channel) -> None:
    await channel.writer.write(data=b"data")
    await channel.writer.write(data=b"", end_stream=True)
    assert not channel.writer.can_write
    assert await channel.reader.read_all() == b"data"


async def test_writes_keep_their_order(channel: Channel) -> None:
    pieces = [bytes([number % 256]) * (number % 300) for number in range(1000)]

    async def write() -> None:
        for piece in pieces:
            await channel.writer.write(data=piece)
        await channel.writer.close()

    writing = asyncio.ensure_future(write())
    assert await channel.reader.read_all() == b"".join(pieces)
    await writing


async def test_small_writes_of_one_turn_leave_together(pair: Pair) -> None:
    channel = await open_channel(pair, "client-uni")
    before = pair.client.stats().packets_sent
    for _ in range(200):
        await channel.writer.write(data=b"12345")
    await channel.writer.wait_acked()
    # 1000 bytes are one packet; acknowledgements and path probes may come on top, 200 packets may not.
    assert pair.client.stats().packets_sent - before < 20
    assert await channel.reader.readexactly(n=1000) == b"12345" * 200


async def test_write_waits_while_the_queue_is_full(tight: Channel) -> None:
    writing = await fill(tight)
    accepted = tight.writer.diagnostics().bytes_written
    # Bounded: what the reader's window took, and one queue.
    assert accepted <= TIGHT.stream_receive_window + TIGHT.stream_send_buffer
    assert await tight.reader.readexactly(n=100 * 1024) == bytes(100 * 1024)
    await writing
    assert tight.writer.diagnostics().bytes_written == 100 * 1024


async def test_write_waits_while_the_queue_of_the_connection_is_full(certificate: DevCertificate) -> None:
    limits = wtio.Limits(stream_receive_window=16 * 1024, connection_send_buffer=64 * 1024)
    async with session_pair(certificate, client_limits=limits, server_limits=limits) as pair:
        channels = [await open_channel(pair, "client-uni") for _ in range(5)]
        writings = [asyncio.ensure_future(channel.writer.write(data=bytes(40 * 1024))) for channel in channels]
        # No stream's own queue is full with 40 KiB, but all together are.
        assert await is_pending(asyncio.gather(*writings))
        assert not all(writing.done() for writing in writings)
        for channel in channels:
            assert await channel.reader.readexactly(n=40 * 1024) == bytes(40 * 1024)
        await asyncio.gather(*writings)


async def test_data_may_change_once_write_has_returned(channel: Channel) -> None:
    data = bytearray(b"a" * 10_000)
    for letter in b"bcdefg":
        await channel.writer.write(data=data)
        data[:] = bytes([letter]) * len(data)
    await channel.writer.write_all(data=memoryview(data), chunk_size=999, end_stream=True)
    data[:] = b"!" * len(data)
    assert await channel.reader.read_all() == b"".join(bytes([letter]) * 10_000 for letter in b"abcdefg")


@pytest.mark.parametrize("size", [100, 65_536, 300_000])
@pytest.mark.trap("S17")
@pytest.mark.unaudited("its connections end by CONNECTION_CLOSE while a session is open")
def test_changed_data_is_not_retransmitted(size: int) -> None:
    # A lost packet is sent again from a copy, not from the caller's buffer.
    async def main() -> None:
        async with wtio.testing.session_pair(loss=0.2, seed=3) as (client, server):
            writer = await client.create_unidirectional_stream()
            reader = await anext(aiter(server.incoming_unidirectional_streams()))
            reading = asyncio.ensure_future(reader.read_all())
            data = bytearray(size)
            for number in range(20):
                data[:] = bytes([number]) * size
                await writer.write(data=data)
            data[:] = b"!" * size
            await writer.close()
            assert await reading == b"".join(bytes([number]) * size for number in range(20))

    wtio.testing.run(main())


# -- write after the end


@pytest.mark.trap("S19")
async def test_write_after_the_end_says_so(channel: Channel) -> None:
    await channel.send(b"data", end_stream=True)
    assert not channel.writer.can_write
    for data in (b"more", b""):
        for end_stream in (False, True):
            with pytest.raises(wtio.StreamClosedError, match="ended") as caught:
                await channel.writer.write(data=data, end_stream=end_stream)
            assert caught.value.stream_id == channel.writer.stream_id
    with pytest.raises(wtio.StreamClosedError, match="ended"):
        await channel.writer.write_all(data=b"more")
    assert await channel.reader.read_all() == b"data"


@pytest.mark.trap("S19")
async def test_write_after_reset_says_so_with_the_code(channel: Channel) -> None:
    await channel.writer.reset(error_code=77)
    assert not channel.writer.can_write
    for call in (channel.writer.write(data=b"x"), channel.writer.write_all(data=b"x"), channel.writer.write(data=b"")):
        with pytest.raises(wtio.StreamClosedError, match=r"reset.*77"):
            await call


async def test_write_after_the_peer_stopped_says_so_with_the_code(tight: Channel) -> None:
    writing = await fill(tight)
    await tight.reader.stop_receiving(error_code=78)
    await outcome(writing)
    assert not tight.writer.can_write
    for call in (tight.writer.write(data=b"x"), tight.writer.write_all(data=b"x"), tight.writer.write(data=b"")):
        with pytest.raises(wtio.StreamStoppedError, match="78") as caught:
            await call
        assert caught.value.error_code == 78
        assert isinstance(caught.value, BrokenPipeError)


async def test_stop_with_a_code_of_no_application_meaning(tight: Channel) -> None:
    # No public call sends such a code; another implementation may.
    writing = await fill(tight)
    assert tight.reader._core.stop(0x10C)
    with pytest.raises(wtio.StreamStoppedError) as caught:
        await writing
    assert caught.value.error_code is None
    assert caught.value.wire_code == 0x10C


# -- waiting writes end


@pytest.mark.trap("S13")
async def test_waiting_write_ends_when_the_peer_stops(tight: Channel) -> None:
    writing = await fill(tight)
    await tight.reader.stop_receiving(error_code=5)
    with pytest.raises(wtio.StreamStoppedError) as caught:
        await writing
    assert caught.value.error_code == 5
    assert 0 < tight.writer.last_write_accepted < 100 * 1024


async def test_waiting_write_ends_when_this_side_resets(tight: Channel) -> None:
    writing = await fill(tight)
    await tight.writer.reset(error_code=6)
    with pytest.raises(wtio.StreamClosedError, match="reset"):
        await writing
    with pytest.raises(wtio.StreamResetError) as caught:
        await tight.reader.readexactly(n=100 * 1024)
    assert caught.value.error_code == 6


async def test_waiting_write_all_ends_when_the_peer_stops(tight: Channel) -> None:
    writing = asyncio.ensure_future(tight.writer.write_all(data=bytes(1024 * 1024), chunk_size=1000))
    await tight.reader.readexactly(n=100)
    await tight.reader.stop_receiving(error_code=5)
    with pytest.raises(wtio.StreamStoppedError):
        await writing


async def test_stop_is_noticed_by_a_writer_that_wrote_nothing(pair: Pair, channel_kind: str) -> None:
    channel = await open_channel(pair, channel_kind)
    await channel.reader.stop_receiving(error_code=1)
    # Another stream of the same connection, answered, shows that the stop has arrived before.
    probe = await channel.far.create_bidirectional_stream()
    await probe.write(data=b"?", end_stream=True)
    seen = await anext(aiter(channel.near.incoming_bidirectional_streams()))
    await seen.read_all()
    assert not channel.writer.can_write
    with pytest.raises(wtio.StreamStoppedError):
        await channel.writer.write(data=b"x")


# -- write_all


@pytest.mark.parametrize("chunk_size", [1, 7, 1000, 65_536, 2**40])
@pytest.mark.unmeasured
async def test_write_all_in_chunks_of_any_size(pair: Pair, channel_kind: str, chunk_size: int) -> None:
    channel = await open_channel(pair, channel_kind)
    data = random.Random(chunk_size).randbytes(5000 if chunk_size < 100 else 500_000)
    writing = asyncio.ensure_future(channel.writer.write_all(data=data, chunk_size=chunk_size, end_stream=True))
    assert await channel.reader.read_all() == data
    await writing


@pytest.mark.trap("S9")
async def test_write_all_of_much_data_through_a_small_queue(tight: Channel) -> None:
    # Every write is accepted in part only.
    writing = asyncio.ensure_future(tight.writer.write_all(data=BULK * 2, chunk_size=50_000, end_stream=True))
    assert await tight.reader.read_all() == BULK * 2
    await writing


async def test_write_all_of_a_mapped_file_of_128_mib(pair: Pair) -> None:
    channel = await open_channel(pair, "client-uni")
    size = 128 * 1024 * 1024
    with mmap.mmap(-1, size) as data:
        data[:4], data[-4:] = b"head", b"tail"
        writing = asyncio.ensure_future(channel.writer.write_all(data=data, end_stream=True))
        received = 0
        head = await channel.reader.readexactly(n=4)
        tail = b""
        async for chunk in channel.reader:
            received += len(chunk)
            tail = (tail + chunk)[-4:]
            diagnostics = channel.writer.diagnostics()
            assert diagnostics.send_buffered <= wtio.Limits().stream_send_buffer
        await writing
        assert (head, received, tail) == (b"head", size - 4, b"tail")


async def test_write_all_without_end_leaves_the_stream_open(channel: Channel) -> None:
    await channel.writer.write_all(data=b"0123456789", chunk_size=3)
    assert channel.writer.can_write
    await channel.writer.write_all(data=b"", end_stream=True)
    assert await channel.reader.read_all() == b"0123456789"


@pytest.mark.parametrize("chunk_size", [0, -1, -65_536])
async def test_write_all_refuses_chunk_sizes_below_1(channel: Channel, chunk_size: int) -> None:
    with pytest.raises(ValueError, match=f"chunk_size.*{chunk_size}"):
        await channel.writer.write_all(data=b"data", chunk_size=chunk_size)
    await channel.writer.write(data=b"", end_stream=True)
    assert await channel.reader.read_all() == b""


# -- buffers


class Record(ctypes.Structure):
    _fields_ = (("number", ctypes.c_uint32), ("letter", ctypes.c_char))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (bytearray(b"bytearray"), b"bytearray"),
        (memoryview(b"memoryview"), b"memoryview"),
        (memoryview(b"0123456789")[3:7], b"3456"),
        (array.array("B", b"array"), b"array"),
        (array.array("I", [1, 2]), array.array("I", [1, 2]).tobytes()),
        (memoryview(array.array("I", [1, 2, 3]))[1:], array.array("I", [2, 3]).tobytes()),
        (memoryview(array.array("d", [1.5])), array.array("d", [1.5]).tobytes()),
        (memoryview(bytes(range(12))).cast("B", (3, 4)), bytes(range(12))),
        (memoryview(b"x").cast("B", ()), b"x"),
        (memoryview(array.array("I"))[::1], b""),
        (Record(7, b"x"), bytes(Record(7, b"x"))),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("method", ["write", "write_all"])
async def test_anything_of_contiguous_bytes_can_be_written(
    pair: Pair, method: str, data: wtio.Buffer, expected: bytes
) -> None:
    channel = await open_channel(pair, "client-uni")
    assert isinstance(data, wtio.Buffer)
    await getattr(channel.writer, method)(data=data, end_stream=True)
    assert await channel.reader.read_all() == expected
    assert channel.writer.diagnostics().bytes_written == len(expected)


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        ("text", "encode"),
        ("", "encode"),
        (memoryview(b"0123456789")[::2], "contiguous"),
        (memoryview(b"0123456789")[::-1], "contiguous"),
        (5, "int"),
        (None, "NoneType"),
        ([1, 2], "list"),
    ],
    ids=["text", "empty text", "every other byte", "backwards", "number", "nothing", "list"],
)
@pytest.mark.parametrize("method", ["write", "write_all"])
@pytest.mark.unmeasured
async def test_anything_else_is_refused_with_a_hint(channel: Channel, method: str, data: object, hint: str) -> None:
    with pytest.raises(TypeError, match=hint):
        await getattr(channel.writer, method)(data=data, end_stream=True)
    # Nothing happened to the stream.
    await channel.writer.write(data=b"fine", end_stream=True)
    assert await channel.reader.read_all() == b"fine"


async def test_buffers_are_released_after_write(channel: Channel) -> None:
    data = bytearray(100_000)
    writing = asyncio.ensure_future(channel.writer.write(data=data, end_stream=True))
    await channel.reader.read_all()
    await writing
    data.extend(b"x")  # BufferError while somebody holds a view of it


@pytest.mark.parametrize("method", ["write", "write_all"])
@pytest.mark.parametrize("data", [bytearray(1_000_000), array.array("I", bytes(1_000_000))], ids=["bytearray", "array"])
@pytest.mark.unmeasured
async def test_buffers_are_released_after_a_cancelled_write(tight: Channel, method: str, data: bytearray) -> None:
    try:
        async with asyncio.timeout(0.01):
            await getattr(tight.writer, method)(data=data)
    except TimeoutError:
        data.append(1)  # BufferError while somebody holds a view of it, be it the traceback
    else:
        pytest.fail("the write did not wait")


# -- reset


@pytest.mark.parametrize("code", CODES)
@pytest.mark.unmeasured
async def test_reset_tells_the_peer_its_code(channel: Channel, code: int) -> None:
    await channel.writer.reset(error_code=code)
    assert not channel.writer.can_write
    with pytest.raises(wtio.StreamResetError) as caught:
        await channel.reader.read_all()
    assert caught.value.error_code == code


async def test_reset_defaults_to_no_error(channel: Channel) -> None:
    await channel.writer.reset()
    with pytest.raises(wtio.StreamResetError) as caught:
        await channel.reader.read()
    assert caught.value.error_code == wtio.ErrorCodes.APP_NO_ERROR


@pytest.mark.trap("S4")
async def test_second_reset_changes_nothing(channel: Channel) -> None:
    await channel.writer.reset(error_code=1)
    await channel.writer.reset(error_code=2)
    await channel.writer.close()
    await channel.writer.close(error_code=3)
    with pytest.raises(wtio.StreamResetError) as caught:
        await channel.reader.read()
    assert caught.value.error_code == 1


@pytest.mark.trap("S3")
async def test_reset_of_a_finished_stream_does_nothing(channel: Channel) -> None:
    await channel.send(b"all", end_stream=True)
    await channel.writer.reset(error_code=9)
    assert await channel.reader.read_all() == b"all"
    assert channel.writer.diagnostics().send_reset_code is None


async def test_reset_after_the_peer_stopped_does_nothing(tight: Channel) -> None:
    writing = await fill(tight)
    await tight.reader.stop_receiving(error_code=5)
    await outcome(writing)
    await tight.writer.reset(error_code=9)
    with pytest.raises(wtio.StreamStoppedError) as caught:
        await tight.writer.write(data=b"x")
    assert caught.value.error_code == 5


@pytest.mark.parametrize("code", [-1, 2**32, 2**62])
@pytest.mark.parametrize("method", ["reset", "close"])
@pytest.mark.unmeasured
async def test_codes_outside_32_bits_are_refused(channel: Channel, method: str, code: int) -> None:
    with pytest.raises(ValueError, match=str(code)):
        await getattr(channel.writer, method)(error_code=code)
    assert channel.writer.can_write
    await channel.send(b"still open", end_stream=True)
    assert await channel.reader.read_all() == b"still open"


@pytest.mark.trap("S2")
async def test_reset_goes_through_although_there_is_no_credit_left(tight: Channel) -> None:
    writing = await fill(tight)
    await tight.writer.reset(error_code=4)
    await outcome(writing)
    with pytest.raises(wtio.StreamResetError) as caught:
        await tight.reader.read_all()
    assert caught.value.error_code == 4


# -- close


async def test_close_sends_the_end_after_all_data(pair: Pair, side: str) -> None:
    channel = await open_channel(pair, f"{side}-uni")
    for _ in range(10):
        await channel.writer.write(data=b"x" * 10_000)
    for _ in range(3):
        await channel.writer.close()
    assert not channel.writer.can_write
    assert channel.writer.is_closed
    assert await channel.reader.read_all() == b"x" * 100_000
    with pytest.raises(wtio.StreamClosedError):
        await channel.writer.write(data=b"more")


@pytest.mark.parametrize("code", [0, 1, 2**32 - 1])
async def test_close_with_a_code_resets(pair: Pair, side: str, code: int) -> None:
    channel = await open_channel(pair, f"{side}-uni")
    await channel.writer.close(error_code=code)
    await channel.writer.close(error_code=code)
    await channel.writer.close()
    with pytest.raises(wtio.StreamResetError) as caught:
        await channel.reader.read_all()
    assert caught.value.error_code == code


async def test_close_while_a_write_waits(certificate: DevCertificate) -> None:
    async with session_pair(certificate, client_limits=TIGHT, server_limits=TIGHT) as pair:
        channel = await open_channel(pair, "client-uni")
        writing = await fill(channel)
        await channel.writer.close()
        with pytest.raises(wtio.StreamClosedError):
            await writing
        # What was accepted comes, and then the end.
        assert await channel.reader.read_all() == bytes(channel.writer.last_write_accepted)


# -- one writer at a time


@pytest.mark.parametrize("method", ["write", "write_all"])
async def test_second_writer_is_told(tight: Channel, method: str) -> None:
    writing = await fill(tight)
    with pytest.raises(wtio.BusyError, match=f"stream {tight.writer.stream_id}"):
        await getattr(tight.writer, method)(data=b"x")
    assert await tight.reader.readexactly(n=100 * 1024) == bytes(100 * 1024)
    await writing
    await tight.writer.write(data=b"y", end_stream=True)
    assert await tight.reader.read_all() == b"y"


# -- wait_acked


async def test_wait_acked_waits_for_the_acknowledgement(channel: Channel) -> None:
    await channel.writer.wait_acked()  # nothing is outstanding
    await channel.writer.write(data=b"data")
    await channel.writer.wait_acked()
    diagnostics = channel.writer.diagnostics()
    assert diagnostics.bytes_acknowledged == diagnostics.bytes_written == 4
    await channel.writer.close()
    await channel.writer.wait_acked()
    assert channel.writer.diagnostics().send_state == "acked"
    await channel.writer.wait_acked()


async def test_wait_acked_waits_while_the_reader_has_no_room(tight: Channel) -> None:
    writing = await fill(tight)
    waiting = asyncio.ensure_future(tight.writer.wait_acked())
    assert await is_pending(waiting)
    await tight.reader.readexactly(n=100 * 1024)
    await writing
    await waiting


async def test_several_tasks_may_wait_for_acknowledgement(channel: Channel) -> None:
    await channel.writer.write(data=b"data")
    await asyncio.gather(*(channel.writer.wait_acked() for _ in range(5)))
    assert channel.writer.diagnostics().bytes_acknowledged == 4


async def test_wait_acked_of_a_reset_stream_says_that_data_is_lost(tight: Channel) -> None:
    writing = await fill(tight)
    waiting = asyncio.ensure_future(tight.writer.wait_acked())
    assert await is_pending(waiting)
    await tight.writer.reset(error_code=3)
    for call in (waiting, tight.writer.wait_acked()):
        with pytest.raises(wtio.StreamClosedError):
            await call
    await outcome(writing)


async def test_wait_acked_of_a_stopped_stream_says_that_data_is_lost(tight: Channel) -> None:
    writing = await fill(tight)
    waiting = asyncio.ensure_future(tight.writer.wait_acked())
    assert await is_pending(waiting)
    await tight.reader.stop_receiving(error_code=3)
    for call in (waiting, tight.writer.wait_acked()):
        with pytest.raises(wtio.StreamStoppedError):
            await call
    await outcome(writing)


# -- send_order


@pytest.mark.parametrize("at_creation", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.trap("S18")
@pytest.mark.unmeasured
def test_higher_send_order_goes_first(at_creation: bool, bidirectional: bool) -> None:
    # On a slow link both streams have everything queued before the first byte leaves.
    async def main() -> None:
        limits = wtio.Limits(stream_send_buffer=2**20, connection_send_buffer=2**24, connection_receive_window=2**20)
        network = wtio.testing.Network(seed=1, bandwidth=1_000_000)
        async with wtio.testing.session_pair(network, limits=limits) as (client, server):
            create = client.create_bidirectional_stream if bidirectional else client.create_unidirectional_stream
            streams: list[wtio.WebTransportSendStream] = []
            for order in (0, -5, 10, 5):
                stream = await create(send_order=order if at_creation else 0)
                stream.send_order = order
                assert stream.send_order == order
                streams.append(stream)
            for stream in streams:
                await stream.write(data=bytes(200_000), end_stream=True)
            finished: list[int] = []

            async def read(stream: wtio.WebTransportReceiveStream) -> None:
                assert len(await stream.read_all()) == 200_000
                finished.append(stream.stream_id)

            form = "bidirectional" if bidirectional else "unidirectional"
            incoming = getattr(server, f"incoming_{form}_streams")()
            async with asyncio.TaskGroup() as group:
                for _ in streams:
                    group.create_task(read(await anext(aiter(incoming))))
            by_order = sorted(streams, key=lambda stream: -stream.send_order)
            assert finished == [stream.stream_id for stream in by_order]

    wtio.testing.run(main())


@pytest.mark.unaudited("what it leaves unread needs the window that is the default", entirely=True)
def test_streams_of_equal_send_order_share_the_link() -> None:
    async def main() -> None:
        limits = wtio.Limits(stream_send_buffer=2**20, connection_send_buffer=2**24)
        network = wtio.testing.Network(seed=1, bandwidth=1_000_000)
        async with wtio.testing.session_pair(network, limits=limits) as (client, server):
            writers = [await client.create_unidirectional_stream() for _ in range(4)]
            for writer in writers:
                await writer.write(data=bytes(400_000), end_stream=True)
            readers = [await anext(aiter(server.incoming_unidirectional_streams())) for _ in writers]
            assert len(await readers[0].read_all()) == 400_000
            for reader in readers[1:]:
                assert len(await reader.read()) > 200_000

    wtio.testing.run(main())


@pytest.mark.parametrize("value", [-(2**31) - 1, 2**31])
async def test_send_order_outside_32_bits_is_refused(pair: Pair, value: int) -> None:
    channel = await open_channel(pair, "client-uni")
    with pytest.raises(ValueError, match=str(value)):
        channel.writer.send_order = value
    assert channel.writer.send_order == 0
    with pytest.raises(ValueError, match=str(value)):
        await pair.client.create_bidirectional_stream(send_order=value)
