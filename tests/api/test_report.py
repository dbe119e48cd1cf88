"""The connection report: after success and after every kind of failure it says what happened."""

from __future__ import annotations

import asyncio
import datetime
import json
import pickle
import socket
import time
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

import wtio
from wtio import _core
from wtio.protocol.dialects import Setting
from wtio.report import BufferReport

from .support import opened

if TYPE_CHECKING:
    from .support import Pair

DAY = 24 * 3600


async def failed(url: str, **options: object) -> tuple[wtio.ConnectError, wtio.ConnectionReport]:
    """Connect in vain; the error and its report."""
    with pytest.raises(wtio.ConnectError) as caught:
        await wtio.connect(url, **options)  # type: ignore[arg-type]
    report = caught.value.report
    assert report is not None
    assert report.end is not None
    assert not report.is_established
    json.dumps(report.as_dict())
    assert str(report).startswith(f"url           {url}\n")
    return caught.value, report


async def refusal(certificate_pem: bytes, key_pem: bytes, trust: wtio.ClientTLS) -> wtio.ConnectionReport:
    """The report of a client that does not trust a server's certificate."""
    tls = wtio.ServerTLS(certdata=certificate_pem, keydata=key_pem)
    async with wtio.serve(None, "127.0.0.1", 0, tls=tls) as server:
        error, report = await failed(f"https://127.0.0.1:{server.addresses[0][1]}/", tls=trust)
    assert isinstance(error, wtio.CertificateError)
    assert report.tls is not None
    assert report.tls.certificate is not None
    assert report.tls.certificate.sha256 == tls.sha256.hex()
    assert report.tls.refusal
    assert report.step == "handshake"
    assert report.end is not None
    assert (report.end.cause, report.end.by) == ("tls", "local")
    assert [address.outcome for address in report.addresses] == ["failed"]
    return report


def granted(name: str) -> int:
    """What the system grants of the 4 MiB that are asked for."""
    try:
        return min(int(Path(f"/proc/sys/net/core/{name}").read_text()), 4 * 1024 * 1024)
    except OSError:
        return 4 * 1024 * 1024


async def test_udp_buffers_are_in_the_report_of_both_sides_also_after_the_end(pair: Pair) -> None:
    expected = BufferReport(asked=4 * 1024 * 1024, receive=granted("rmem_max"), send=granted("wmem_max"))
    sides = (pair.client, pair.accepted)
    for session in sides:
        assert session.report.udp_buffers == expected
        words = f"UDP buffers   {expected.receive} bytes to receive and {expected.send} to send"
        assert words in str(session.report)
        assert session.report.as_dict()["udp_buffers"]["receive"] == expected.receive
    await pair.client.close()
    await pair.accepted.wait_closed()
    for session in sides:
        assert session.report.udp_buffers == expected


async def test_both_sides_of_an_open_session_agree(pair: Pair, certificate: wtio.DevCertificate) -> None:
    least = pair.client.max_datagram_size
    client, server = pair.client.report, pair.accepted.report
    assert client.is_established
    assert client.step == server.step == "session"
    assert (client.is_client, server.is_client) == (True, False)
    assert client.url == server.url
    assert client.end is server.end is None
    assert client.dialect == server.dialect == pair.client.dialect
    assert client.settings_sent == server.settings_received
    assert client.settings_received == server.settings_sent
    assert client.setting(Setting.ENABLE_WEBTRANSPORT) == 1
    assert client.setting(Setting.WT_MAX_SESSIONS + 1) is None
    assert client.status == server.status == 200
    assert client.flow_control == server.flow_control
    assert [(a.ip, a.port, a.outcome) for a in client.addresses] == [(*pair.client.remote_address, "connected")]
    assert [(a.ip, a.port, a.outcome) for a in server.addresses] == [(*pair.accepted.remote_address, "connected")]
    assert client.tls is not None
    assert server.tls is not None
    assert client.tls.alpn == server.tls.alpn == "h3"
    assert client.tls.certificate == server.tls.certificate
    assert client.tls.hash_matches is True
    assert client.tls.certificate is not None
    assert client.tls.certificate.sha256 == certificate.sha256_hex
    assert client.tls.certificate.names == ("localhost", "127.0.0.1", "::1")
    assert client.tls.certificate.key == "ECDSA P-256"
    assert client.tls.certificate.is_self_signed
    assert round(client.tls.certificate.validity_days) == 13
    assert client.tls.certificate.not_after == certificate.not_after
    assert client.transport_parameter(0x20) == server.transport_parameter(0x20) == 65535
    assert client.transport_parameter(0x1D) == ""
    assert client.transport_parameter(0x1E) is None
    assert client.transport_parameter(0x02) == "", "the reset token is a secret"
    assert client.tls.cipher == server.tls.cipher
    assert client.tls.cipher == "TLS13_AES_128_GCM_SHA256"
    assert client.tls.key_exchange == server.tls.key_exchange == "X25519MLKEM768"
    assert "TLS13_AES_128_GCM_SHA256, X25519MLKEM768" in str(client)
    spans = (client.times.lookup, client.times.handshake, client.times.settings, client.times.request)
    assert client.times.total == pytest.approx(sum(span for span in spans if span is not None))
    assert None not in spans
    assert server.times.total is None
    # Discovery of the path's MTU goes on meanwhile.
    most = pair.client.max_datagram_size
    assert least is not None
    assert client.max_datagram_size is not None
    assert most is not None
    assert least <= client.max_datagram_size <= most
    assert client.made_at == pytest.approx(time.time(), abs=60)


async def test_reports_outlive_their_session(pair: Pair) -> None:
    before = pair.client.report
    await pair.client.close(7, "that is all")
    await pair.accepted.wait_closed()
    client, server = pair.client.report, pair.accepted.report
    assert client.end is not None
    assert server.end is not None
    assert (client.end.cause, client.end.by, client.end.code) == ("session", "local", 7)
    assert (server.end.by, server.end.code, server.end.reason) == ("peer", 7, "that is all")
    assert server.end.code_name == "application code 7"
    assert client.tls == before.tls
    assert client.settings_received == before.settings_received
    assert client.addresses == before.addresses
    assert client.is_established
    assert "over by now" in str(client)


async def test_a_lost_connection_is_the_end(pair: Pair) -> None:
    pair.accepted._link.close_connection(0x102, "out of order")  # type: ignore[attr-defined]
    await pair.client.wait_closed()
    end = pair.client.report.end
    assert end is not None
    assert (end.cause, end.by, end.code, end.code_name) == ("application", "peer", 0x102, "H3_INTERNAL_ERROR (0x102)")
    assert "out of order" in end.reason


async def test_values_are_frozen_and_go_through_json_and_pickle(pair: Pair) -> None:
    report = pair.client.report
    with pytest.raises(FrozenInstanceError):
        report.url = ""  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(report)) == report
    plain = report.as_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["settings_sent"][0] == {"id": 1, "name": "QPACK_MAX_TABLE_CAPACITY", "value": 0}
    assert replace(report, url="https://other/").url == "https://other/"


async def test_subprotocols_and_origin_are_in_it(certificate: wtio.DevCertificate) -> None:
    origin = "https://page.example"
    async with wtio.serve(None, "127.0.0.1", 0, tls=certificate.server_tls(), origins=[origin]) as server:
        url = f"https://127.0.0.1:{server.addresses[0][1]}/"
        connector = wtio.connect(url, tls=certificate.client_tls(), protocols=["b", "a"], origin=origin)
        connecting = asyncio.ensure_future(opened(connector))
        async with await (await anext(server)).accept() as accepted, await connecting as session:
            for report in (session.report, accepted.report):
                assert report.protocols == ("b", "a")
                assert report.protocol is None
                assert report.origin == origin


async def test_wrong_hash_shows_both_hashes(certificate: wtio.DevCertificate) -> None:
    pem = certificate.certfile.read_bytes()
    report = await refusal(pem, pem, wtio.ClientTLS(certificate_hashes=[bytes(32), b"\1" * 32]))
    assert report.tls is not None
    assert (report.tls.trust, report.tls.hash_matches) == ("hashes", False)
    assert report.tls.expected_hashes == ("00" * 32, "01" * 32)
    assert certificate.sha256_hex in str(report)
    assert "01" * 32 in str(report)
    assert "OtherError" not in str(report)


async def test_a_refused_span_is_in_it() -> None:
    now = int(time.time())
    chain, key, der = _core.generate_certificate(["127.0.0.1"], now - 3600, now + 15 * DAY)
    report = await refusal(chain, key, wtio.ClientTLS(certificate_hashes=[_core.sha256(der)]))
    assert report.tls is not None
    assert report.tls.hash_matches is True
    assert report.tls.certificate is not None
    assert report.tls.certificate.validity_days > 15


async def test_wrong_name_and_unknown_authority_are_in_it(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("elsewhere.example")
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    key = issued.private_key_pem.bytes()
    report = await refusal(chain, key, wtio.ClientTLS(cadata=authority.cert_pem.bytes()))
    assert report.tls is not None
    assert report.tls.trust == "authorities"
    assert report.tls.certificate is not None
    assert report.tls.certificate.names == ("elsewhere.example",)
    assert not report.tls.certificate.is_self_signed
    report = await refusal(chain, key, wtio.ClientTLS())
    assert report.tls is not None
    assert report.tls.trust == "system"
    assert report.tls.refusal == "no trusted authority has signed it"


def rsa_authority(name: str) -> bytes:
    """The certificate of an authority with an RSA key, in PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), 1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


async def test_a_certificate_that_signs_itself_is_said_to(tmp_path: Path) -> None:
    made, namesake, other = (
        wtio.dev_certificate([name], directory=tmp_path / folder)
        for name, folder in (("localhost", "a"), ("localhost", "b"), ("elsewhere.example", "c"))
    )
    # An authority of the same name may be trusted, with a key of the same kind or another one, or none.
    for trusted in (namesake.certfile.read_bytes(), rsa_authority("localhost"), other.certfile.read_bytes()):
        report = await refusal(made.certfile.read_bytes(), made.keyfile.read_bytes(), wtio.ClientTLS(cadata=trusted))
        assert report.tls is not None
        assert report.tls.certificate is not None
        assert report.tls.certificate.is_self_signed
        assert report.tls.refusal == "it is self-signed, so no authority vouches for it"


async def test_an_expired_certificate_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = int(time.time())
    chain, key, der = _core.generate_certificate(["127.0.0.1"], now - 2 * DAY, now - DAY)
    # The server side refuses such a certificate at the start, so its clock has to be wrong.
    monkeypatch.setattr(time, "time", lambda: now - 1.5 * DAY)
    server_tls = wtio.ServerTLS(certdata=chain, keydata=key)
    monkeypatch.undo()
    async with wtio.serve(None, "127.0.0.1", 0, tls=server_tls) as server:
        url = f"https://127.0.0.1:{server.addresses[0][1]}/"
        _, report = await failed(url, tls=wtio.ClientTLS(certificate_hashes=[_core.sha256(der)]))
    assert report.tls is not None
    assert report.tls.certificate is not None
    assert report.tls.certificate.not_after == now - DAY
    assert "expired 24 hours ago" in str(report)


async def test_rejections_have_everything_but_a_session(
    server: wtio.Server, url: str, certificate: wtio.DevCertificate
) -> None:
    connecting = asyncio.ensure_future(failed(url, tls=certificate.client_tls(), origin=url.removesuffix("/test")))
    await (await anext(server)).reject(403)
    error, report = await connecting
    assert isinstance(error, wtio.SessionRejectedError)
    assert (report.step, report.status, report.origin) == ("request", 403, url.removesuffix("/test"))
    assert report.end is not None
    assert (report.end.cause, report.end.by, report.end.code) == ("rejected", "peer", 403)
    assert report.settings_received is not None
    assert report.dialect is not None
    assert report.times.request is None
    assert report.times.settings is not None
    copy = pickle.loads(pickle.dumps(error))
    assert copy.report == report


async def test_a_host_without_address_has_a_report() -> None:
    error, report = await failed("https://nowhere.invalid/path")
    assert isinstance(error, wtio.NameResolutionError)
    assert (report.step, report.host, report.addresses) == ("lookup", "nowhere.invalid", ())
    assert report.end is not None
    assert report.end.cause == "lookup"
    assert (report.tls, report.settings_received, report.transport_parameters) == (None, None, None)


async def test_silence_is_no_answer() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        error, report = await failed(url, timeouts=wtio.Timeouts(connect=0.05))
    assert isinstance(error, wtio.HandshakeTimeout)
    assert report.step == "handshake"
    assert [address.outcome for address in report.addresses] == ["no answer"]
    assert report.end is not None
    assert (report.end.cause, report.end.by) == ("timeout", "timeout")
    assert report.tls is None
    assert report.settings_sent == ()


def test_errors_before_the_first_packet_have_none() -> None:
    with pytest.raises(wtio.InvalidURLError) as caught:
        wtio.connect("http://localhost/")
    assert caught.value.report is None
