"""Telemetry into SQLite: whatever a sensor has had acknowledged is stored, even if the server is killed.

Run `python examples/telemetry.py serve`, then 500 sensors with `python examples/telemetry.py sensors`.

Each batch of readings is a stream, and the answer says that a transaction is committed; that its bytes have arrived
would not be enough. What was not answered is sent again, and known by its number if it was stored before. SIGTERM ends
the server, and SIGHUP makes it read the file of its certificate again.
"""

import argparse
import asyncio
import contextlib
import json
import queue
import random
import signal
import sqlite3
import threading
from concurrent.futures import Future

import wtio

Row = tuple[str, int, float]  # sensor, number, value
TABLE = "CREATE TABLE IF NOT EXISTS readings (sensor, number, value, PRIMARY KEY (sensor, number)) WITHOUT ROWID"


class Store:
    """A database, and the thread that writes to it. All batches that wait become one transaction."""

    def __init__(self, path: str) -> None:
        # As long as the handlers at most, which wait for their answers.
        self.waiting: queue.SimpleQueue[tuple[list[Row], Future[None]]] = queue.SimpleQueue()
        self.database = sqlite3.connect(path, check_same_thread=False)
        self.database.execute(TABLE)
        threading.Thread(target=self.work, daemon=True).start()

    async def add(self, rows: list[Row]) -> None:
        """Return when the rows are committed."""
        committed: Future[None] = Future()
        self.waiting.put((rows, committed))
        await asyncio.wrap_future(committed)

    def work(self) -> None:
        while True:
            batches = [self.waiting.get()]
            while not self.waiting.empty():
                batches.append(self.waiting.get())
            # Those whose handlers were cancelled wait for nothing any more.
            batches = [batch for batch in batches if batch[1].set_running_or_notify_cancel()]
            try:
                with self.database:
                    rows = [row for rows, _ in batches for row in rows]
                    self.database.executemany("INSERT OR IGNORE INTO readings VALUES (?, ?, ?)", rows)
            except sqlite3.Error as error:
                for _, committed in batches:
                    committed.set_exception(error)
            else:
                for _, committed in batches:
                    committed.set_result(None)


async def serve(options: argparse.Namespace) -> None:
    store = Store(options.database)

    async def handle(session: wtio.WebTransportSession) -> None:
        sensor = session.path.removeprefix("/")

        async def take(stream: wtio.WebTransportStream) -> None:
            readings = json.loads(await stream.read_all())
            await store.add([(sensor, int(number), float(value)) for number, value in readings])
            await stream.write(data=b"stored", end_stream=True)

        await session.serve_streams(take, limit=4)

    tls = wtio.ServerTLS(certfile=options.certfile) if options.certfile else wtio.dev_certificate().server_tls()
    async with wtio.serve(handle, "localhost", options.port, tls=tls) as server:
        if hasattr(signal, "SIGHUP"):  # not on Windows
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, server.reload)
        print(f"listening on https://localhost:{server.addresses[0][1]}/", flush=True)
        await server.wait_closed()


async def sense(options: argparse.Namespace) -> None:
    acknowledged = [0] * options.sensors

    async def send(client: wtio.Client, sensor: int) -> None:
        readings = [(number, random.gauss(20)) for number in range(options.readings)]
        async for session in client.connect(f"https://localhost:{options.port}/sensor-{sensor}"):
            with contextlib.suppress(wtio.SessionClosed, wtio.StreamResetError):
                while batch := readings[acknowledged[sensor] :][:5]:
                    stream = await session.create_bidirectional_stream()
                    await stream.write(data=json.dumps(batch).encode(), end_stream=True)
                    if await stream.read_all() == b"stored":
                        acknowledged[sensor] += len(batch)
                    await asyncio.sleep(random.uniform(0, 2 * options.pause))
                break

    tls, timeouts = wtio.dev_certificate().client_tls(), wtio.Timeouts(idle=5)
    async with wtio.Client(tls=tls, timeouts=timeouts) as client, asyncio.TaskGroup() as tasks:
        for sensor in range(options.sensors):
            tasks.create_task(send(client, sensor))
        while sum(acknowledged) < options.sensors * options.readings:
            print(f"{sum(acknowledged)} readings acknowledged", flush=True)
            await asyncio.sleep(1)
    print(f"all {sum(acknowledged)} readings acknowledged")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=("serve", "sensors"))
    parser.add_argument("--port", type=int, default=4433)
    parser.add_argument("--database", default="readings.db")
    parser.add_argument("--certfile", help="certificate and key; default one for development")
    parser.add_argument("--sensors", type=int, default=500)
    parser.add_argument("--readings", type=int, default=100, help="of each sensor")
    parser.add_argument("--pause", type=float, default=1, help="mean seconds between batches")
    arguments = parser.parse_args()
    wtio.run(serve(arguments) if arguments.verb == "serve" else sense(arguments))
