"""``python -m wtio cert``: the certificate for development, and how to make clients trust it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from wtio._words import DAY, date
from wtio.tls import dev_certificate

if TYPE_CHECKING:
    import argparse

    from wtio.cli._types import Subparsers


def add_parser(commands: Subparsers) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "cert",
        help="show the certificate for development",
        description="Show the certificate for development, which is made where there is none or it is about to expire.",
    )
    parser.add_argument(
        "--name",
        action="append",
        metavar="NAME",
        help="DNS name or IP address; repeatable (default: this machine's own)",
    )
    parser.add_argument("--directory", help="where it is kept (default: ~/.cache/wtio)")
    parser.add_argument(
        "--only",
        choices=("file", "hex", "base64", "javascript"),
        help="print one fact and nothing else, for use in scripts",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the certificate's facts."""
    names = options.name or ("localhost", "127.0.0.1", "::1")
    certificate = dev_certificate(names, directory=options.directory)
    facts = {
        "file": str(certificate.certfile),
        "hex": certificate.sha256_hex,
        "base64": certificate.sha256_base64,
        "javascript": certificate.javascript,
    }
    if options.only:
        print(facts[options.only])
        return 0
    days = (certificate.not_after - time.time()) / DAY
    print(f"file       {facts['file']} (certificate and private key)")
    print(f"names      {', '.join(certificate.names)}")
    print(f"valid      until {date(certificate.not_after)}, {days:.1f} days from now")
    print(f"SHA-256    {facts['hex']}")
    print(f"base64     {facts['base64']}")
    print(f"next one   {certificate.next_sha256.hex()} (SHA-256), from {date(certificate.replaced_at)} on")
    print()
    print("in a browser:")
    print()
    print(f"const options = {facts['javascript']};")
    print('const session = new WebTransport("https://127.0.0.1:4433/", options);')
    return 0
