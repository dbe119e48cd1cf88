"""A supervisor with real workers: spread, deaths, deployments, certificates, figures."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import time

import pytest
from tests.support.nat import nat

import wtio
from wtio.workers import Supervisor, WorkerLimits

from .site import SECONDS, Site, ask, clients, until


def killed(supervisor: Supervisor, pid: int) -> None:
    assert pid in supervisor.pids
    os.kill(pid, signal.SIGKILL)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


async def test_workers_share_a_port_and_sessions_stay_with_theirs_over_nat_rebindings(site: Site) -> None:
    async with site.served() as supervisor, contextlib.AsyncExitStack() as stack:
        (address,) = supervisor.addresses
        assert len(supervisor.pids) == 2
        nats = [await stack.enter_async_context(nat(address)) for _ in range(12)]
        sessions = [await stack.enter_async_context(site.connect(one.port)) for one in nats]
        owners = [await ask(session) for session in sessions]
        assert {one.pid for one in owners} == set(supervisor.pids)
        for rebinding in range(5):
            await asyncio.gather(*(one.rebind() for one in nats))
            data = bytes([rebinding]) * 3000
            assert await asyncio.gather(*(ask(session, data) for session in sessions)) == owners
        stats = await supervisor.stats()
        assert stats.sessions_open == stats.sessions_opened_total == 12
        assert stats.memory_limit_bytes == wtio.Limits().server_memory


async def test_a_killed_worker_is_replaced_its_clients_come_back_and_no_others_notice(site: Site) -> None:
    async with site.served() as supervisor, clients(site, supervisor, 12) as sessions:
        owners = [(await ask(session)).pid for session in sessions]
        victim = owners[0]
        kept = [session for session, pid in zip(sessions, owners, strict=True) if pid != victim]
        lost = [session for session, pid in zip(sessions, owners, strict=True) if pid == victim]
        assert kept
        before = await supervisor.stats()
        # Counted, so that there is something to lose.
        assert before.sessions_opened_total == 12
        killed(supervisor, victim)
        began = time.monotonic()

        async def know(session: wtio.WebTransportSession) -> None:
            with contextlib.suppress(wtio.SessionClosed):
                while True:
                    session.send_datagram(b"are you there?")
                    await asyncio.sleep(0.05)

        async with asyncio.timeout(SECONDS):
            await asyncio.gather(*map(know, lost))
        print(f"{len(lost)} clients know after {time.monotonic() - began:.3f} s")
        assert "stateless reset" in (await lost[0].wait_closed()).reason
        assert {(await ask(session)).pid for session in kept} == set(owners) - {victim}
        await until(lambda: len(supervisor.pids) == 2 and victim not in supervisor.pids, "a new worker")
        # The new one has the old one's place.
        async with asyncio.timeout(SECONDS):
            while True:
                async with site.connect(supervisor) as session:
                    if (await ask(session)).pid not in owners:
                        break
        after = await supervisor.stats()
        assert after.sessions_open == len(kept)
        assert after.sessions_opened_total >= before.sessions_opened_total
        assert after.sessions_closed_total["transport"] == len(lost)
        assert after.connections_opened_total - sum(after.connections_closed_total.values()) == after.connections_open


async def test_a_client_that_stays_is_back_on_another_worker(site: Site) -> None:
    async with site.served() as supervisor:
        seen = []
        async with asyncio.timeout(SECONDS):
            async for session in site.connect(supervisor):
                seen.append((await ask(session)).pid)
                if len(seen) == 2:
                    break
                killed(supervisor, seen[0])
                with contextlib.suppress(wtio.SessionClosed):
                    while True:
                        session.send_datagram(b"?")
                        await asyncio.sleep(0.02)
        assert seen[0] != seen[1]


async def test_a_worker_that_is_killed_during_a_handshake_lets_the_client_in_at_another(site: Site) -> None:
    async with site.served() as supervisor:
        # It is stopped before the client's first packet, which waits at its socket, and is killed then.
        for pid in supervisor.pids:
            os.kill(pid, signal.SIGSTOP)
        first = supervisor.pids
        connecting = asyncio.ensure_future(site.connect(supervisor).__aenter__())
        await asyncio.sleep(0.1)
        for pid in first:
            os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(SECONDS):
            session = await connecting
        assert (await ask(session)).pid not in first
        await session.close()


async def test_a_worker_that_reports_nothing_is_killed_and_replaced(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    limits = WorkerLimits(report=0.1, silence=1, restart=0.05)
    async with site.served(worker_limits=limits) as supervisor:
        victim = supervisor.pids[0]
        os.kill(victim, signal.SIGSTOP)
        await until(lambda: len(supervisor.pids) == 2 and victim not in supervisor.pids, "a new worker")
    assert any("has not reported anything" in line for line in errors(caplog))


async def test_a_deployment_takes_newcomers_and_leaves_sessions_where_they_are(site: Site) -> None:
    async with site.served() as supervisor, clients(site, supervisor, 8) as sessions:
        owners = [await ask(session) for session in sessions]
        old = supervisor.pids
        site.write("second")
        assert await supervisor.deploy()
        async with clients(site, supervisor, 8) as newcomers:
            assert {(await ask(session)).version for session in newcomers} == {"second"}
            assert {(await ask(session)).pid for session in newcomers}.isdisjoint(old)
        # They are told, and may stay.
        async with asyncio.timeout(SECONDS):
            await asyncio.gather(*(session.wait_draining() for session in sessions))
        assert [await ask(session, bytes(100_000)) for session in sessions] == owners
        for session in sessions:
            await session.close()
        await until(lambda: set(supervisor.pids).isdisjoint(old), "the end of the old workers")
        assert len(supervisor.pids) == 2
        stats = await supervisor.stats()
        assert stats.sessions_opened_total == 16
        assert stats.sessions_closed_total["transport"] == 0


async def test_deployments_within_one_drain_wait_for_free_slots_and_are_one(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    async with site.served() as supervisor, clients(site, supervisor, 6) as sessions:
        owners = [await ask(session) for session in sessions]
        site.write("second")
        assert await supervisor.deploy()
        waiting = [asyncio.ensure_future(supervisor.deploy()) for _ in range(3)]
        await until(lambda: "the deployment waits for older workers" in caplog.text, "the line")
        site.write("third")
        # Nobody is thrown out for it.
        assert [await ask(session) for session in sessions] == owners
        async with site.connect(supervisor) as newcomer:
            assert (await ask(newcomer)).version == "second"
        for session in sessions:
            await session.close()
        assert await asyncio.gather(*waiting) == [True] * 3
        async with site.connect(supervisor) as newcomer:
            assert (await ask(newcomer)).version == "third"
    assert caplog.text.count("the deployment waits") == 1


async def test_with_more_slots_several_generations_live_at_once(site: Site) -> None:
    limits = WorkerLimits(slots=6, settle=0, drain=SECONDS)
    async with site.served(worker_limits=limits) as supervisor, contextlib.AsyncExitStack() as stack:
        sessions = {}
        for version in ("first", "second", "third"):
            site.write(version)
            if version != "first":
                assert await supervisor.deploy()
            sessions[version] = await stack.enter_async_context(site.connect(supervisor))
        for version, session in sessions.items():
            assert (await ask(session)).version == version


@pytest.mark.parametrize(
    ("further", "words"),
    [
        ("import no_such_module", r"ModuleNotFoundError: No module named 'no_such_module' \(.*site_app.py, line \d+\)"),
        ("router = 5", "of type int"),
        ("del router", "has no attribute `router`"),
        ("os._exit(3)", "ended with status 3 before it served"),
        ("os.kill(os.getpid(), 9)", "was killed by SIGKILL before it served"),
        ("def", "SyntaxError"),
        ("import time; time.sleep(60)", r"longer than 8 s \(WorkerLimits.start\)"),
    ],
)
async def test_code_that_does_not_start_leaves_the_old_code_in_place_with_one_line(
    site: Site, caplog: pytest.LogCaptureFixture, further: str, words: str
) -> None:
    limits = WorkerLimits(start=8 if "sleep" in further else 60)
    async with site.served(worker_limits=limits) as supervisor, clients(site, supervisor, 4) as sessions:
        owners = [await ask(session) for session in sessions]
        before = supervisor.pids
        site.write("second", further)
        assert not await supervisor.deploy()
        (line,) = errors(caplog)
        assert line.startswith("the new code does not start, the old code serves on: ")
        assert re.search(words, line), line
        assert supervisor.pids == before
        assert [await ask(session) for session in sessions] == owners
        async with site.connect(supervisor) as newcomer:
            assert (await ask(newcomer)).version == "first"
        site.write("third")
        assert await supervisor.deploy()
        async with site.connect(supervisor) as newcomer:
            assert (await ask(newcomer)).version == "third"


async def test_an_application_that_does_not_start_at_first_is_an_error_of_the_start(site: Site) -> None:
    site.write("first", "import no_such_module")
    with pytest.raises(RuntimeError, match="`site_app:router` does not start: ModuleNotFoundError"):
        async with site.served():
            pass


async def test_a_worker_that_cannot_be_started_again_is_tried_more_and_more_seldom(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    async with site.served() as supervisor:
        site.write("broken", "import no_such_module")
        victim = supervisor.pids[0]
        killed(supervisor, victim)
        await until(lambda: caplog.text.count("tried again in") >= 3, "three attempts")
        waits = [float(record.args[1]) for record in caplog.records if "tried again" in record.msg]  # type: ignore[index,arg-type]
        assert waits[:3] == [0.05, 0.1, 0.2] or waits[:3] == [0.1, 0.2, 0.4]
        # The other one has the newcomers.
        async with site.connect(supervisor) as newcomer:
            assert (await ask(newcomer)).version == "first"
        site.write("mended")
        await until(lambda: len(supervisor.pids) == 2, "a new worker")


async def test_reload_reaches_all_workers(site: Site) -> None:
    other = wtio.dev_certificate(directory=site.directory / "other")
    file = site.directory / "used.pem"
    file.write_bytes(site.certificate.certfile.read_bytes())
    async with site.served(tls=wtio.ServerTLS(certfile=file)) as supervisor, clients(site, supervisor, 4) as sessions:
        file.write_bytes(other.certfile.read_bytes())
        assert await supervisor.reload()
        seen: set[int] = set()
        async with asyncio.timeout(SECONDS):
            while len(seen) < 2:
                url = f"https://127.0.0.1:{supervisor.addresses[0][1]}/"
                async with wtio.connect(url, tls=other.client_tls()) as session:
                    seen.add((await ask(session)).pid)
        file.write_text("nothing")
        assert not await supervisor.reload()
        # Sessions go on through all of it.
        for session in sessions:
            await ask(session)


@pytest.mark.parametrize("host", [None, "localhost", "127.0.0.1"])
async def test_every_address_has_every_slot(site: Site, host: str | None) -> None:
    async with site.served(host=host) as supervisor:
        port = supervisor.addresses[0][1]
        assert {other for _, other in supervisor.addresses} == {port}
        hosts = ["127.0.0.1"]
        if host != "127.0.0.1" and any(":" in ip for ip, _ in supervisor.addresses):
            hosts.append("[::1]")
        for name in hosts:
            seen: set[int] = set()
            async with asyncio.timeout(SECONDS):
                while len(seen) < 2:
                    url = f"https://{name}:{port}/"
                    async with wtio.connect(url, tls=site.certificate.client_tls()) as session:
                        seen.add((await ask(session)).pid)


async def test_a_port_in_use_is_an_error_of_the_start_also_if_it_is_shared(site: Site) -> None:
    async with site.served() as supervisor:
        with pytest.raises(OSError, match=r"cannot listen on UDP 127.0.0.1 port \d+: Address already in use"):
            async with site.served(port=supervisor.addresses[0][1]):
                pass


async def test_health_over_tcp_says_503_before_clients_are_refused(site: Site) -> None:
    async def get(path: str) -> tuple[int, str]:
        reader, writer = await asyncio.open_connection(*supervisor.health_address)  # type: ignore[misc]
        writer.write(f"GET {path} HTTP/1.1\r\nhost: a\r\n\r\n".encode())
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        writer.close()
        return int(head.split()[1]), body

    timeouts = wtio.Timeouts(drain_delay=1.5, close=0.5, lifespan=5)
    async with site.served(health=("127.0.0.1", 0), timeouts=timeouts) as supervisor:
        assert await get("/health") == (200, "ok\n")
        assert (await get("/other"))[0] == 404
        async with site.connect(supervisor):
            status, figures = await get("/metrics")
        assert status == 200
        assert "\nwtio_sessions_opened_total 1\n" in figures
        closing = asyncio.ensure_future(supervisor.close())
        await until(lambda: supervisor._closing is not None, "the beginning of the end")
        await asyncio.sleep(0)
        assert await get("/health") == (503, "draining\n")
        async with site.connect(supervisor) as newcomer:
            await ask(newcomer)
        await closing


@pytest.mark.parametrize("options", [{"io": "thread"}, {"loop": "uvloop"}], ids=["thread", "uvloop"])
async def test_workers_serve_on_every_loop_and_with_threads(site: Site, options: dict[str, str]) -> None:
    async with site.served(**options) as supervisor, clients(site, supervisor, 6) as sessions:
        owners = [await ask(session) for session in sessions]
        site.write("second")
        assert await supervisor.deploy()
        assert [await ask(session, bytes(50_000)) for session in sessions] == owners


async def test_an_end_in_the_middle_of_a_deployment_is_an_end_in_good_order(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    async with site.served() as supervisor, site.connect(supervisor) as session:
        await ask(session)
        site.write("second", "import time; time.sleep(1)")
        deploying = asyncio.ensure_future(supervisor.deploy())
        await until(lambda: len(supervisor.pids) == 4, "new workers")
        async with asyncio.timeout(SECONDS):
            await supervisor.close()
            info = await session.wait_closed()
            assert not await deploying
        assert (info.code, info.reason) == (0, "server is closing")
        assert supervisor.pids == []
    assert errors(caplog) == []


async def test_an_abort_ends_what_drains(site: Site) -> None:
    timeouts = wtio.Timeouts(drain=SECONDS * 10, close=0.5, lifespan=5)
    async with site.served(timeouts=timeouts) as supervisor, site.connect(supervisor) as session:
        await ask(session)
        closing = asyncio.ensure_future(supervisor.close())
        async with asyncio.timeout(SECONDS):
            await session.wait_draining()
            await supervisor.abort()
            info = await session.wait_closed()
            await closing
        assert (info.code, info.closed_by) == (None, "peer")
        assert supervisor.pids == []
