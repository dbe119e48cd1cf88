"""``python -m wtio serve``: an echo server, and a web page to try it from a browser on the same machine."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
from importlib import resources
from typing import TYPE_CHECKING

import wtio
from wtio._url import without_query
from wtio.cli._echo import echo
from wtio.cli._page import serve_page
from wtio.cli._words import in_options

if TYPE_CHECKING:
    import argparse

    from wtio.cli._types import Subparsers


def add_parser(commands: Subparsers) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "serve",
        help="run an echo server, with a web page to try it",
        description="Run an echo server: streams and datagrams come back as they are. "
        "A page on plain local HTTP lets a browser try it; it holds the hash of the certificate.",
    )
    parser.add_argument("--host", default="localhost", help="name or address to listen on (default: localhost)")
    parser.add_argument("--port", type=int, default=4433, help="UDP port; 0 takes a free one (default: 4433)")
    parser.add_argument("--page-port", type=int, default=8080, help="TCP port of the page; 0: any (default: 8080)")
    parser.add_argument("--no-page", action="store_true", help="serve WebTransport only")
    parser.add_argument(
        "--origin",
        action="append",
        default=[],
        help="origin of pages that may connect beside the server's own, such as https://example.org; repeatable",
    )
    parser.add_argument("--certfile", help="PEM file with the certificate (default: one for development)")
    parser.add_argument("--keyfile", help="PEM file with its private key (default: in the certificate's file)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve until interrupted."""
    if options.keyfile and not options.certfile:
        raise ValueError("--keyfile without --certfile")
    log = logging.StreamHandler()
    log.setFormatter(_InOptions())
    logging.getLogger("wtio").addHandler(log)
    wtio.run(_serve(options))
    return 0


class _InOptions(logging.Formatter):
    """The library's log messages, in terms of the options."""

    def format(self, record: logging.LogRecord) -> str:
        return in_options(super().format(record))


async def _serve(options: argparse.Namespace) -> None:
    if options.certfile:
        tls = wtio.ServerTLS(certfile=options.certfile, keyfile=options.keyfile, watch=True)
    else:
        tls = wtio.tls.dev_certificate().server_tls()

    async def handler(session: wtio.WebTransportSession) -> None:
        host, port = session.remote_address
        who = f"{host} port {port}"
        print(
            f"{who}: session {without_query(session.path)}, {session.dialect}, origin {session.origin or 'none'}",
            flush=True,
        )
        try:
            await echo(session)
        finally:
            info = await session.wait_closed()
            words = f"code {info.code}" if info.code is not None else "no code"
            print(f"{who}: closed by {info.closed_by}, {words}{': ' + info.reason if info.reason else ''}", flush=True)

    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            wtio.serve(handler, options.host, options.port, tls=tls, origins=options.origin)
        )
        port = server.addresses[0][1]
        print(f"echo server   https://{_url_host(options.host, server)}:{port}/")
        print(f"certificate   SHA-256 {tls.sha256.hex()}")
        if not options.no_page:
            url = f"https://{_url_host(options.host, server)}:{port}/"

            def document() -> bytes:
                # Browsers accept a certificate by its hash only if it follows the rules. They have to trust one that
                # was given themselves. The other kind changes every eleven days.
                return page(url, [] if options.certfile else _hashes(wtio.tls.dev_certificate()))

            page_port = await stack.enter_async_context(serve_page(document, options.page_port))
            print(f"page          http://localhost:{page_port}/")
        print("Ctrl-C ends it", flush=True)
        await server.wait_closed()
        print("closed", flush=True)


def _hashes(certificate: wtio.DevCertificate) -> list[str]:
    """What a page needs to trust the certificate and the next one."""
    return [base64.b64encode(digest).decode() for digest in (certificate.sha256, certificate.next_sha256)]


def page(url: str, hashes: list[str]) -> bytes:
    """Insert into the page where to connect, and which certificates to trust by their hash."""
    template = resources.files("wtio.cli").joinpath("page.html").read_text(encoding="utf-8")
    # Inside a script element, a `<` could end it.
    facts = json.dumps({"url": url, "hashes": hashes, "version": wtio.__version__}).replace("<", "\\u003c")
    return template.replace("/*facts*/ null", facts).encode()


def _url_host(host: str, server: wtio.Server) -> str:
    """The host for URLs: the given one, or a loopback address if that is localhost or any address."""
    if host in ("localhost", "", "::", "0.0.0.0"):
        return "127.0.0.1" if any("." in ip or ip == "::" for ip, _ in server.addresses) else "[::1]"
    return f"[{host}]" if ":" in host else host
