"""What a user's browser does, in a real Chromium: the page of `python -m wtio serve`, and the README's script."""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
from playwright.async_api import async_playwright

from .programs import ROOT
from .screens import keep_picture

if TYPE_CHECKING:
    from .programs import Start

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


@pytest.fixture
def chromium() -> str:
    if not Path(CHROMIUM).exists():
        pytest.fail(f"`{CHROMIUM}` is missing; install it with `apt-get install chromium chromium-driver`")
    return CHROMIUM


async def test_the_buttons_of_the_page(start: Start, chromium: str) -> None:
    problems: list[str] = []
    async with start("-m", "wtio", "serve", "--port", "0", "--page-port", "0") as server, async_playwright() as tool:
        url = (await server.until("page")).split()[-1]
        browser = await tool.chromium.launch(executable_path=chromium, args=list(FLAGS))
        page = await browser.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        await page.goto(url)

        await page.get_by_role("button", name="Connect").click()
        await page.get_by_text("Connected after").wait_for()
        await page.get_by_label("Message").fill("grüß dich")
        for way, name in (
            ("stream", "Send on a stream"),
            ("one-way stream", "Send on a one-way stream"),
            ("datagram", "Send a datagram"),
        ):
            await page.get_by_role("button", name=name).click()
            row = (
                page.get_by_role("row")
                .filter(has_text="received")
                .filter(has=page.get_by_role("cell", name=way, exact=True))
            )
            await row.wait_for()
            assert "grüß dich" in await row.inner_text()

        await page.get_by_role("button", name="Close").click()
        await page.get_by_text("Closed with code 0: closed from the page.").first.wait_for()
        await server.until("closed by peer, code 0: closed from the page")

        # A second session from the same page, which the server ends; with which code is a matter of tests/browser.
        await page.get_by_role("button", name="Connect").click()
        await page.get_by_text("Connected after").wait_for()
        server.process.terminate()
        await (
            page.get_by_role("status").filter(has_text=re.compile(r"^(Closed with code 0|Connection lost)")).wait_for()
        )
        await page.get_by_role("button", name="Connect").click(trial=True)
        await browser.close()
    assert problems == []


async def test_no_mouse_is_needed(start: Start, chromium: str) -> None:
    async with start("-m", "wtio", "serve", "--port", "0", "--page-port", "0") as server, async_playwright() as tool:
        url = (await server.until("page")).split()[-1]
        browser = await tool.chromium.launch(executable_path=chromium, args=list(FLAGS))
        page = await browser.new_page()
        page.set_default_timeout(20_000)
        await page.goto(url)
        press = page.keyboard.press
        await press("Tab")  # the server's URL comes first
        await press("Enter")
        await page.get_by_text("Connected after").wait_for()
        await page.keyboard.type(" by keyboard")  # the message has the focus now
        await press("Enter")
        await page.get_by_role("row").filter(has_text="received").filter(has_text="by keyboard").wait_for()
        for _ in range(3):
            await press("Tab")
        await press("Space")
        await page.get_by_role("cell", name="datagram", exact=True).first.wait_for()
        reached = set()
        for _ in range(20):
            await press("Tab")
            reached.add(await page.evaluate("document.activeElement.textContent || document.activeElement.id"))
        assert {"Measure with datagrams", "Fill a stream for 5 s", "Server in Python", "Copy"} <= reached
        # The button that measures says how it is stopped, and keeps the focus. It is not "pressed" as well: a screen
        # reader would say the opposite.
        width = await page.locator("#measure").evaluate("each => each.offsetWidth")
        await page.locator("#measure").focus()
        for key, name in (("Space", "Stop measuring"), ("Enter", "Measure with datagrams")):
            await press(key)
            focused = page.get_by_role("button", name=name, exact=True).and_(page.locator(":focus"))
            await focused.wait_for()
            assert await focused.get_attribute("aria-pressed") is None
            assert await focused.evaluate("each => each.offsetWidth") == width, "it moves under the pointer"
        await browser.close()


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [
        ("serve-page", 1100, "light"),
        ("serve-page-dark", 1100, "dark"),
        ("serve-page-narrow", 360, "light"),
        ("serve-page-narrow-dark", 360, "dark"),
    ],
)
async def test_the_page_fits_and_follows_the_system(
    start: Start, chromium: str, tmp_path: Path, name: str, width: int, scheme: Literal["light", "dark"]
) -> None:
    async with start("-m", "wtio", "serve", "--port", "0", "--page-port", "0") as server, async_playwright() as tool:
        url = (await server.until("page")).split()[-1]
        browser = await tool.chromium.launch(executable_path=chromium, args=list(FLAGS))
        page = await browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
        page.set_default_timeout(20_000)
        await page.goto(url)
        if scheme == "dark":
            # What goes wrong: a wrong hash, and then no connection.
            await page.get_by_label("Server").fill("127.0.0.1:9/")
            await page.get_by_label("SHA-256 of certificates to trust").fill("AB:CD:EF")
            await page.keyboard.press("Enter")
            await page.get_by_text("A SHA-256 has 64 hexadecimal digits; here are 6.").wait_for()
            await page.get_by_text("https:// was added.").wait_for()
            await page.screenshot(path=tmp_path / f"{name}-wrong.png", full_page=True)
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
            await page.get_by_label("SHA-256 of certificates to trust").fill("ab" * 32)
            await page.keyboard.press("Enter")
            await page.get_by_text("usually one of three").wait_for()
        else:
            await page.get_by_role("button", name="Connect").click()
            await page.get_by_text("Connected after").wait_for()
            await page.get_by_role("button", name="Send a datagram").click()
            await page.get_by_role("button", name="Measure with datagrams").click()
            await page.wait_for_function(
                "document.querySelector('polyline').getAttribute('points')?.split(' ').length > 8"
            )
        await page.screenshot(path=tmp_path / f"{name}.png", full_page=True)
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", ground))) < 200) == (scheme == "dark")
        if name == "serve-page":
            # The one that the documentation shows: without the code at the end, because its pictures have to be small.
            await page.set_viewport_size({"width": width, "height": 2000})
            code = await page.get_by_role("heading", name="The same in your own code").bounding_box()
            assert code is not None
            await keep_picture(page, name, width=width, height=int(code["y"]) - 20)
        await browser.close()


async def test_a_page_reaches_the_server_of_the_readme_by_copying(start: Start, chromium: str, tmp_path: Path) -> None:
    # As the README says: its server, any page from localhost, and the script with what the server printed.
    readme = (ROOT / "README.md").read_text()
    server_code = re.findall(r"^```python\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)[0]
    [script] = re.findall(r"^```javascript\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    (tmp_path / "server.py").write_text(server_code.replace("4433", port))
    async with (
        start(tmp_path / "server.py") as server,
        start("-m", "http.server", "0", "--directory", tmp_path) as files,
        async_playwright() as tool,
    ):
        options = await server.until("serverCertificateHashes")
        files_port = re.search(r"port (\d+)", await files.until("Serving HTTP"))
        assert files_port is not None
        # "The part in braces stands for the line that the server printed."
        [replaced] = re.findall(r"\{ serverCertificateHashes.*\}", script)
        assert script.count(replaced) == 1
        script = script.replace("4433", port).replace(replaced, options)
        browser = await tool.chromium.launch(executable_path=chromium, args=list(FLAGS))
        page = await browser.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        await page.goto(f"http://localhost:{files_port[1]}/")
        async with asyncio.timeout(30):
            await page.evaluate(f"async () => {{{script}}}")
        await browser.close()
    assert "hello" in said


async def test_the_script_of_the_readme(start: Start, chromium: str) -> None:
    # And the script that the page offers for copying.
    [script] = re.findall(r"^```javascript\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    async with start("-m", "wtio", "serve", "--port", "0", "--page-port", "0") as server, async_playwright() as tool:
        url = (await server.until("echo server")).split()[-1]
        page_url = (await server.until("page")).split()[-1]
        async with start("-m", "wtio", "cert", "--only", "javascript") as cert:
            await cert.finish()
        script = script.replace("https://127.0.0.1:4433/", url)
        script = script.replace("{ serverCertificateHashes: [/* … */] }", cert.output.strip())
        browser = await tool.chromium.launch(executable_path=chromium, args=list(FLAGS))
        page = await browser.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        await page.goto(page_url)
        offered = await page.evaluate("document.getElementById('snippet').textContent")
        for code in (script, offered):
            async with asyncio.timeout(20):
                await page.evaluate(f"async () => {{{code}}}")
        await browser.close()
    assert said == ["hello", "hello"]
