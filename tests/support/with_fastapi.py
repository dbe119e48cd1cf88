"""The program of docs/with-fastapi.md behind uvicorn, in a process of its own, on one free port number."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from tests.examples.programs import ROOT, Program, running
from tests.examples.test_readme import blocks

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    import wtio


def write_program(directory: Path, port: int, certificate: wtio.DevCertificate, addition: str = "") -> None:
    """Write all of the page's Python, on this port with this certificate, as ``app.py``."""
    code = "\n".join(blocks(ROOT / "docs" / "with-fastapi.md", "python"))
    for name, value in {
        "4433": str(port),
        '"cert.pem"': repr(str(certificate.certfile)),
        '"key.pem"': repr(str(certificate.certfile)),
        "wtio.serve(router, ": 'wtio.serve(router, "127.0.0.1", origins="*", ',
    }.items():
        assert name in code
        code = code.replace(name, value)
    (directory / "app.py").write_text(f"import logging\nlogging.basicConfig(level=logging.DEBUG)\n{code}\n{addition}")


def uvicorn(directory: Path, port: int, certificate: wtio.DevCertificate) -> AbstractAsyncContextManager[Program]:
    """Run the program that was written there."""
    where = ("--app-dir", directory, "--host", "127.0.0.1", "--port", port)
    tls = ("--ssl-certfile", certificate.certfile, "--ssl-keyfile", certificate.certfile)
    return running("-u", "-m", "uvicorn", "app:app", *where, *tls, "--log-level", "trace", end=signal.SIGTERM)
