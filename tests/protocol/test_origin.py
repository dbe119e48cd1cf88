"""Which pages may connect (requirements 18 and 19)."""

import logging

import pytest

import wtio
from wtio import testing
from wtio.protocol.origin import check_origin, is_own_origin
from wtio.testing import Network

from .raw import raw_client, settle


@pytest.mark.parametrize(
    ("origin", "authority"),
    [
        ("https://example.org", "example.org"),
        ("https://example.org", "example.org:443"),
        ("https://example.org:443", "EXAMPLE.org"),
        ("https://example.org:4433", "example.org:4433"),
        ("https://[2001:db8::1]:4433", "[2001:db8::1]:4433"),
        ("http://localhost:8000", "localhost:4433"),
        ("http://localhost:8000", "127.0.0.1:4433"),
        ("http://127.0.0.1", "[::1]:4433"),
        ("http://app.localhost", "localhost"),
    ],
)
def test_r19_page_of_the_server_itself_is_its_own(origin: str, authority: str) -> None:
    assert is_own_origin(origin, authority)


@pytest.mark.parametrize(
    ("origin", "authority"),
    [
        ("http://example.org", "example.org"),
        ("https://example.org:4433", "example.org"),
        ("https://example.org", "example.org:4433"),
        ("https://www.example.org", "example.org"),
        ("https://example.org.evil.example", "example.org"),
        ("https://example.org", "example.org.evil.example"),
        ("https://evil.example", "localhost:4433"),
        ("http://localhost", "example.org"),
        ("http://localhost.evil.example", "localhost"),
        ("http://128.0.0.1", "127.0.0.1"),
        ("null", "example.org"),
        ("", "example.org"),
        ("https://example.org/", "example.org"),
        ("https://user@example.org", "example.org"),
        ("https://example.org, https://evil.example", "example.org"),
        ("file://", "localhost"),
    ],
)
def test_r19_any_other_page_is_foreign(origin: str, authority: str) -> None:
    assert not is_own_origin(origin, authority)


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("https://Example.org", "https://example.org"),
        ("https://example.org:443", "https://example.org"),
        ("http://a:80", "http://a"),
        ("http://a:81", "http://a:81"),
        ("https://[::1]:4433", "https://[::1]:4433"),
        ("null", "null"),
        ("ftp://a:21", "ftp://a"),
        ("https://a:0443", "https://a"),
        ("https://[0:0:0:0:0:0:0:1]", "https://[::1]"),
        ("https://127.1", "https://127.0.0.1"),
        ("https://%65xample.org", "https://example.org"),
        ("https://straße.example", "https://xn--strae-oqa.example"),
        ("https://xn--strae-oqa.example", "https://xn--strae-oqa.example"),
        ("https://STRASSE.example.", "https://strasse.example."),
    ],
)
def test_allowed_origin_is_brought_into_the_form_of_browsers(given: str, written: str) -> None:
    assert check_origin(given) == written


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "example.org",
        "https://",
        "https://a/",
        "https://a/b",
        "https://a b",
        "//a",
        "*a",
        "https://*.example.org",
        "https://*",
        "chrome-extension://*",
        "https://a:*",
        "https://a:65536",
        "https://a:",
        "https://a:b",
        "https://user@a",
        "https://a?b",
        "https://a#b",
        "https://a..b",
        "https://1.2.3.256",
        "https://[::g]",
        "https://a%2Fb",
        "app://ä",
        "file://",
        "file:///home/page.html",
        "data:text/html,x",
        "blob:https://a/1",
        "about:blank",
        "ws://a",
        "wss://a:443",
        " https://a",
        "https://a, https://b",
    ],
)
def test_origin_that_no_browser_would_send_is_refused_at_once(wrong: str) -> None:
    with pytest.raises(ValueError, match="scheme://host"):
        Network().serve(origins=[wrong])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("https://*.example.org", "no patterns.*SessionRequest.origin"),
        ("file:///home/page.html", "write 'null'"),
        ("wss://a:4433", "'https://a:4433'"),
        ("ws://a", "'http://a'"),
        ("data:text/html,x", "`null`"),
        ("https://a:65536", "65535"),
        ("app://ä", "as they do"),
    ],
)
def test_refused_origin_is_answered_by_what_to_write(wrong: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_origin(wrong)


# What pages report: schemes that URLs know, and those of browsers' extensions and of shells around a browser.
PAGES = {
    **{
        f"{scheme}://{host}{port}": f"{scheme}://{host}"
        for scheme, port in (("https", ":443"), ("http", ":80"), ("ftp", ":21"))
        for host in ("example.org", "127.0.0.1", "[2001:db8::1]")
    },
    "https://example.org:8443": "https://example.org:8443",
    "http://example.org:443": "http://example.org:443",
    "null": "null",
    "NULL": "null",
    **{
        origin: origin
        for origin in (
            "chrome-extension://mfhbebgoclkghebffdldpobeajmbecfk",
            "moz-extension://7a2b0e1c-0000-4000-8000-1234567890ab",
            "safari-web-extension://7A2B0E1C-0000-4000-8000-1234567890AB",
            "extension://mfhbebgoclkghebffdldpobeajmbecfk",
            "app://obsidian.md",
            "app://-",
            "app://.",
            "tauri://localhost",
            "https://tauri.localhost",
            "http://tauri.localhost",
            "capacitor://localhost",
            "ionic://localhost",
            "wails://wails",
            "vscode-file://vscode-app",
            "vscode-webview://0kfgf6tvbcbvkdpqb9k1hjsmgkjkqsma",
            "chrome://newtab",
            "devtools://devtools",
            "resource://pdf.js",
            "isolated-app://aerugqztij5biqquuk3mfwpsaibuegaqcitgfchwuosuofdjabzqaaic",
            "web+app://host:5",
            "custom.scheme://my_host",
        )
    },
}


@pytest.mark.parametrize("allowed", PAGES)
def test_every_accepted_origin_lets_its_own_page_in(allowed: str) -> None:
    assert answer_to(PAGES[allowed], origins=[allowed]) == "200"
    # The raw client asks for https://example.org.
    is_own = PAGES[allowed] == "https://example.org"
    assert answer_to(PAGES[allowed], origins=["https://other.example"]) == ("200" if is_own else "403")


@pytest.mark.parametrize("page", ["null", "file://"])
def test_pages_from_files_are_pages_without_an_origin(page: str) -> None:
    assert answer_to(page, origins=["null"]) == "200"
    assert answer_to(page, origins=["https://a"]) == "403"


def answer_to(page: str, *, origins: list[str]) -> str:
    """The status that a page of this origin gets."""

    async def main() -> str:
        network = Network()
        async with network.serve(origins=origins) as server, raw_client(network) as peer:
            stream = peer.request(("origin", page))
            await settle()
            if server._service._requests:
                await (await anext(server)).accept()
                await settle()
            return stream.fields[":status"]

    return testing.run(main())


def test_origins_are_a_collection_or_the_star() -> None:
    with pytest.raises(TypeError, match="collections"):
        Network().serve(origins="https://example.org")


@pytest.mark.parametrize(
    ("origins", "origin", "status"),
    [
        ((), None, "200"),
        ((), "https://example.org", "200"),  # the host that the raw client asks for
        ((), "https://evil.example", "403"),
        ((), "null", "403"),
        (("https://good.example:443",), "https://good.example", "200"),
        (("https://good.example",), "https://example.org", "200"),
        (("https://good.example",), "https://evil.example", "403"),
        (("null",), "null", "200"),
        ("*", "https://evil.example", "200"),
        (("*",), "null", "200"),
    ],
)
def test_r18_r19_server_lets_in_its_own_pages_and_those_that_are_named(
    origins: tuple[str, ...] | str, origin: str | None, status: str
) -> None:
    async def handler(session: wtio.WebTransportSession) -> None:
        await session.wait_closed()

    async def main() -> None:
        network = Network()
        async with network.serve(handler, origins=origins), raw_client(network) as peer:
            stream = peer.request(*([("origin", origin)] if origin else []))
            await settle()
            assert stream.fields[":status"] == status

    testing.run(main())


def test_first_refusal_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(), raw_client(network) as peer:
            for _ in range(3):
                peer.request(("origin", "https://evil.example"))
            await settle()

    with caplog.at_level(logging.INFO, logger="wtio.server"):
        testing.run(main())
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "https://evil.example" in record.getMessage()
    assert "origins" in record.getMessage()
