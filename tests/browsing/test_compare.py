"""Two models side by side in a browser: each side is what that model's own trace says."""

import math
from typing import Any

import httpx
import pytest
from browsing.served import Server, Watched
from playwright.sync_api import Page, expect

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
