"""GraphiQL in a real browser, which knows no name but this machine's: all that the page needs must come from here."""

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urljoin

import httpx
import pytest
from playwright.async_api import TimeoutError as TooLate
from playwright.async_api import async_playwright, expect
from starlette.applications import Starlette

from gateway.contracts import example_operations
from gateway.graphql import playground
from gateway.graphql.playground import Playground
from gateway.sandbox.seed import CUSTOMER_SESSION, ODD_SESSION

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, ConsoleMessage, Page, Request, Route

    from gateway.sandbox import Sandbox
    from stage import Dev

_BUILT = Path(playground.__file__).parent / "static" / "playground" / "index.html"
_PATIENCE = 20_000  # ms: a busy machine takes its time over three megabytes of editor
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


def missing(what: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    executable = shutil.which("chromium")
    if executable is None:
        missing("chromium is not installed")
    if not _BUILT.is_file():
        missing("the playground is not built: make playground")
    expect.set_options(timeout=_PATIENCE)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=_FLAGS)
        yield browser
        await browser.close()


@asynccontextmanager
async def visit(browser: Browser, url: str, *, width: int = 1400, failing_loads: bool = False) -> AsyncIterator[Page]:
    """Open the page in a new profile. Fails when a request left the origin, or when the browser had to complain.

    A violation of the Content-Security-Policy is such a complaint; a request that the test makes fail is none.
    """
    origin = url.removesuffix("/graphql")
    strays: list[str] = []
    complaints: list[str] = []

    def on_request(request: Request) -> None:
        if not request.url.startswith((f"{origin}/", "data:")):
            strays.append(request.url)

    def on_console(message: ConsoleMessage) -> None:
        expected = failing_loads and message.text.startswith("Failed to load resource")
        if message.type in {"error", "warning"} and not expected:
            complaints.append(message.text)

    context = await browser.new_context(viewport={"width": width, "height": 850})
    context.set_default_timeout(_PATIENCE)
    context.on("request", on_request)
    context.on("console", on_console)
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    page = await context.new_page()
    await page.goto(url)
    await expect(page.get_by_role("region", name="Operation Editor")).to_contain_text("tenant")
    await expect(page.get_by_role("region", name="Result Window")).to_be_attached()
    yield page
    await context.close()
    assert strays == []
    assert complaints == []


async def open_tab(page: Page, title: str) -> None:
    await page.get_by_role("tab", name=title, exact=True).click()
    await noticed(page, f" {title}(")


async def noticed(page: Page, text: str, patience: float = _PATIENCE) -> None:
    """Wait until GraphiQL has noticed what is in its editor: until then it would send the previous operation's name."""
    await page.wait_for_function(
        "text => Object.entries(localStorage).some("
        "([key, value]) => /:(query|variables)$/.test(key) && value.includes(text))",
        arg=text,
        timeout=patience,
    )


async def write(page: Page, text: str, editor: str = "Operation Editor") -> None:
    """Write in place of what is in the editor; again if it was not ready to be written to, as while it still loads."""
    for patience in (_PATIENCE / 4, _PATIENCE / 2, _PATIENCE):
        await page.get_by_role("region", name=editor).locator(".view-lines").first.click()
        await page.keyboard.press("Control+A")
        await page.keyboard.press("Delete")
        await page.keyboard.insert_text(text)
        try:
            await noticed(page, text, patience)
        except TooLate:
            if patience == _PATIENCE:
                raise
        else:
            return


async def fits(page: Page) -> None:
    """Wait until the page is no larger than its window, which its editors may take a moment for."""
    await page.wait_for_function(
        "() => { const { scrollWidth, scrollHeight, clientWidth, clientHeight } = document.documentElement;"
        " return scrollWidth <= clientWidth && scrollHeight <= clientHeight; }"
    )


async def execute(page: Page) -> None:
    await page.get_by_role("button", name="Execute query").click()


async def test_opens_with_the_examples_as_tabs_and_finds_them_again(dev: Dev, browser: Browser) -> None:
    documents = "\n".join(example_operations().values())
    names = re.findall(r"^(?:query|mutation) (\w+)", documents, re.MULTILINE)
    async with visit(browser, dev.graphql_url) as page:
        await expect(page).to_have_title("Session Gateway")
        await expect(page.get_by_role("tab")).to_have_text(names, use_inner_text=True)
        await expect(page.get_by_role("region", name="Headers")).to_contain_text('"saas-token"')
        await expect(page.get_by_role("main").get_by_role("heading", level=1)).to_have_text("Session Gateway")

        await open_tab(page, "AddSessionContextAttribute")
        await page.reload()
        await expect(page.get_by_role("tab", selected=True)).to_have_text(
            "AddSessionContextAttribute", use_inner_text=True
        )
        await expect(page.get_by_role("tab")).to_have_text(names, use_inner_text=True)
        await expect(page.get_by_role("region", name="Headers")).to_contain_text('"saas-token"')


async def test_runs_a_query(dev: Dev, upstream: Sandbox, browser: Browser) -> None:
    async with visit(browser, dev.graphql_url) as page:
        await execute(page)
        answer = page.get_by_role("region", name="Result Window")
        await expect(answer).to_contain_text(f'"sessionId": "{CUSTOMER_SESSION}"')
        await expect(answer).to_contain_text('"currency": "EUR"')


async def test_runs_a_mutation(dev: Dev, upstream: Sandbox, browser: Browser) -> None:
    async with visit(browser, dev.graphql_url) as page:
        await open_tab(page, "AddSessionContextAttribute")
        await execute(page)
        answer = page.get_by_role("region", name="Result Window")
        await expect(answer).to_contain_text('"__typename": "AddSessionContextAttributePayload"')
        await expect(answer).to_contain_text('"shoe size": 42')


async def test_runs_what_one_types_and_shows_numbers_as_they_are(dev: Dev, upstream: Sandbox, browser: Browser) -> None:
    async with visit(browser, dev.graphql_url) as page:
        await write(page, f'{{ sessionContext(tenant: "acme", sessionId: "{ODD_SESSION}") {{ context }} }}')
        await execute(page)
        await expect(page.get_by_role("region", name="Result Window")).to_contain_text('"big": 9007199254740993')


@pytest.mark.parametrize("comment", ["", "// a comment\n"])
async def test_sends_numbers_as_they_are_typed(dev: Dev, upstream: Sandbox, browser: Browser, comment: str) -> None:
    """Not beside a comment, which JSON does not know; then they are what JavaScript makes of them."""
    async with visit(browser, dev.graphql_url) as page:
        given = f'tenant: "acme", sessionId: "{CUSTOMER_SESSION}", name: "typed", value: $v'
        await write(page, f"mutation ($v: JSON) {{ addSessionContextAttribute(input: {{{given}}}) {{ __typename }} }}")
        await page.get_by_role("button", name="Variables").click()
        await write(page, comment + '{"v": [9007199254740993, 1.0, 12345678901234567890]}', "Variables")
        await execute(page)
        await expect(page.get_by_role("region", name="Result Window")).to_contain_text("AttributePayload")

    digits = (
        b'"typed":[9007199254740992,1,12345678901234567000]'
        if comment
        else b'"typed":[9007199254740993,1.0,12345678901234567890]'
    )
    assert digits in (upstream.store.get("acme", CUSTOMER_SESSION) or b"")


async def test_a_header_that_is_filled_in_takes_the_place_of_the_pages_own(
    dev: Dev, upstream: Sandbox, browser: Browser
) -> None:
    """However its name is written: many a developer adds this one out of habit."""
    async with visit(browser, dev.graphql_url) as page:
        headers = page.get_by_role("region", name="Headers")
        await expect(headers).to_contain_text('"saas-token"')
        await headers.locator(".view-lines").last.click()  # that of the variables is hidden
        await page.keyboard.press("Control+A")
        await page.keyboard.press("Delete")
        await page.keyboard.insert_text('{"x-api-key": "dev-key", "Content-Type": "application/json"}')
        await expect(headers).to_contain_text('"Content-Type"')
        await execute(page)
        await expect(page.get_by_role("region", name="Result Window")).to_contain_text('"currency": "EUR"')


@pytest.mark.parametrize("way", ["no answer", "a proxy's page"])
async def test_says_in_words_when_the_answer_is_none_of_the_gateways(dev: Dev, browser: Browser, way: str) -> None:
    async def fail(route: Route) -> None:
        if way == "no answer":
            await route.abort("connectionrefused")
        else:
            await route.fulfill(status=502, content_type="text/html", body="<h1>Bad Gateway</h1>")

    async with visit(browser, dev.graphql_url, failing_loads=True) as page:
        await page.route("**/graphql", fail)
        await execute(page)
        answer = page.get_by_role("region", name="Result Window")
        if way == "no answer":
            await expect(answer).to_contain_text("the gateway did not answer: Failed to fetch")
        else:
            await expect(answer).to_contain_text("the answer is not JSON (HTTP status 502)")
            await expect(answer).to_contain_text("<h1>Bad")
        await expect(answer).not_to_contain_text("stack")


async def test_a_phone_has_room_for_the_answer(dev: Dev, upstream: Sandbox, browser: Browser) -> None:
    async with visit(browser, dev.graphql_url, width=375) as page:
        await execute(page)
        answer = page.get_by_role("region", name="Result Window")
        await expect(answer).to_contain_text('"currency": "EUR"')
        box = await answer.bounding_box()
        assert box is not None
        assert box["width"] > 250
        assert box["height"] > 250
        await fits(page)

        await page.get_by_role("button", name="Show Documentation Explorer").click()
        await expect(page.get_by_text("Root Types")).to_be_visible()
        await fits(page)


async def test_names_in_the_documentation_can_be_read(dev: Dev, browser: Browser) -> None:
    async with visit(browser, dev.graphql_url) as page:
        await page.get_by_role("button", name="Show Documentation Explorer").click()
        names = page.locator(".graphiql-doc-explorer-content").get_by_text(re.compile("^(query|Query|SessionContext)$"))
        await expect(names).to_have_count(3)
        colours = await names.evaluate_all("all => all.map((each) => getComputedStyle(each).color)")

    assert min(map(contrast_with_white, colours)) >= 4.5


def contrast_with_white(colour: str) -> float:
    """By WCAG 2.2, 1.4.3."""
    parts = [int(each) / 255 for each in re.findall(r"\d+", colour)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]
    return 1.05 / (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)


async def test_marks_what_the_schema_does_not_know(dev: Dev, browser: Browser) -> None:
    async with visit(browser, dev.graphql_url) as page:
        await write(page, "{ nonsense }")
        await expect(page.locator(".squiggly-error")).to_be_visible()  # found by a web worker


def test_the_configuration_cannot_end_its_element(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text('<script type="application/json" id="config">{{config}}</script>')
    operations = ("{ a } # </script><script>alert(1)</script>", "{ b } # <!-- <script> & \u2028\u2029 ä")
    headers = {"x-api-key": "</SCRIPT>"}

    page = bytes(Playground(operations, headers, tmp_path).page().body).decode()

    assert page.lower().count("script>") == 1
    config = page.removeprefix('<script type="application/json" id="config">').removesuffix("</script>")
    assert not set(config) & set("<>&\u2028\u2029")
    assert json.loads(config) == {"operations": list(operations), "headers": headers}


async def test_says_how_to_get_it_where_it_is_not_built(tmp_path: Path) -> None:
    playground = Playground((), {}, tmp_path / "nothing")
    transport = httpx.ASGITransport(Starlette(routes=playground.routes()))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        assert (await client.get("/graphql/assets/main.js")).status_code == 404

    assert b"make playground" in playground.page().body


async def test_files_are_kept_for_good(dev: Dev, browser: Browser) -> None:
    async with httpx.AsyncClient() as client:
        page = (await client.get(dev.graphql_url, headers={"accept": "text/html"})).text
        sources = re.findall(r'(?:src|href)="(/graphql/assets/[^"]+)"', page)
        answers = [await client.get(urljoin(dev.graphql_url, each)) for each in sources]

    assert len(answers) > 1
    for each in answers:
        assert each.status_code == 200
        assert each.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert each.headers["x-content-type-options"] == "nosniff"
