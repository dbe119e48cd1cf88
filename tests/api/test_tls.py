"""Who is trusted and who is not, and what the refusal says; mistakes with certificate files."""

from __future__ import annotations

import asyncio
import datetime
import errno
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trustme
from aioquic.asyncio.client import connect as quic_connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve as quic_serve
from aioquic.h3.connection import H3_ALPN
from aioquic.quic.configuration import QuicConfiguration
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

import wtio

from .support import port_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from aioquic.quic.events import QuicEvent
    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

    from wtio import DevCertificate, WebTransportSession

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


class Made:
    """A self-signed certificate with whatever is wrong with it."""

    def __init__(
        self,
        directory: Path,
        *,
        begin: datetime.datetime = NOW - DAY,
        end: datetime.datetime = NOW + DAY,
        key: CertificateIssuerPrivateKeyTypes | None = None,
        authority: bool = False,
        name: str = "localhost",
        usage: list[x509.ObjectIdentifier] | None = None,
    ) -> None:
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if usage:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        certificate = builder.sign(key, hashes.SHA256())
        self.sha256 = certificate.fingerprint(hashes.SHA256())
        self.certfile = directory / "certificate.pem"
        self.keyfile = directory / "key.pem"
        self.certfile.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self.keyfile.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )


async def echo(session: WebTransportSession) -> None:
    session.send_datagram(await session.receive_datagram())
    await session.wait_closed()


async def check(server_tls: wtio.ServerTLS, client_tls: wtio.ClientTLS, host: str = "127.0.0.1") -> None:
    """Connect and exchange something."""
    async with (
        wtio.serve(echo, "127.0.0.1", 0, tls=server_tls) as server,
        wtio.connect(f"https://{host}:{port_of(server)}/", tls=client_tls) as session,
    ):
        session.send_datagram(b"trusted")
        assert await session.receive_datagram() == b"trusted"


@asynccontextmanager
async def foreign_server(made: Made) -> AsyncIterator[str]:
    """A server of another implementation, which looks at no certificate."""
    configuration = QuicConfiguration(alpn_protocols=H3_ALPN, is_client=False)
    configuration.load_cert_chain(made.certfile, made.keyfile)
    server = await quic_serve("127.0.0.1", 0, configuration=configuration)
    try:
        assert server._transport is not None
        yield f"https://localhost:{server._transport.get_extra_info('sockname')[1]}/"
    finally:
        server.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def chain(tmp_path: Path, authority: trustme.CA) -> tuple[Path, Path, Path]:
    """Certificate, key and root of a certificate for 127.0.0.1 and localhost."""
    issued = authority.issue_cert("127.0.0.1", "localhost")
    certificate, key, root = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "root.pem"
    for blob in issued.cert_chain_pems:
        blob.write_to_path(str(certificate), append=True)
    issued.private_key_pem.write_to_path(str(key))
    authority.cert_pem.write_to_path(str(root))
    return certificate, key, root


# -- authorities


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_cafile_is_trusted(chain: tuple[Path, Path, Path], host: str) -> None:
    certificate, key, root = chain
    await check(wtio.ServerTLS(certfile=certificate, keyfile=key), wtio.ClientTLS(cafile=root), host)
    # Paths may be text, and everything may come from memory.
    server = wtio.ServerTLS(certdata=certificate.read_bytes(), keydata=key.read_bytes())
    await check(server, wtio.ClientTLS(cafile=str(root)), host)
    await check(server, wtio.ClientTLS(cadata=root.read_text()), host)


async def test_certificate_of_an_intermediate_is_trusted(tmp_path: Path, authority: trustme.CA) -> None:
    issued = authority.create_child_ca().issue_cert("127.0.0.1")
    certificate, root = tmp_path / "chain.pem", tmp_path / "root.pem"
    for blob in (*issued.cert_chain_pems, issued.private_key_pem):
        blob.write_to_path(str(certificate), append=True)
    authority.cert_pem.write_to_path(str(root))
    server = wtio.ServerTLS(certfile=certificate)  # with the key in the same file
    assert len(server.certificates) >= 2
    await check(server, wtio.ClientTLS(cafile=root))


async def test_system_refuses_a_private_authority(chain: tuple[Path, Path, Path]) -> None:
    certificate, key, _ = chain
    server = wtio.ServerTLS(certfile=certificate, keyfile=key)
    for trust in (wtio.ClientTLS(), None):
        async with wtio.serve(echo, "127.0.0.1", 0, tls=server) as running:
            with pytest.raises(wtio.CertificateError, match=r"not trusted.*cafile.*certificate_hashes") as caught:
                await wtio.connect(f"https://127.0.0.1:{port_of(running)}/", tls=trust)
            assert f"127.0.0.1:{port_of(running)}" in str(caught.value)
            assert isinstance(caught.value, ConnectionError)


async def test_other_authority_is_refused(chain: tuple[Path, Path, Path], tmp_path: Path) -> None:
    certificate, key, _ = chain
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    with pytest.raises(wtio.CertificateError, match="not trusted"):
        await check(wtio.ServerTLS(certfile=certificate, keyfile=key), wtio.ClientTLS(cafile=other))


async def test_certificate_for_another_name_is_refused(tmp_path: Path, authority: trustme.CA) -> None:
    issued = authority.issue_cert("elsewhere.example")
    server = wtio.ServerTLS(certdata=issued.cert_chain_pems[0].bytes(), keydata=issued.private_key_pem.bytes())
    with pytest.raises(wtio.CertificateError, match=r"elsewhere\.example"):
        await check(server, wtio.ClientTLS(cadata=authority.cert_pem.bytes()))


async def test_expired_certificate_is_refused_by_the_client(tmp_path: Path) -> None:
    made = Made(tmp_path, begin=NOW - 5 * DAY, end=NOW - DAY)
    async with foreign_server(made) as url:
        with pytest.raises(wtio.CertificateError, match=r"(?i)expired"):
            await wtio.connect(url, tls=wtio.ClientTLS(cafile=made.certfile))


async def test_certificate_of_an_authority_is_refused_as_leaf(tmp_path: Path) -> None:
    made = Made(tmp_path, authority=True)
    with pytest.raises(wtio.CertificateError, match="CA:TRUE"):
        wtio.ServerTLS(certfile=made.certfile, keyfile=made.keyfile)
    async with foreign_server(made) as url:
        with pytest.raises(wtio.CertificateError):
            await wtio.connect(url, tls=wtio.ClientTLS(cafile=made.certfile))


# -- certificates of clients


class Quiet(QuicConnectionProtocol):
    """A client that does not look at streams."""

    def quic_event_received(self, event: QuicEvent) -> None:
        """Make nothing of it."""


async def test_authorities_of_clients_are_named_if_they_cannot_be_used(
    chain: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    certificate, key, root = chain
    damaged = tmp_path / "clients.pem"
    damaged.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(wtio.CertificateError, match=r"client CA file `.*clients\.pem` cannot be used") as caught:
        wtio.ServerTLS(certfile=certificate, keyfile=key, client_cafile=damaged)
    assert caught.value.path == str(damaged)
    with pytest.raises(wtio.CertificateError, match=r"client CA file `.*key\.pem` holds a private key"):
        wtio.ServerTLS(certfile=certificate, keyfile=key, client_cafile=key)
    with pytest.raises(ValueError, match="either client_cafile or client_cadata, not both"):
        wtio.ServerTLS(certfile=certificate, keyfile=key, client_cafile=root, client_cadata=root.read_bytes())
    with pytest.raises(ValueError, match=r"replaced with Server\.reload"):
        wtio.ServerTLS(certdata=certificate.read_bytes(), keydata=key.read_bytes(), watch=True)


async def test_aioquic_shows_a_client_certificate_and_asks_for_a_name(
    chain: tuple[Path, Path, Path], authority: trustme.CA, tmp_path: Path
) -> None:
    certificate, key, root = chain
    other = authority.issue_cert("other.example")
    server_tls = [
        wtio.ServerTLS(certfile=certificate, keyfile=key, client_cafile=root),
        wtio.ServerTLS(certdata=other.private_key_and_cert_chain_pem.bytes(), client_cafile=root),
    ]
    own = tmp_path / "own.pem"
    authority.issue_cert("alice.example").private_key_and_cert_chain_pem.write_to_path(str(own))
    async with wtio.serve(echo, "127.0.0.1", 0, tls=server_tls) as server:
        for name, names in (("other.example", {"other.example"}), ("localhost", {"127.0.0.1", "localhost"})):
            configuration = QuicConfiguration(alpn_protocols=H3_ALPN, server_name=name)
            configuration.load_verify_locations(cafile=str(root))
            configuration.load_cert_chain(own, own)
            async with quic_connect(
                "127.0.0.1", port_of(server), configuration=configuration, create_protocol=Quiet
            ) as client:
                await client.ping()
                shown = client._quic.tls._peer_certificate
                assert shown is not None
                found = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
                assert {str(one.value) for one in found} == names
        configuration = QuicConfiguration(alpn_protocols=H3_ALPN, server_name="localhost")
        configuration.load_verify_locations(cafile=str(root))
        with pytest.raises(ConnectionError):
            async with quic_connect(
                "127.0.0.1", port_of(server), configuration=configuration, create_protocol=Quiet
            ) as client:
                await client.ping()


async def test_reloads_while_clients_come_fail_none_of_them(authority: trustme.CA) -> None:
    trust = wtio.ClientTLS(cadata=authority.cert_pem.bytes())

    def another() -> wtio.ServerTLS:
        return wtio.ServerTLS(certdata=authority.issue_cert("localhost").private_key_and_cert_chain_pem.bytes())

    async with wtio.serve(echo, ["127.0.0.1", "::1"], 0, tls=another()) as server:
        url = f"https://localhost:{port_of(server)}/"

        async def visit() -> None:
            async with wtio.connect(url, tls=trust) as session:
                session.send_datagram(b"x")
                assert await session.receive_datagram() == b"x"

        async with wtio.connect(url, tls=trust) as early, asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(visit())
                server.reload(another())
                await asyncio.sleep(0)
            early.send_datagram(b"still there")
            assert await early.receive_datagram() == b"still there"


# -- hashes


async def test_right_hash_is_trusted_whatever_the_name(certificate: DevCertificate) -> None:
    # A pinned certificate may have any name; rotation needs several hashes.
    named = wtio.dev_certificate(["elsewhere.example"], directory=certificate.certfile.parent)
    for made in (certificate, named):
        await check(made.server_tls(), wtio.ClientTLS(certificate_hashes=[bytes(32), made.sha256]))
        await check(made.server_tls(), wtio.ClientTLS(certificate_hashes=[made.sha256_hex]))
        await check(made.server_tls(), wtio.ClientTLS(certificate_hashes=[made.sha256_base64]))


async def test_wrong_hash_is_refused(certificate: DevCertificate) -> None:
    with pytest.raises(wtio.CertificateError, match=r"(?i)sha-?256"):
        await check(certificate.server_tls(), wtio.ClientTLS(certificate_hashes=[bytes(32)]))


@pytest.mark.parametrize(
    ("problem", "words"),
    [("expired", "expired|valid"), ("early", "valid"), ("long", "14 days"), ("rsa", "P-256"), ("p384", "P-256")],
)
@pytest.mark.trap("H21")
async def test_right_hash_of_a_certificate_that_browsers_refuse(tmp_path: Path, problem: str, words: str) -> None:
    match problem:
        case "expired":
            made = Made(tmp_path, begin=NOW - 5 * DAY, end=NOW - DAY)
        case "early":
            made = Made(tmp_path, begin=NOW + DAY, end=NOW + 5 * DAY)
        case "long":
            made = Made(tmp_path, begin=NOW - DAY, end=NOW + 14 * DAY)
        case "rsa":
            made = Made(tmp_path, key=rsa.generate_private_key(65537, 2048))
        case _:
            made = Made(tmp_path, key=ec.generate_private_key(ec.SECP384R1()))
    async with foreign_server(made) as url:
        with pytest.raises(wtio.CertificateError, match=words):
            await wtio.connect(url, tls=wtio.ClientTLS(certificate_hashes=[made.sha256]))


async def test_pinned_certificate_of_exactly_14_days(tmp_path: Path) -> None:
    made = Made(tmp_path, begin=NOW - DAY, end=NOW + 13 * DAY)
    server = wtio.ServerTLS(certfile=made.certfile, keyfile=made.keyfile)
    assert server.sha256 == made.sha256
    await check(server, wtio.ClientTLS(certificate_hashes=[made.sha256]))


async def test_dangerous_switch_trusts_anything(tmp_path: Path) -> None:
    made = Made(tmp_path, name="elsewhere.example")
    await check(
        wtio.ServerTLS(certfile=made.certfile, keyfile=made.keyfile),
        wtio.ClientTLS(dangerously_trust_any_certificate=True),
    )


# -- files


@pytest.mark.parametrize("which", ["certfile", "keyfile", "cafile"])
def test_missing_file_is_named(chain: tuple[Path, Path, Path], tmp_path: Path, which: str) -> None:
    certificate, key, _ = chain
    missing = tmp_path / "not-there.pem"
    with pytest.raises(wtio.CertificateError, match=r"not-there\.pem.*No such file") as caught:  # noqa: PT012
        if which == "cafile":
            wtio.ClientTLS(cafile=missing)
        elif which == "certfile":
            wtio.ServerTLS(certfile=missing, keyfile=key)
        else:
            wtio.ServerTLS(certfile=certificate, keyfile=missing)
    assert caught.value.path == str(missing)


@pytest.mark.parametrize(
    "content", [b"", b"not PEM at all", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
@pytest.mark.parametrize("which", ["certfile", "keyfile", "cafile"])
def test_unusable_file_is_named(chain: tuple[Path, Path, Path], tmp_path: Path, which: str, content: bytes) -> None:
    certificate, key, _ = chain
    bad = tmp_path / "bad.pem"
    bad.write_bytes(content)
    with pytest.raises(wtio.CertificateError, match=r"bad\.pem") as caught:  # noqa: PT012
        if which == "cafile":
            wtio.ClientTLS(cafile=bad)
        elif which == "certfile":
            wtio.ServerTLS(certfile=bad, keyfile=key)
        else:
            wtio.ServerTLS(certfile=certificate, keyfile=bad)
    assert caught.value.path == str(bad)


def test_key_of_another_certificate_is_refused(chain: tuple[Path, Path, Path], tmp_path: Path) -> None:
    certificate, _, _ = chain
    with pytest.raises(wtio.CertificateError, match=r"key.*does not belong.*cert\.pem"):
        wtio.ServerTLS(certfile=certificate, keyfile=Made(tmp_path).keyfile)


@pytest.mark.parametrize(("begin", "end", "words"), [(-5, -1, "expired"), (1, 5, "not valid before")])
def test_certificate_out_of_its_time_is_refused_by_the_server(tmp_path: Path, begin: int, end: int, words: str) -> None:
    made = Made(tmp_path, begin=NOW + begin * DAY, end=NOW + end * DAY)
    with pytest.raises(wtio.CertificateError, match=words):
        wtio.ServerTLS(certfile=made.certfile, keyfile=made.keyfile)


@pytest.mark.parametrize("bad", ["abc", b"short", "zz" * 32, bytes(33)])
def test_hash_that_is_no_sha256_is_refused(bad: bytes | str) -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        wtio.ClientTLS(certificate_hashes=[bad])


def test_contradictions_are_refused(chain: tuple[Path, Path, Path]) -> None:
    certificate, key, root = chain
    with pytest.raises(ValueError, match="exclude"):
        wtio.ClientTLS(cafile=root, dangerously_trust_any_certificate=True)
    with pytest.raises(ValueError, match="exclude"):
        wtio.ClientTLS(certificate_hashes=[bytes(32)], cafile=root)
    with pytest.raises(ValueError, match="not both"):
        wtio.ServerTLS(certfile=certificate, certdata=b"", keyfile=key)
    with pytest.raises(TypeError, match="sequence"):
        wtio.ClientTLS(certificate_hashes=bytes(32))  # type: ignore[arg-type]


def shown(caught: pytest.ExceptionInfo[wtio.CertificateError]) -> str:
    """The words, which must be words."""
    text = str(caught.value)
    assert "[45, 45" not in text
    assert "Error" not in text, text
    return text


def test_chain_in_the_wrong_order_is_called_so(chain: tuple[Path, Path, Path], tmp_path: Path) -> None:
    certificate, key, root = chain
    wrong = tmp_path / "wrong.pem"
    wrong.write_bytes(root.read_bytes() + certificate.read_bytes())
    with pytest.raises(wtio.CertificateError, match=r"wrong order.*number 2 of .*must be the first") as caught:
        wtio.ServerTLS(certfile=wrong, keyfile=key)
    assert str(wrong) in shown(caught)
    with pytest.raises(wtio.CertificateError, match="wrong order"):
        wtio.ClientTLS(certfile=wrong, keyfile=key, cafile=root)


@pytest.mark.parametrize(
    ("usage", "words"),
    [
        ([ExtendedKeyUsageOID.CLIENT_AUTH], "clients only.*serverAuth"),
        ([ExtendedKeyUsageOID.CODE_SIGNING], "not for servers.*serverAuth"),
        ([ExtendedKeyUsageOID.EMAIL_PROTECTION, ExtendedKeyUsageOID.CLIENT_AUTH], "clients only"),
    ],
)
def test_certificate_that_is_not_for_servers_is_refused(
    tmp_path: Path, usage: list[x509.ObjectIdentifier], words: str
) -> None:
    made = Made(tmp_path, usage=usage)
    with pytest.raises(wtio.CertificateError, match=words) as caught:
        wtio.ServerTLS(certfile=made.certfile, keyfile=made.keyfile)
    assert caught.value.path == str(made.certfile)


@pytest.mark.parametrize(
    "usage",
    [
        None,
        [ExtendedKeyUsageOID.SERVER_AUTH],
        [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH],
        [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE],
    ],
)
def test_certificate_for_servers_or_for_anything_is_taken(
    tmp_path: Path, usage: list[x509.ObjectIdentifier] | None
) -> None:
    made = Made(tmp_path, usage=usage)
    wtio.ServerTLS(certfile=made.certfile, keyfile=made.keyfile)


@pytest.mark.parametrize("which", ["certfile", "keyfile", "cafile"])
@pytest.mark.parametrize("cut", ["end", "body", "letters", "content"])
def test_damaged_pem_is_called_so(chain: tuple[Path, Path, Path], tmp_path: Path, which: str, cut: str) -> None:
    files = dict(zip(("certfile", "keyfile", "cafile"), chain, strict=True))
    lines = files[which].read_text().splitlines()
    first = lines[: lines.index(next(line for line in lines if line.startswith("-----END"))) + 1]
    damaged = {
        "end": first[:-1],
        "body": first[: len(first) // 2],
        "letters": [first[0], "!" + first[1], *first[2:]],
        "content": [first[0], first[1], first[-1]],
    }[cut]
    bad = tmp_path / "bad.pem"
    bad.write_text("\n".join(damaged))
    files[which] = bad
    with pytest.raises(wtio.CertificateError, match=r"cut off|damaged") as caught:  # noqa: PT012
        if which == "cafile":
            wtio.ClientTLS(cafile=files["cafile"])
        else:
            wtio.ServerTLS(certfile=files["certfile"], keyfile=files["keyfile"])
    assert "bad.pem" in shown(caught)
    assert caught.value.path == str(bad)


@pytest.mark.parametrize("form", ["crlf", "bom", "utf-16", "text around", "no newline", "blanks"])
def test_pem_of_other_editors_works(chain: tuple[Path, Path, Path], tmp_path: Path, form: str) -> None:
    paths = []
    for number, path in enumerate(chain):
        text = path.read_text()
        data = {
            "crlf": text.replace("\n", "\r\n").encode(),
            "bom": b"\xef\xbb\xbf" + text.encode(),
            "utf-16": text.encode("utf-16"),
            "text around": f"Bag Attributes\n  name: x\n{text}the end".encode(),
            "no newline": text.strip().replace("-----\n-----", "----------").encode(),
            "blanks": "".join(f"  {line}  \n\n" for line in text.splitlines()).encode(),
        }[form]
        paths.append(tmp_path / f"{number}.pem")
        paths[-1].write_bytes(data)
    wtio.ServerTLS(certfile=paths[0], keyfile=paths[1])
    wtio.ClientTLS(cafile=paths[2], certfile=paths[0], keyfile=paths[1])


def kinds(tmp_path: Path) -> dict[str, bytes]:
    """What people give instead of a certificate or a key, by name."""
    made = Made(tmp_path)
    key = ec.generate_private_key(ec.SECP256R1())
    pem, der = serialization.Encoding.PEM, serialization.Encoding.DER
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    locked = serialization.BestAvailableEncryption(b"word")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    certificate = x509.load_pem_x509_certificate(made.certfile.read_bytes())
    return {
        "certificate": made.certfile.read_bytes(),
        "key": made.keyfile.read_bytes(),
        "certificate in DER": certificate.public_bytes(der),
        "key in DER": key.private_bytes(der, pkcs8, plain),
        "PKCS 12": pkcs12.serialize_key_and_certificates(b"x", key, None, None, plain),
        "request": request.public_bytes(pem),
        "public key": key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo),
        "locked key": key.private_bytes(pem, pkcs8, locked),
        "locked key of old": key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, locked),
        "key of OpenSSH": key.private_bytes(pem, serialization.PrivateFormat.OpenSSH, plain),
        "small key": rsa.generate_private_key(65537, 1024).private_bytes(pem, pkcs8, plain),
        "empty": b"",
        "text": b"hello",
    }


@pytest.mark.parametrize(
    ("which", "given", "words"),
    [
        ("certfile", "key", "private key.*swapped"),
        ("certfile", "certificate in DER", "DER.*openssl x509"),
        ("certfile", "PKCS 12", "openssl pkcs12"),
        ("certfile", "request", "request.*what the authority issued"),
        ("certfile", "public key", "public key"),
        ("certfile", "empty", "empty"),
        ("certfile", "text", "not PEM"),
        ("keyfile", "certificate", "certificate.*swapped"),
        ("keyfile", "key in DER", "DER.*openssl pkey"),
        ("keyfile", "PKCS 12", "openssl pkcs12"),
        ("keyfile", "public key", "public key"),
        ("keyfile", "locked key", "passphrase.*openssl pkey"),
        ("keyfile", "locked key of old", "passphrase.*openssl pkey"),
        ("keyfile", "key of OpenSSH", "OpenSSH.*ssh-keygen"),
        ("keyfile", "small key", "RSA of 2048"),
        ("keyfile", "empty", "empty"),
        ("keyfile", "text", "not PEM"),
        ("cafile", "key", "private key"),
        ("cafile", "certificate in DER", "DER.*openssl x509"),
        ("cafile", "request", "request"),
    ],
)
def test_file_of_another_kind_is_recognized(
    chain: tuple[Path, Path, Path], tmp_path: Path, which: str, given: str, words: str
) -> None:
    certificate, key, _ = chain
    bad = tmp_path / "bad.pem"
    (tmp_path / "made").mkdir()
    bad.write_bytes(kinds(tmp_path / "made")[given])
    with pytest.raises(wtio.CertificateError, match=words) as caught:  # noqa: PT012
        if which == "cafile":
            wtio.ClientTLS(cafile=bad)
        elif which == "certfile":
            wtio.ServerTLS(certfile=bad, keyfile=key)
        else:
            wtio.ServerTLS(certfile=certificate, keyfile=bad)
    assert "bad.pem" in shown(caught)
    assert caught.value.path == str(bad)


def test_certificate_without_a_key_beside_it_asks_for_one(chain: tuple[Path, Path, Path]) -> None:
    certificate, _, _ = chain
    with pytest.raises(wtio.CertificateError, match=r"no private key.*no other file"):
        wtio.ServerTLS(certfile=certificate)
    with pytest.raises(wtio.CertificateError, match=r"no private key.*no other file"):
        wtio.ClientTLS(certfile=certificate)


def test_directory_is_no_file(chain: tuple[Path, Path, Path], tmp_path: Path) -> None:
    why = "Permission denied" if sys.platform == "win32" else "Is a directory"
    with pytest.raises(wtio.CertificateError, match=why):
        wtio.ServerTLS(certfile=tmp_path, keyfile=chain[1])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has a store of its own, which no variable replaces")
@pytest.mark.parametrize("content", [None, b"", b"nothing"])
def test_empty_trust_store_says_how_to_fill_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    store = tmp_path / "store.pem"
    if content is not None:
        store.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(store))
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    with pytest.raises(wtio.CertificateError, match=r"ca-certificates.*SSL_CERT_FILE.*cafile"):
        wtio.ClientTLS()


# -- the certificate for development


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps it with the user's local data")
@pytest.mark.parametrize("home", [None, "relative"])
def test_without_a_home_directory_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch, home: str | None) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if home is None:
        monkeypatch.delenv("HOME", raising=False)
        monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # a user without an entry, as in containers
    else:
        monkeypatch.setenv("HOME", home)
    with pytest.raises(wtio.CertificateError, match=r"HOME or XDG_CACHE_HOME.*directory"):
        wtio.dev_certificate()


def test_directory_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match=r"cannot be kept in .*file.*another directory") as caught:
            wtio.dev_certificate(directory=directory)
        assert caught.value.errno in (errno.EEXIST, errno.ENOTDIR)
