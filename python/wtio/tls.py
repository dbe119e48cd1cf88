"""Certificates and trust: ``ServerTLS``, ``ClientTLS``, and certificates for development.

All files are read, and all keys checked, when the object is made, so that a mistake is named at the start. TLS itself
(1.3 only) is the engine's.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import ipaddress
import os
import re
import ssl
import stat
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from wtio import _core
from wtio.errors import CertificateError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ClientTLS", "DevCertificate", "ServerTLS", "dev_certificate"]

PathArgument = str | os.PathLike[str]

_DAY: Final = 24 * 3600
# Browsers trust a certificate by its hash for at most 14 days of validity (trap H21); back-dating counts.
_VALIDITY: Final = 13 * _DAY
_BACKDATED: Final = 3600
# A cached certificate with less than this left is replaced.
_RENEW_BEFORE: Final = 2 * _DAY

_DEFAULT_NAMES: Final = ("localhost", "127.0.0.1", "::1")
_CERTIFICATE_BLOCK: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def _read(path: PathArgument, what: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CertificateError(
            f"{what} `{os.fspath(path)}` cannot be read: {error.strerror or error}", path=os.fspath(path)
        ) from error


def _check_pem(data: bytes, what: str, path: PathArgument | None, marker: bytes) -> None:
    if marker not in data:
        where = f"{what} `{os.fspath(path)}`" if path is not None else what
        hint = "it looks like DER; convert it with `openssl x509 -inform der`" if data[:1] == b"\x30" else ""
        raise CertificateError(
            f"{where} is not PEM: no `-----BEGIN …{marker.decode()}-----` in it" + (f"; {hint}" if hint else ""),
            path=None if path is None else os.fspath(path),
        )


def _one_source(file: PathArgument | None, data: bytes | str | None, name: str) -> None:
    if file is not None and data is not None:
        raise ValueError(f"give either {name}file or {name}data, not both")


def _as_bytes(data: bytes | str) -> bytes:
    return data.encode() if isinstance(data, str) else data


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTLS:
    """Certificate chain and private key of a server.

    Raises:
        CertificateError: A file is missing or not PEM, the key does not belong to the certificate, the certificate is
            that of an authority (CA:TRUE), has expired, or is not valid yet.
        ValueError: Neither a file nor data, or both.

    Source: RFC 9001; RFC 8446.
    """

    certfile: PathArgument | None = None
    """PEM file with the server's certificate first and its intermediates after it."""
    keyfile: PathArgument | None = None
    """PEM file with the private key; None looks for it in ``certfile``."""
    certdata: bytes | str | None = field(default=None, repr=False)
    """The same as ``certfile``, from memory."""
    keydata: bytes | str | None = field(default=None, repr=False)
    """The same as ``keyfile``, from memory."""
    _engine: _core.ServerTls = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _one_source(self.certfile, self.certdata, "cert")
        _one_source(self.keyfile, self.keydata, "key")
        if self.certfile is not None:
            chain = _read(self.certfile, "certificate file")
        elif self.certdata is not None:
            chain = _as_bytes(self.certdata)
        else:
            raise ValueError(
                "a server needs a certificate: pass certfile and keyfile, or use wtio.dev_certificate().server_tls()"
            )
        if self.keyfile is not None:
            key = _read(self.keyfile, "key file")
        else:
            key = chain if self.keydata is None else _as_bytes(self.keydata)
        _check_pem(chain, "certificate file" if self.certfile else "certdata", self.certfile, b"CERTIFICATE")
        key_path = self.keyfile if self.keyfile is not None or self.keydata is not None else self.certfile
        _check_pem(key, "key file" if key_path else "keydata", key_path, b"PRIVATE KEY")
        if b"ENCRYPTED" in key:
            raise CertificateError(
                "the private key is protected by a passphrase; decrypt it first: `openssl pkey -in … -out …`",
                path=None if key_path is None else os.fspath(key_path),
            )
        path = None if self.certfile is None else os.fspath(self.certfile)
        named = f" (certificate `{path}`)" if path else ""
        try:
            core = _core.ServerTls(certificate_pem=chain, key_pem=key)
            not_before, not_after, *_ = _core.certificate_facts(core.certificates[0])
        except _core.TlsError as error:
            raise CertificateError(f"{error}{named}", path=path) from error
        now = time.time()
        if not_after < now:
            raise CertificateError(f"the certificate expired on {_date(not_after)}; renew it{named}", path=path)
        if not_before > now:
            raise CertificateError(
                f"the certificate is not valid before {_date(not_before)}; check the clock{named}", path=path
            )
        object.__setattr__(self, "_engine", core)

    @property
    def certificates(self) -> list[bytes]:
        """The chain in DER, the server's own certificate first."""
        return self._engine.certificates

    @property
    def sha256(self) -> bytes:
        """SHA-256 of the server's certificate: 32 bytes, as clients pin it."""
        return _core.sha256(self._engine.certificates[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTLS:
    """Whom a client trusts. Without arguments: the authorities of the operating system.

    Raises:
        CertificateError: A file is missing, not PEM, or its content cannot be used.
        ValueError: Settings that exclude each other, or a hash that is no SHA-256.

    Source: RFC 9001; W3C WebTransport, custom certificate requirements.
    """

    cafile: PathArgument | None = None
    """PEM file with certificates of authorities; only these are trusted."""
    cadata: bytes | str | None = field(default=None, repr=False)
    """The same as ``cafile``, from memory."""
    certificate_hashes: Sequence[bytes | str] = ()
    """SHA-256 of the server's certificate, one or several (for rotation): 32 bytes, or as str in hex (colons allowed)
    or base64. Exactly these are trusted, under the browsers' rules: valid now, at most 14 days of validity, ECDSA
    P-256; chain and host name do not matter."""
    dangerously_trust_any_certificate: bool = False
    """True trusts whoever answers, also an attacker in between. For tests only. Default False."""
    certfile: PathArgument | None = None
    """PEM file with this client's own certificate, for servers that ask for one. Default none."""
    keyfile: PathArgument | None = None
    """PEM file with its private key; None looks for it in ``certfile``."""
    _engine: _core.ClientTls = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _one_source(self.cafile, self.cadata, "ca")
        if isinstance(self.certificate_hashes, (bytes, str)):
            raise TypeError("certificate_hashes must be a sequence of hashes, not one hash; write [hash]")
        has_roots = self.cafile is not None or self.cadata is not None
        if has_roots + bool(self.certificate_hashes) + self.dangerously_trust_any_certificate > 1:
            raise ValueError(
                "cafile or cadata, certificate_hashes and dangerously_trust_any_certificate exclude each other"
            )
        roots = b""
        mode = "system"
        if has_roots:
            mode = "roots"
            roots = _read(self.cafile, "CA file") if self.cafile is not None else _as_bytes(self.cadata or b"")
            _check_pem(roots, "CA file" if self.cafile is not None else "cadata", self.cafile, b"CERTIFICATE")
        elif self.certificate_hashes:
            mode = "hashes"
        elif self.dangerously_trust_any_certificate:
            mode = "insecure"
        own = key = b""
        if self.certfile is not None:
            own = _read(self.certfile, "certificate file")
            key = own if self.keyfile is None else _read(self.keyfile, "key file")
            _check_pem(own, "certificate file", self.certfile, b"CERTIFICATE")
            _check_pem(key, "key file", self.keyfile or self.certfile, b"PRIVATE KEY")
        elif self.keyfile is not None:
            raise ValueError("keyfile without certfile")
        try:
            core = _core.ClientTls(
                mode=mode,
                roots_pem=roots,
                hashes=[_hash(value) for value in self.certificate_hashes],
                certificate_pem=own,
                key_pem=key,
            )
        except _core.TlsError as error:
            path = self.cafile if self.cafile is not None else self.certfile
            named = f" (file `{os.fspath(path)}`)" if path is not None else ""
            raise CertificateError(f"{error}{named}", path=None if path is None else os.fspath(path)) from error
        object.__setattr__(self, "_engine", core)

    def expected_hashes(self) -> list[bytes]:
        """``certificate_hashes`` as 32 bytes each."""
        return [_hash(value) for value in self.certificate_hashes]


def _hash(value: bytes | str) -> bytes:
    """Read a SHA-256 in any of its usual forms."""
    if isinstance(value, (bytes, bytearray)):
        digest = bytes(value)
    elif isinstance(value, str):
        text = value.strip()
        plain = text.replace(":", "")
        try:
            is_hex = len(plain) == 64
            digest = bytes.fromhex(plain) if is_hex else base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except (ValueError, binascii.Error):
            digest = b""
    else:
        raise TypeError(f"a certificate hash must be bytes or str, not {type(value).__name__}")
    if len(digest) != 32:
        raise ValueError(
            f"certificate hash {value!r} is no SHA-256: give 32 bytes, 64 hexadecimal digits or 44 characters of base64"
        )
    return digest


def _date(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


@dataclass(frozen=True, slots=True)
class DevCertificate:
    """A self-signed certificate for development, with everything that a server, a client and a web page need."""

    certfile: Path
    """PEM file with certificate and private key, readable by its owner only."""
    names: tuple[str, ...]
    """DNS names and IP addresses that it is for."""
    not_after: int
    """When it expires, in Unix seconds."""
    sha256: bytes
    """SHA-256 of the certificate, 32 bytes: what clients and browsers pin."""

    @property
    def keyfile(self) -> Path:
        """PEM file with the private key: the same file as ``certfile``."""
        return self.certfile

    @property
    def sha256_hex(self) -> str:
        """The hash in hexadecimal, 64 digits."""
        return self.sha256.hex()

    @property
    def sha256_base64(self) -> str:
        """The hash in base64, 44 characters."""
        return base64.b64encode(self.sha256).decode()

    @property
    def javascript(self) -> str:
        """Options for ``new WebTransport(url, options)`` in a browser: a JavaScript object literal."""
        return (
            '{ serverCertificateHashes: [{ algorithm: "sha-256", value: new Uint8Array(['
            + ", ".join(map(str, self.sha256))
            + "]) }] }"
        )

    def server_tls(self) -> ServerTLS:
        """What ``wtio.serve`` takes."""
        return ServerTLS(certfile=self.certfile)

    def client_tls(self) -> ClientTLS:
        """What ``wtio.connect`` takes: trust in exactly this certificate."""
        return ClientTLS(certificate_hashes=[self.sha256])


def dev_certificate(names: Sequence[str] = _DEFAULT_NAMES, *, directory: PathArgument | None = None) -> DevCertificate:
    """Give a certificate for development, the same one until it is about to expire.

    ECDSA P-256, self-signed, valid for 13 days and back-dated by one hour, so that browsers accept it by its hash
    (``serverCertificateHashes``). It is kept in a file, mode 0600, and made anew when less than two days are left.
    Other names have another file. Several processes may call this at the same time.

    Args:
        names: DNS names and IP addresses. Default ``localhost``, ``127.0.0.1`` and ``::1``.
        directory: Where to keep it; None is ``$XDG_CACHE_HOME/wtio``, or ``~/.cache/wtio``. Made if missing.

    Raises:
        ValueError: No name, or one that is neither a DNS name nor an IP address.
        TypeError: ``names`` is one str.
        OSError: The directory or file cannot be written.

    Source: W3C WebTransport, custom certificate requirements.
    """
    if isinstance(names, str):
        raise TypeError("names must be a sequence of str, not one str; write [name]")
    wanted = tuple(dict.fromkeys(_name(name) for name in names))
    if not wanted:
        raise ValueError("names is empty; give at least one DNS name or IP address")
    folder = Path(directory) if directory is not None else _cache_directory()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    digest = hashlib.sha256("\n".join(wanted).encode()).hexdigest()[:16]
    path = folder / f"dev-{digest}.pem"
    now = int(time.time())
    for _ in range(2):
        found = _load(path, wanted, now)
        if found is not None:
            return found
        certificate, key, _der = _core.generate_certificate(wanted, now - _BACKDATED, now - _BACKDATED + _VALIDITY)
        # One file, put in place at once, so that no process ever sees a certificate without its key. Whoever comes
        # second replaces it; both then load the same one.
        _write(path, certificate + key)
    raise OSError(f"the certificate just written to `{path}` cannot be read back")


def _name(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a name must be str, not {type(name).__name__}")
    text = name.strip("[]")
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(text).compressed
    labels = text.removesuffix(".").split(".")
    if labels[0] == "*":
        labels = labels[1:]
    if not labels or not all(re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", part) for part in labels):
        raise ValueError(f"`{name}` is neither a DNS name nor an IP address")
    return text.lower()


def _cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    # The XDG base directory specification: a relative path there is to be ignored.
    return (Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache") / "wtio"


def _load(path: Path, names: tuple[str, ...], now: int) -> DevCertificate | None:
    """Read a cached certificate; None where there is none that will do."""
    try:
        if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
            return None
        data = path.read_bytes()
    except OSError:
        return None
    block = _CERTIFICATE_BLOCK.search(data)
    if block is None:
        return None
    try:
        der = ssl.PEM_cert_to_DER_cert(block[0].decode())
        not_before, not_after, _, _, _, found = _core.certificate_facts(der)
        _core.ServerTls(certificate_pem=data, key_pem=data)
    except (_core.TlsError, ValueError):
        return None
    if not not_before <= now < not_after - _RENEW_BEFORE or {_name(name) for name in found} != set(names):
        return None
    return DevCertificate(path, names, not_after, _core.sha256(der))


def _write(path: Path, data: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".dev-")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
