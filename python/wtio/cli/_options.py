"""Options of all commands that connect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import wtio

if TYPE_CHECKING:
    import argparse


def add_connection_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for trust and for the request."""
    trusted = parser.add_mutually_exclusive_group()
    trusted.add_argument("--dev", action="store_true", help="trust this machine's certificate for development")
    trusted.add_argument(
        "--hash", action="append", help="trust the certificate with this SHA-256 (hex or base64); repeatable"
    )
    trusted.add_argument("--cafile", help="trust the authorities in this PEM file")
    trusted.add_argument("--dangerously-trust-any-certificate", action="store_true", help="trust whoever answers")
    parser.add_argument(
        "--header", action="append", default=[], metavar="NAME:VALUE", help="header to send; repeatable"
    )
    parser.add_argument("--protocol", action="append", default=[], help="subprotocol to offer; repeatable")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds to wait for a session (default: 10)")


def trust(options: argparse.Namespace) -> wtio.ClientTLS:
    """The trust settings that the options ask for."""
    if options.dev:
        return wtio.dev_certificate().client_tls()
    return wtio.ClientTLS(
        cafile=options.cafile,
        certificate_hashes=options.hash or (),
        dangerously_trust_any_certificate=options.dangerously_trust_any_certificate,
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
