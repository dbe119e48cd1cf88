"""Certificates and trust: ``ServerTLS``, ``ClientTLS``, and certificates for development.

All files are read and all keys checked when an object is made, so that mistakes are reported at the start. TLS itself
(1.3 only) is in the engine.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import hashlib
import ipaddress
import os
import re
import stat
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Final

from wtio import _core
from wtio._arguments import check_bool, check_choice, check_path, sealed, strings
from wtio._key_log import key_log_file
from wtio._words import DAY, date
from wtio.errors import CertificateError

__all__ = ["ClientTLS", "DevCertificate", "ServerTLS", "dev_certificate"]

PathArgument = str | os.PathLike[str]

# Browsers trust a certificate by its hash only if it is valid for 14 days at most, including the back-dated time.
_VALIDITY: Final = 13 * DAY
_BACKDATED: Final = 3600
# A certificate for development is replaced by its successor when less than this is left of its validity. The successor
# was made together with it, and becomes valid _BACKDATED before that moment.
_RENEW_BEFORE: Final = 2 * DAY

_BEGIN: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")
_CERTIFICATE_LABELS: Final = (b"CERTIFICATE", b"X509 CERTIFICATE")
_KEY_LABELS: Final = (b"PRIVATE KEY", b"RSA PRIVATE KEY", b"EC PRIVATE KEY")
_CERTIFICATE_BLOCK: Final = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)


def _check_data(name: str, value: bytes | str | None) -> None:
    if value is not None and not isinstance(value, (bytes, bytearray, str)):
        raise TypeError(f"{name} must be bytes or str (the content of a PEM file), not {type(value).__name__}")


@dataclass(frozen=True, slots=True)
class _Source:
    """PEM from the application, and its name for messages."""

    data: bytes
    """The PEM as it was given: nothing in it is checked yet."""
    name: str
    """Such as "certificate file"."""
    path: str | None
    """The file from which it was read; None if it was passed as data."""

    @classmethod
    def of(cls, file: PathArgument | None, data: bytes | str | None, what: str, argument: str) -> _Source | None:
        """Read a file, or use the data; None if neither is given.

        Args:
            file: Path of the file.
            data: The content, in place of a file.
            what: What to call the file in messages.
            argument: What to call the data in messages.
        """
        if file is None:
            if data is None:
                return None
            content = data.encode(errors="replace") if isinstance(data, str) else bytes(data)
            return cls(content, argument, None)
        path = os.fspath(file)
        try:
            return cls(Path(path).read_bytes(), what, path)
        except OSError as error:
            failure = CertificateError(f"{what} `{path}` cannot be read: {error.strerror or error}", path=path)
            failure.errno = error.errno
            raise failure from None

    def error(self, why: str) -> CertificateError:
        where = self.name if self.path is None else f"{self.name} `{self.path}`"
        return CertificateError(f"{where} {why}", path=self.path)

    def certificates(self) -> bytes:
        """Its certificates, as clean PEM."""
        sections = self._sections()
        found = [(b"CERTIFICATE", der) for label, der in sections if label in _CERTIFICATE_LABELS]
        if not found:
            raise self.error(self._lack("CERTIFICATE", [label for label, _ in sections]))
        return _pem(found)

    def key(self, *, is_alone: bool) -> bytes:
        """Its first private key, as clean PEM.

        Args:
            is_alone: Whether it was given as a key, not as a certificate that may be followed by one.
        """
        sections = self._sections()
        found = [section for section in sections if section[0] in _KEY_LABELS]
        if found:
            return _pem(found[:1])
        labels = [label for label, _ in sections]
        if not is_alone and b"CERTIFICATE" in labels and not any(b"PRIVATE KEY" in label for label in labels):
            raise self.error("holds no private key (`-----BEGIN PRIVATE KEY-----`), and no other file for it was given")
        raise self.error(self._lack("PRIVATE KEY", labels))

    def _sections(self) -> list[tuple[bytes, bytes]]:
        """Label and content of each block between BEGIN and END."""
        data = self.data
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):  # some shells on Windows write UTF-16
            data = data.decode("utf-16", "replace").encode(errors="replace")
        sections = []
        for begin in _BEGIN.finditer(data):
            label = begin[1]
            end = data.find(b"-----END " + label + b"-----", begin.end())
            following = data.find(b"-----BEGIN ", begin.end())
            text = f"`-----BEGIN {label.decode()}-----`"
            if end < 0 or 0 <= following < end:
                raise self.error(f"is cut off: {text} has no END; copy it again, whole")
            body = data[begin.end() : end]
            if b"ENCRYPTED" in label or b"ENCRYPTED" in body:
                raise self.error(
                    "holds a private key that is protected by a passphrase; decrypt it first: "
                    "`openssl pkey -in … -out …`"
                )
            try:
                sections.append((label, base64.b64decode(b"".join(body.split()), validate=True)))
            except binascii.Error:
                raise self.error(f"is damaged: what follows {text} is no base64; copy it again, whole") from None
        return sections

    def _lack(self, wanted: str, labels: list[bytes]) -> str:
        """Describe what was found instead of what was wanted."""
        is_key = wanted == "PRIVATE KEY"
        swapped = "certificate" if is_key else "private key"
        for label, words in (
            (b"OPENSSH PRIVATE KEY", "holds a key of OpenSSH; convert it with `ssh-keygen -p -m PKCS8 -f …`"),
            (b"PUBLIC KEY", f"holds a public key, not a {'private key' if is_key else 'certificate'}"),
            (b"CERTIFICATE REQUEST", "holds a request for a certificate; give what the authority issued for it"),
            (b"NEW CERTIFICATE REQUEST", "holds a request for a certificate; give what the authority issued for it"),
            (b"PKCS7", "is PKCS #7; convert it with `openssl pkcs7 -print_certs`"),
            (b"TRUSTED CERTIFICATE", "is in OpenSSL's own form; convert it with `openssl x509`"),
        ):
            if label in labels:
                return words
        if any((label in _CERTIFICATE_LABELS) if is_key else (b"PRIVATE KEY" in label) for label in labels):
            return f"holds a {swapped} and no `-----BEGIN {wanted}-----`; are certificate and key swapped?"
        hint = ""
        if not self.data.strip():
            hint = "; it is empty"
        elif self.data[:1] == b"\x30" and b"\x02\x01\x03" in self.data[:10]:
            hint = "; it looks like PKCS #12 (.p12, .pfx); convert it with `openssl pkcs12 -nodes -in … -out …`"
        elif self.data[:1] == b"\x30":
            hint = f"; it looks like DER; convert it with `openssl {'pkey' if is_key else 'x509'} -inform der`"
        return f"is not PEM: no `-----BEGIN {wanted}-----` in it{hint}"


def _pem(sections: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(
        b"-----BEGIN %b-----\n%b-----END %b-----\n" % (label, base64.encodebytes(der), label) for label, der in sections
    )


def _cannot_be_used(error: _core.TlsError, certificate: _Source | None, key: _Source | None) -> CertificateError:
    """An error that names the files which the engine cannot use."""
    sources = (("certificate", certificate), ("key", key if key is not certificate else None))
    named = ", ".join(f"{what} `{source.path}`" for what, source in sources if source is not None and source.path)
    guilty = key if key is not None and isinstance(error, _core.PrivateKeyError) else certificate
    return CertificateError(f"{error}" + (f" ({named})" if named else ""), path=None if guilty is None else guilty.path)


def _check_file(name: str, value: PathArgument | None, hint: str = "") -> None:
    if value is not None:
        check_path(name, value, hint)


def _one_source(file: PathArgument | None, data: bytes | str | None, name: str) -> None:
    _check_file(f"{name}file", file, f"what is in memory goes into {name}data")
    _check_data(f"{name}data", data)
    if file is not None and data is not None:
        raise ValueError(f"give either {name}file or {name}data, not both")


@dataclass(frozen=True, slots=True)
class _Renewal:
    """What ``dev_certificate`` is to be called with when a running server needs another certificate."""

    names: tuple[str, ...]
    directory: Path


@sealed
@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTLS:
    """Certificate chain and private key of a server, and which certificates of clients it takes.

    The files are read here. A server takes another one with ``Server.reload``, or by itself with ``watch=True``.

    Raises:
        CertificateError: A file is missing, damaged or not PEM, the key does not belong to the certificate, the chain
            is in the wrong order, the certificate is that of an authority (CA:TRUE) or for clients only, has expired,
            or is not valid yet.
        ValueError: Neither a file nor data is given, or both; ``client_certificates`` is unknown, or without
            authorities; or ``watch`` without a file.
        TypeError: An argument is of the wrong type.

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
    client_cafile: PathArgument | None = None
    """PEM file with certificates of authorities. Clients are asked for a certificate that one of them has issued.
    Default none: clients are not asked. Browsers show no certificates to WebTransport servers."""
    client_cadata: bytes | str | None = field(default=None, repr=False)
    """The same as ``client_cafile``, from memory."""
    client_certificates: str | None = None
    """``"required"`` refuses clients without a certificate; ``"requested"`` takes them, but none with a bad one. None
    is ``"required"`` if there are authorities. A client that resumes keeps its certificate, which is not checked again
    for up to a day (RFC 8446, section 4.6.1), unless a reload changes the authorities or this."""
    watch: bool = False
    """Whether a running server looks every 2 seconds for changed files, and takes what can be used. Default False."""
    _engine: _core.ServerTls = field(init=False, repr=False, compare=False)
    """The same for the engine, made from what is in the files now."""
    _renewal: _Renewal | None = field(init=False, repr=False, compare=False)
    """How to renew the file; None unless it is a certificate for development."""

    def __post_init__(self) -> None:
        for name in ("cert", "key", "client_ca"):
            _one_source(getattr(self, f"{name}file"), getattr(self, f"{name}data"), name)
        check_bool("watch", self.watch)
        if self.watch and not self.files:
            raise ValueError("watch=True needs a file to watch; what is in memory is replaced with Server.reload")
        if self.client_certificates is not None:
            check_choice("client_certificates", self.client_certificates, ("required", "requested"))
            if self.client_cafile is None and self.client_cadata is None:
                raise ValueError(
                    f"client_certificates is {self.client_certificates!r}, but no authority is given whose clients are "
                    "taken; pass client_cafile or client_cadata"
                )
        certificate = _Source.of(self.certfile, self.certdata, "certificate file", "certdata")
        if certificate is None:
            raise ValueError(
                "a server needs a certificate: pass certfile and keyfile, or use wtio.dev_certificate().server_tls()"
            )
        own_key = _Source.of(self.keyfile, self.keydata, "key file", "keydata")
        key = own_key or certificate
        clients = _Source.of(self.client_cafile, self.client_cadata, "client CA file", "client_cadata")
        path = certificate.path
        named = f" (certificate `{path}`)" if path else ""
        core = self._core(certificate, key, own_key is not None, clients)
        try:
            facts = _core.certificate_facts(core.certificates[0])
        except _core.TlsError as error:
            raise _cannot_be_used(error, certificate, key) from None
        now = time.time()
        if facts.not_after < now:
            raise CertificateError(f"the certificate expired on {date(facts.not_after)}; renew it{named}", path=path)
        if facts.not_before > now:
            raise CertificateError(
                f"the certificate is not valid before {date(facts.not_before)}; check the clock{named}", path=path
            )
        object.__setattr__(self, "_engine", core)
        object.__setattr__(self, "_renewal", None)

    def _core(self, certificate: _Source, key: _Source, is_alone: bool, clients: _Source | None) -> _core.ServerTls:
        """Make the engine's object."""
        chain_pem, key_pem = certificate.certificates(), key.key(is_alone=is_alone)
        roots = None if clients is None else clients.certificates()
        try:
            return _core.ServerTls(
                certificate_pem=chain_pem,
                key_pem=key_pem,
                client_roots_pem=roots,
                requires_client=self.client_certificates != "requested",
                key_log_file=key_log_file(is_client=False),
            )
        except _core.ClientAuthorityError as error:
            assert clients is not None
            raise clients.error(f"cannot be used: {error}") from None
        except _core.TlsError as error:
            raise _cannot_be_used(error, certificate, key) from None

    @property
    def certificates(self) -> list[bytes]:
        """The chain in DER, the server's own certificate first."""
        return self._engine.certificates

    @property
    def names(self) -> tuple[str, ...]:
        """DNS names and IP addresses for which the server's certificate is valid (subject alternative names)."""
        return tuple(_core.certificate_facts(self._engine.certificates[0]).names)

    @property
    def not_after(self) -> int:
        """When the server's certificate expires, in Unix seconds."""
        return _core.certificate_facts(self._engine.certificates[0]).not_after

    @property
    def sha256(self) -> bytes:
        """SHA-256 of the server's certificate, 32 bytes, as clients pin it."""
        return _core.sha256(self._engine.certificates[0])

    @property
    def files(self) -> tuple[str, ...]:
        """The files from which it was read, each once."""
        given = (self.certfile, self.keyfile, self.client_cafile)
        return tuple(dict.fromkeys(os.fspath(path) for path in given if path is not None))


@sealed
@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTLS:
    """What a client trusts. Without arguments: the authorities of the operating system.

    Raises:
        CertificateError: A file is missing, not PEM, or its content cannot be used; or the system has no authorities.
        ValueError: Settings exclude each other, or a hash is not a SHA-256.
        TypeError: An argument is of the wrong type.

    Source: RFC 9001; W3C WebTransport, custom certificate requirements.
    """

    cafile: PathArgument | None = None
    """PEM file with certificates of authorities; only these are trusted."""
    cadata: bytes | str | None = field(default=None, repr=False)
    """The same as ``cafile``, from memory."""
    certificate_hashes: Sequence[bytes | str] = ()
    """SHA-256 of the server's certificate, one or several (for rotation), as 32 bytes, or as str in hex (colons
    allowed) or base64. Only these are trusted, under the browsers' rules: the certificate is valid now, for 14 days at
    most, and has an ECDSA P-256 key. Chain and host name are not checked."""
    dangerously_trust_any_certificate: bool = False
    """True trusts any server, including an attacker on the path. For tests only. Default False."""
    certfile: PathArgument | None = None
    """PEM file with this client's own certificate, for servers that ask for one. Default none."""
    keyfile: PathArgument | None = None
    """PEM file with its private key; None looks for it in ``certfile``."""
    _engine: _core.ClientTls = field(init=False, repr=False, compare=False)
    """The same for the engine, made from what is in the files now."""

    def __post_init__(self) -> None:
        _one_source(self.cafile, self.cadata, "ca")
        _check_file("certfile", self.certfile)
        _check_file("keyfile", self.keyfile)
        check_bool("dangerously_trust_any_certificate", self.dangerously_trust_any_certificate)
        if isinstance(self.certificate_hashes, (bytes, str)):
            raise TypeError("certificate_hashes must be a sequence of hashes, not one hash; write [hash]")
        if not isinstance(self.certificate_hashes, Collection):
            kind = type(self.certificate_hashes).__name__
            raise TypeError(f"certificate_hashes must be a sequence of bytes or str, not {kind}")
        has_roots = self.cafile is not None or self.cadata is not None
        if has_roots + bool(self.certificate_hashes) + self.dangerously_trust_any_certificate > 1:
            raise ValueError(
                "cafile or cadata, certificate_hashes and dangerously_trust_any_certificate exclude each other"
            )
        roots = b""
        mode = "system"
        authorities: _Source | None = None
        if has_roots:
            mode = "roots"
            authorities = _Source.of(self.cafile, self.cadata, "CA file", "cadata")
            assert authorities is not None
            roots = authorities.certificates()
        elif self.certificate_hashes:
            mode = "hashes"
        elif self.dangerously_trust_any_certificate:
            mode = "insecure"
        own = _Source.of(self.certfile, None, "certificate file", "certfile")
        own_key = _Source.of(self.keyfile, None, "key file", "keyfile")
        if own is None and own_key is not None:
            raise ValueError("keyfile without certfile")
        try:
            core = _core.ClientTls(
                mode=mode,
                roots_pem=roots,
                hashes=[_hash(value) for value in self.certificate_hashes],
                certificate_pem=b"" if own is None else own.certificates(),
                key_pem=b"" if own is None else (own_key or own).key(is_alone=own_key is not None),
                key_log_file=key_log_file(is_client=True),
            )
        except _core.TlsError as error:
            raise _cannot_be_used(error, authorities if own is None else own, own_key) from None
        object.__setattr__(self, "_engine", core)

    def expected_hashes(self) -> list[bytes]:
        """``certificate_hashes`` as 32 bytes each."""
        return [_hash(value) for value in self.certificate_hashes]


def client_engine(tls: ClientTLS) -> _core.ClientTls:
    """Return the engine's object. It is not for applications, so it is not a public attribute."""
    return tls._engine  # noqa: SLF001 - of this module's own class


def server_engine(tls: ServerTLS) -> _core.ServerTls:
    """Return the engine's object; see ``client_engine``."""
    return tls._engine  # noqa: SLF001 - of this module's own class


def read_again(tls: ServerTLS) -> ServerTLS:
    """Return the same settings, with what is in the files now.

    Raises:
        CertificateError: That cannot be used.
    """
    fresh = replace(tls)
    object.__setattr__(fresh, "_renewal", tls._renewal)  # noqa: SLF001 - of this module's own class
    return fresh


def renew(tls: ServerTLS) -> None:
    """Renew the file of a certificate for development that is about to expire; does nothing for any other.

    Raises:
        OSError: The file cannot be written.
    """
    renewal = tls._renewal  # noqa: SLF001 - of this module's own class
    if renewal is not None and time.time() >= _replaced_at(tls.not_after):
        dev_certificate(renewal.names, directory=renewal.directory)


def development_names(tls: ServerTLS) -> tuple[str, ...] | None:
    """Return the names of a certificate for development, which a server renews; None for any other."""
    renewal = tls._renewal  # noqa: SLF001 - of this module's own class
    return None if renewal is None else renewal.names


def _replaced_at(not_after: int) -> int:
    """When a certificate for development that expires then is replaced by its successor, in Unix seconds."""
    return not_after - _RENEW_BEFORE


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
        raise TypeError(f"certificate_hashes must hold bytes or str, not {type(value).__name__}")
    if len(digest) != 32:
        raise ValueError(
            f"certificate hash {value!r} is no SHA-256: give 32 bytes, 64 hexadecimal digits or 44 characters of base64"
        )
    return digest


@sealed
@dataclass(frozen=True, slots=True)
class DevCertificate:
    """A self-signed certificate for development, in the forms that a server, a client and a web page need.

    Its successor is known from the beginning. Clients and pages that trust the hashes of both stay able to connect when
    a running server changes to the successor: for 11 days at least, for 22 if the certificate is new.
    """

    certfile: Path
    """PEM file with certificate and private key, readable by its owner only."""
    names: tuple[str, ...]
    """DNS names and IP addresses for which it is valid."""
    not_after: int
    """When it expires, in Unix seconds."""
    sha256: bytes
    """SHA-256 of the certificate, 32 bytes. Clients and browsers pin this."""
    next_sha256: bytes
    """SHA-256 of the certificate that will replace it, 32 bytes."""

    @property
    def replaced_at(self) -> int:
        """When the next certificate takes its place, in Unix seconds: 2 days before it expires."""
        return _replaced_at(self.not_after)

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
        """Options for ``new WebTransport(url, options)`` in a browser: a JavaScript object literal.

        It lists the hash of the certificate and that of the next one.
        """
        hashes = ", ".join(
            f'{{ algorithm: "sha-256", value: new Uint8Array([{", ".join(map(str, digest))}]) }}'
            for digest in (self.sha256, self.next_sha256)
        )
        return f"{{ serverCertificateHashes: [{hashes}] }}"

    def server_tls(self) -> ServerTLS:
        """Settings for ``wtio.serve``. A running server renews the certificate and takes the next one by itself."""
        tls = ServerTLS(certfile=self.certfile, watch=True)
        object.__setattr__(tls, "_renewal", _Renewal(self.names, self.certfile.parent))
        return tls

    def client_tls(self) -> ClientTLS:
        """Settings for ``wtio.connect``, which trust exactly this certificate and the next one."""
        return ClientTLS(certificate_hashes=[self.sha256, self.next_sha256])


def dev_certificate(
    names: Sequence[str] = ("localhost", "127.0.0.1", "::1"), *, directory: PathArgument | None = None
) -> DevCertificate:
    """Return a certificate for development. It is the same one until it is about to expire.

    ECDSA P-256, self-signed, valid for 13 days and back-dated by one hour, so that browsers accept it by its hash
    (``serverCertificateHashes``). It is kept in a file with mode 0600 (on Windows, in a folder of the user). Beside it
    is the next one, which replaces it when less than two days are left. Other names have other files. Several processes
    may call this at the same time.

    Args:
        names: DNS names and IP addresses. Default ``localhost``, ``127.0.0.1`` and ``::1``.
        directory: Where to keep it; None is ``$XDG_CACHE_HOME/wtio``, or else ``~/.cache/wtio``, on Windows
            ``wtio`` in ``%LOCALAPPDATA%``. Made if missing.

    Raises:
        ValueError: There is no name, or one that is neither a DNS name nor an IP address.
        TypeError: ``names`` is one str, or an argument of another wrong type.
        OSError: The directory or file cannot be written.
        CertificateError: There is no home directory (also an OSError).

    Source: W3C WebTransport, custom certificate requirements.
    """
    wanted = tuple(dict.fromkeys(_name(name) for name in strings("names", names)))
    _check_file("directory", directory)
    if not wanted:
        raise ValueError("names is empty; give at least one DNS name or IP address")
    folder = Path(directory) if directory is not None else _cache_directory()
    digest = hashlib.sha256("\n".join(wanted).encode()).hexdigest()[:16]
    now = int(time.time())
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(folder / f"dev-{digest}.lock"):
            return _kept(folder / f"dev-{digest}.pem", folder / f"dev-{digest}-next.pem", wanted, now)
    except OSError as error:
        words = error.strerror or str(error)
        raise OSError(
            error.errno,
            f"the certificate for development cannot be kept in `{folder}`: {words}; choose another directory, for "
            "instance with XDG_CACHE_HOME",
        ) from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes out: none may replace a certificate whose hash another has just given away."""
    with contextlib.ExitStack() as stack:
        # If there can be no lock, as in a directory that cannot be written, two processes that begin at the same moment
        # may return different certificates.
        with contextlib.suppress(OSError):
            _lock(stack.enter_context(path.open("ab")))
        yield


if sys.platform == "win32":
    import msvcrt

    def _lock(file: BinaryIO) -> None:
        """Wait, for ten seconds at most, until no other process has the first byte of the file locked, and lock it.

        The lock ends when the file is closed.
        """
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)

else:
    import fcntl

    def _lock(file: BinaryIO) -> None:
        """Wait until no other process has locked the file, and lock it. The lock ends when the file is closed."""
        fcntl.flock(file, fcntl.LOCK_EX)


@dataclass(frozen=True, slots=True)
class _Kept:
    """A certificate for development in its file."""

    data: bytes
    """PEM: certificate and key."""
    not_before: int
    """When it begins to be valid, in Unix seconds."""
    not_after: int
    """When it expires, in Unix seconds."""
    sha256: bytes
    """SHA-256 of the certificate, 32 bytes."""

    def can_serve_at(self, moment: int) -> bool:
        """Whether a server may begin to use it at this time, in Unix seconds."""
        return self.not_before <= moment < _replaced_at(self.not_after)


def _kept(path: Path, next_path: Path, wanted: tuple[str, ...], now: int) -> DevCertificate:
    """Return the certificate in a file, with its successor; make what is missing or cannot be used."""
    following = _load(next_path, wanted)
    current = _load(path, wanted)
    if current is None or not current.can_serve_at(now):
        if following is not None and following.can_serve_at(now):
            _write(path, following.data)
        else:
            _make(path, wanted, now)
        current = _load(path, wanted)
    if current is not None:
        moment = _replaced_at(current.not_after)
        # The successor's file is left behind when its content has become the current certificate.
        is_same = following is not None and following.sha256 == current.sha256
        if following is None or is_same or not following.can_serve_at(moment):
            _make(next_path, wanted, moment)
            following = _load(next_path, wanted)
    if current is None or following is None:
        raise OSError(errno.EIO, "what was just written cannot be read back")
    return DevCertificate(path, wanted, current.not_after, current.sha256, following.sha256)


def _make(path: Path, names: tuple[str, ...], begin: int) -> None:
    """Make a certificate that a server can use from ``begin`` (Unix seconds) on."""
    certificate, key, _der = _core.generate_certificate(names, begin - _BACKDATED, begin - _BACKDATED + _VALIDITY)
    # One file, renamed into place, so that no process sees a certificate without its key.
    _write(path, certificate + key)


def _name(name: str) -> str:
    """Check a name for a certificate, and return its usual form."""
    text = name.strip("[]")
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(text).compressed
    labels = text.removesuffix(".").split(".")
    if labels[0] == "*":
        labels = labels[1:]
    if not labels or not all(re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", part) for part in labels):
        hint = "" if name.isascii() else "; names in other scripts go in their ASCII form, which begins with `xn--`"
        raise ValueError(f"names: `{name}` is neither a DNS name nor an IP address{hint}")
    return text.lower()


def _cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    # The XDG base directory specification says to ignore a relative path.
    if base and Path(base).is_absolute():
        return Path(base) / "wtio"
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")) and Path(local).is_absolute():
        return Path(local) / "wtio"
    home = Path("~")
    with contextlib.suppress(RuntimeError):
        home = home.expanduser()
    if not home.is_absolute():
        raise CertificateError(
            "there is no home directory to keep the certificate for development in; set HOME or XDG_CACHE_HOME, or "
            "choose a directory"
        )
    return home / ".cache" / "wtio"


def _load(path: Path, names: tuple[str, ...]) -> _Kept | None:
    """Read a cached certificate; None if there is none that can be used at any time."""
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
        der = base64.b64decode(block[1])
        facts = _core.certificate_facts(der)
        _core.ServerTls(
            certificate_pem=data, key_pem=data, client_roots_pem=None, requires_client=False, key_log_file=None
        )
    except (_core.TlsError, ValueError):
        return None
    if {_name(name) for name in facts.names} != set(names):
        return None
    return _Kept(data, facts.not_before, facts.not_after, _core.sha256(der))


def _write(path: Path, data: bytes) -> None:
    """Write a file in one step: whoever reads it sees the old content or the new one."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".dev-")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
