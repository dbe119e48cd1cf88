"""Bytecode instructions that Python runs for one echo, one request, one datagram: `python -m benchmarks.bytecode`.

Both ends of a session on the simulated network, in steady state. Counted is what wtio runs and whatever it calls, but
neither the simulation nor the application. Prints one JSON line for benchmarks/gate.py; `--profile WORKLOAD` prints
the functions instead, with their bytecode instructions per operation.

Nothing but the public API is used here: the gate runs this file against the library of other commits, too.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import inspect
import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import wtio
from wtio import testing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import CodeType, FrameType

    from wtio.session import WebTransportSession

SMALL = b"\xa5" * 64
CHUNK = b"\x5a" * 65536
BURST = 32
WARM_UP = 2
LIBRARY = str(Path(wtio.__file__).parent)
# wtio.testing, and the private modules that its classes come from.
SIMULATION = {testing.__file__, *(inspect.getfile(getattr(testing, name)) for name in testing.__all__)}


class Counted:
    """Counts between ``begin`` and ``end``, by function."""

    def __init__(self) -> None:
        self.by_function: Counter[CodeType] = Counter()
        self._traced_before = sys.gettrace()

    def begin(self) -> None:
        # Python 3.12 looks only once, in `settrace`, whether any tracer wants instructions.
        sys._getframe().f_trace_opcodes = True
        sys.settrace(self._enter)

    def end(self) -> None:
        sys.settrace(self._traced_before)

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        file = frame.f_code.co_filename
        # The library runs the application's tasks.
        if file in SIMULATION or file == __file__:
            return None
        is_called_by_library = frame.f_back is not None and frame.f_back.f_trace is not None
        if not is_called_by_library and not file.startswith(LIBRARY):
            return None
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        return self._instruction

    def _instruction(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
        if event == "opcode":
            self.by_function[frame.f_code] += 1
        return self._instruction


async def echo(client: WebTransportSession, server: WebTransportSession, counted: Counted, operations: int) -> None:
    """64 bytes there and back on an open stream."""

    async def answer() -> None:
        async with await anext(server.incoming_bidirectional_streams()) as incoming:
            async for data in incoming:
                await incoming.write(data=data)

    answering = asyncio.ensure_future(answer())
    async with await client.create_bidirectional_stream() as stream:
        for number in range(WARM_UP + operations):
            if number == WARM_UP:
                counted.begin()
            await stream.write(data=SMALL)
            await stream.readexactly(n=len(SMALL))
        counted.end()
    await answering


async def requests(client: WebTransportSession, server: WebTransportSession, counted: Counted, operations: int) -> None:
    """A new stream with 64 bytes and an end each way."""

    async def answer() -> None:
        async for incoming in server.incoming_bidirectional_streams():
            async with incoming:
                await incoming.write(data=await incoming.read_all(), end_stream=True)

    answering = asyncio.ensure_future(answer())
    for number in range(WARM_UP + operations):
        if number == WARM_UP:
            counted.begin()
        async with await client.create_bidirectional_stream() as stream:
            await stream.write(data=SMALL, end_stream=True)
            await stream.read_all()
    counted.end()
    answering.cancel()
    await asyncio.wait([answering])


async def bulk(client: WebTransportSession, server: WebTransportSession, counted: Counted, operations: int) -> None:
    """Chunks of 64 KiB one way on one stream."""

    async def take() -> None:
        async with await anext(server.incoming_unidirectional_streams()) as incoming:
            async for _ in incoming:
                pass

    taking = asyncio.ensure_future(take())
    stream = await client.create_unidirectional_stream()
    async with stream:
        for number in range(WARM_UP + operations):
            if number == WARM_UP:
                counted.begin()
            await stream.write_all(data=CHUNK)
    await taking
    counted.end()


async def datagrams(
    client: WebTransportSession, server: WebTransportSession, counted: Counted, operations: int
) -> None:
    """Datagrams of 64 bytes one way, in bursts, each burst received before the next leaves."""
    for number in range(WARM_UP + operations // BURST):
        if number == WARM_UP:
            counted.begin()
        for _ in range(BURST):
            client.send_datagram(SMALL)
        for _ in range(BURST):
            await server.receive_datagram()
    counted.end()


async def handshakes(counted: Counted, operations: int) -> None:
    """A connection of its own, its session established on both sides and closed by the client."""
    network = testing.Network(seed=1, latency=0.001)

    async def stay(session: WebTransportSession) -> None:
        async for _ in session.incoming_unidirectional_streams():
            pass

    async with network.serve(stay):
        for number in range(WARM_UP + operations):
            if number == WARM_UP:
                counted.begin()
            async with network.connect():
                pass
            # The server learns of the end, and both sides forget the connection.
            await asyncio.sleep(1)
        counted.end()


def within_session(workload: Callable[..., Awaitable[None]]) -> Callable[[Counted, int], Awaitable[None]]:
    """Return the workload with the two ends of a session to run in."""

    async def run(counted: Counted, operations: int) -> None:
        async with testing.session_pair(seed=1, latency=0.001) as (client, server):
            await workload(client, server, counted, operations)

    return run


WORKLOADS: dict[str, tuple[Callable[[Counted, int], Awaitable[None]], int]] = {
    "echo": (within_session(echo), 100),
    "requests": (within_session(requests), 100),
    "bulk": (within_session(bulk), 64),
    "datagrams": (within_session(datagrams), 10 * BURST),
    "handshake": (handshakes, 20),
}


def count(name: str) -> tuple[Counter[CodeType], int]:
    """Return what one workload ran, by function, and how many operations that were."""
    workload, operations = WORKLOADS[name]
    counted = Counted()

    async def main() -> None:
        await workload(counted, operations)

    gc.collect()
    gc.disable()
    try:
        testing.run(main())
    finally:
        counted.end()
        gc.enable()
    return counted.by_function, operations


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", choices=WORKLOADS)
    profiled = parser.parse_args().profile
    if profiled:
        functions, operations = count(profiled)
        for code, instructions in functions.most_common():
            print(f"{instructions / operations:10.1f}  {code.co_qualname}  {code.co_filename}:{code.co_firstlineno}")
    else:
        print(json.dumps({name: sum(functions.values()) / n for name in WORKLOADS for functions, n in [count(name)]}))
