"""`python -m wtio doctor`, as a user types it, against servers that have one fault each."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import time
from typing import TYPE_CHECKING, Any, cast

import pytest
import trustme
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve as aioquic_serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import QuicProtocolVersion
from tests.interop import aioquic_peer
from tests.support.ports import free_port

import wtio
from wtio import _core
from wtio.cli._status import Status

if TYPE_CHECKING:
    from pathlib import Path

    from aioquic.quic.events import QuicEvent

    from .programs import Start

DAY = 24 * 3600


class Mute(QuicConnectionProtocol):
    """A server that makes QUIC connections and nothing of them."""

    def quic_event_received(self, event: QuicEvent) -> None:
        pass


async def doctor(start: Start, *arguments: str) -> tuple[int, str]:
    async with start("-m", "wtio", "doctor", *arguments) as program:
        status = await program.finish()
    return status, program.output


async def examine(start: Start, *arguments: str) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Exit status, report, and advice by name."""
    status, text = await doctor(start, *arguments, "--json")
    facts = json.loads(text)
    return status, facts["report"], {item["name"]: item["text"] for item in facts["advice"]}


async def refuse(session: wtio.WebTransportSession) -> None:
    await session.wait_closed()


def url_of(server: wtio.Server, path: str = "/") -> str:
    return f"https://127.0.0.1:{server.addresses[0][1]}{path}"


def check_repetitions(text: str) -> None:
    """Nothing that takes more than a few words is said twice, but that both sides have the same settings."""
    lines = [line[14:] for line in text.splitlines() if not re.search(r" \(0x[0-9a-f]+\)", line)]
    clauses = [clause for line in lines for clause in re.split("[:;,.] ", line) if len(clause) > 20]
    assert not [clause for clause in clauses if " " in clause and text.count(clause) > 1], text


async def test_nothing_is_said_twice(start: Start, server: wtio.Server, url: str) -> None:
    closed = f"https://127.0.0.1:{free_port()}/"
    for arguments, status, words in (
        ((closed, "--dev"), Status.NO_CONNECTION, "connection refused (ECONNREFUSED)"),
        ((url,), Status.NOT_TRUSTED, "so no authority vouches for it"),
        ((url, "--hash", "00" * 32), Status.NOT_TRUSTED, "does not match"),
        (("https://no-such-host.invalid/",), Status.NO_CONNECTION, "check the spelling"),
    ):
        found, text = await doctor(start, *arguments)
        assert (found, text.count(words)) == (status, 1), text
        assert text.count("\nresult ") == 1
        check_repetitions(text)


async def test_our_own_server_is_well(start: Start, certificate: wtio.DevCertificate) -> None:
    async def echo(session: wtio.WebTransportSession) -> None:
        session.send_datagram(await session.receive_datagram())

    async def handler(session: wtio.WebTransportSession) -> None:
        stream = await anext(session.incoming_bidirectional_streams())
        await stream.write(data=await stream.read_all(), end_stream=True)
        await echo(session)
        await session.wait_closed()

    async with wtio.serve(handler, "127.0.0.1", 0, tls=certificate.server_tls()) as server:
        url = url_of(server, "/path?query")
        status, text = await doctor(
            start, url, "--hash", certificate.sha256_hex, "--echo", "--origin", url_of(server, "")
        )
    assert status == 0
    assert text.startswith(f"url           {url}\naddress ")
    assert "stream        ok: came back\ndatagram      ok: came back\n" in text
    assert certificate.sha256_hex in text
    assert "\nproblem" not in text
    assert text.endswith("\n\nresult        session established\n"), "where it is seen"
    check_repetitions(text)
    assert "\x1b" not in text, "no colours outside of a terminal"
    assert "\nmore          --all prints the settings of both sides, the peer's transport parameters, and UDP" in text
    assert "\nUDP buffers" not in text
    assert "expected " not in text, "the certificate is shown, and is one of them"
    assert "(0x" not in text, "numbers that fill a screen"


async def test_a_server_that_is_no_echo_server_is_called_so(start: Start, certificate: wtio.DevCertificate) -> None:
    async def shout(stream: wtio.WebTransportStream) -> None:
        await stream.write(data=(await stream.read_all()).upper(), end_stream=True)

    async def handler(session: wtio.WebTransportSession) -> None:
        await session.serve_streams(shout)

    async with wtio.serve(handler, "127.0.0.1", 0, tls=certificate.server_tls()) as server:
        arguments = ("--hash", certificate.sha256_hex, "--echo", "--timeout", "0.5")
        _, text = await doctor(start, url_of(server), *arguments)
    assert "\nstream        failed: 11 other bytes came back; this server answers, but is no echo server\n" in text


async def test_all_settings_and_transport_parameters_are_printed_if_asked_for(
    start: Start, certificate: wtio.DevCertificate
) -> None:
    async with wtio.serve(refuse, "127.0.0.1", 0, tls=certificate.server_tls()) as server:
        status, text = await doctor(start, url_of(server), "--hash", certificate.sha256_hex, "--all")
    assert status == 0, text
    for words in (
        "we sent       ",
        "peer sent     ",
        "QUIC of peer  ",
        "UDP buffers   ",
        "expected " + certificate.sha256_hex,
        "H3_DATAGRAM (0x33) = 1",
        "max_idle_timeout (0x1) = ",
    ):
        assert words in text
    assert "--all" not in text


async def test_a_closed_port_is_named_without_waiting_for_the_timeout(start: Start) -> None:
    port = free_port()
    status, report, advice = await examine(start, f"https://127.0.0.1:{port}/", "--dev")
    assert status == Status.NO_CONNECTION
    assert [address["outcome"] for address in report["addresses"]] == ["unreachable"]
    assert list(advice) == ["port_unreachable"]
    assert report["times"]["total"] < 9, "not the ten seconds of --timeout"
    status, text = await doctor(start, f"https://127.0.0.1:{port}/", "--dev")
    headings = [line.split(" ")[0] for line in text.splitlines() if line[:1].strip()]
    assert headings == ["url", "address", "times", "problem", "result"], "and nothing of what was not reached"
    assert text.endswith("\nresult        no session: no server was reached\n")


@pytest.mark.parametrize("is_silent", [False, True], ids=["closed", "silent"])
async def test_a_port_at_which_only_a_tcp_server_listens_is_named(start: Start, *, is_silent: bool) -> None:
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
        if is_silent:
            stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).bind(("127.0.0.1", port))
        status, _, advice = await examine(start, f"https://127.0.0.1:{port}/", "--dev", "--timeout", "0.2")
    assert status == Status.NO_CONNECTION
    assert list(advice) == ["no_answer" if is_silent else "port_unreachable", "tcp_only"]
    assert f"At TCP port {port} something does listen" in advice["tcp_only"]


async def test_silence_and_strange_answers_are_distinguished(start: Start) -> None:
    class Stranger(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast("asyncio.DatagramTransport", transport)

        def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
            self.transport.sendto(b"this is not QUIC", address)

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Stranger, ("127.0.0.1", 0))
    try:
        url = f"https://127.0.0.1:{transport.get_extra_info('sockname')[1]}/"
        status, report, advice = await examine(start, url, "--dev", "--timeout", "0.2")
    finally:
        transport.close()
    assert (status, [address["outcome"] for address in report["addresses"]]) == (Status.NO_CONNECTION, ["not QUIC"])
    assert list(advice) == ["not_quic"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        status, report, advice = await examine(start, url, "--dev", "--timeout", "0.2")
    assert (status, [address["outcome"] for address in report["addresses"]]) == (Status.NO_CONNECTION, ["no answer"])
    assert list(advice) == ["no_answer"]


async def test_wrong_hash(start: Start, server: wtio.Server, url: str, certificate: wtio.DevCertificate) -> None:
    status, report, advice = await examine(start, url, "--hash", "00" * 32)
    assert (status, list(advice)) == (Status.NOT_TRUSTED, ["wrong_hash"])
    assert certificate.sha256_hex in advice["wrong_hash"]
    assert report["tls"]["certificate"]["sha256"] == certificate.sha256_hex
    assert report["tls"]["expected_hashes"] == ["00" * 32]


async def test_expired_certificate(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    now = int(time.time())
    chain, key, der = _core.generate_certificate(["127.0.0.1"], now - 2 * DAY, now - DAY)
    monkeypatch.setattr(time, "time", lambda: now - 1.5 * DAY)
    tls = wtio.ServerTLS(certdata=chain, keydata=key)
    monkeypatch.undo()
    async with wtio.serve(None, "127.0.0.1", 0, tls=tls) as server:
        status, _, advice = await examine(start, url_of(server), "--hash", _core.sha256(der).hex())
    assert (status, list(advice)) == (Status.NOT_TRUSTED, ["expired"])


async def test_wrong_name_and_unknown_authority(start: Start, tmp_path: Path) -> None:
    authority, other = trustme.CA(), trustme.CA()
    issued = authority.issue_cert("elsewhere.example", "127.0.0.2")
    for name, issuer in (("ca.pem", authority), ("other.pem", other)):
        issuer.cert_pem.write_to_path(str(tmp_path / name))
    tls = wtio.ServerTLS(
        certdata=b"".join(blob.bytes() for blob in issued.cert_chain_pems), keydata=issued.private_key_pem.bytes()
    )
    async with wtio.serve(None, ["127.0.0.1", "127.0.0.2"], 0, tls=tls) as server:
        status, _, advice = await examine(start, url_of(server), "--cafile", str(tmp_path / "ca.pem"))
        assert status == Status.NOT_TRUSTED
        assert "for elsewhere.example, 127.0.0.2" in advice["wrong_name"]
        url = url_of(server).replace("127.0.0.1", "127.0.0.2")
        status, _, advice = await examine(start, url, "--cafile", str(tmp_path / "other.pem"))
        assert status == Status.NOT_TRUSTED
        assert "No trusted authority has signed" in advice["unknown_authority"]


@pytest.mark.parametrize(("code", "rule"), [(403, "forbidden"), (404, "rejected"), (405, "rejected")])
async def test_rejections(
    start: Start, server: wtio.Server, url: str, certificate: wtio.DevCertificate, code: int, rule: str
) -> None:
    examining = asyncio.ensure_future(examine(start, url, "--hash", certificate.sha256_hex))
    await (await anext(server)).reject(code)
    status, report, advice = await examining
    assert (status, report["status"]) == (Status.REFUSED, code)
    assert f"({code})" in advice[rule]


async def test_a_forbidden_origin_is_named(start: Start, certificate: wtio.DevCertificate) -> None:
    async with wtio.serve(
        refuse, "127.0.0.1", 0, tls=certificate.server_tls(), origins=["https://good.example"]
    ) as server:
        trust = ("--hash", certificate.sha256_hex)
        status, _, advice = await examine(start, url_of(server), *trust, "--origin", "https://bad.example")
        assert status == Status.REFUSED
        assert "`https://bad.example` is not among the origins" in advice["forbidden"]
        status, _, advice = await examine(start, url_of(server), *trust, "--origin", "https://good.example")
        assert (status, "forbidden" in advice) == (0, False)


async def test_a_server_of_draft_02_only(start: Start, certificate: wtio.DevCertificate) -> None:
    async def handler(session: aioquic_peer.PeerSession) -> None:
        await asyncio.Event().wait()

    async with aioquic_peer.serve(
        handler, "127.0.0.1", 0, certificate=certificate.certfile, key=certificate.keyfile
    ) as port:
        trust = ("--hash", certificate.sha256_hex)
        status, report, advice = await examine(start, f"https://127.0.0.1:{port}/", *trust)
    assert (status, report["dialect"]) == (0, "draft02")
    assert {"not_for_safari", "no_draft_15", "no_reset_stream_at"} <= set(advice)
    assert "not_for_chrome_and_firefox" not in advice


@pytest.mark.parametrize(
    ("protocol", "version", "rule"),
    [
        ("hq-interop", QuicProtocolVersion.VERSION_1, "no_http3"),
        ("h3", QuicProtocolVersion.VERSION_1, "no_settings"),
        ("h3", QuicProtocolVersion.VERSION_2, "no_common_version"),
    ],
)
async def test_servers_of_something_else(
    start: Start, certificate: wtio.DevCertificate, protocol: str, version: int, rule: str
) -> None:
    configuration = QuicConfiguration(is_client=False, alpn_protocols=[protocol], supported_versions=[version])
    configuration.load_cert_chain(certificate.certfile)
    server = await aioquic_serve("127.0.0.1", 0, configuration=configuration, create_protocol=Mute)
    try:
        assert server._transport is not None
        port = server._transport.get_extra_info("sockname")[1]
        trust = ("--hash", certificate.sha256_hex)
        # The server without HTTP/3 never says anything; the others say no at once.
        patience = "0.5" if rule == "no_settings" else "10"
        status, report, advice = await examine(start, f"https://127.0.0.1:{port}/", *trust, "--timeout", patience)
    finally:
        server.close()
    assert (status, list(advice)) == (Status.NO_CONNECTION, [rule])
    assert report["status"] is None


async def test_a_server_that_ends_the_session_at_once(start: Start, certificate: wtio.DevCertificate) -> None:
    async def handler(session: wtio.WebTransportSession) -> None:
        await session.close(9, "not today")

    async with wtio.serve(handler, "127.0.0.1", 0, tls=certificate.server_tls()) as server:
        status, report, advice = await examine(start, url_of(server), "--hash", certificate.sha256_hex, "--echo")
    assert (status, report["end"]["code"]) == (0, 9)
    assert advice["ended_by_server"].endswith("by the peer with application code 9: not today.")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("http://localhost/",), "the scheme is `http`, not `https`"),
        (("https://localhost:9/", "--hash", "abc"), "certificate hash 'abc' is no SHA-256"),
        (("https://localhost:9/", "--cafile", "/nowhere/ca.pem"), "`/nowhere/ca.pem` cannot be read"),
        (("https://localhost:9/", "--header", "x"), "header `x` has no colon"),
    ],
)
async def test_mistakes_give_one_line(start: Start, arguments: tuple[str, ...], words: str) -> None:
    status, text = await doctor(start, *arguments)
    assert status == Status.USAGE
    assert text.startswith("error: ")
    assert words in text
    assert text.count("\n") == 1
