"""Connection reports of hosts with several addresses, in virtual time."""

from __future__ import annotations

import pytest

import wtio
from wtio.testing import Network, run


async def until_closed(session: wtio.WebTransportSession) -> None:
    await session.wait_closed()


def test_the_race_of_two_addresses_is_in_the_report() -> None:
    async def main() -> None:
        network = Network(latency=0.01)
        network.add_host("both.example", "::1", "127.0.0.1")
        async with network.serve(until_closed, "127.0.0.1"), network.connect("https://both.example/") as session:
            report = session.report
            assert [(address.ip, address.outcome) for address in report.addresses] == [
                ("::1", "given up"),
                ("127.0.0.1", "connected"),
            ]
            assert report.times.handshake == pytest.approx(wtio.Timeouts().attempt_delay + 0.02)
            assert report.times.request == pytest.approx(0.02)
            assert report.times.total == pytest.approx(0.29)
            assert report.udp_buffers is None, "there is no socket"
            trace = session._trace
            assert trace is not None
            assert [attempt.connection is None for attempt in trace.attempts] == [True, False], "the loser is not kept"
        assert session.report.addresses == report.addresses

    run(main())


def test_the_report_of_a_failure_shows_every_address() -> None:
    async def main() -> None:
        network = Network()
        network.add_host("both.example", "::1", "127.0.0.1")
        with pytest.raises(wtio.HandshakeTimeout) as caught:
            await network.connect("https://both.example/", timeouts=wtio.Timeouts(connect=3))
        report = caught.value.report
        assert report is not None
        assert [address.outcome for address in report.addresses] == ["no answer", "no answer"]
        assert report.times.total == pytest.approx(3)
        assert report.times.handshake is None

    run(main())


@pytest.mark.unaudited("its connection is lost, or ends where nothing passes")
def test_a_silent_end_is_a_timeout() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(until_closed), network.connect() as session:
            network.conditions.blackout = True
            await session.wait_closed()
            end = session.report.end
            assert end is not None
            assert (end.cause, end.by, end.code) == ("idle", "timeout", None)
            network.conditions.blackout = False

    run(main())
