"""Reliable resets through the public API, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

import wtio
from wtio.testing import Network, run

LATENCY = 0.01


@pytest.mark.requirement(45, 78)
@pytest.mark.trap("S1", "H10")
@pytest.mark.parametrize(
    ("of_client", "of_server", "journeys"),
    [(True, True, 1), (False, True, 3), (True, False, 3), (False, False, 3)],
    ids=["both", "not the client", "not the server", "neither"],
)
def test_a_reset_waits_for_the_header_only_where_a_side_has_no_reliable_resets(
    of_client: bool, of_server: bool, journeys: int
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        seen: asyncio.Future[float] = loop.create_future()

        async def handler(session: wtio.WebTransportSession) -> None:
            stream = await anext(session.incoming_unidirectional_streams())
            with pytest.raises(wtio.StreamResetError) as caught:
                await stream.read_all()
            assert caught.value.error_code == 7
            seen.set_result(loop.time())

        network = Network(latency=LATENCY)
        async with (
            network.serve(handler, reset_stream_at=of_server),
            network.connect(reset_stream_at=of_client) as session,
        ):
            offered = {parameter.id for parameter in session.report.transport_parameters or ()}
            assert ({0x1D, 0x17F7586D2CB571} <= offered) is of_server
            started = loop.time()
            stream = await session.create_unidirectional_stream()
            await stream.reset(error_code=7)
            assert await seen - started == pytest.approx(journeys * LATENCY, abs=LATENCY / 2)

    run(main())


def test_the_switch_is_a_bool() -> None:
    with pytest.raises(TypeError, match="reset_stream_at must be a bool, not int"):
        wtio.connect("https://host.example/", reset_stream_at=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="reset_stream_at must be a bool, not int"):
        wtio.serve(None, "127.0.0.1", 0, tls=wtio.dev_certificate().server_tls(), reset_stream_at=0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="reset_stream_at must be a bool, not str"):
        wtio.Client(reset_stream_at="no")  # type: ignore[arg-type]
