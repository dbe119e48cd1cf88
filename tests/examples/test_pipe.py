"""examples/pipe.py: commands whose input and output are somewhere else."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from .programs import SECONDS, port_of

if TYPE_CHECKING:
    from .programs import Start

PIPE = "examples/pipe.py"


async def test_what_goes_in_comes_out_sorted(start: Start) -> None:
    async with start(PIPE, "--port", "0", "serve", "sort", "-n") as server:
        async with start(PIPE, "--port", await port_of(server), "connect") as client:
            for number in ("30", "4", "100"):
                await client.says(number)
            assert await client.finish() == 0
        assert client.output.splitlines() == ["4", "30", "100"]


async def test_bytes_of_any_kind_and_number_come_through(start: Start) -> None:
    content = os.urandom(3_000_000)
    async with (
        start(PIPE, "--port", "0", "serve", "cat") as server,
        start(PIPE, "--port", await port_of(server), "connect") as client,
        asyncio.timeout(SECONDS),
    ):
        output, _ = await client.process.communicate(content)
        assert output == content


async def test_a_command_that_ends_first_ends_the_client_with_its_status(start: Start) -> None:
    async with (
        start(PIPE, "--port", "0", "serve", "sh", "-c", "read line; echo $line; exit 7") as server,
        start(PIPE, "--port", await port_of(server), "connect") as client,
    ):
        await client.says("enough")
        await client.until("enough")
        async with asyncio.timeout(SECONDS):
            # Its standard input is still open.
            assert await client.process.wait() == 7


def is_there(process: str) -> bool:
    return Path("/proc", process).exists()


async def test_a_client_that_leaves_takes_its_command_along(start: Start) -> None:
    async with start(PIPE, "--port", "0", "serve", "sh", "-c", "echo pid $$; exec sleep 1000") as server:
        async with start(PIPE, "--port", await port_of(server), "connect") as client:
            process = (await client.until("pid")).split()[1]
            assert is_there(process)
            client.process.send_signal(signal.SIGINT)
            await client.finish()
        async with asyncio.timeout(SECONDS):
            while is_there(process):  # noqa: ASYNC110 - nobody tells of the end of another program's process
                await asyncio.sleep(0.01)


async def test_only_who_has_the_token_gets_in(start: Start) -> None:
    async with start(PIPE, "--port", "0", "serve", "cat", PIPE_TOKEN="hunter2") as server:
        port = await port_of(server)
        for token, status in (("hunter2", 0), ("s3cret", 1)):
            async with start(PIPE, "--port", port, "connect", PIPE_TOKEN=token) as client:
                assert await client.finish() == status
        assert "status 401" in client.output
        assert "hunter2" not in server.output + client.output
