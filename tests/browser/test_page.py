"""A tab of a real browser against our server: what a page can do, the server sees, and the other way round."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

import pytest
from tests.support.logs import but_sessions

import wtio

from .pages import run

if TYPE_CHECKING:
    from .pages import Page, Serving

# The browser is started once for this file, so that everything here runs on one loop.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

REPEATS = 200
CLOSINGS_AT_ONCE = 20
RELOADS = 20
SERVERS = 15
PAGES_AT_ONCE = 20


class Recorder:
    """What handlers saw, for the test to wait for."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[object] = asyncio.Queue()

    def put(self, item: object) -> None:
        self._queue.put_nowait(item)

    async def next(self) -> object:
        async with asyncio.timeout(10):
            return await self._queue.get()


def as_seen(code: int, browser_name: str) -> int:
    """What a page gets of a stream's code: Firefox keeps eight bits and makes a 0 of what does not fit."""
    return 0 if browser_name == "firefox" and code > 255 else code


async def write_forever(stream: wtio.WebTransportStream) -> None:
    while True:
        await stream.write(data=b"x")
        await asyncio.sleep(0.01)


async def read_exactly(stream: wtio.WebTransportStream) -> None:
    await stream.readexactly(n=1000)


async def echo_chunks(stream: wtio.WebTransportStream) -> None:
    async for chunk in stream:
        await stream.write(data=chunk)


async def write_without_end(stream: wtio.WebTransportStream) -> None:
    await stream.write_all(data=bytes(10**8))


READS = {"readexactly": read_exactly, "iteration": echo_chunks, "write_all": write_without_end}


async def test_page_opens_bidirectional_streams(page: Page, serving: Serving) -> None:
    async def echo(session: wtio.WebTransportSession) -> None:
        async for stream in session.incoming_bidirectional_streams():
            await stream.write(data=(await stream.read_all()).upper(), end_stream=True)

    async with serving(echo) as target:
        answers = await run(
            page,
            """async (target) => {
                const session = await openSession(target);
                const answers = [];
                for (const text of ["one", "two", "", "grüße"]) {
                    const stream = await session.createBidirectionalStream();
                    const [, answer] = await Promise.all([writeAll(stream.writable, text), readText(stream.readable)]);
                    answers.push(answer);
                }
                session.close();
                return answers;
            }""",
            target.at(),
        )
    # bytes.upper leaves everything outside ASCII as it is.
    assert answers == ["ONE", "TWO", "", "GRüßE"]


async def test_server_opens_bidirectional_streams(page: Page, serving: Serving) -> None:
    seen = Recorder()

    async def ask(session: wtio.WebTransportSession) -> None:
        for question in (b"first", b"second"):
            stream = await session.create_bidirectional_stream()
            await stream.write(data=question, end_stream=True)
            seen.put(await stream.read_all())
        await session.wait_closed()

    async with serving(ask) as target:
        await run(
            page,
            """async (target) => {
                const session = await openSession(target);
                for (let count = 0; count < 2; count++) {
                    const stream = await nextStream(session.incomingBidirectionalStreams);
                    await writeAll(stream.writable, "answer to " + await readText(stream.readable));
                }
                window.session = session;
            }""",
            target.at(),
        )
        assert [await seen.next(), await seen.next()] == [b"answer to first", b"answer to second"]
        await run(page, "session.close()")


async def test_unidirectional_streams_from_both_ends(page: Page, serving: Serving) -> None:
    async def turn_round(session: wtio.WebTransportSession) -> None:
        async for incoming in session.incoming_unidirectional_streams():
            outgoing = await session.create_unidirectional_stream()
            await outgoing.write(data=(await incoming.read_all())[::-1], end_stream=True)

    async with serving(turn_round) as target:
        answers = await run(
            page,
            """async (target) => {
                const session = await openSession(target);
                const answers = [];
                for (const text of ["abc", "x".repeat(100000) + "y"]) {
                    await writeAll(await session.createUnidirectionalStream(), text);
                    answers.push(await readText(await nextStream(session.incomingUnidirectionalStreams)));
                }
                session.close();
                return answers;
            }""",
            target.at(),
        )
    assert answers == ["cba", "y" + "x" * 100_000]


async def test_megabytes_both_ways_and_many_streams(page: Page, serving: Serving) -> None:
    async def echo(session: wtio.WebTransportSession) -> None:
        async with asyncio.TaskGroup() as tasks:
            async for stream in session.incoming_bidirectional_streams():
                tasks.create_task(echo_stream(stream))

    async def echo_stream(stream: wtio.WebTransportStream) -> None:
        async for chunk in stream:
            await stream.write(data=chunk)
        await stream.write(data=b"", end_stream=True)

    async with serving(echo) as target:
        result = await run(
            page,
            """async (target) => {
                const session = await openSession(target);
                async function roundTrip(size, seed) {
                    const data = new Uint8Array(size).map((_, index) => (index * 31 + seed) & 255);
                    const stream = await createStream(session);
                    const [, answer] = await Promise.all([writeAll(stream.writable, data), readBytes(stream.readable)]);
                    return answer.length === size && answer.every((byte, index) => byte === data[index]);
                }
                const large = await roundTrip(8 << 20, 7);
                // More streams than the first credit allows: it must come back.
                const small = [];
                for (let round = 0; round < 3; round++) {
                    const seeds = Array.from({ length: 100 }, (_, seed) => seed);
                    small.push(...await Promise.all(seeds.map((seed) => roundTrip(1000 + seed, seed))));
                }
                session.close();
                return { large, small: small.filter(Boolean).length };
            }""",
            target.at(),
        )
    assert result == {"large": True, "small": 300}


async def test_datagrams_both_ways(page: Page, serving: Serving) -> None:
    # The page's largest datagram is larger than what may fit into our packets so early.
    async def answer(session: wtio.WebTransportSession) -> None:
        async for datagram in session.incoming_datagrams():
            session.send_datagram(b"%d %s" % (len(datagram), datagram[:8][::-1]))

    async with serving(answer) as target:
        largest, answers = await run(
            page,
            """async (target) => {
                const session = await openSession(target);
                const reader = session.datagrams.readable.getReader();
                const writable = session.datagrams.writable ?? session.datagrams.createWritable();
                const writer = writable.getWriter();
                const largest = session.datagrams.maxDatagramSize;
                const answers = [];
                for (const text of ["abc", "", "x".repeat(largest)]) {
                    await writer.write(encode(text));
                    answers.push(decode((await reader.read()).value));
                }
                session.close();
                return [largest, answers];
            }""",
            target.at(),
        )
    assert answers == ["3 cba", "0 ", f"{largest} xxxxxxxx"]
    assert largest > 1000


# Both browsers cut a page's stream codes to eight bits.
@pytest.mark.parametrize("code", [0, 1, 29, 30, 255])
async def test_reset_and_stop_by_the_page_carry_their_codes(
    page: Page, serving: Serving, code: int, browser_name: str
) -> None:
    seen = Recorder()
    # Firefox sends no STOP_SENDING when a page cancels (to aioquic neither).
    sends_stop = browser_name != "firefox"

    async def watch(session: wtio.WebTransportSession) -> None:
        stream = await anext(session.incoming_bidirectional_streams())
        assert await stream.readexactly(n=5) == b"start"
        await stream.write(data=b"go")
        with pytest.raises(wtio.StreamResetError) as reset:
            await stream.read_all()
        seen.put(reset.value.error_code)
        if sends_stop:
            with pytest.raises(wtio.StreamStoppedError) as stop:
                await write_forever(stream)
            seen.put(stop.value.error_code)
        await session.wait_closed()

    async with serving(watch) as target:
        await run(
            page,
            """async ({ target, code }) => {
                const session = await openSession(target);
                const stream = await session.createBidirectionalStream();
                const writer = stream.writable.getWriter();
                await writer.write(encode("start"));
                const reader = stream.readable.getReader();
                await reader.read();
                await Promise.all([writer.abort(streamError(code)), reader.cancel(streamError(code))]);
                window.session = session;
            }""",
            {"target": target.at(), "code": code},
        )
        assert await seen.next() == code
        if sends_stop:
            assert await seen.next() == code
        await run(page, "session.close()")


@pytest.mark.parametrize("code", [0, 1, 29, 30, 255, 2**32 - 1])
async def test_reset_by_the_server_carries_its_code(page: Page, serving: Serving, code: int, browser_name: str) -> None:
    async def refuse(session: wtio.WebTransportSession) -> None:
        stream = await session.create_bidirectional_stream()
        await stream.write(data=b"start")
        assert await stream.readexactly(n=5) == b"ready"
        await stream.reset(error_code=code)
        await session.wait_closed()

    async with serving(refuse) as target:
        error = await run(
            page,
            """async (target) => {
                const session = await openSession(target);
                const stream = await nextStream(session.incomingBidirectionalStreams);
                const reader = stream.readable.getReader();
                await reader.read();
                await stream.writable.getWriter().write(encode("ready"));
                const error = await failure(reader.read());
                session.close();
                return error;
            }""",
            target.at(),
        )
    assert error == {"name": "WebTransportError", "source": "stream", "code": as_seen(code, browser_name)}


@pytest.mark.parametrize("code", [0, 1, 29, 30, 255, 2**32 - 1])
async def test_stop_by_the_server_carries_its_code(page: Page, serving: Serving, code: int, browser_name: str) -> None:
    async def refuse(session: wtio.WebTransportSession) -> None:
        streams = []
        with contextlib.suppress(wtio.SessionClosed):
            async for stream in session.incoming_bidirectional_streams():
                streams.append(stream)
                assert await stream.readexactly(n=5) == b"start"
                await stream.stop_receiving(error_code=code)

    # Chromium reports a stop to the page in two ways at once. When the one without the code wins, the page gets a
    # NetworkError, with any server and more often on a busy machine; Firefox has an AbortError of the same kind. No
    # code other than ours may ever appear.
    async with serving(refuse) as target:
        errors = await run(
            page,
            """async (target) => {
                const session = await openSession(target);
                const errors = [];
                do {
                    const stream = await session.createBidirectionalStream();
                    const writer = stream.writable.getWriter();
                    writer.write(encode("start")).catch(() => {});
                    errors.push(await failure(writer.closed));
                } while (["NetworkError", "AbortError"].includes(errors.at(-1).name) && errors.length < 50);
                session.close();
                return errors;
            }""",
            target.at(),
        )
    assert errors[-1] == {"name": "WebTransportError", "source": "stream", "code": as_seen(code, browser_name)}


async def test_a_stream_closed_with_a_code_shows_it_to_the_pages_reader_and_writer(
    page: Page, serving: Serving
) -> None:
    # With the reset in front of the stop, Chromium's writer lost the code of every fourth stream.
    async def refuse(session: wtio.WebTransportSession) -> None:
        async for stream in session.incoming_bidirectional_streams():
            await stream.read()
            await stream.close(error_code=7)

    async with serving(refuse) as target:
        errors = await run(
            page,
            """async (target) => {
                const errors = [];
                for (let count = 0; count < 60; count++) {
                    const session = await openSession(target);
                    const stream = await session.createBidirectionalStream();
                    const writer = stream.writable.getWriter();
                    writer.write(encode("start")).catch(() => {});
                    errors.push(await failure(writer.closed), await failure(stream.readable.getReader().closed));
                    session.close();
                }
                return errors;
            }""",
            target.at(),
        )
    assert errors == [{"name": "WebTransportError", "source": "stream", "code": 7}] * 120


@pytest.mark.trap("C1")
async def test_page_sees_our_close_code_and_reason_every_time(page: Page, serving: Serving) -> None:
    count = 0

    async def close(session: wtio.WebTransportSession) -> None:
        nonlocal count
        count += 1
        number = count
        # Open streams on both sides: ending the session while they carry data must not cost the code.
        outgoing = await session.create_unidirectional_stream()
        await outgoing.write(data=b"still going")
        stream = await anext(session.incoming_bidirectional_streams())
        await stream.read()
        await session.close(number, f"reason {number} ä")

    async with serving(close) as target:
        closings = await run(
            page,
            """async ({ target, repeats }) => {
                const closings = [];
                for (let count = 0; count < repeats; count++) {
                    const session = await openSession(target);
                    const stream = await session.createBidirectionalStream();
                    await stream.writable.getWriter().write(encode("close me"));
                    closings.push(await session.closed.then(
                        ({ closeCode, reason }) => [closeCode, reason],
                        (error) => String(error),
                    ));
                }
                return closings;
            }""",
            {"target": target.at(), "repeats": REPEATS},
        )
    assert closings == [[number, f"reason {number} ä"] for number in range(1, REPEATS + 1)]


async def test_a_server_that_closes_tells_each_of_300_sessions_why(page: Page, serving: Serving) -> None:
    # Chromium ends a session in a task behind the one that reads the capsule. A CONNECTION_CLOSE that it could read
    # before, which cost half of them their code, must not follow so soon.
    async def wait(session: wtio.WebTransportSession) -> None:
        await session.wait_closed()

    closings: list[object] = []
    for number in range(SERVERS):
        async with serving(wait) as target:
            await run(
                page,
                """async ({ target, count, sends }) => {
                    window.closings = [];
                    window.timers = [];
                    const opening = Array.from({ length: count }, async () => {
                        const session = await openSession(target);
                        closings.push(session.closed.then(
                            ({ closeCode, reason }) => [closeCode, reason],
                            (error) => String(error),
                        ));
                        if (sends) {
                            const writable = session.datagrams.writable ?? session.datagrams.createWritable();
                            const writer = writable.getWriter();
                            timers.push(setInterval(() => writer.write(encode("x")).catch(() => {}), 5));
                        }
                    });
                    await Promise.all(opening);
                }""",
                {"target": target.at(), "count": PAGES_AT_ONCE, "sends": number % 2 == 1},
            )
            await target.server.close(number, "deploy")
            closings += await run(page, "timers.forEach(clearInterval), Promise.all(closings)")
    assert closings == [[number, "deploy"] for number in range(SERVERS) for _ in range(PAGES_AT_ONCE)]


async def test_server_sees_the_pages_close_code_and_reason_every_time(page: Page, serving: Serving) -> None:
    seen = Recorder()

    async def wait(session: wtio.WebTransportSession) -> None:
        info = await session.wait_closed()
        seen.put((info.code, info.reason, info.closed_by))

    async with serving(wait) as target:
        await run(
            page,
            """async ({ target, repeats }) => {
                for (let count = 1; count <= repeats; count++) {
                    const session = await openSession(target);
                    session.close({ closeCode: count, reason: "reason " + count + " ä" });
                    await session.closed;
                }
            }""",
            {"target": target.at(), "repeats": REPEATS},
        )
        closings = [await seen.next() for _ in range(REPEATS)]
    assert sorted(closings) == [(number, f"reason {number} ä", "peer") for number in range(1, REPEATS + 1)]  # type: ignore[type-var]


@pytest.mark.parametrize("reads", READS)
async def test_handlers_that_use_streams_see_the_pages_close_code_and_reason_every_time(
    page: Page, serving: Serving, browser_name: str, reads: str, caplog: pytest.LogCaptureFixture
) -> None:
    # Firefox resets and stops the streams before it sends code and reason.
    caplog.set_level(logging.INFO, "wtio.server")
    seen = Recorder()

    async def use(session: wtio.WebTransportSession) -> None:
        tasks: list[asyncio.Future[None]] = []

        async def take_all() -> None:
            async for stream in session.incoming_bidirectional_streams():
                tasks.append(asyncio.ensure_future(READS[reads](stream)))  # noqa: PERF401

        tasks.append(asyncio.ensure_future(take_all()))
        # One that this side has opened, too.
        tasks.append(asyncio.ensure_future(write_forever(await session.create_bidirectional_stream())))
        await session.wait_closed()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        if browser_name == "firefox":
            # Of about a hundredth of its streams, it sends the regular end before it closes.
            outcomes = [end for end in outcomes if end and not isinstance(end, asyncio.IncompleteReadError)]
        seen.put({(end.code, end.reason) if isinstance(end, wtio.SessionClosed) else end for end in outcomes})

    async with serving(use) as target:
        for first in range(1, REPEATS + 1, CLOSINGS_AT_ONCE):
            numbers = range(first, first + CLOSINGS_AT_ONCE)
            await run(
                page,
                """async ({ target, first, count }) => {
                    // Firefox ends streams whose objects it has collected.
                    window.kept = [];
                    for (let number = first; number < first + count; number++) {
                        const session = await openSession(target);
                        for (let open = 0; open < 3; open++) {
                            const stream = await session.createBidirectionalStream();
                            const writer = stream.writable.getWriter();
                            await writer.write(encode("not all of it"));
                            kept.push(session, stream, writer);
                        }
                        const asked = await nextStream(session.incomingBidirectionalStreams);
                        await asked.readable.getReader().read();
                        kept.push(asked);
                        session.close({ closeCode: number, reason: "reason " + number + " ä" });
                        await session.closed;
                    }
                }""",
                {"target": target.at(), "first": first, "count": CLOSINGS_AT_ONCE},
            )
            facts = [await seen.next() for _ in numbers]
            assert sorted(facts, key=repr) == sorted(({(n, f"reason {n} ä")} for n in numbers), key=repr)
    assert not but_sessions(caplog.records)


@pytest.mark.parametrize("has_streams", [False, True])
async def test_abort_by_the_server_ends_the_pages_session(page: Page, serving: Serving, has_streams: bool) -> None:
    async def abort(session: wtio.WebTransportSession) -> None:
        if has_streams:
            await session.create_unidirectional_stream()
            await (await anext(session.incoming_bidirectional_streams())).read()
        else:
            await session.receive_datagram()
        await session.abort()

    async with serving(abort) as target:
        endings = await run(
            page,
            """async ({ target, has_streams }) => {
                const endings = [];
                window.kept = [];
                for (let count = 0; count < 20; count++) {
                    const session = await openSession(target);
                    const datagrams = session.datagrams.writable ?? session.datagrams.createWritable();
                    const sending = datagrams.getWriter();
                    const timer = setInterval(() => sending.write(encode("x")).catch(() => {}), 10);
                    const writers = [];
                    if (has_streams) {
                        const stream = await session.createBidirectionalStream();
                        const writer = stream.writable.getWriter();
                        writer.write(encode("x")).catch(() => {});
                        writers.push(writer);
                        kept.push(session, stream, writer);
                    }
                    const ends = [session.closed, ...writers.map((writer) => writer.closed)];
                    endings.push((await Promise.all(ends.map(failure))).every((error) => error !== null));
                    clearInterval(timer);
                }
                return endings;
            }""",
            {"target": target.at(), "has_streams": has_streams},
        )
    assert endings == [True] * 20


async def test_rejected_session_fails_in_the_page_and_spares_the_server(page: Page, serving: Serving) -> None:
    async def answer(server: wtio.Server) -> None:
        async for request in server:
            if request.path.startswith("/open"):
                await (await request.accept()).wait_closed()
            else:
                await request.reject(403)

    async with serving(None) as target:
        answering = asyncio.ensure_future(answer(target.server))
        try:
            # The accepted session comes first: after a failed handshake Chromium makes the page wait.
            outcomes = [
                await run(page, "async (target) => { (await openSession(target)).close(); return 'open'; }", argument)
                if accepted
                else await run(page, "async (target) => (await failure(openSession(target)))?.name", argument)
                for accepted, argument in (
                    (True, target.at("/open")),
                    (False, target.at("/no")),
                    (True, target.at("/open")),
                )
            ]
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
    assert outcomes == ["open", "WebTransportError", "open"]


@pytest.mark.trap("C9")
async def test_reloading_the_page_does_no_harm(page: Page, serving: Serving, browser_name: str) -> None:
    ended = Recorder()
    live = 0

    async def echo(session: wtio.WebTransportSession) -> None:
        nonlocal live
        live += 1
        try:
            async for stream in session.incoming_bidirectional_streams():
                async for chunk in stream:
                    await stream.write(data=chunk)
        except wtio.SessionClosed:
            pass
        finally:
            live -= 1
            ended.put(None)

    async with serving(echo) as target:
        for _ in range(RELOADS):
            answer = await run(
                page,
                """async (target) => {
                    window.session = await openSession(target);
                    const stream = await session.createBidirectionalStream();
                    await stream.writable.getWriter().write(encode("here"));
                    return decode((await stream.readable.getReader().read()).value);
                }""",
                target.at(),
            )
            assert answer == "here"
            # Nothing is closed: the page goes away in the middle of an open stream.
            await page.reload()
        # Firefox keeps the sessions of pages that are gone, for more than half a minute after the tab was closed.
        if browser_name != "firefox":
            for _ in range(RELOADS):
                await ended.next()
            assert live == 0
    assert live == 0
