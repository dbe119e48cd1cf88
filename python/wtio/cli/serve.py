"""``wtio serve``: an echo server, files of a directory, and a web page to try it from a browser."""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import json
import logging
import os
import shlex
import shutil
import socket
import sys
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

import wtio
from wtio._reporting import certificate_report
from wtio._url import without_query
from wtio.cli._advice import hash_faults
from wtio.cli._echo import echo
from wtio.cli._files import FILES, Directory, serve_files
from wtio.cli._options import add_certificate_options, refuse, server_tls
from wtio.cli._page import serve_page
from wtio.cli._terminal import visible
from wtio.cli._words import in_options

if TYPE_CHECKING:
    import argparse

    from wtio.cli._types import Subparsers

_MIB: Final = 1024 * 1024
_ANY: Final = ("", "::", "0.0.0.0")
_RECEIVING: Final = ("--max-file", "--max-total")


def add_parser(commands: Subparsers) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "serve",
        help="run an echo server, with a web page to try it",
        description="Run an echo server: streams and datagrams come back as they are. A page on plain local HTTP lets "
        "a browser try it; it holds the hash of the certificate. With --dir, sessions at the path /files list, fetch "
        "and store files (`wtio connect --list`, --get, --put). It prints what to type in another terminal to talk to "
        "it, and with --host 0.0.0.0 also what to type on other machines.",
    )
    parser.add_argument(
        "--host", default="localhost", help="name or address to listen on; 0.0.0.0: all of IPv4 (default: localhost)"
    )
    parser.add_argument("--port", type=int, default=4433, help="UDP port; 0 takes a free one (default: 4433)")
    parser.add_argument("--page-port", type=int, default=8080, help="TCP port of the page; 0: any (default: 8080)")
    parser.add_argument("--no-page", action="store_true", help="serve WebTransport only")
    parser.add_argument("--dir", metavar="DIRECTORY", help="serve and receive files of this directory at /files")
    parser.add_argument("--read-only", action="store_true", help="with --dir: receive no files")
    parser.add_argument(
        "--max-file",
        type=int,
        default=1024,
        metavar="MIB",
        help="with --dir: largest file that is received (default: 1024 MiB)",
    )
    parser.add_argument(
        "--max-total",
        type=int,
        default=10240,
        metavar="MIB",
        help="with --dir: most that is received in all (default: 10240 MiB)",
    )
    add_certificate_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve until interrupted."""
    _check(options)
    # Whoever trusts a certificate by its hash does not look at its names, so that this one serves other machines, too.
    development = None if options.certfile else wtio.dev_certificate()
    tls = server_tls(options, development)
    files = None
    if options.dir is not None:
        files = Directory(
            Path(options.dir),
            is_read_only=options.read_only,
            file_size=options.max_file * _MIB,
            total_size=options.max_total * _MIB,
        )
    log = logging.StreamHandler()
    log.setFormatter(_InOptions())
    logging.getLogger("wtio").addHandler(log)
    wtio.run(_serve(options, tls, development, files))
    return 0


def _check(options: argparse.Namespace) -> None:
    """Raise ValueError for options that would do nothing."""
    if options.dir is None:
        refuse(options, ("--read-only", *_RECEIVING), "is about the files of a directory; add --dir DIRECTORY")
    if options.read_only:
        refuse(options, _RECEIVING, "does nothing with --read-only, which receives no files; leave one of them out")
    if options.no_page:
        refuse(options, ("--page-port",), "does nothing with --no-page; leave one of them out")
    if not 0 <= options.page_port <= 65535:
        raise ValueError(f"--page-port is {options.page_port}; it must be between 0 and 65535")
    for name, size in zip(_RECEIVING, (options.max_file, options.max_total), strict=True):
        if size < 1:
            raise ValueError(f"{name} is {size}; it must be at least 1 (MiB); --read-only receives no files at all")
    if {"max_file", "max_total"} <= options.given and options.max_file > options.max_total:
        raise ValueError(f"--max-file is {options.max_file}; it must be at most --max-total, {options.max_total}")


class _InOptions(logging.Formatter):
    """The library's log messages, in terms of the options."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(in_options(super().format(record)), lines=True)


def _tell(text: str) -> None:
    # Much of it comes from peers.
    print(visible(text), flush=True)


async def _serve(
    options: argparse.Namespace,
    tls: wtio.ServerTLS,
    development: wtio.DevCertificate | None,
    files: Directory | None,
) -> None:
    async def handler(session: wtio.WebTransportSession) -> None:
        host, port = session.remote_address
        who = f"{host} port {port}"
        _tell(f"{who}: session {without_query(session.path)}, {session.dialect}, origin {session.origin or 'none'}")
        try:
            if files is not None and without_query(session.path) == FILES:
                await serve_files(session, files, lambda text: _tell(f"{who}: {text}"))
            else:
                await echo(session)
        finally:
            info = await session.wait_closed()
            words = f"code {info.code}" if info.code is not None else "no code"
            _tell(f"{who}: closed by {info.closed_by}, {words}{': ' + info.reason if info.reason else ''}")

    async with contextlib.AsyncExitStack() as stack:
        try:
            server = await stack.enter_async_context(
                wtio.serve(
                    handler, options.host, options.port, tls=tls, origins=options.origin, limits=_limits(options.host)
                )
            )
        except OSError as error:
            if not options.no_page:
                await _add_fault_of_page(error, options.page_port)
            raise
        port = server.addresses[0][1]
        url = f"https://{_url_host(options.host, server)}:{port}/"

        def document() -> bytes:
            # Browsers accept a certificate by its hash only if it follows the rules. They have to trust one that
            # was given themselves. The other kind changes every eleven days.
            return page(url, [] if development is None else _hashes(wtio.dev_certificate()), _program())

        # Both ports are there before anybody is told of one.
        page_port = None
        if not options.no_page:
            page_port = await stack.enter_async_context(serve_page(document, options.page_port))
        _tell(f"echo server   {url}")
        if files is not None:
            words = "but add none (--read-only)" if files.is_read_only else "and add new ones"
            _tell(f"files         {url.removesuffix('/')}{FILES}")
            _tell(f"              clients may get those in the directory `{files.path}`, {words}")
        _tell(f"certificate   SHA-256 {tls.sha256.hex()}")
        if page_port is not None:
            _tell(f"page          http://localhost:{page_port}/")
        welcome = _Welcome(port, tls, development)
        _invite(welcome, _url_host(options.host, server), has_files=files is not None)
        if options.host in _ANY:
            _explain(options.host, port, welcome, development)
        _tell("Ctrl-C ends it")
        await server.wait_closed()
        _tell("closed")


async def _add_fault_of_page(error: OSError, port: int) -> None:
    """Add to an error, if the page could not be served either, why: whoever chooses a port may need to choose both."""
    try:
        async with serve_page(bytes, port):
            pass
    except OSError as other:
        error.strerror = f"{error.strerror}; and {other.strerror}"


def _limits(host: str) -> wtio.Limits:
    """The default limits, without those that protect addresses from each other if all clients have the same."""
    if host == "localhost" or _is_loopback(host):
        return wtio.Limits(connections_per_address=None, sessions_per_address=None)
    return wtio.Limits()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hashes(certificate: wtio.DevCertificate) -> list[str]:
    """What a page needs to trust the certificate and the next one."""
    return [base64.b64encode(digest).decode() for digest in (certificate.sha256, certificate.next_sha256)]


class _Welcome:
    """What a client has to type to get here, and to trust the certificate."""

    def __init__(self, port: int, tls: wtio.ServerTLS, development: wtio.DevCertificate | None) -> None:
        self._port = port
        self._tls = tls
        # The server's certificate if it is one for development.
        self._development = development
        self._certificate = certificate_report(tls.certificates[0])
        # Whether it can be trusted by its hash.
        self._has_hash = not hash_faults(self._certificate)

    def command(self, host: str, path: str, *, is_here: bool) -> str:
        """The command for this host in a URL, for whoever serves (``is_here``) or for another machine."""
        trust = ""
        if self._development is not None and is_here:
            trust = " --dev"
        elif self._has_hash:
            trust = f" --hash {self._certificate.sha256}"
        elif self._certificate.is_self_signed and is_here:
            trust = f" --cafile {shlex.quote(os.fspath(self._tls.files[0]))}"
        # Some shells look for files if there are brackets.
        return f"{_program() if is_here else 'wtio'} connect {shlex.quote(f'https://{self.host_for(host)}:{self._port}{path}')}{trust}"

    def host_for(self, host: str) -> str:
        """A host for which the certificate is valid: this one, or the first of its names."""
        names = [name for name in self._certificate.names if not name.startswith("*")]
        # Whoever trusts it by its hash does not look at its names.
        if self._has_hash or not names or host.strip("[]") in names:
            return host
        return f"[{names[0]}]" if ":" in names[0] else names[0]


def _program() -> str:
    """How whoever serves has called wtio, if it is not among what the shell finds by its name."""
    if shutil.which("wtio") is not None:
        return "wtio"
    script = Path(sys.argv[0])
    return shlex.quote(sys.argv[0]) if script.stem == "wtio" else f"{shlex.quote(sys.orig_argv[0])} -m wtio"


def _invite(welcome: _Welcome, host: str, *, has_files: bool) -> None:
    """Say what to type in another terminal of this machine."""
    _tell(f"try it        {welcome.command(host, '/', is_here=True)}")
    if has_files:
        _tell(f"list files    {welcome.command(host, FILES, is_here=True)} --list")
    if (name := welcome.host_for(host)) != host:
        _tell(f"              ({name}, for which the certificate is, has to lead to this machine)")


def _explain(host: str, port: int, welcome: _Welcome, development: wtio.DevCertificate | None) -> None:
    """Say how another machine gets here."""
    addresses = [ip for ip in _own_addresses() if host != "0.0.0.0" or ":" not in ip]
    if not addresses:
        _tell("This machine has no address but its own; others cannot connect.")
        return
    hosts = [f"[{ip}]" if ":" in ip else ip for ip in addresses]
    _tell("")
    _tell("from another machine:")
    for line in dict.fromkeys(welcome.command(each, "/", is_here=False) for each in hosts):
        _tell(f"  {line}")
    _tell("in a page there, which has to come from https: or http://localhost and whose origin --origin allows:")
    argument = "" if development is None else f", {development.javascript}"
    _tell(f'  new WebTransport("https://{hosts[0]}:{port}/"{argument})')
    _tell("")


def _own_addresses() -> list[str]:
    """Addresses of this machine that others may reach: those it sends from, and those of its name."""
    found = []
    # Nothing is sent: a UDP socket that is connected knows the address that it would send from.
    for family, elsewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))
            found.append(str(probe.getsockname()[0]))
    with contextlib.suppress(OSError):
        found += [str(where[0]) for *_, where in socket.getaddrinfo(socket.gethostname(), None)]
    addresses = [ipaddress.ip_address(ip.partition("%")[0]) for ip in dict.fromkeys(found)]
    return [ip.compressed for ip in addresses if not (ip.is_loopback or ip.is_link_local or ip.is_unspecified)]


def page(url: str, hashes: list[str], program: str = "wtio") -> bytes:
    """Insert into the page where to connect, which certificates to trust by their hash, and how wtio is called here."""
    template = resources.files("wtio.cli").joinpath("page.html").read_text(encoding="utf-8")
    # Inside a script element, a `<` could end it.
    facts = {"url": url, "hashes": hashes, "version": wtio.__version__, "program": program}
    return template.replace("/*facts*/ null", json.dumps(facts).replace("<", "\\u003c")).encode()


def _url_host(host: str, server: wtio.Server) -> str:
    """The host for URLs: the given one, or a loopback address if that is localhost or any address."""
    if host in ("localhost", *_ANY):
        return "127.0.0.1" if any("." in ip or ip == "::" for ip, _ in server.addresses) else "[::1]"
    return f"[{host.replace('%', '%25')}]" if ":" in host else host
