"""The page as a whole: what it weighs, that it needs nothing from elsewhere, that everybody can use it, and what it
does when its server is gone."""

import json
import os
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from browsing.served import Server, Watched
from playwright.sync_api import Browser, Page, Route, expect

from antiphon.serving.api.page import FOLDER, read_assets

VIEWS = ["use", "explain", "compare", "training", "server"]
TEXT = "The cat ate the mouse."
ADDRESS = {"use": f"#use?text={TEXT}", "explain": f"#explain?text={TEXT}&width=3", "compare": f"#compare?text={TEXT}"}
READY = {
    "use": "#output:not([aria-busy]) .use-word",
    "explain": "#search svg [data-node]",
    "compare": "[data-weight]",
    "training": ".watch-plot",
    "server": ".watch-plot",
}

WHOLE = 250_000  # bytes of all files of the page, as they are
FIRST = 80_000  # of those that the first view loads
PACKED = 32_000  # and as they are sent


def show(watched: Watched, view: str) -> Page:
    page = watched.open(ADDRESS.get(view, f"#{view}"))
    page.locator(READY[view]).first.wait_for()
    return page


def test_the_page_weighs_little() -> None:
    assets = read_assets()
    assert sum(len(asset.body) for asset in assets.values()) <= WHOLE


def test_the_first_view_loads_little(watched: Watched) -> None:
    sizes: dict[str, int] = {}
    watched.page.on(
        "response", lambda one: sizes.update({one.url: one.request.sizes()["responseBodySize"]}) if one.ok else None
    )
    show(watched, "use")
    files = {url.removeprefix(f"{watched.address}/"): size for url, size in sizes.items() if "/v1/" not in url}
    assets = read_assets()
    names = [name.removeprefix("page/").partition("#")[0] or "index.html" for name in files]
    assert sum(len(assets[name].body) for name in names) <= FIRST
    assert sum(files.values()) <= PACKED, files


def test_nothing_may_be_loaded_from_elsewhere(watched: Watched, server: Server) -> None:
    policy = httpx.get(server.address).headers["content-security-policy"]
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy
    for name, asset in read_assets().items():
        found = re.findall(rb"https?://[^\s\"'`)]+", asset.body)
        assert set(found) <= {b"http://www.w3.org/2000/svg"}, name
    page = show(watched, "use")
    blocked = page.evaluate("fetch('https://example.org/').then(() => 'reached', () => 'blocked')")
    assert blocked == "blocked"
    watched.faults.clear()  # the browser has told of it


def test_files_are_sent_anew_only_when_they_are_others(server: Server) -> None:
    with httpx.Client(base_url=server.address) as client:
        first = client.get("/page/main.js")
        assert first.headers["content-type"] == "text/javascript; charset=utf-8"
        assert first.headers["content-encoding"] == "gzip"
        assert first.content == (FOLDER / "main.js").read_bytes()
        assert client.get("/page/main.js", headers={"if-none-match": first.headers["etag"]}).status_code == 304
        plain = client.get("/page/main.js", headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert plain.content == first.content
        for path in ("/page/none.js", "/page/../app.py", "/page/%2e%2e/app.py", "/page/tsconfig.json"):
            assert client.get(path).status_code == 404


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_everybody_can_use_it(watched: Watched, view: str, scheme: Any, width: int) -> None:
    watched.page.set_viewport_size({"width": width, "height": 900})
    watched.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page = show(watched, view)
    if view == "use":
        page.get_by_text("This request as code").click()
        page.get_by_role("button", name="Other versions").click()
        page.locator(".use-version").first.wait_for()
    found = Axe().run(page).response["violations"]
    assert not found, json.dumps([[one["id"], [node["html"][:200] for node in one["nodes"][:3]]] for one in found])
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the window"


def test_the_list_of_other_words_can_be_used_by_everybody(watched: Watched) -> None:
    page = show(watched, "use")
    page.locator(".use-word").first.click()
    page.get_by_role("dialog").get_by_role("button").first.wait_for()
    assert not Axe().run(page).response["violations"]


def test_views_are_reached_by_keyboard_and_have_their_titles(watched: Watched) -> None:
    page = watched.open()
    page.keyboard.press("Tab")
    for view in VIEWS:
        link = page.get_by_role("navigation").get_by_role("link", name=view.title(), exact=True)
        link.focus()
        page.keyboard.press("Enter")
        expect(page).to_have_title(f"{view.title()} · Antiphon")
        expect(link).to_have_attribute("aria-current", "page")
        if view != "use":  # which begins without a text
            page.locator(READY[view]).first.wait_for()


def test_the_content_is_skipped_to_within_its_view(watched: Watched) -> None:
    page = show(watched, "training")
    address = page.url
    page.get_by_role("link", name="Skip to the content").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#view")).to_be_focused()
    assert page.url == address


def test_a_server_that_is_gone_and_back_loses_nothing(browser: Browser, runs: Path) -> None:
    server = Server([str(runs / "attentive-en-fr")])
    context = browser.new_context()
    try:
        watched = Watched(context, server.address)
        page = watched.open("#use")
        page.get_by_label("English").fill(TEXT)
        output = page.locator("#output:not([aria-busy])")
        expect(output.locator(".use-word").first).to_be_visible()
        before = output.inner_text()
        server.end()
        page.get_by_label("English").fill(f"{TEXT} {TEXT}")
        notice = page.get_by_role("alert").filter(has_text="cannot be reached")
        expect(notice).to_contain_text("What you wrote is kept")
        expect(page.locator(".use p.error")).to_have_text("")
        expect(page.get_by_label("English")).to_have_value(f"{TEXT} {TEXT}")
        server.begin()
        expect(notice).to_be_hidden(timeout=30_000)
        expect(output).to_have_text(f"{before} {before}")
    finally:
        context.close()
        server.end()


def test_a_stream_that_breaks_off_is_told_and_taken_up_again(watched: Watched) -> None:
    page = watched.open("#use")
    broken = 'data: {"delta": "Le"}\n\n'
    page.route("**/v1/generate", lambda route: route.fulfill(body=broken, content_type="text/event-stream"))
    page.get_by_label("English").fill(TEXT)
    expect(page.get_by_role("alert").filter(has_text="broke off").first).to_be_visible()
    page.unroute("**/v1/generate")
    expect(page.locator("#output:not([aria-busy]) .use-word").first).to_be_visible()


def test_a_server_that_its_proxy_does_not_reach_is_gone_too(watched: Watched) -> None:
    page = watched.open("#use")
    page.route("**/v1/generate", lambda route: route.fulfill(status=502, body="<h1>Bad Gateway</h1>"), times=1)
    page.get_by_label("English").fill(TEXT)
    expect(page.get_by_role("alert").filter(has_text="answered 502")).to_contain_text("What you wrote is kept")
    expect(page.locator("#output:not([aria-busy]) .use-word").first).to_be_visible()
    watched.faults = [fault for fault in watched.faults if "502" not in fault]


def test_what_the_server_refuses_is_shown_as_its_sentence(watched: Watched) -> None:
    page = watched.open("#use")
    page.get_by_label("English").fill("dog " * 600)
    expect(page.get_by_text("at most 256 tokens")).to_be_visible()
    watched.faults = [fault for fault in watched.faults if "422" not in fault]


def test_a_server_that_loads_is_waited_for(watched: Watched) -> None:
    told = iter(["loading", "loading"])

    def answer(route: Route) -> None:
        body = route.fetch().json()
        route.fulfill(json=body | {"status": next(told, body["status"])})

    watched.page.route("**/v1/server", answer)
    page = watched.page
    page.goto(watched.address)
    expect(page.get_by_text("The models are being loaded")).to_be_visible()
    expect(page.get_by_label("English")).to_be_visible()


def test_a_key_is_asked_for_where_one_is_needed(browser: Browser, runs: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text('[[keys]]\nname = "ann"\nkey = "a-key-of-sixteen-letters"\n', encoding="utf-8")
    keys.chmod(0o600)
    server = Server([str(runs / "attentive-en-fr"), "--api-keys", os.fspath(keys)])
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto(server.address)
        page.get_by_label("This server asks for an API key").fill("a-key-of-sixteen-letters")
        page.get_by_role("button", name="Use it").click()
        page.get_by_label("English").fill(TEXT)
        expect(page.locator("#output:not([aria-busy]) .use-word").first).to_be_visible()
    finally:
        context.close()
        server.end()


def test_a_key_can_be_typed_while_a_view_goes_on_asking(watched: Watched) -> None:
    page = show(watched, "server")
    refusal = {"error": {"message": "This server asks for a key."}}
    page.route("**/v1/load", lambda route: route.fulfill(status=401, json=refusal))
    field = page.get_by_label("This server asks for an API key")
    field.fill("a-key")
    for _ in range(2):
        with page.expect_response("**/v1/load"):
            pass
    expect(field).to_have_value("a-key")
    expect(field).to_be_focused()
    watched.faults = [fault for fault in watched.faults if "401" not in fault]
