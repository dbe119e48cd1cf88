"""Hosts of URLs are what browsers make of them: vectors of the URL Standard's rules, checked against Chromium."""

import asyncio
import builtins
import sys

import pytest

import wtio
import wtio.testing
from wtio.protocol.host import parse_host

SAME = [
    ("example.org", "example.org"),
    ("EXAMPLE.org", "example.org"),
    ("example.org.", "example.org."),
    ("localhost", "localhost"),
    ("a_b.example", "a_b.example"),
    ("_sip.example", "_sip.example"),
    ("r3---sn-x.example", "r3---sn-x.example"),
    ("-a-.example", "-a-.example"),
    ("xn--strae-oqa.example", "xn--strae-oqa.example"),
    ("XN--STRAE-OQA.example", "xn--strae-oqa.example"),
    ("%65xample.org", "example.org"),
    ("example%2eorg", "example.org"),
    ("x" * 63 + ".org", "x" * 63 + ".org"),
    # IPv4 in the spellings that browsers know.
    ("127.0.0.1", "127.0.0.1"),
    ("127.1", "127.0.0.1"),
    ("127.0.1", "127.0.0.1"),
    ("2130706433", "127.0.0.1"),
    ("0x7f.1", "127.0.0.1"),
    ("0x7F000001", "127.0.0.1"),
    ("0177.1", "127.0.0.1"),
    ("1.2.3.4.", "1.2.3.4"),
    ("0x.0", "0.0.0.0"),
    ("%31%32%37.0.0.1", "127.0.0.1"),
    ("1a", "1a"),
    ("1.a", "1.a"),
    ("0x1g", "0x1g"),
    # IPv6.
    ("[::1]", "[::1]"),
    ("[0:0:0:0:0:0:0:1]", "[::1]"),
    ("[2001:DB8::1]", "[2001:db8::1]"),
    ("[1:2:3:4:5:6:7::]", "[1:2:3:4:5:6:7:0]"),
]
OTHER_SCRIPTS = [
    ("straße.example", "xn--strae-oqa.example"),
    ("STRAẞE.example", "xn--strae-oqa.example"),
    ("faß.de", "xn--fa-hia.de"),
    ("ς.example", "xn--3xa.example"),
    ("Σ.example", "xn--4xa.example"),
    ("bücher.example", "xn--bcher-kva.example"),
    ("bu\u0308cher.example", "xn--bcher-kva.example"),
    ("b%C3%BCcher.example", "xn--bcher-kva.example"),
    ("日本語。ｊｐ", "xn--wgv71a119e.jp"),
    ("ｅｘａｍｐｌｅ．org", "example.org"),
    ("exam\u00adple.org", "example.org"),
    ("ﬁ.example", "fi.example"),
    ("_x.bücher.example", "_x.xn--bcher-kva.example"),
    ("a--b.bücher.example", "a--b.xn--bcher-kva.example"),
    ("אב.example", "xn--4dbc.example"),
    ("न्\u200dक.example", "xn--11b1b1gu62h.example"),
    ("☕.example", "xn--53h.example"),
    ("１２７.0.0.1", "127.0.0.1"),
    ("１２７。０。０。１", "127.0.0.1"),
    ("٠x7f.1", None),
    ("0ｘ7f.1", "127.0.0.1"),
    ("bücher.example.", "xn--bcher-kva.example."),
]
WRONG = [
    "",
    ".",
    "..",
    "a..b",
    ".a",
    "a..",
    "%",
    "%zz",
    "a%2Fb",
    "a%00b",
    "a%40b",
    "a%25b",
    "%FF",
    "%C3",
    "a b",
    "a\\b",
    "a<b",
    "a>b",
    "a^b",
    "a|b",
    "a[b",
    "x" * 64 + ".org",
    "x." * 127 + "org",
    # Ends in a number, so it is an IPv4 address or nothing.
    "1.2.3.256",
    "256.1.1.1",
    "1.2.3.4.5",
    "4294967296",
    "1.2.3.09",
    "a.1",
    "a.0x7f",
    "1..2",
    "9" * 5000,
    "[::1",
    "[]",
    "[::g]",
    "[1:2:3:4:5:6:7:8:9]",
    "[::1%25eth0]",
    "[v1.a]",
    "[127.0.0.1]",
]
WRONG_IN_OTHER_SCRIPTS = [
    "\u00ad",
    "a\u3000b.example",
    "℀.example",
    "a\u2024.b",
    "\u0301a.example",
    "a\u200cb.example",
    "אa.example",
    "0א.example",
    "אב.0a",
    "bücher..example",
    "ä" * 64 + ".example",
    "\ufffd.example",
    "\ud800.example",
    "256.1.1.１",
    "xn--é.example",
]
# Names that only look ASCII.
WRONG_PUNYCODE = ["xn--", "xn--a", "xn--a-", "xn--bca.example", "xn--99999999", "xn--ß.example", "a.xn--0.example"]


@pytest.mark.parametrize(("text", "host"), [*SAME, *((text, host) for text, host in OTHER_SCRIPTS if host)])
def test_host_is_read_as_browsers_do(text: str, host: str) -> None:
    assert parse_host(text) == host
    # What goes over the wire reads the same again.
    assert parse_host(host) == host


@pytest.mark.parametrize(
    "text",
    [*WRONG, *WRONG_IN_OTHER_SCRIPTS, *WRONG_PUNYCODE, *(text for text, host in OTHER_SCRIPTS if host is None)],
    ids=ascii,
)
def test_host_that_browsers_refuse_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(is|begins|ends) "):
        parse_host(text)


@pytest.fixture
def without_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the package of the extra were not installed."""
    importing = builtins.__import__

    def refuse(name: str, *further: object, **named: object) -> object:
        if name.partition(".")[0] == "idna":
            raise ImportError(name)
        return importing(name, *further, **named)  # type: ignore[arg-type]

    monkeypatch.delitem(sys.modules, "idna", raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)


@pytest.mark.usefixtures("without_extra")
@pytest.mark.parametrize("text", [text for text, _ in OTHER_SCRIPTS])
def test_without_the_extra_other_scripts_are_refused_with_both_ways_out(text: str) -> None:
    with pytest.raises(wtio.InvalidURLError, match=r"wtio\[idna\].*xn--"):
        wtio.connect(f"https://{text}/")


@pytest.mark.usefixtures("without_extra")
@pytest.mark.parametrize(("text", "host"), SAME)
def test_without_the_extra_ascii_is_read_the_same(text: str, host: str) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize(("text", "host"), [("straße.example", "xn--strae-oqa.example"), ("１２７.1", "127.0.0.1")])
def test_session_goes_to_the_host_that_browsers_go_to(text: str, host: str) -> None:
    async def main() -> None:
        network = wtio.testing.Network()
        network.add_host("xn--strae-oqa.example", "127.0.0.1")
        network.add_host("strasse.example", "192.0.2.1")
        trust = wtio.ClientTLS(dangerously_trust_any_certificate=True)
        async with network.serve() as server, network.client(tls=trust) as client:
            connector = client.connect(f"https://{text}/")

            async def accept() -> None:
                request = await anext(server)
                assert request.authority == host
                await request.accept()

            async with asyncio.TaskGroup() as group:
                group.create_task(accept())
                session = await connector
            assert session.authority == host

    wtio.testing.run(main())
