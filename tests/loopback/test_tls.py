"""Certificates, trust and URLs: every mistake has one clear error."""

from __future__ import annotations

import asyncio
import base64
import ssl
import stat
import sys
import time
from typing import TYPE_CHECKING

import pytest
import trustme

import wtio
from wtio import _core, tls
from wtio._url import parse_url

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def _files(directory: Path, authority: trustme.CA, *names: str) -> tuple[Path, Path, Path]:
    issued = authority.issue_cert(*names)
    paths = directory / "cert.pem", directory / "key.pem", directory / "ca.pem"
    paths[0].write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(paths[1]))
    authority.cert_pem.write_to_path(str(paths[2]))
    return paths


async def _echo_once(session: wtio.WebTransportSession) -> None:
    session.send_datagram(await session.receive_datagram())
    await session.wait_closed()


async def _connects(server_tls: wtio.ServerTLS, client_tls: wtio.ClientTLS, host: str = "localhost") -> None:
    async with wtio.serve(_echo_once, "localhost", 0, tls=server_tls) as server:
        url = f"https://{host}:{server.addresses[0][1]}"
        async with wtio.connect(url, tls=client_tls, timeouts=wtio.Timeouts(connect=5)) as session:
            session.send_datagram(b"x")
            assert await session.receive_datagram() == b"x"


async def test_authority_file_is_trusted(tmp_path: Path, authority: trustme.CA) -> None:
    certificate, key, roots = _files(tmp_path, authority, "localhost")
    await _connects(wtio.ServerTLS(certfile=certificate, keyfile=key), wtio.ClientTLS(cafile=roots))
    data = wtio.ServerTLS(certdata=certificate.read_bytes(), keydata=key.read_text())
    await _connects(data, wtio.ClientTLS(cadata=roots.read_text()))


async def test_unknown_authority_and_wrong_name_are_refused(tmp_path: Path, authority: trustme.CA) -> None:
    certificate, key, roots = _files(tmp_path, authority, "elsewhere.example")
    server = wtio.ServerTLS(certfile=certificate, keyfile=key)
    with pytest.raises(wtio.CertificateError, match=r"not trusted.*elsewhere"):
        await _connects(server, wtio.ClientTLS(cafile=roots))
    with pytest.raises(wtio.CertificateError, match="not trusted"):
        await _connects(server, wtio.ClientTLS())
    await _connects(server, wtio.ClientTLS(dangerously_trust_any_certificate=True))


async def test_hashes_in_every_form(certificate: wtio.DevCertificate) -> None:
    digest = certificate.sha256
    colons = ":".join(f"{byte:02X}" for byte in digest)
    for form in (digest, certificate.sha256_hex, certificate.sha256_base64, colons):
        await _connects(certificate.server_tls(), wtio.ClientTLS(certificate_hashes=[bytes(32), form]))
    with pytest.raises(wtio.CertificateError, match="SHA-256"):
        await _connects(certificate.server_tls(), wtio.ClientTLS(certificate_hashes=[bytes(32)]))


@pytest.mark.trap("H21")
async def test_pinned_certificate_must_be_short_lived() -> None:
    now = int(time.time())
    chain, key, der = _core.generate_certificate(["localhost"], now - 3600, now + 15 * 24 * 3600)
    server = wtio.ServerTLS(certdata=chain, keydata=key)
    with pytest.raises(wtio.CertificateError, match="14 days"):
        await _connects(server, wtio.ClientTLS(certificate_hashes=[_core.sha256(der)]))


def test_bad_hashes_and_contradictions() -> None:
    for bad in ("abc", b"short", "zz" * 32, base64.b64encode(b"short").decode()):
        with pytest.raises(ValueError, match="SHA-256"):
            wtio.ClientTLS(certificate_hashes=[bad])
    with pytest.raises(TypeError, match="sequence"):
        wtio.ClientTLS(certificate_hashes=bytes(32))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="exclude"):
        wtio.ClientTLS(certificate_hashes=[bytes(32)], dangerously_trust_any_certificate=True)


def test_server_certificate_mistakes(tmp_path: Path, authority: trustme.CA) -> None:
    certificate, key, roots = _files(tmp_path, authority, "localhost")
    missing = tmp_path / "missing.pem"
    with pytest.raises(wtio.CertificateError, match=r"missing\.pem.*No such file") as caught:
        wtio.ServerTLS(certfile=missing, keyfile=key)
    assert caught.value.path == str(missing)
    with pytest.raises(wtio.CertificateError, match=r"missing\.pem"):
        wtio.ServerTLS(certfile=certificate, keyfile=missing)
    der = tmp_path / "cert.der"
    der.write_bytes(ssl.PEM_cert_to_DER_cert(roots.read_text()))
    with pytest.raises(wtio.CertificateError, match="DER"):
        wtio.ServerTLS(certfile=der, keyfile=key)
    with pytest.raises(wtio.CertificateError, match="PRIVATE KEY"):
        wtio.ServerTLS(certfile=certificate, keyfile=certificate)
    other = tmp_path / "other.pem"
    authority.issue_cert("localhost").private_key_pem.write_to_path(str(other))
    with pytest.raises(wtio.CertificateError, match="does not belong"):
        wtio.ServerTLS(certfile=certificate, keyfile=other)
    authority_key = tmp_path / "ca-key.pem"
    authority.private_key_pem.write_to_path(str(authority_key))
    with pytest.raises(wtio.CertificateError, match="CA:TRUE"):
        wtio.ServerTLS(certfile=roots, keyfile=authority_key)
    with pytest.raises(ValueError, match="dev_certificate"):
        wtio.ServerTLS()
    now = int(time.time())
    for begin, end, words in ((-10, -5, "expired"), (3600, 7200, "not valid before")):
        chain, own, _ = _core.generate_certificate(["localhost"], now + begin, now + end)
        with pytest.raises(wtio.CertificateError, match=words):
            wtio.ServerTLS(certdata=chain, keydata=own)


@pytest.mark.trap("H21")
def test_dev_certificate_follows_the_browsers_rules(tmp_path: Path) -> None:
    first = tls.dev_certificate(directory=tmp_path)
    der = first.server_tls().certificates[0]
    facts = _core.certificate_facts(der)
    assert facts.not_after - facts.not_before == 13 * 24 * 3600
    assert 3500 < time.time() - facts.not_before < 3700
    assert facts.key_algorithm == "ECDSA P-256"
    assert set(facts.names) == {"localhost", "127.0.0.1", "::1"}
    assert first.sha256 == _core.sha256(der)
    assert bytes.fromhex(first.sha256_hex) == base64.b64decode(first.sha256_base64) == first.sha256
    assert ", ".join(map(str, first.sha256)) in first.javascript
    if sys.platform != "win32":
        assert stat.S_IMODE(first.certfile.stat().st_mode) == 0o600


def test_on_windows_dev_certificate_is_kept_with_the_users_local_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    with monkeypatch.context() as on_windows:
        on_windows.setattr(sys, "platform", "win32")
        directory = tls._cache_directory()
    assert directory == tmp_path / "wtio"


def test_dev_certificate_is_kept_and_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tls.dev_certificate(directory=tmp_path)
    assert tls.dev_certificate(directory=tmp_path) == first
    assert tls.dev_certificate(["localhost"], directory=tmp_path).sha256 != first.sha256
    first.certfile.write_bytes(b"damaged")
    second = tls.dev_certificate(directory=tmp_path)
    assert second.sha256 != first.sha256
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 12 * 24 * 3600)
    assert tls.dev_certificate(directory=tmp_path).sha256 != second.sha256


def test_dev_certificate_uses_the_cache_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tls.dev_certificate().certfile.parent == tmp_path / "wtio"
    with pytest.raises(ValueError, match="neither"):
        tls.dev_certificate(["not a name"])
    with pytest.raises(TypeError):
        tls.dev_certificate("localhost")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://localhost", "scheme"),
        ("localhost:443", "scheme"),
        ("", "scheme"),
        ("https://", "host"),
        ("https://:443", "host"),
        ("https://host:0", "port 0"),
        ("https://host:65536", "[Pp]ort"),
        ("https://host:abc", "[Pp]ort"),
        ("https://host/#part", "fragment"),
        ("https://user:pw@host/", "user name"),
        ("https://[::1", "IPv6|bracket"),
        ("https://[::zz]/", "IPv6|address|::zz"),
        ("https://[fe80::1%eth0]/", "zone"),
        ("https://a b/", "space"),
        ("https://host/\n", "space"),
        ("https://" + "a" * 64 + ".example/", "name"),
    ],
)
def test_bad_url_is_refused_at_once(url: str, why: str) -> None:
    with pytest.raises(wtio.InvalidURLError, match=why) as caught:
        wtio.connect(url)
    assert isinstance(caught.value, ValueError)
    assert caught.value.url == url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://Example.org", ("example.org", 443, "example.org", "/")),
        ("https://example.org:443/", ("example.org", 443, "example.org", "/")),
        ("https://example.org:4433/a/b?x=1&y=%20", ("example.org", 4433, "example.org:4433", "/a/b?x=1&y=%20")),
        ("https://[::1]:1/p", ("::1", 1, "[::1]:1", "/p")),
        ("https://127.0.0.1?q", ("127.0.0.1", 443, "127.0.0.1", "/?q")),
        ("https://bücher.example/ü", ("xn--bcher-kva.example", 443, "xn--bcher-kva.example", "/%C3%BC")),
    ],
)
def test_url_parts(url: str, expected: tuple[str, int, str, str]) -> None:
    target = parse_url(url)
    assert (target.host, target.port, target.authority, target.path) == expected


def test_limits_and_timeouts_are_checked() -> None:
    with pytest.raises(ValueError, match=r"Limits\.line is 0; it must be between 1"):
        wtio.Limits(line=0)
    with pytest.raises(TypeError, match=r"Limits\.line must be an int"):
        wtio.Limits(line=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Timeouts\.connect is -1"):
        wtio.Timeouts(connect=-1)
    with pytest.raises(ValueError, match="finite"):
        wtio.Timeouts(idle=float("inf"))
    assert wtio.Limits(read_all=None).read_all is None


async def test_watched_files_are_used_by_a_running_server(
    tmp_path: Path, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wtio._certificates._LOOK_EVERY", 0.02)
    certificate, key, _ = _files(tmp_path, authority, "localhost")
    tls = wtio.ServerTLS(certfile=certificate, keyfile=key, watch=True)
    anyone = wtio.ClientTLS(dangerously_trust_any_certificate=True)
    async with wtio.serve(_echo_once, "localhost", 0, tls=tls) as server:
        url = f"https://localhost:{server.addresses[0][1]}"
        async with wtio.connect(url, tls=anyone) as session:
            _files(tmp_path, authority, "localhost")
            # Settings of the same files are equal, whatever was in them.
            while server.tls[0] is tls:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            session.send_datagram(b"still there")
            assert await session.receive_datagram() == b"still there"
        newcomer = wtio.ClientTLS(dangerously_trust_any_certificate=True)
        async with wtio.connect(url, tls=newcomer) as session:
            assert session.peer_certificates == server.tls[0].certificates != tls.certificates


async def test_a_loop_that_ends_while_files_are_watched_leaves_no_complaint(
    tmp_path: Path, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("wtio._certificates._LOOK_EVERY", 0.001)
    certificate, key, _ = _files(tmp_path, authority, "localhost")
    tls = wtio.ServerTLS(certfile=certificate, keyfile=key, watch=True)
    async with wtio.serve(_echo_once, "localhost", 0, tls=tls):
        await asyncio.sleep(0.02)
        # As asyncio.run does at its end, when a program has not closed its server.
        await asyncio.get_running_loop().shutdown_default_executor()
        await asyncio.sleep(0.02)
    assert not caplog.records
