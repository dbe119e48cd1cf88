"""The page of `wtio serve`, in Chromium and Firefox: every button does what it says."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
from tests.support.ports import free_port

from wtio.cli._echo import echo
from wtio.cli._page import serve_page
from wtio.cli.serve import page as filled

from .pages import Page, Serving, run

if TYPE_CHECKING:
    from typing import Any

    import wtio

pytestmark = pytest.mark.asyncio(loop_scope="module")

# What a person does: press a button by what is written on it, and wait until something is seen.
PERSON = """
    const press = (name) => {
        const button = [...document.querySelectorAll("button")].find((each) => each.textContent === name);
        if (button.disabled) throw new Error(name + " cannot be pressed");
        button.click();
    };
    const type = (selector, value) => {
        const field = document.querySelector(selector);
        if (field.disabled) throw new Error(selector + " cannot be changed");
        field.value = value;
        for (const name of ["input", "change"]) field.dispatchEvent(new Event(name, { bubbles: true }));
    };
    const text = (selector) => document.querySelector(selector).innerText;
    const seen = async (what) => {
        for (;;) {
            const found = what();
            if (found) return found;
            await new Promise((resolve) => setTimeout(resolve, 20));
        }
    };
    const rows = () => [...document.querySelectorAll("#log tbody tr")].map(
        (row) => [...row.cells].map((cell) => cell.textContent));
    const row = (way, by) => seen(() => rows().find((each) => each[0] === way && each[1] === by));
"""


# What a browser's console would show as uncaught.
UNCAUGHT = """
    globalThis.uncaught = [];
    addEventListener("error", (event) => uncaught.push(event.message));
    addEventListener("unhandledrejection", (event) => uncaught.push(String(event.reason)));
"""


async def person(page: Page, script: str, argument: object = None) -> Any:
    return await run(page, f"async (argument) => {{ {PERSON} {script} }}", argument)


async def test_streams_datagrams_and_measurements(page: Page, serving: Serving) -> None:
    async with serving(echo) as target:
        url = f"https://127.0.0.1:{target.server.addresses[0][1]}/"
        async with serve_page(lambda: filled(url, [target.hash]), 0) as port:
            await page.goto(f"http://localhost:{port}/")
            answers = await person(
                page,
                """
                press("Connect");
                await seen(() => text("#state").startsWith("Connected after"));
                document.querySelector("#text").value = "grüß dich";
                for (const name of ["Send on a stream", "Send on a one-way stream", "Send a datagram"]) press(name);
                return [await row("received", "stream"), await row("received", "one-way stream"),
                        await row("received", "datagram")].map((each) => each[2]);
                """,
            )
            assert answers == ["grüß dich"] * 3
            figures = await person(
                page,
                """
                press("Measure with datagrams");
                const shown = () => [...document.querySelectorAll("output")].map((each) => each.textContent);
                await seen(() => shown().every((words) => words !== "–"));
                await seen(() => [...document.querySelectorAll("polyline")].every(
                    (line) => line.getAttribute("points").split(" ").length > 1));
                press("Stop measuring");
                press("Measure with datagrams");
                return shown();
                """,
            )
            assert figures[0].endswith(" ms")
            assert figures[1].count("/s") == 2
            assert figures[2].endswith(" %")
            words = await person(
                page,
                """
                press("Fill a stream for 5 s");
                const all = await seen(() => rows().find((each) => each[2].includes("there and back")));
                press("Close");
                await seen(() => text("#state") === "Closed with code 0: closed from the page.");
                return all[2];
                """,
            )
            # The end of the session has ended the measurement, too.
            measure = await person(
                page,
                """
                const button = document.querySelector("#measure");
                return [button.textContent, button.disabled, button.hasAttribute("aria-pressed")];
                """,
            )
            assert measure == ["Measure with datagrams", True, False]
            # What was measured last does not stay there as if it still were so.
            await person(
                page,
                'await seen(() => [...document.querySelectorAll("output")].every((each) => each.textContent === "–"));',
            )
            sent, _, rest = words.partition(" of ")
            assert rest.startswith(sent + ","), "not all came back"


async def test_no_connection_becomes_three_causes_and_the_command_that_tells_them_apart(page: Page) -> None:
    free = free_port()
    async with serve_page(
        lambda: filled(f"https://127.0.0.1:{free}/it's?x=1", ["A" * 43 + "="], "play/bin/python -m wtio"), 0
    ) as port:
        await page.goto(f"http://localhost:{port}/")
        state, causes, command, snippet = await person(
            page,
            """
            press("Connect");
            await seen(() => !document.querySelector("#causes").hidden);
            press("Client in Python");
            return [text("#state"), document.querySelectorAll("#causes li").length, text("#doctor"), text("#snippet")];
            """,
        )
    # Firefox goes on trying for longer than anybody waits.
    assert state.startswith(("No connection: ", "Still connecting: no answer for 5 s."))
    assert causes == 3
    assert command == (
        f"play/bin/python -m wtio doctor 'https://127.0.0.1:{free}/it'\\''s?x=1' --hash {'A' * 43}= "
        f"--origin http://localhost:{port}"
    )
    assert f'certificate_hashes=["{"A" * 43}="]' in snippet


DIGEST = bytes(range(0xE0, 0x100))
BASE64 = base64.b64encode(DIGEST).decode()
HEX = DIGEST.hex()


async def test_a_hash_is_taken_as_it_is_printed_anywhere(page: Page) -> None:
    expected = {
        "": [],
        BASE64: [BASE64],
        BASE64.rstrip("="): [BASE64],
        BASE64.translate(str.maketrans("+/", "-_")): [BASE64],
        HEX: [BASE64],
        HEX.upper(): [BASE64],
        DIGEST.hex(":").upper(): [BASE64],
        DIGEST.hex(" "): [BASE64],
        DIGEST.hex(" ", 4).upper(): [BASE64],
        f"  {HEX}\t{BASE64}, {DIGEST.hex(':')} {DIGEST.hex(' ')}  ": [BASE64] * 4,
        f"certificate   SHA-256 {HEX}": [BASE64],
        f"sha256 Fingerprint={DIGEST.hex(':').upper()}": [BASE64],
    }
    async with serve_page(lambda: filled("https://127.0.0.1:4433/", []), 0) as port:
        await page.goto(f"http://localhost:{port}/")
        found = await person(
            page,
            """
            press("Client in Python");
            return argument.map((typed) => {
                type("#hashes", typed);
                return [text("#hashes-words"), hashes(), text("#snippet")];
            });
            """,
            list(expected),
        )
    assert {typed: (words, hashes) for typed, (words, hashes, _) in zip(expected, found, strict=True)} == {
        typed: ("", hashes) for typed, hashes in expected.items()
    }
    for (_, hashes, snippet), typed in zip(found, expected, strict=True):
        assert (f'certificate_hashes=["{BASE64}"]' in snippet) == bool(hashes), typed


async def test_a_wrong_hash_is_named_beside_its_field_before_anything_is_sent(page: Page) -> None:
    either = "give 64 hexadecimal digits or 44 characters of base64."
    expected = {
        HEX[:-2]: "A SHA-256 has 64 hexadecimal digits; here are 62.",
        DIGEST.hex(":") + ":00": "A SHA-256 has 64 hexadecimal digits; here are 66.",
        f"{HEX[:-1]} {HEX}": "A SHA-256 has 64 hexadecimal digits; here are 63.",
        f"{HEX[:-1]} {BASE64}": "A SHA-256 has 64 hexadecimal digits; here are 63.",
        f"{BASE64} {DIGEST[:20].hex(' ')}": "A SHA-256 has 64 hexadecimal digits; here are 40.",
        HEX[:-1] + "O": "“O” is no hexadecimal digit.",
        DIGEST.hex(":").replace("e0", "eg"): "“g” is no hexadecimal digit.",
        BASE64[:-4]: f"“{BASE64[:12]}…” is no SHA-256: {either}",
        "hello!": f"“hello!” is no SHA-256: {either}",
        "<b>no</b>": f"“<b>no</b>” is no SHA-256: {either}",
    }
    async with serve_page(lambda: filled("https://127.0.0.1:9/", []), 0) as port:
        await page.goto(f"http://localhost:{port}/")
        found, rest = await person(
            page,
            """
            const field = document.querySelector("#hashes");
            const found = argument.wrong.map((typed) => {
                document.activeElement.blur();
                document.querySelector("#certificate").open = false;
                // Nothing has told the page of it yet, as if Connect were pressed with the Enter key.
                field.value = typed;
                press("Connect");
                return [text("#hashes-words"), field.getAttribute("aria-invalid"), document.activeElement.id,
                        document.querySelector("#certificate").open, text("#state"), session];
            });
            const isDescribed = field.getAttribute("aria-describedby").split(" ").includes("hashes-words");
            type("#hashes", argument.right);
            return [found, [isDescribed, text("#hashes-words"), field.hasAttribute("aria-invalid")]];
            """,
            {"wrong": list(expected), "right": HEX},
        )
    assert dict(zip(expected, found, strict=True)) == {
        typed: [words, "true", "hashes", True, "Not connected.", None] for typed, words in expected.items()
    }
    assert rest == [True, "", False], "what is right now is still called wrong"


async def test_a_url_becomes_what_was_meant_or_it_is_said_what_to_write(page: Page) -> None:
    example = "Write it as in https://127.0.0.1:4433/"
    added = "https:// was added."
    replaced = "https:// takes the place of {}://, which WebTransport does not have."
    meant = {
        "127.0.0.1:4433": ("https://127.0.0.1:4433", added),
        "localhost:4433/files?x=1": ("https://localhost:4433/files?x=1", added),
        " example.org ": ("https://example.org", added),
        "//example.org/": ("https://example.org/", added),
        "[::1]:4433": ("https://[::1]:4433", added),
        "http://example.org/": ("https://example.org/", replaced.format("http")),
        "HTTP://example.org/": ("https://example.org/", replaced.format("HTTP")),
        "wss://example.org/chat": ("https://example.org/chat", replaced.format("wss")),
        "https:/example.org": ("https://example.org", ""),
        "https://example.org/": ("https://example.org/", ""),
    }
    wrong = {
        "": f"The server’s URL is missing. {example}",
        "ftp://example.org": f"A server’s URL begins with https://, not ftp://. {example}",
        "an example": f"This is no URL. {example}",
        "https://localhost:abc/": f"This is no URL. {example}",
        "::1:4433": f"This is no URL. {example}",
        "http://localhost:PAGE/": "This is where the page comes from. Its server is at https://127.0.0.1:4433/",
        "127.0.0.1:PAGE": "This is where the page comes from. Its server is at https://127.0.0.1:4433/",
    }
    async with serve_page(lambda: filled("https://127.0.0.1:4433/", []), 0) as port:
        await page.goto(f"http://localhost:{port}/")
        corrected, refused = await person(
            page,
            """
            const field = document.querySelector("#url");
            const typed = (url) => {
                document.activeElement.blur();
                type("#url", url.replace("PAGE", location.port));
                return [field.value, text("#url-words"), field.getAttribute("aria-invalid")];
            };
            return [argument.meant.map(typed), argument.wrong.map((url) => {
                const [, words, isInvalid] = typed(url);
                press("Connect");
                return [words, isInvalid, document.activeElement.id, text("#state"), session];
            })];
            """,
            {"meant": list(meant), "wrong": list(wrong)},
        )
    assert dict(zip(meant, corrected, strict=True)) == {typed: [*shown, None] for typed, shown in meant.items()}
    assert dict(zip(wrong, refused, strict=True)) == {
        typed: [words, "true", "url", "Not connected.", None] for typed, words in wrong.items()
    }


async def test_a_url_without_a_scheme_connects(page: Page, serving: Serving) -> None:
    async with serving(echo) as target:
        where = f"127.0.0.1:{target.server.addresses[0][1]}/"
        async with serve_page(lambda: filled("https://127.0.0.1:4433/", []), 0) as port:
            await page.goto(f"http://localhost:{port}/")
            await person(
                page,
                """
                // As in a field in which Enter is pressed: nothing has told the page of a change yet.
                document.querySelector("#url").value = argument.where;
                type("#hashes", argument.hash);
                press("Connect");
                await seen(() => text("#state").startsWith("Connected after"));
                if (text("#url-words") !== "https:// was added.") throw new Error(text("#url-words"));
                if (document.querySelector("#url").value !== "https://" + argument.where) throw new Error("not shown");
                press("Close");
                """,
                {"where": where, "hash": base64.b64decode(target.hash).hex(":").upper()},
            )


async def test_the_certificate_is_unfolded_for_other_servers_and_when_there_is_no_connection(page: Page) -> None:
    free = free_port()
    own = f"https://127.0.0.1:{free}/"
    async with serve_page(lambda: filled(own, [BASE64]), 0) as port:
        trust = 'return [document.querySelector("#certificate").open, text("#certificate summary")];'
        await page.goto(f"http://localhost:{port}/")
        assert await person(page, trust) == [False, "Certificate: trusted by its hash"]
        assert await person(page, f'type("#url", "{own}path"); {trust}') == [False, "Certificate: trusted by its hash"]
        assert await person(page, f'type("#url", "https://example.org/"); {trust}') == [
            True,
            "Certificate: trusted by its hash",
        ]
        for hashes, words in (("", "judged by the browser"), (HEX[:-1], "a hash is wrong")):
            assert await person(page, f'type("#hashes", argument); {trust}', hashes) == [True, f"Certificate: {words}"]
        # And the server of this page, as it is when the page is loaded anew.
        await page.goto(f"http://localhost:{port}/?")
        opened = await person(
            page,
            f'press("Connect"); await seen(() => !document.querySelector("#causes").hidden); {trust}',
        )
    assert opened == [True, "Certificate: trusted by its hash"]


async def test_the_plot_of_lost_datagrams_says_what_a_loss_is(page: Page) -> None:
    async with serve_page(lambda: filled("https://127.0.0.1:4433/", []), 0) as port:
        await page.goto(f"http://localhost:{port}/")
        words = await person(
            page,
            """
            const [plot] = [...document.querySelectorAll("figure")].filter((each) => each.innerText.includes("lost"));
            return text("#" + plot.querySelector("svg").getAttribute("aria-describedby"));
            """,
        )
    assert "does not come back within a second" in words
    assert "While a stream fills the path" in words


async def test_a_session_that_was_there_and_is_lost_is_called_lost(page: Page, serving: Serving) -> None:
    async with serving(echo) as target:
        url = f"https://127.0.0.1:{target.server.addresses[0][1]}/"
        async with serve_page(lambda: filled(url, [target.hash]), 0) as port:
            await page.goto(f"http://localhost:{port}/")
            await person(page, 'press("Connect"); await seen(() => text("#state").startsWith("Connected after"));')
            target.server.abort()
            state, hidden = await person(
                page,
                """
                await seen(() => !text("#state").startsWith("Connected after"));
                return [text("#state"), document.querySelector("#causes").hidden];
                """,
            )
    assert state.startswith(("Connection lost: ", "Closed with code 0"))
    assert hidden


async def test_the_keyboard_stays_where_it_was_while_a_stream_is_filled(page: Page, serving: Serving) -> None:
    async with serving(echo) as target:
        url = f"https://127.0.0.1:{target.server.addresses[0][1]}/"
        async with serve_page(lambda: filled(url, [target.hash]), 0) as port:
            await page.goto(f"http://localhost:{port}/")
            found = await person(
                page,
                """
                const button = document.querySelector("#fill");
                const filling = () => rows().filter((each) => each[2] === "as many bytes as go").length;
                press("Connect");
                await seen(() => text("#state").startsWith("Connected after"));
                button.focus();
                press("Fill a stream for 5 s");
                await seen(filling);
                press("Fill a stream for 5 s");
                const meanwhile = [document.activeElement.id, button.getAttribute("aria-disabled"), filling()];
                press("Close");
                await seen(() => !text("#state").startsWith("Connected after"));
                await seen(() => !button.hasAttribute("aria-disabled"));
                return meanwhile;
                """,
            )
    assert found == ["fill", "true", 1]


async def test_nothing_is_uncaught_when_a_server_ends_in_the_middle_of_everything(page: Page, serving: Serving) -> None:
    async def deaf(session: wtio.WebTransportSession) -> None:
        await session.wait_closed()

    async with serving(deaf) as target:
        url = f"https://127.0.0.1:{target.server.addresses[0][1]}/"
        async with serve_page(lambda: filled(url, [target.hash]), 0) as port:
            await page.goto(f"http://localhost:{port}/")
            await person(
                page,
                UNCAUGHT
                + """
                press("Connect");
                await seen(() => text("#state").startsWith("Connected after"));
                // More than a server takes that does not read.
                document.querySelector("#text").value = "x".repeat(8_000_000);
                press("Send on a stream");
                press("Send on a one-way stream");
                press("Measure with datagrams");
                press("Fill a stream for 5 s");
                await row("sent", "stream");
                await row("sent", "one-way stream");
                """,
            )
            target.server.abort()
            found = await person(
                page,
                """
                await seen(() => !text("#state").startsWith("Connected after"));
                // And now it is not there at all.
                press("Connect");
                await seen(() => !document.querySelector("#causes").hidden);
                return uncaught;
                """,
            )
    assert found == []


async def test_nothing_is_uncaught_when_a_server_closes_at_once(page: Page, serving: Serving) -> None:
    async def closing(session: wtio.WebTransportSession) -> None:
        await session.close(7, "not today")

    async with serving(closing) as target:
        url = f"https://127.0.0.1:{target.server.addresses[0][1]}/"
        async with serve_page(lambda: filled(url, [target.hash]), 0) as port:
            await page.goto(f"http://localhost:{port}/")
            state, found = await person(
                page,
                UNCAUGHT
                + """
                press("Connect");
                await seen(() => session === null && !document.querySelector("#connect").disabled);
                return [text("#state"), uncaught];
                """,
            )
    assert (state, found) == ("Closed with code 7: not today.", [])
