"""Programs that end in the middle of everything: no hang, no crash, and goodbyes that arrive."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import wtio
from wtio._driver import Driver

RUNS = 3

# A server and a client in one process, with a call of every kind pending on both sides.
START = """
import asyncio, gc, os, signal, sys, threading
import wtio

async def pending(session):
    both = await session.create_bidirectional_stream()
    one = await session.create_unidirectional_stream()
    calls = [
        both.read(), both.write(data=bytes(10_000_000)), one.write_all(data=bytes(10_000_000)), one.wait_acked(),
        session.receive_datagram(), session.wait_closed(), session.wait_draining(),
        anext(aiter(session.incoming_bidirectional_streams())),
    ]
    tasks = [asyncio.ensure_future(call) for call in calls[:-1]]
    session.send_datagram(b"x")
    await asyncio.sleep(0.01)
    return both, one, tasks

async def start():
    certificate = wtio.tls.dev_certificate(directory=sys.argv[1])
    server = await wtio.serve(None, "127.0.0.1", 0, tls=certificate.server_tls(), io=sys.argv[2])
    async def connect():
        url = f"https://127.0.0.1:{server.addresses[0][1]}/"
        return await wtio.connect(url, tls=certificate.client_tls(), io=sys.argv[2])
    connecting = asyncio.ensure_future(connect())
    accepted = await (await anext(aiter(server))).accept()
    session = await connecting
    return server, session, accepted, await pending(session), await pending(accepted)
"""

PROGRAMS = {
    # asyncio.run cancels what is left and ends.
    "main-returns": """
        async def main():
            keep = await start()
            print("ready")
        asyncio.run(main())
        """,
    "main-raises": """
        async def main():
            keep = await start()
            print("ready")
            raise SystemExit(0)
        asyncio.run(main())
        """,
    # Everything outlives the loop, as globals.
    "loop-is-closed-first": """
        async def main():
            global keep
            keep = await start()
            print("ready")
        asyncio.run(main())
        gc.collect()
        """,
    "collected-after-the-loop": """
        async def main():
            global keep
            keep = await start()
            print("ready")
        asyncio.run(main())
        del keep
        gc.collect()
        """,
    # Nobody runs or closes the loop any more.
    "loop-just-stops": """
        loop = asyncio.new_event_loop()
        keep = loop.run_until_complete(start())
        print("ready")
        """,
    "collected-in-another-thread": """
        loop = asyncio.new_event_loop()
        keep = [loop.run_until_complete(start())]
        print("ready")
        def drop():
            keep.clear()
            gc.collect()
        thread = threading.Thread(target=drop)
        thread.start()
        thread.join()
        """,
    "loop-in-a-daemon-thread": """
        ready = threading.Event()
        async def main():
            keep = await start()
            ready.set()
            await asyncio.sleep(3600)
        threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
        ready.wait()
        print("ready")
        """,
    "sys-exit-in-a-callback": """
        async def main():
            keep = await start()
            print("ready")
            asyncio.get_running_loop().call_soon(sys.exit, 0)
            await asyncio.sleep(3600)
        asyncio.run(main())
        """,
    "fork": """
        async def main():
            keep = await start()
            child = os.fork()
            if child == 0:
                # The child inherits everything and uses nothing.
                gc.collect()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            server, session, accepted, _, _ = keep
            stream = await session.create_bidirectional_stream()
            print("ready")
        asyncio.run(main())
        """,
    # Whoever receives must not be in the middle of it when the process forks.
    "fork-while-packets-arrive": """
        async def send(stream):
            while True:
                await stream.write(data=bytes(1_000_000))
        async def receive(session):
            stream = await anext(session.incoming_unidirectional_streams())
            while await stream.read():
                pass
        async def main():
            server, session, accepted, *rest = keep = await start()
            await anext(accepted.incoming_unidirectional_streams())
            sending = asyncio.ensure_future(send(await session.create_unidirectional_stream()))
            receiving = asyncio.ensure_future(receive(accepted))
            for _ in range(100):
                await asyncio.sleep(0.001)
                child = os.fork()
                if child == 0:
                    signal.alarm(10)
                    session.stats()
                    accepted.stats()
                    os._exit(0)
                assert os.waitpid(child, 0)[1] == 0
            print("ready")
        asyncio.run(main())
        """,
}


@pytest.mark.parametrize("io", ["loop", "thread"])
@pytest.mark.parametrize("uvloop", [False, True], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_interpreter_exits_in_the_middle_of_everything(tmp_path: Path, name: str, uvloop: bool, io: str) -> None:
    prelude = "import uvloop\nuvloop.install()\n" if uvloop else ""
    source = "import warnings\nwarnings.simplefilter('ignore')\n" + prelude + START + textwrap.dedent(PROGRAMS[name])
    program = tmp_path / "program.py"
    program.write_text(source)
    for _ in range(RUNS):
        result = subprocess.run(
            [sys.executable, str(program), str(tmp_path), io], capture_output=True, text=True, timeout=30, check=False
        )
        assert result.stdout == "ready\n", result.stderr
        # Negative: a signal, such as that of a segmentation fault.
        assert result.returncode == 0, (result.returncode, result.stderr)
        for word in ("panicked", "Fatal Python error", "wtio._core", "Segmentation"):
            assert word not in result.stderr, result.stderr


def test_loops_one_after_another_leave_nothing_behind(certificate: wtio.DevCertificate) -> None:
    # Each loop ends while the client's connection still lingers (RFC 9000, section 10.2).
    async def session() -> None:
        async with wtio.serve(wait_closed, "127.0.0.1", 0, tls=certificate.server_tls()) as server:
            url = f"https://127.0.0.1:{server.addresses[0][1]}/"
            async with wtio.connect(url, tls=certificate.client_tls()) as client:
                stream = await client.create_bidirectional_stream()
                await stream.write(data=b"data", end_stream=True)

    def rounds(count: int) -> tuple[int, int]:
        for _ in range(count):
            asyncio.run(session())
        gc.collect()
        drivers = sum(isinstance(thing, Driver) for thing in gc.get_objects())
        return len(list(Path("/proc/self/fd").iterdir())), drivers

    descriptors, drivers = rounds(5)
    more_descriptors, more_drivers = rounds(20)
    assert more_drivers <= drivers + 2
    assert more_descriptors <= descriptors + 10


async def wait_closed(session: wtio.WebTransportSession) -> None:
    """A handler."""
    await session.wait_closed()


@pytest.mark.trap("C8")
def test_goodbye_leaves_before_the_program_ends(tmp_path: Path) -> None:
    # The client's program ends right after its `async with`; the server, another process, gets the code.
    server = tmp_path / "server.py"
    server.write_text(
        textwrap.dedent(
            """
            import asyncio, sys
            import wtio

            async def main():
                certificate = wtio.tls.dev_certificate(directory=sys.argv[1])
                async with wtio.serve(None, "127.0.0.1", 0, tls=certificate.server_tls()) as server:
                    print(server.addresses[0][1], certificate.sha256_hex, flush=True)
                    for _ in range(5):
                        session = await (await anext(aiter(server))).accept()
                        stream = await anext(aiter(session.incoming_unidirectional_streams()))
                        data = await stream.read_all()
                        info = await session.wait_closed()
                        print(len(data), info.code, info.reason, info.closed_by, flush=True)

            asyncio.run(main())
            """
        )
    )
    client = tmp_path / "client.py"
    client.write_text(
        textwrap.dedent(
            """
            import asyncio, sys
            import wtio

            async def main():
                tls = wtio.ClientTLS(certificate_hashes=[sys.argv[2]])
                async with wtio.connect(f"https://127.0.0.1:{sys.argv[1]}/", tls=tls) as session:
                    stream = await session.create_unidirectional_stream()
                    await stream.write(data=bytes(100_000), end_stream=True)
                    await session.close(42, "so long")

            asyncio.run(main())
            """
        )
    )
    with subprocess.Popen([sys.executable, str(server), str(tmp_path)], stdout=subprocess.PIPE, text=True) as serving:
        assert serving.stdout is not None
        port, digest = serving.stdout.readline().split()
        for _ in range(5):
            subprocess.run([sys.executable, str(client), port, digest], check=True, timeout=30)
            assert serving.stdout.readline() == "100000 42 so long peer\n"
        assert serving.wait(30) == 0
