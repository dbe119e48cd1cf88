"""Certificates of a running server that change, several of them, and those of clients, in virtual time."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from typing import TYPE_CHECKING

import pytest
import trustme
from tests.support.logs import but_sessions

import wtio
from wtio import _core, testing
from wtio.testing import Network

if TYPE_CHECKING:
    from pathlib import Path

# Two looks at the files and a bit, in seconds.
A_WHILE = 5.0


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def other_authority() -> trustme.CA:
    return trustme.CA()


def issued(authority: trustme.CA, *names: str) -> tuple[bytes, bytes]:
    """Chain and key of a new certificate, in PEM."""
    leaf = authority.issue_cert(*names)
    return b"".join(blob.bytes() for blob in leaf.cert_chain_pems), leaf.private_key_pem.bytes()


def server_tls(authority: trustme.CA, *names: str, **options: object) -> wtio.ServerTLS:
    chain, key = issued(authority, *names)
    return wtio.ServerTLS(certdata=chain, keydata=key, **options)  # type: ignore[arg-type]


def client_tls(authority: trustme.CA, directory: Path, own: trustme.CA | None = None) -> wtio.ClientTLS:
    """Trusts ``authority``, and shows a certificate that ``own`` has issued."""
    if own is None:
        return wtio.ClientTLS(cadata=authority.cert_pem.bytes())
    leaf = own.issue_cert("alice.example", common_name="alice")
    path = directory / f"client-{id(leaf)}.pem"
    path.write_bytes(leaf.private_key_and_cert_chain_pem.bytes())
    return wtio.ClientTLS(cadata=authority.cert_pem.bytes(), certfile=path)


async def until_closed(session: wtio.WebTransportSession) -> None:
    await session.wait_closed()


async def echo(session: wtio.WebTransportSession) -> None:
    async for data in session.incoming_datagrams():
        session.send_datagram(data)


async def answers(session: wtio.WebTransportSession) -> bool:
    session.send_datagram(b"x")
    return await session.receive_datagram() == b"x"


def newcomer() -> wtio.ClientTLS:
    """Trusts any server, and has no ticket of it: who resumes is shown no certificate."""
    return wtio.ClientTLS(dangerously_trust_any_certificate=True)


async def shown(network: Network, host: str = "localhost") -> bytes:
    """SHA-256 of the certificate that a new client is shown."""
    async with network.connect(f"https://{host}/", tls=newcomer()) as session:
        certificate = session.peer_certificate
        assert certificate is not None
        assert certificate.sha256 == _core.sha256(session.peer_certificates[0]).hex()
        return bytes.fromhex(certificate.sha256)


# -- reload


def test_new_handshakes_use_another_certificate_at_once_and_sessions_live_on(authority: trustme.CA) -> None:
    async def main() -> None:
        network = Network()
        before, after = (server_tls(authority, "localhost") for _ in range(2))
        async with network.serve(echo, tls=before) as server, network.connect(tls=newcomer()) as session:
            assert server.tls[0] is before
            server.reload(after)
            assert server.tls[0] is after
            assert await shown(network) == after.sha256
            assert await answers(session)
            own = [one.report.tls for one in server.sessions]
            assert [tls.certificate.sha256 for tls in own if tls and tls.certificate] == [before.sha256.hex()]

    testing.run(main())


def test_handshakes_that_are_under_way_end_with_the_certificate_that_they_began_with(authority: trustme.CA) -> None:
    async def main() -> None:
        network = Network(latency=0.1)
        before, after = (server_tls(authority, "localhost") for _ in range(2))
        async with network.serve(until_closed, tls=before) as server:
            connecting = asyncio.ensure_future(shown(network))
            await asyncio.sleep(0.15)
            server.reload(after)
            assert await connecting == before.sha256
            assert await shown(network) == after.sha256

    testing.run(main())


def test_a_reload_that_cannot_be_used_raises_and_changes_nothing(authority: trustme.CA, tmp_path: Path) -> None:
    async def main() -> None:
        network = Network()
        path = tmp_path / "server.pem"
        path.write_bytes(b"".join(issued(authority, "localhost")))
        tls = wtio.ServerTLS(certfile=path)
        async with network.serve(until_closed, tls=tls) as server:
            path.write_bytes(b"half")
            with pytest.raises(wtio.CertificateError, match="not PEM"):
                server.reload()
            asking = server_tls(authority, "b.example", client_cadata=authority.cert_pem.bytes())
            with pytest.raises(ValueError, match="number 2 of 2 differs from the first in client_cafile"):
                server.reload([tls, asking])
            assert server.tls[0] is tls
            assert await shown(network) == tls.sha256
            path.write_bytes(b"".join(issued(authority, "localhost")))
            server.reload()
            assert await shown(network) == server.tls[0].sha256 != tls.sha256
        # Signals may come late.
        server.reload()

    testing.run(main())


def test_a_server_that_has_not_started_begins_with_what_was_reloaded(authority: trustme.CA) -> None:
    async def main() -> None:
        network = Network()
        before, after = (server_tls(authority, "localhost") for _ in range(2))
        server = network.serve(until_closed, tls=before)
        server.reload(after)
        async with server:
            assert await shown(network) == after.sha256

    testing.run(main())


# -- watched files


class Files:
    """Certificate and key of a server in two files that are watched."""

    def __init__(self, directory: Path, authority: trustme.CA) -> None:
        self.certfile, self.keyfile = directory / "cert.pem", directory / "key.pem"
        self._authority = authority
        self.write(*self.new())
        self.tls = wtio.ServerTLS(certfile=self.certfile, keyfile=self.keyfile, watch=True)

    def new(self) -> tuple[bytes, bytes]:
        return issued(self._authority, "localhost")

    def write(self, chain: bytes, key: bytes) -> None:
        self.certfile.write_bytes(chain)
        self.keyfile.write_bytes(key)


@pytest.fixture
def files(tmp_path: Path, authority: trustme.CA) -> Files:
    return Files(tmp_path, authority)


@pytest.mark.parametrize("order", ["certificate first", "key first"])
def test_files_are_replaced_in_any_order(files: Files, order: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        network = Network()
        caplog.set_level(logging.INFO)
        async with network.serve(echo, tls=files.tls) as server, network.connect(tls=newcomer()) as session:
            chain, key = files.new()
            steps = [(files.certfile, chain), (files.keyfile, key)]
            for path, content in steps if order == "certificate first" else reversed(steps):
                assert await shown(network) == files.tls.sha256
                path.write_bytes(content)
                await asyncio.sleep(A_WHILE)
            assert await shown(network) == server.tls[0].sha256 != files.tls.sha256
            assert await answers(session)
        lines = [record for record in but_sessions(caplog.records) if record.name == "wtio.server"]
        said = [(record.levelname, record.getMessage()) for record in lines]
        assert [level for level, _ in said] == ["INFO"]
        assert said[0][1].startswith("a new certificate is in force, for localhost, until 3000-01-01")

    testing.run(main())


def test_files_that_are_being_written_are_left_alone(
    files: Files, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(until_closed, tls=files.tls) as server:
            leaf = authority.create_child_ca().issue_cert("localhost")
            own, *others = [blob.bytes() for blob in leaf.cert_chain_pems]
            files.keyfile.write_bytes(leaf.private_key_pem.bytes())
            # What is there at first would do, but for its authorities, which follow.
            for content in (own[:500], own, own + b"".join(others)[:300], own + b"".join(others)):
                files.certfile.write_bytes(content)
                await asyncio.sleep(1.9)
                assert server.tls[0] is files.tls
            await asyncio.sleep(A_WHILE)
            assert len(server.tls[0].certificates) == 1 + len(others)
        assert not caplog.records

    testing.run(main())


def test_a_bad_certificate_is_kept_out_with_one_line(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(until_closed, tls=files.tls) as server:
            now = int(time.time())
            expired, key, _ = _core.generate_certificate(["localhost"], now - 100, now - 50)
            files.write(expired, key)
            await asyncio.sleep(300)
            assert server.tls[0] is files.tls
            assert await shown(network) == files.tls.sha256
            (record,) = caplog.records
            assert record.levelname == "ERROR"
            assert record.getMessage().startswith("the certificate is not renewed, the old one stays in force: ")
            assert "expired on" in record.getMessage()
            assert str(files.certfile) in record.getMessage()
            # The next mistake is another one, and has a line of its own. What works again ends it.
            files.certfile.unlink()
            await asyncio.sleep(300)
            assert "No such file" in caplog.records[-1].getMessage()
            files.write(*files.new())
            await asyncio.sleep(A_WHILE)
            assert await shown(network) == server.tls[0].sha256 != files.tls.sha256
            assert len(caplog.records) == 2

    testing.run(main())


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege on Windows")
def test_links_that_move_are_followed(tmp_path: Path, authority: trustme.CA) -> None:
    # As certbot does it: live/ has links to numbered files in archive/. Kubernetes moves a link to a directory.
    async def main() -> None:
        network = Network()
        for number in (1, 2, 3):
            (tmp_path / f"archive{number}").mkdir()
            chain, key = issued(authority, "localhost")
            (tmp_path / f"archive{number}" / "cert.pem").write_bytes(chain)
            (tmp_path / f"archive{number}" / "key.pem").write_bytes(key)
        links = {name: tmp_path / f"live-{name}" for name in ("cert.pem", "key.pem")}
        for name, link in links.items():
            link.symlink_to(tmp_path / "archive1" / name)
        directory = tmp_path / "current"
        directory.symlink_to(tmp_path / "archive1")
        links_tls = wtio.ServerTLS(certfile=links["cert.pem"], keyfile=links["key.pem"], watch=True)
        directory_tls = wtio.ServerTLS(certfile=directory / "cert.pem", keyfile=directory / "key.pem", watch=True)
        async with (
            network.serve(until_closed, port=1, tls=links_tls) as first,
            network.serve(until_closed, port=2, tls=directory_tls) as second,
        ):
            for number in (2, 3):
                for name, link in links.items():
                    moved = tmp_path / "moved"
                    moved.symlink_to(tmp_path / f"archive{number}" / name)
                    os.replace(moved, link)
                moved.symlink_to(tmp_path / f"archive{number}")
                os.replace(moved, directory)
                await asyncio.sleep(A_WHILE)
                expected = wtio.ServerTLS(
                    certfile=tmp_path / f"archive{number}/cert.pem", keyfile=tmp_path / f"archive{number}/key.pem"
                )
                assert first.tls[0].sha256 == second.tls[0].sha256 == expected.sha256
                assert await shown(network, "localhost:1") == await shown(network, "localhost:2") == expected.sha256

    testing.run(main())


def test_nobody_watches_a_server_that_is_closed_or_shows_something_else(files: Files, authority: trustme.CA) -> None:
    async def main() -> None:
        network = Network()
        other = server_tls(authority, "localhost")
        async with network.serve(until_closed, tls=files.tls) as server:
            server.reload(other)
            files.write(*files.new())
            await asyncio.sleep(A_WHILE)
            assert server.tls[0] is other
            server.reload(files.tls)
            await asyncio.sleep(A_WHILE)
            assert server.tls[0].sha256 != files.tls.sha256
            last = server.tls
        files.write(*files.new())
        await asyncio.sleep(A_WHILE)
        assert server.tls[0] is last[0]

    testing.run(main())


# -- several certificates


def test_the_name_that_a_client_asks_for_chooses_the_certificate(authority: trustme.CA) -> None:
    async def main() -> None:
        network = Network()
        first = server_tls(authority, "first.example", "localhost")
        wild = server_tls(authority, "*.wild.example")
        exact = server_tls(authority, "exact.wild.example", "second.example", "first.example")
        hosts = {
            "first.example": first,
            "localhost": first,
            "a.wild.example": wild,
            "exact.wild.example": exact,
            "SECOND.example": exact,
            "a.b.wild.example": first,
            "wild.example": first,
            "unknown.example": first,
            "[::1]": first,
        }
        for host in hosts:
            if not host.startswith("["):
                network.add_host(host, "::1")
        async with network.serve(until_closed, tls=[first, wild, exact]) as server:
            assert server.tls == (first, wild, exact)
            for host, tls in hosts.items():
                assert await shown(network, host) == tls.sha256, host
            async with network.connect("https://a.wild.example/", tls=newcomer()):
                report = server.sessions[0].report.tls
                assert report is not None
                assert report.certificate is not None
                assert report.certificate.names == ("*.wild.example",)
            server.reload((wild, first))
            assert await shown(network, "unknown.example") == wild.sha256
            assert await shown(network, "second.example") == wild.sha256
            assert await shown(network, "first.example") == first.sha256

    testing.run(main())


def test_each_of_several_certificates_is_watched_by_itself(
    files: Files, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        network = Network()
        network.add_host("other.example", "::1")
        other = server_tls(authority, "other.example")
        async with network.serve(until_closed, tls=[other, files.tls]) as server:
            files.write(*files.new())
            await asyncio.sleep(A_WHILE)
            assert server.tls[0] is other
            assert await shown(network) == server.tls[1].sha256 != files.tls.sha256
            assert await shown(network, "other.example") == other.sha256
        assert not caplog.records

    testing.run(main())


# -- certificates of clients


def test_a_client_certificate_is_seen_on_request_and_session(authority: trustme.CA, tmp_path: Path) -> None:
    async def main() -> None:
        network = Network()
        tls = server_tls(authority, "localhost", client_cadata=authority.cert_pem.bytes())
        async with network.serve(tls=tls) as server:
            own = client_tls(authority, tmp_path, authority)
            # The second time, TLS resumes, and the certificate is that of the first.
            for _ in range(2):
                connecting = asyncio.ensure_future(network.connect("https://localhost/", tls=own)._establish())
                request = await anext(server)
                assert request.peer_certificate is not None
                assert request.peer_certificate.names == ("alice.example",)
                assert "CN=alice" in request.peer_certificate.subject
                session = await request.accept()
                assert session.peer_certificates == request.peer_certificates
                assert len(session.peer_certificates[0]) > 100
                client = await connecting
                assert client.peer_certificates == tls.certificates
                await client.close()
                await session.wait_closed()
                assert session.peer_certificate == request.peer_certificate

    testing.run(main())


def test_clients_without_a_certificate_are_refused_in_words(
    authority: trustme.CA, other_authority: trustme.CA, tmp_path: Path
) -> None:
    async def main() -> None:
        network = Network()
        tls = server_tls(authority, "localhost", client_cadata=authority.cert_pem.bytes())
        async with network.serve(until_closed, tls=tls) as server:
            refused = (
                (client_tls(authority, tmp_path), r"refused this client: .*certificate_required \(TLS alert 116\)"),
                (client_tls(authority, tmp_path, other_authority), "refused this client: .*TLS alert 4"),
            )
            for client, words in refused:
                with pytest.raises(wtio.CertificateError, match=words) as caught:
                    await network.connect(tls=client)
                assert "ClientTLS(certfile=..., keyfile=...)" in str(caught.value)
                assert "cafile" not in str(caught.value)
                report = caught.value.report
                assert report is not None
                assert report.end is not None
                assert (report.end.cause, report.end.by) == ("tls", "peer")
            assert not server.sessions
            async with network.connect(tls=client_tls(authority, tmp_path, authority)):
                assert len(server.sessions) == 1

    testing.run(main())


@pytest.mark.unaudited("all of its connections are refused")
def test_no_request_of_a_client_without_a_certificate_is_seen_whatever_is_lost(
    authority: trustme.CA, tmp_path: Path
) -> None:
    async def main() -> None:
        tls = server_tls(authority, "localhost", client_cadata=authority.cert_pem.bytes())
        for seed in range(20):
            network = Network(seed=seed, loss=0.2, reorder=0.5, jitter=0.02)
            async with network.serve(until_closed, tls=tls) as server:
                with pytest.raises(wtio.ConnectError):
                    await network.connect(tls=client_tls(authority, tmp_path), timeouts=wtio.Timeouts(connect=5))
                assert not server.sessions

    testing.run(main())


def test_certificates_that_are_only_requested_may_be_missing_but_not_wrong(
    authority: trustme.CA, other_authority: trustme.CA, tmp_path: Path
) -> None:
    async def main() -> None:
        network = Network()
        tls = server_tls(
            authority, "localhost", client_cadata=authority.cert_pem.bytes(), client_certificates="requested"
        )
        async with network.serve(until_closed, tls=tls) as server:
            async with network.connect(tls=client_tls(authority, tmp_path)):
                assert server.sessions[0].peer_certificate is None
                assert server.sessions[0].peer_certificates == []
            async with network.connect(tls=client_tls(authority, tmp_path, authority)):
                names = [session.peer_certificate for session in server.sessions]
                assert [one.names for one in names if one] == [("alice.example",)]
            with pytest.raises(wtio.CertificateError, match="refused this client"):
                await network.connect(tls=client_tls(authority, tmp_path, other_authority))

    testing.run(main())


def test_a_ticket_outlives_a_change_of_the_certificate_but_not_of_the_clients_authorities(
    authority: trustme.CA, other_authority: trustme.CA, tmp_path: Path
) -> None:
    async def main() -> None:
        network = Network()
        taken = {"client_cadata": authority.cert_pem.bytes()}
        async with network.serve(until_closed, tls=server_tls(authority, "localhost", **taken)) as server:
            client = client_tls(authority, tmp_path, authority)
            async with network.connect(tls=client):
                await asyncio.sleep(1)
            # This client trusts no certificate of that authority: only because it resumes does it not look.
            server.reload(server_tls(other_authority, "localhost", **taken))
            async with network.connect(tls=client):
                await asyncio.sleep(1)
            with pytest.raises(wtio.CertificateError, match="not trusted"):
                await network.connect(tls=client_tls(authority, tmp_path, authority))
            # Nothing is resumed where other clients are taken than before.
            taken = {"client_cadata": other_authority.cert_pem.bytes()}
            server.reload(server_tls(authority, "localhost", **taken))
            with pytest.raises(wtio.CertificateError, match="refused this client"):
                await network.connect(tls=client)

    testing.run(main())


def test_a_ticket_of_a_client_without_a_certificate_is_worthless_once_it_is_required(
    authority: trustme.CA, tmp_path: Path
) -> None:
    async def main() -> None:
        network = Network()
        asked = {"client_cadata": authority.cert_pem.bytes(), "client_certificates": "requested"}
        tls = [
            server_tls(authority, "localhost", **options)
            for options in ({}, asked, {**asked, "client_certificates": None})
        ]
        for before in tls[:2]:
            async with network.serve(until_closed, tls=before) as server:
                client = client_tls(authority, tmp_path)
                async with network.connect(tls=client):
                    await asyncio.sleep(1)
                server.reload(tls[2])
                with pytest.raises(wtio.CertificateError, match="TLS alert 116"):
                    await network.connect(tls=client)

    testing.run(main())


def test_authorities_of_clients_are_watched(files: Files, authority: trustme.CA, other_authority: trustme.CA) -> None:
    async def main() -> None:
        network = Network()
        cafile = files.certfile.with_name("clients.pem")
        cafile.write_bytes(authority.cert_pem.bytes())
        tls = [
            wtio.ServerTLS(certfile=files.certfile, keyfile=files.keyfile, client_cafile=cafile, watch=True)
            for _ in range(2)
        ]
        client = client_tls(authority, cafile.parent, other_authority)
        async with network.serve(until_closed, tls=tls):
            with pytest.raises(wtio.CertificateError, match="refused this client"):
                await network.connect(tls=client)
            cafile.write_bytes(other_authority.cert_pem.bytes())
            await asyncio.sleep(A_WHILE)
            async with network.connect(tls=client):
                pass

    testing.run(main())


# -- the certificate for development


def test_a_running_server_renews_its_certificate_for_development_to_the_one_that_was_known_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        caplog.set_level(logging.INFO)
        network = Network()
        day = 24 * 3600
        real, passed = time.time, 0.0
        monkeypatch.setattr(time, "time", lambda: real() + passed)
        first = wtio.dev_certificate(directory=tmp_path)
        for digest in (first.sha256, first.next_sha256):
            assert ", ".join(map(str, digest)) in first.javascript
        assert first.sha256 != first.next_sha256
        assert list(first.client_tls().certificate_hashes) == [first.sha256, first.next_sha256]
        async with network.serve(echo, tls=first.server_tls()) as server, network.connect(tls=newcomer()) as session:
            passed = 10.5 * day
            await asyncio.sleep(A_WHILE)
            assert await shown(network) == first.sha256
            assert wtio.dev_certificate(directory=tmp_path) == first
            passed = 11 * day
            await asyncio.sleep(2 * A_WHILE)
            assert await shown(network) == first.next_sha256
            assert await answers(session)
            second = wtio.dev_certificate(directory=tmp_path)
            assert second.sha256 == first.next_sha256
            assert second.next_sha256 not in (first.sha256, first.next_sha256)
            # By then, pages have had the second hash for eleven days.
            passed = 22 * day
            await asyncio.sleep(2 * A_WHILE)
            assert await shown(network) == second.next_sha256
            assert server.tls[0].not_after > time.time() + 10 * day
            # A machine that slept for so long that both have expired.
            passed = 90 * day
            await asyncio.sleep(2 * A_WHILE)
            assert await shown(network) == wtio.dev_certificate(directory=tmp_path).sha256
        assert {record.levelname for record in caplog.records if record.name == "wtio.server"} == {"INFO"}

    testing.run(main())


def test_two_servers_of_one_certificate_for_development_renew_it_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        network = Network()
        real, passed = time.time, 0.0
        monkeypatch.setattr(time, "time", lambda: real() + passed)
        first = wtio.dev_certificate(directory=tmp_path)
        one = network.serve(until_closed, port=1, tls=first.server_tls())
        other = network.serve(until_closed, port=2, tls=first.server_tls())
        async with one, other:
            passed = 11.5 * 24 * 3600
            await asyncio.sleep(2 * A_WHILE)
            assert await shown(network, "localhost:1") == await shown(network, "localhost:2") == first.next_sha256

    testing.run(main())
