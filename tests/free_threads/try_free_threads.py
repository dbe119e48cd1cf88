"""What holds without a GIL: run by `tools/free-threaded` with a free-threaded Python, and the extension built for it.

It knows the standard library and wtio only. Two loops in two threads, each with a server and a client of its own, echo
nearly twice as much as one; threads that use what belongs to another get errors, and nothing breaks.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import wtio

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 5.0
STREAMS = 16
# Nearly twice. Two busy processors with one memory are each slower than one alone.
LEAST_GAIN = 1.4
ROUNDS = 3


async def echo(session: wtio.WebTransportSession) -> None:
    """Answer messages of 64 bytes on every stream."""

    async def one(stream: wtio.WebTransportStream) -> None:
        with contextlib.suppress(wtio.StreamError, wtio.SessionClosed, asyncio.IncompleteReadError):
            while True:
                await stream.write(data=await stream.readexactly(n=64))

    async with asyncio.TaskGroup() as group:
        async for stream in session.incoming_bidirectional_streams():
            group.create_task(one(stream))


async def count_echoes(certificate: wtio.DevCertificate, begin: threading.Barrier) -> tuple[int, float]:
    """Echoes within ``SECONDS`` between a server and a client on this loop, and the processor time of this thread."""
    done = 0
    async with (
        wtio.serve(echo, "127.0.0.1", 0, tls=certificate.server_tls()) as server,
        wtio.connect(f"https://127.0.0.1:{server.addresses[0][1]}/", tls=certificate.client_tls()) as session,
    ):
        streams = [await session.create_bidirectional_stream() for _ in range(STREAMS)]
        begin.wait()
        end = time.monotonic() + SECONDS
        used = time.thread_time()

        async def ask(stream: wtio.WebTransportStream) -> None:
            nonlocal done
            while time.monotonic() < end:
                await stream.write(data=b"x" * 64)
                await stream.readexactly(n=64)
                done += 1

        await asyncio.gather(*map(ask, streams))
        used = time.thread_time() - used
    return done, used


def echoes_per_second(loops: int, certificate: wtio.DevCertificate) -> tuple[float, float]:
    """Of so many loops, each in a thread of its own; and in a second of processor time, added up over the loops."""
    begin = threading.Barrier(loops)
    with ThreadPoolExecutor(loops) as threads:
        counts = list(threads.map(lambda _: asyncio.run(count_echoes(certificate, begin)), range(loops)))
    return sum(done for done, _ in counts) / SECONDS, sum(done / used for done, used in counts)


def check_that_loops_gain(certificate: wtio.DevCertificate) -> None:
    """Compare one loop with two; the best of some rounds.

    What counts is processor time: how much of it the threads get depends on what else the machine does.
    """
    gains = []
    for _ in range(ROUNDS):
        one, two = (echoes_per_second(loops, certificate) for loops in (1, 2))
        gains.append(two[1] / one[1])
        print(
            f"echoes a second: {one[0]:,.0f} on one loop, {two[0]:,.0f} on two in two threads; "
            f"in a second of processor time of each: {one[1]:,.0f} and {two[1]:,.0f}, {gains[-1]:.2f} times",
            flush=True,
        )
    assert max(gains) >= LEAST_GAIN, gains


async def check_that_misuse_raises(certificate: wtio.DevCertificate) -> None:
    """Let four threads use one session, all at once, while its own loop uses it, too."""
    calls: dict[str, Callable[[wtio.WebTransportSession, wtio.WebTransportStream], object]] = {
        "send_datagram": lambda session, stream: session.send_datagram(b"x"),
        "write": lambda session, stream: stream.write(data=b"x").send(None),
        "read": lambda session, stream: stream.read().send(None),
        "reset": lambda session, stream: stream.reset(error_code=1).send(None),
        "close": lambda session, stream: session.close().send(None),
    }
    wrong: list[str] = []
    async with (
        wtio.serve(echo, "127.0.0.1", 0, tls=certificate.server_tls()) as server,
        wtio.connect(f"https://127.0.0.1:{server.addresses[0][1]}/", tls=certificate.client_tls()) as session,
    ):
        stream = await session.create_bidirectional_stream()
        is_over = threading.Event()
        used = [0] * 4

        def misuse(number: int) -> None:
            while not is_over.is_set():
                for name, call in calls.items():
                    try:
                        call(session, stream)
                    except wtio.BusyError:
                        pass  # The loop reads just now, which is found out first.
                    except RuntimeError as error:
                        if "call_soon_threadsafe" not in str(error):
                            wrong.append(f"{name}: {error}")
                    except BaseException as error:
                        wrong.append(f"{name}: {error!r}")
                    else:
                        wrong.append(f"{name}: nothing was raised")
                # What only looks may be called from anywhere.
                repr(session), repr(stream), session.stats()
                used[number] += 1

        threads = [threading.Thread(target=misuse, args=(number,)) for number in range(len(used))]
        for thread in threads:
            thread.start()
        end = time.monotonic() + SECONDS
        echoed = 0
        while time.monotonic() < end or min(used) == 0:
            await stream.write(data=b"y" * 64)
            assert await stream.readexactly(n=64) == b"y" * 64
            echoed += 1
        is_over.set()
        for thread in threads:
            await asyncio.to_thread(thread.join)
    assert not wrong, sorted(set(wrong))
    print(f"{sum(used) * len(calls):,} calls from other threads raised RuntimeError, beside {echoed:,} echoes")


def check_arrays_that_others_resize(certificate: wtio.DevCertificate) -> None:
    """A `bytearray` that another thread grows and shrinks while it is written is sent as it was at some time."""
    if sys.version_info < (3, 14):
        # Up to there Python itself reads memory that another thread has freed: its bytearray takes no lock (gh-129107).
        print("arrays that another thread resizes: not tried, the bytearray of Python 3.13 is not made for threads")
        return

    async def main() -> None:
        async with (
            wtio.serve(echo, "127.0.0.1", 0, tls=certificate.server_tls()) as server,
            wtio.connect(f"https://127.0.0.1:{server.addresses[0][1]}/", tls=certificate.client_tls()) as session,
        ):
            data = bytearray(64)
            is_over = threading.Event()

            def resize() -> None:
                while not is_over.is_set():
                    data.extend(bytes(1 << 16))
                    del data[64:]

            thread = threading.Thread(target=resize, daemon=True)
            thread.start()
            for _ in range(300):
                stream = await session.create_bidirectional_stream()
                await stream.write(data=data)
                assert await stream.readexactly(n=64) == bytes(64)
                await stream.reset(error_code=0)
            is_over.set()
            await asyncio.to_thread(thread.join)

    asyncio.run(main())
    print("arrays that another thread resizes are sent whole")


def main() -> None:
    """All of it."""
    assert not sys._is_gil_enabled(), "importing wtio has switched the GIL on"  # type: ignore[attr-defined]
    print(f"Python {sys.version.split()[0]}, without a GIL; {wtio.__file__}")
    certificate = wtio.dev_certificate()
    asyncio.run(check_that_misuse_raises(certificate))
    check_arrays_that_others_resize(certificate)
    check_that_loops_gain(certificate)
    assert not sys._is_gil_enabled()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
