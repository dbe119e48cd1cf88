"""Translates messages of the library, which name its parameters, to the options of the command line."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["in_options"]

# The first that fits is used, so whole sentences come before the names in them.
_WORDS: Final = (
    (
        r"for a private authority pass ClientTLS\(cafile=\.\.\.\), for a development certificate "
        r"ClientTLS\(certificate_hashes=\[\.\.\.\]\)",
        "for a private authority give --cafile, for a certificate for development --dev (on its own machine) or --hash",
    ),
    (r"see the `origin` and `headers` parameters", "it may want another origin, or a header (--header)"),
    (r"\bserve\(origins=\.\.\.\)", "--origin"),
    (r"\borigins: ", "--origin: "),
    (r"; use the parameter for it", ""),
    (r"ClientTLS\(certfile=\.\.\., keyfile=\.\.\.\)", "a program can give one, the command line cannot"),
    (r"ClientTLS\(certificate_hashes=.*?\)", "--hash or --dev"),
    (r"ClientTLS\(cafile=.*?\)", "--cafile"),
    (r" \(Timeouts\.connect\)", " (--timeout)"),
    (r"Timeouts\.connect\b", "--timeout"),
    (r" \(Timeouts\.idle is [^()]* on this side\)", ""),
    (r"; raise Limits\.\w+.*", ""),
    (r"`headers`", "--header"),
    (r"\bheaders: ", "--header: "),
    (r"\bprotocols: ", "--protocol: "),
    (r"\bcertificate_hashes\b", "--hash"),
)


def in_options(text: str) -> str:
    """Replace names of the library's parameters with those of the options."""
    for pattern, words in _WORDS:
        text = re.sub(pattern, words, text)
    return text
