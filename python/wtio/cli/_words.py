"""Words for whoever types: messages of the library in terms of the options, and errors of the system in sentences."""

from __future__ import annotations

import errno
import os
import re
from typing import Final

__all__ = ["in_options", "of_system"]

# The first that fits is used, so whole sentences come before the names in them.
_WORDS: Final = (
    (
        r"for a private authority pass ClientTLS\(cafile=\.\.\.\), for a development certificate "
        r"wtio\.dev_certificate\(\)\.client_tls\(\) where it was made, elsewhere "
        r"ClientTLS\(certificate_hashes=\[\.\.\.\]\)",
        "for a private authority give --cafile, for a certificate for development --dev (on its own machine) or --hash",
    ),
    (
        r"pass wtio\.dev_certificate\(\)\.client_tls\(\), otherwise, if it is yours, its file as "
        r"ClientTLS\(cafile=\.\.\.\) or ClientTLS\(certificate_hashes=\['([0-9a-f]+)'\]\)",
        r"add --dev, otherwise, if it is yours, --cafile with its file or --hash \1",
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
    (r"^port is (?=-?\d)", "--port is "),
    (r"choose another port, or 0 for any free one", "choose another with --port, or any free one with --port 0"),
    (
        r"ports below 1024 need a privilege",
        "ports below 1024 need a privilege (root, or CAP_NET_BIND_SERVICE): choose another, such as --port 4433",
    ),
    # Only --health leaves this to asyncio.
    (
        r"error while attempting to bind on address \('([^']*)', (\d+)[^)]*\): (?:\[errno \d+\] )?(.*)",
        r"--health cannot listen on TCP \1 port \2: \3; choose another port",
    ),
    (
        r"no address for host (`[^`]*`) of `[^`]*`: \[Errno -?\d+\] (.*)",
        r"\1 has no address (\2): check the spelling, the DNS entry, and this machine's resolver",
    ),
)

# What the system calls by other names, or says in words that mean nothing to most.
_SYSTEM: Final = {
    errno.ENOENT: "there is no such file or directory",
    errno.EEXIST: "it exists, and nothing is replaced",
    errno.EACCES: "the system does not permit it",
    errno.EPERM: "the system does not permit it",
    errno.EISDIR: "it is a directory",
    errno.ENOTDIR: "it is no directory",
    errno.ELOOP: "it is a symbolic link, which is not followed",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ENOSPC: "the disk is full",
    errno.EROFS: "it cannot be written to (read-only file system)",
    errno.EMFILE: "too many files and sockets are open; `ulimit -n` raises the limit",
    errno.ENFILE: "too many files and sockets are open on this machine",
    errno.EIO: "it could not be read or written (input/output error)",
}


def in_options(text: str) -> str:
    """Replace names of the library's parameters with those of the options."""
    for pattern, words in _WORDS:
        text = re.sub(pattern, words, text)
    return text


def of_system(error: OSError, *, with_file: bool = True) -> str:
    """What an error of the system means, without its number. Errors with words of their own keep these.

    Args:
        error: The error.
        with_file: Whether the name of the file that it is about comes first.
    """
    words = error.strerror or str(error)
    if error.errno is not None and words == os.strerror(error.errno):
        words = _SYSTEM.get(error.errno, words[:1].lower() + words[1:])
    return words if error.filename is None or not with_file else f"{os.fsdecode(error.filename)}: {words}"
