"""examples/telemetry.py: what sensors had acknowledged is in the database, once, however the server ended."""

from __future__ import annotations

import signal
import sqlite3
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from .programs import port_of

if TYPE_CHECKING:
    from pathlib import Path

    from .programs import Start

# Their programs run nothing of the library that other tests do not.
pytestmark = pytest.mark.unmeasured

TELEMETRY = "examples/telemetry.py"
READINGS = 20


def stored(database: Path) -> Counter[str]:
    """How many readings of each sensor are in the database."""
    with closing(sqlite3.connect(database)) as connection:
        return Counter(dict(connection.execute("SELECT sensor, count(*) FROM readings GROUP BY sensor")))


# Twice as many handshakes as sensors, on a machine that may do other things besides.
@pytest.mark.timeout(180)
@pytest.mark.parametrize(("end", "count"), [(signal.SIGTERM, 500), (signal.SIGKILL, 100)])
async def test_sensors_lose_nothing_that_was_acknowledged(
    start: Start, tmp_path: Path, end: signal.Signals, count: int
) -> None:
    database = tmp_path / "readings.db"
    serving = (TELEMETRY, "serve", "--database", database, "--port")
    sensing = (TELEMETRY, "sensors", "--sensors", str(count), "--readings", str(READINGS), "--pause", "0.5", "--port")
    async with start(*serving, "0") as server:
        port = await port_of(server)
        async with start(*sensing, port) as sensors:
            acknowledged = 0
            while not acknowledged:
                acknowledged = int((await sensors.until("readings acknowledged")).split()[0])
            server.process.send_signal(end)
            assert await server.process.wait() == (0 if end == signal.SIGTERM else -signal.SIGKILL)
            before = stored(database)
            assert before.total() >= acknowledged
            async with start(*serving, port) as another:
                await another.until("listening")
                assert await sensors.finish() == 0, sensors.output
        assert sensors.output.endswith(f"all {count * READINGS} readings acknowledged\n")
    after = stored(database)
    assert after == Counter({f"sensor-{number}": READINGS for number in range(count)})
    assert before <= after


async def test_sighup_reads_the_certificate_again(start: Start, tmp_path: Path) -> None:
    database = tmp_path / "readings.db"
    sensing = (TELEMETRY, "sensors", "--sensors", "1", "--readings", "5", "--pause", "0", "--port")
    async with start(TELEMETRY, "serve", "--database", database, "--port", "0") as server:
        port = await port_of(server)
        server.process.send_signal(signal.SIGHUP)
        async with start(*sensing, port) as sensors:
            assert await sensors.finish() == 0, sensors.output
    assert stored(database) == {"sensor-0": 5}
