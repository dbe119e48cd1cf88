"""What Python prints of an error that nobody catches: one traceback, unless a cause adds a fact to the sentence."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import socket
import sys
import traceback
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.ports import free_port

import wtio
from wtio._driver.loop import LoopTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wtio._driver import Address

# The address belongs to nobody (RFC 5737).
FOREIGN = "192.0.2.1"


def tracebacks(error: BaseException) -> int:
    """How many tracebacks are printed: one for the error, and one for each that is chained to it."""
    return "".join(traceback.format_exception(error)).count("Traceback (most recent call last):")


def own_frames(error: BaseException) -> list[str]:
    """The functions of wtio in a traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    return [frame.name for frame in frames if Path(frame.filename).is_relative_to(Path(wtio.__file__).parent)]


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """A port that is taken, and answers nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        yield port


@pytest.fixture
def no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name has an address, and no resolver is asked, which may take its time."""

    async def resolve(transport: LoopTransport, host: str, port: int, *, listening: bool = False) -> list[Address]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(LoopTransport, "resolve", resolve)


async def handle(session: wtio.WebTransportSession) -> None:
    """A session that ends at once."""


# -- connect


async def failure_of(url: str, **options: object) -> BaseException:
    """The error of a script that connects and does nothing about errors."""
    with pytest.raises(wtio.ConnectError) as caught:
        async with wtio.connect(url, **options):  # type: ignore[arg-type]
            pass
    # What goes on inside is no help: the message says at which step it failed.
    assert own_frames(caught.value) == ["__aenter__", "_establish"]
    return caught.value


@pytest.mark.skipif(sys.platform == "win32", reason="on Windows, ICMP errors are not seen, so the time has to run out")
async def test_if_nobody_listens_there_is_one_traceback(certificate: wtio.DevCertificate) -> None:
    error = await failure_of(f"https://127.0.0.1:{free_port()}/", tls=certificate.client_tls())
    assert isinstance(error, wtio.ConnectionRefused)
    assert (tracebacks(error), error.errno) == (1, errno.ECONNREFUSED)


@pytest.mark.usefixtures("no_names")
async def test_for_a_host_without_an_address_there_is_one_traceback_with_the_number_of_the_lookup() -> None:
    error = await failure_of("https://nowhere.invalid/")
    assert isinstance(error, wtio.NameResolutionError)
    assert (tracebacks(error), error.errno) == (1, socket.EAI_NONAME)
    # A report has numbers of the system only.
    assert error.report is not None
    assert error.report.end is not None
    assert (error.report.end.cause, error.report.end.code) == ("lookup", None)


async def test_for_a_certificate_that_is_not_trusted_there_is_one_traceback(url: str) -> None:
    error = await failure_of(url, tls=wtio.ClientTLS(certificate_hashes=[bytes(32)]))
    assert isinstance(error, wtio.CertificateError)
    assert tracebacks(error) == 1


async def test_for_a_request_that_is_refused_there_is_one_traceback(certificate: wtio.DevCertificate) -> None:
    async def admit(request: wtio.SessionRequest) -> None:
        await request.reject(403)

    async with wtio.serve(handle, "127.0.0.1", 0, tls=certificate.server_tls(), admit=admit) as server:
        port = server.addresses[0][1]
        error = await failure_of(f"https://127.0.0.1:{port}/", tls=certificate.client_tls())
    assert isinstance(error, wtio.SessionRejectedError)
    assert tracebacks(error) == 1


async def test_if_the_time_is_up_there_is_one_traceback(certificate: wtio.DevCertificate) -> None:
    with silent() as port:
        error = await failure_of(
            f"https://127.0.0.1:{port}/", tls=certificate.client_tls(), timeouts=wtio.Timeouts(connect=0.05)
        )
    assert isinstance(error, wtio.HandshakeTimeout)
    assert tracebacks(error) == 1


async def test_for_a_local_address_that_is_not_ours_there_is_one_traceback_with_its_errno(url: str) -> None:
    error = await failure_of(url, local_addr=(FOREIGN, 0))
    assert isinstance(error, wtio.ConnectError)
    assert (tracebacks(error), error.errno) == (1, errno.EADDRNOTAVAIL)


# -- files


@pytest.mark.parametrize(
    "load",
    [
        pytest.param(lambda path: wtio.ServerTLS(certfile=path), id="server"),
        pytest.param(lambda path: wtio.ClientTLS(cafile=path), id="client"),
    ],
)
@pytest.mark.parametrize(("content", "number"), [(None, errno.ENOENT), ("no PEM", None)])
def test_for_a_file_that_cannot_be_used_there_is_one_traceback_with_its_errno(
    tmp_path: Path, load: Callable[[Path], object], content: str | None, number: int | None
) -> None:
    path = tmp_path / "certificate.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(wtio.CertificateError) as caught:
        load(path)
    assert (tracebacks(caught.value), caught.value.errno) == (1, number)


def test_for_a_key_of_another_certificate_there_is_one_traceback(tmp_path: Path) -> None:
    first, second = (wtio.dev_certificate(directory=tmp_path / name) for name in ("first", "second"))
    with pytest.raises(wtio.CertificateError) as caught:
        wtio.ServerTLS(certfile=first.certfile, keyfile=second.keyfile)
    assert tracebacks(caught.value) == 1


# -- serve


@pytest.mark.parametrize("host", ["127.0.0.1", ["127.0.0.2", "127.0.0.1"]])
async def test_for_a_port_that_is_taken_there_is_one_traceback_with_its_errno(
    certificate: wtio.DevCertificate, host: str | list[str]
) -> None:
    with silent() as port, pytest.raises(OSError, match="another program uses it") as caught:
        async with wtio.serve(handle, host, port, tls=certificate.server_tls()):
            pass
    assert (tracebacks(caught.value), caught.value.errno) == (1, errno.EADDRINUSE)


async def test_for_an_address_that_is_not_ours_there_is_one_traceback_with_its_errno(
    certificate: wtio.DevCertificate,
) -> None:
    with pytest.raises(OSError, match="not one of this machine") as caught:
        async with wtio.serve(handle, FOREIGN, 0, tls=certificate.server_tls()):
            pass
    assert (tracebacks(caught.value), caught.value.errno) == (1, errno.EADDRNOTAVAIL)


@pytest.mark.usefixtures("no_names")
async def test_to_listen_on_a_host_without_an_address_fails_with_one_traceback(
    certificate: wtio.DevCertificate,
) -> None:
    with pytest.raises(OSError, match="cannot listen on host") as caught:
        async with wtio.serve(handle, "nowhere.invalid", 0, tls=certificate.server_tls()):
            pass
    assert (tracebacks(caught.value), caught.value.errno) == (1, socket.EAI_NONAME)


def test_what_the_program_raises_comes_out_of_run_without_the_frames_of_the_loop(
    certificate: wtio.DevCertificate,
) -> None:
    with silent() as port, pytest.raises(OSError, match="another program uses it") as caught:
        wtio.run(wtio.serve(handle, "127.0.0.1", port, tls=certificate.server_tls()))
    assert tracebacks(caught.value) == 1
    files = {Path(frame.filename).parent for frame in traceback.extract_tb(caught.value.__traceback__)}
    assert Path(asyncio.__file__).parent not in files


@pytest.mark.parametrize("case", ["nobody listens", "unknown host", "foreign address", "silence"])
async def test_an_error_of_connect_goes_with_its_last_reference(case: str) -> None:
    """Without the collector: no frame of its traceback holds the error."""
    with silent() as port:
        url = f"https://127.0.0.1:{port}/"
        options: dict[str, Any] = {}
        if case == "unknown host":
            url = "https://nobody.invalid/"
        elif case == "foreign address":
            options["local_addr"] = (FOREIGN, 0)
        elif case == "silence":
            options["timeouts"] = wtio.Timeouts(connect=0.2)
        if case == "nobody listens":
            url = "https://127.0.0.1:9/"
        gc.collect()
        gc.disable()
        try:
            kept = await dropped(url, options)
            for _ in range(10):
                await asyncio.sleep(0)
            assert kept is not None
            assert kept() is None
        finally:
            gc.enable()


async def dropped(url: str, options: dict[str, Any]) -> weakref.ref[BaseException] | None:
    """Connect, and keep nothing of the error but a weak reference."""
    try:
        async with wtio.connect(url, **options):
            return None
    except wtio.ConnectError as error:
        return weakref.ref(error)
