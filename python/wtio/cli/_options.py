"""Options that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import wtio

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from wtio.report import ConnectionReport

__all__ = [
    "CONNECTION_OPTIONS",
    "add_certificate_options",
    "add_connection_options",
    "connector",
    "header_pairs",
    "not_the_development_one",
    "refuse",
    "server_tls",
    "trust",
]

CONNECTION_OPTIONS: Final = (
    *("--dev", "--hash", "--cafile", "--dangerously-trust-any-certificate"),
    *("--header", "--protocol", "--timeout", "--origin"),
)
"""What ``add_connection_options`` adds."""


def refuse(options: argparse.Namespace, names: Iterable[str], why: str) -> None:
    """Raise ValueError for the first of these options that was given: it would do nothing, and ``why`` says why."""
    for name in names:
        if name.lstrip("-").replace("-", "_").lower() in options.given:
            raise ValueError(f"{name} {why}")


def add_connection_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for trust and for the request."""
    trusted = parser.add_mutually_exclusive_group()
    trusted.add_argument(
        "--dev",
        action="store_true",
        help="trust the certificate for development of this machine and user, as `wtio cert` shows it",
    )
    trusted.add_argument(
        "--hash",
        action="append",
        metavar="SHA256",
        help="trust the certificate with this SHA-256 (hex or base64); repeatable",
    )
    trusted.add_argument("--cafile", metavar="FILE", help="trust the authorities in this PEM file")
    trusted.add_argument("--dangerously-trust-any-certificate", action="store_true", help="trust whoever answers")
    parser.add_argument(
        "--header", action="append", default=[], metavar="NAME:VALUE", help="header to send; repeatable"
    )
    parser.add_argument(
        "--protocol", action="append", default=[], metavar="NAME", help="subprotocol to offer; repeatable"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="seconds to wait for a session and for an answer (default: 10)",
    )
    parser.add_argument("--origin", help="Origin header to send, as a page of that origin would")


def trust(options: argparse.Namespace) -> wtio.ClientTLS:
    """The trust settings that the options ask for."""
    if options.dev:
        return wtio.dev_certificate().client_tls()
    return wtio.ClientTLS(
        cafile=options.cafile,
        certificate_hashes=options.hash or (),
        dangerously_trust_any_certificate=options.dangerously_trust_any_certificate,
    )


def not_the_development_one(options: argparse.Namespace, report: ConnectionReport | None) -> str | None:
    """Why the certificate that ``--dev`` trusts is not the server's, as sentences; None if that is not the failure."""
    tls = None if report is None else report.tls
    if not getattr(options, "dev", False) or tls is None or tls.certificate is None or tls.hash_matches is not False:
        return None
    return (
        "the server's certificate is not the one that --dev trusts, which was read from "
        f"`{wtio.dev_certificate().certfile}`. The server runs as another user, with another HOME or XDG_CACHE_HOME, "
        "on another machine, or with a certificate of its own. Look at the SHA-256 that it prints there (`wtio cert` "
        f"does, too); if it is this one, trust that in the place of --dev: --hash {tls.certificate.sha256}"
    )


def connector(options: argparse.Namespace) -> wtio.Connector:
    """Connect as the options ask for."""
    return wtio.connect(
        options.url,
        tls=trust(options),
        headers=header_pairs(options.header),
        protocols=options.protocol,
        origin=options.origin,
        timeouts=wtio.Timeouts(connect=options.timeout),
    )


def header_pairs(pairs: list[str]) -> list[tuple[str, str]]:
    """Split `name: value`; ValueError if there is no colon."""
    headers = []
    for pair in pairs:
        name, colon, value = pair.partition(":")
        if not colon:
            raise ValueError(f"header `{pair}` has no colon; write --header 'name: value'")
        headers.append((name.strip(), value.strip()))
    return headers


def add_certificate_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for the certificate of a server and for the pages that may connect."""
    parser.add_argument("--certfile", metavar="FILE", help="PEM file with the certificate (default: for development)")
    parser.add_argument("--keyfile", metavar="FILE", help="PEM file with its private key (default: in --certfile)")
    parser.add_argument(
        "--origin",
        action="append",
        default=[],
        help="origin of pages that may connect beside the server's own, such as https://example.org; repeatable",
    )


def server_tls(options: argparse.Namespace, development: wtio.DevCertificate | None = None) -> wtio.ServerTLS:
    """The certificate that the options name, otherwise one for development; ValueError for a key alone."""
    if options.keyfile and not options.certfile:
        raise ValueError("--keyfile without --certfile does nothing; add --certfile FILE")
    if options.certfile:
        return wtio.ServerTLS(certfile=options.certfile, keyfile=options.keyfile, watch=True)
    return (development or wtio.dev_certificate()).server_tls()
