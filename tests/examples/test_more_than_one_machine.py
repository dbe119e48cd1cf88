"""What docs/more-than-one-machine.md shows: its servers behind a balancer that knows them by their server IDs."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from tests.support.nat import nat
from tests.support.ports import free_port

import wtio

from .programs import ROOT, SECONDS
from .test_deployment import configure
from .test_readme import blocks

if TYPE_CHECKING:
    from pathlib import Path

    from .programs import Start

PAGE = ROOT / "docs" / "more-than-one-machine.md"
BALANCER = ROOT / "tests" / "network" / "balancer.py"
# As a controller for Kubernetes sets it, and as in the API of the balancer.
SERVER_IDS = {"0123456789abcdef": "ASNFZ4mrze8=", "fedcba9876543210": "0xfedcba9876543210"}


async def echoes(session: wtio.WebTransportSession) -> bool:
    async with asyncio.timeout(SECONDS):
        stream = await session.create_bidirectional_stream()
        await stream.write_all(data=bytes(3000), end_stream=True)
        return await stream.read_all() == bytes(3000)


async def test_sessions_go_on_at_their_server_when_the_addresses_of_clients_change(
    start: Start, tmp_path: Path
) -> None:
    certificate = configure(tmp_path)
    (code,) = blocks(PAGE, "python")
    (tmp_path / "server.py").write_text(
        code.replace("/etc/echo", str(tmp_path)).replace("drain_delay=20, drain=60", "drain=1")
    )
    async with contextlib.AsyncExitStack() as stack:
        routes = []
        for number, text in SERVER_IDS.items():
            port = str(free_port())
            routes.append(f"{number}=127.0.0.1:{port}")
            environment = {"AWS_LBC_QUIC_SERVER_ID": text, "WTIO_SECRET": "0123456789abcdef" * 4, "PORT": port}
            await stack.enter_async_context(start(tmp_path / "server.py", **environment))
        balancer = await stack.enter_async_context(start(BALANCER, "127.0.0.1:0", *routes))
        address = ("127.0.0.1", int(await balancer.until("")))
        # Nobody says when the servers are ready.
        patient = wtio.Timeouts(connect=SECONDS)
        nats = [await stack.enter_async_context(nat(address)) for _ in range(8)]
        sessions = [
            await stack.enter_async_context(
                wtio.connect(f"https://127.0.0.1:{one.port}/", tls=certificate.client_tls(), timeouts=patient)
            )
            for one in nats
        ]
        for _ in range(5):
            assert all(await asyncio.gather(*map(echoes, sessions)))
            await asyncio.gather(*(one.rebind() for one in nats))
