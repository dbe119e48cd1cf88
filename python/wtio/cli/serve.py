"""``wtio serve``: an echo server, files of a directory, and a web page to try it from a browser."""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import json
import logging
import socket
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

import wtio
from wtio._url import without_query
from wtio.cli._echo import echo
from wtio.cli._files import Directory, serve_files
from wtio.cli._options import add_certificate_options, refuse, server_tls
from wtio.cli._page import serve_page
from wtio.cli._terminal import visible
from wtio.cli._words import in_options

if TYPE_CHECKING:
    import argparse

    from wtio.cli._types import Subparsers

FILES: Final = "/files"
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
        "and store files (`wtio connect --list`, --get, --put). With --host 0.0.0.0, what it prints is for other "
        "machines.",
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
        server = await stack.enter_async_context(
            wtio.serve(
                handler, options.host, options.port, tls=tls, origins=options.origin, limits=_limits(options.host)
            )
        )
        port = server.addresses[0][1]
        url = f"https://{_url_host(options.host, server)}:{port}/"

        def document() -> bytes:
            # Browsers accept a certificate by its hash only if it follows the rules. They have to trust one that
            # was given themselves. The other kind changes every eleven days.
            return page(url, [] if development is None else _hashes(wtio.dev_certificate()))

        # Both ports are there before anybody is told of one.
        page_port = None
        if not options.no_page:
            page_port = await stack.enter_async_context(serve_page(document, options.page_port))
        _tell(f"echo server   {url}")
        if files is not None:
            words = "read only" if files.is_read_only else "and received"
            _tell(f"files         {url.removesuffix('/')}{FILES} ({words}: {files.path})")
        _tell(f"certificate   SHA-256 {tls.sha256.hex()}")
        if page_port is not None:
            _tell(f"page          http://localhost:{page_port}/")
        if options.host in _ANY:
            _explain(options.host, port, tls, development)
        _tell("Ctrl-C ends it")
        await server.wait_closed()
        _tell("closed")


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


def _explain(host: str, port: int, tls: wtio.ServerTLS, development: wtio.DevCertificate | None) -> None:
    """Say how another machine gets here."""
    addresses = [ip for ip in _own_addresses() if host != "0.0.0.0" or ":" not in ip]
    if not addresses:
        _tell("This machine has no address but its own; others cannot connect.")
        return
    trust = "" if development is None else f" --hash {tls.sha256.hex()}"
    _tell("")
    _tell("from another machine:")
    for ip in addresses:
        _tell(f"  wtio connect https://{f'[{ip}]' if ':' in ip else ip}:{port}/{trust}")
    _tell("in a page there, which has to come from https: or http://localhost and whose origin --origin allows:")
    argument = "" if development is None else f", {development.javascript}"
    ip = addresses[0]
    _tell(f'  new WebTransport("https://{f"[{ip}]" if ":" in ip else ip}:{port}/"{argument})')
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


def page(url: str, hashes: list[str]) -> bytes:
    """Insert into the page where to connect, and which certificates to trust by their hash."""
    template = resources.files("wtio.cli").joinpath("page.html").read_text(encoding="utf-8")
    # Inside a script element, a `<` could end it.
    facts = json.dumps({"url": url, "hashes": hashes, "version": wtio.__version__}).replace("<", "\\u003c")
    return template.replace("/*facts*/ null", facts).encode()


def _url_host(host: str, server: wtio.Server) -> str:
    """The host for URLs: the given one, or a loopback address if that is localhost or any address."""
    if host in ("localhost", *_ANY):
        return "127.0.0.1" if any("." in ip or ip == "::" for ip, _ in server.addresses) else "[::1]"
    return f"[{host}]" if ":" in host else host
