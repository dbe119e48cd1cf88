"""The page of `wtio serve`, in Chromium and Firefox: every button does what it says."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

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
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        free = taken.getsockname()[1]
    async with serve_page(lambda: filled(f"https://127.0.0.1:{free}/it's?x=1", ["A" * 43 + "="]), 0) as port:
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
        f"wtio doctor 'https://127.0.0.1:{free}/it'\\''s?x=1' --hash {'A' * 43}= --origin http://localhost:{port}"
    )
    assert f'certificate_hashes=["{"A" * 43}="]' in snippet


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
