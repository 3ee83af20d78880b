"""Two models side by side in a browser: each side is what that model's own trace says."""

import math
from pathlib import Path
from typing import Any

import httpx
import pytest
from browsing.served import Server, Watched
from letters import SMALL
from playwright.sync_api import Browser, Page, Route, expect

from antiphon.config import load_config
from antiphon.data.pairs import Pair
from antiphon.training.train import train

TEXT = "The king never gave the small dogs to the girl."


def traced(server: Server, model: str) -> Any:
    body = {"text": TEXT, "model": model, "beam_size": 1, "n_best": 1}
    return httpx.post(f"{server.address}/v1/trace", json=body, timeout=60).json()


def show(watched: Watched, left: str, right: str) -> Page:
    page = watched.open(f"#compare?text={TEXT}&left={left}&right={right}")
    page.locator(".compare-output").nth(1).wait_for()
    return page


@pytest.mark.parametrize("pair", [("blind-en-fr", "recurrent-en-fr"), ("recurrent-en-fr", "attentive-en-fr")])
def test_each_side_is_the_trace_of_its_model(watched: Watched, server: Server, pair: tuple[str, str]) -> None:
    page = show(watched, *pair)
    sides = page.locator(".compare-side")
    expect(sides).to_have_count(2)
    for side, model in zip(sides.all(), pair, strict=True):
        trace = traced(server, model)
        path = trace["path"]
        expect(side.locator(".compare-output")).to_have_text(trace["outputs"][0]["text"])
        chances = side.locator(".compare-steps [data-probability]").evaluate_all(
            "all => all.map(one => Number(one.dataset.probability))"
        )
        assert chances == [step["probability"] for step in path]
        facts = dict(
            side.locator("[data-fact]").evaluate_all(
                "all => all.map(one => [one.dataset.fact, Number(one.dataset.value)])"
            )
        )
        assert facts["score"] == pytest.approx(trace["outputs"][0]["score"])
        assert facts["perplexity"] == pytest.approx(math.exp(-trace["outputs"][0]["score"] / len(path)))
        weights = side.locator("td[data-weight]")
        if model == "blind-en-fr":
            expect(weights).to_have_count(0)
            expect(side.locator(".compare-none")).to_contain_text("vector")
        else:
            expect(weights).to_have_count(len(path) * len(trace["source"]["pieces"]))


def test_words_that_differ_are_marked_and_counted(watched: Watched, server: Server) -> None:
    page = show(watched, "blind-en-fr", "attentive-en-fr")
    texts = [traced(server, model)["outputs"][0]["text"] for model in ("blind-en-fr", "attentive-en-fr")]
    assert texts[0] != texts[1], "so small a model without attention says something else"
    expect(page.locator(".compare")).to_contain_text("differ")
    marked = page.locator(".compare-output mark")
    assert 0 < marked.count() < page.locator(".compare-output .compare-piece").count()


def test_tokens_that_are_words_stand_apart(browser: Browser, tmp_path: Path) -> None:
    words = [*SMALL, "tokenizer.target=words", "training.max_steps=60", "training.learning_rate=0.01"]
    for name, target in (("left", "K AE T"), ("right", "D AO G")):
        pairs = [Pair(f"ab {number:02d}", target) for number in range(40)]
        train(pairs, tmp_path / name, config=load_config("tiny", None, words))
    server = Server([str(tmp_path / "left"), str(tmp_path / "right")])
    context = browser.new_context()
    try:
        watched = Watched(context, server.address)
        page = watched.open("#compare?text=ab 01")
        expect(page.locator(".compare-output")).to_have_text(["K AE T", "D AO G"])
        expect(page.locator(".compare-told")).to_have_text("The outputs differ in 3 words.")
        page.goto(f"{server.address}/#explain?text=ab 01&width=1")
        page.locator('#search [data-step="3"]').first.focus()
        expect(page.locator(".search-said")).to_have_text("K AE T")
        assert not watched.faults
    finally:
        context.close()
        server.end()


def test_bytes_of_a_character_are_shown_together(watched: Watched) -> None:
    def answer(route: Route) -> None:
        trace = route.fetch().json()
        last, text = ("\\xa8", "cafè noir") if trace["model"] == "blind-en-fr" else ("\\xa9", "café noir")
        pieces = ["caf", "\\xc3", last, " noir", "EOS"]
        trace["path"] = [trace["path"][0] | {"piece": piece, "probability": 0.5} for piece in pieces]
        trace["outputs"][0]["text"] = text
        route.fulfill(json=trace)

    watched.page.route("**/v1/trace", answer)
    page = show(watched, "recurrent-en-fr", "blind-en-fr")
    expect(page.locator(".compare-output")).to_have_text(["café noir", "cafè noir"])
    expect(page.locator(".compare-told")).to_have_text("The outputs differ in 1 word.")
    expect(page.locator(".compare-output mark")).to_have_text(["caf", "é", "caf", "è"])
    expect(page.locator(".compare-output mark").nth(1)).to_have_attribute("data-probability", "0.25")


def test_another_model_and_another_text_are_compared_and_linked(watched: Watched, server: Server) -> None:
    page = show(watched, "blind-en-fr", "recurrent-en-fr")
    page.get_by_label("Model on the left", exact=True).select_option("attentive-en-fr")
    expected = traced(server, "attentive-en-fr")["outputs"][0]["text"]
    expect(page.locator(".compare-output").first).to_have_text(expected)
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    expect(page.get_by_label("Model on the left", exact=True)).to_have_value("attentive-en-fr")
    expect(page.get_by_label("Source text")).to_have_value(TEXT)
    page.get_by_label("Source text").fill("The dog slept.")
    expect(page.locator(".compare-output").first).not_to_have_text(
        traced(server, "attentive-en-fr")["outputs"][0]["text"]
    )


def test_without_a_text_nothing_is_waited_for_or_shown(watched: Watched) -> None:
    page = show(watched, "blind-en-fr", "recurrent-en-fr")
    page.route("**/v1/trace", lambda route: None, times=2)  # neither side is answered
    page.get_by_label("Source text").fill("The dog slept.")
    busy = page.locator(".compare-side[aria-busy]")
    expect(busy).to_have_count(2)
    page.get_by_label("Source text").fill("")
    expect(page.locator(".compare-told")).to_have_text("Give a text to decode.")
    expect(busy).to_have_count(0)
    expect(page.locator(".compare-output")).to_have_count(0)
