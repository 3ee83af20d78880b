"""The explanation in a browser: what it shows is what the trace says, step by step, for every kind of model."""

from typing import Any

import httpx
import pytest
from browsing.served import Server, Watched
from playwright.sync_api import Locator, Page, Route, expect

TEXT = "The king never gave the small dogs to the girl."
TRUE = "Le roi n'a jamais donné les petits chiens à la fille."
MODELS = ["attentive-en-fr", "recurrent-en-fr", "blind-en-fr"]


def traced(server: Server, model: str = MODELS[0], **body: Any) -> Any:
    asked = {"text": TEXT, "model": model} | body
    answer = httpx.post(f"{server.address}/v1/trace", json=asked, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def show(watched: Watched, model: str = MODELS[0], more: str = "") -> Page:
    page = watched.open(f"#explain?model={model}&text={TEXT}{more}")
    page.locator("#search [data-node]").first.wait_for()
    return page


def numbers(found: Locator, name: str) -> list[float]:
    return [float(one.get_attribute(name) or "nan") for one in found.all()]


def shown(piece: str) -> str:
    return f"\u2423{piece[1:]}" if piece.startswith(" ") else piece


@pytest.mark.parametrize("model", MODELS)
def test_the_encoder_shows_each_piece_and_its_vector(watched: Watched, server: Server, model: str) -> None:
    page, source = show(watched, model), traced(server, model)["source"]
    chapter = page.locator("#encoder")
    chips = chapter.locator(".enc-chip")
    assert chips.all_text_contents() == list(map(shown, source["pieces"]))
    norms = source["norms"] + ([source["summary_norm"]] if source["summary"] else [])
    assert numbers(chapter.locator("[data-norm]"), "data-norm") == norms
    assert chapter.locator(".enc-heat canvas").first.evaluate("one => one.width") == len(source["vectors"][0])
    expect(chapter.locator(".enc-point")).to_have_count(len(source["pieces"]))


def test_the_heat_map_is_painted_with_the_vectors_own_signs(watched: Watched, server: Server) -> None:
    page, source = show(watched), traced(server)["source"]
    pixels = page.locator("#encoder .enc-heat canvas").first.evaluate(
        "one => Array.from(one.getContext('2d').getImageData(0, 0, one.width, 1).data)"
    )
    strongest = max(range(len(source["vectors"][0])), key=lambda index: abs(source["vectors"][0][index]))
    red, _, blue = pixels[4 * strongest : 4 * strongest + 3]
    assert (blue > red) == (source["vectors"][0][strongest] > 0), "teal is positive, amber negative"


def test_neighbours_are_the_nearest_by_angle(watched: Watched, server: Server) -> None:
    page, source = show(watched), traced(server)["source"]
    vectors, norms = source["vectors"], source["norms"]

    def cosine(a: int, b: int) -> float:
        return float(sum(x * y for x, y in zip(vectors[a], vectors[b], strict=True)) / norms[a] / norms[b])

    nearest = max((index for index in range(len(norms)) if index != 1), key=lambda index: cosine(1, index))
    page.locator("#encoder .enc-chip").nth(1).hover()
    card = page.locator("#encoder .card").filter(has=page.locator(".enc-map"))
    expect(card).to_contain_text(f"{shown(source['pieces'][nearest])} {cosine(1, nearest):+.2f}")


@pytest.mark.parametrize("model", ["recurrent-en-fr", "blind-en-fr"])
def test_a_recurrent_encoder_is_watched_as_it_reads(watched: Watched, server: Server, model: str) -> None:
    page, count = show(watched, model), len(traced(server, model)["source"]["pieces"])
    slider = page.get_by_label("Read up to")
    expect(slider).to_have_value(str(count))
    slider.fill("2")
    expect(page.locator("#encoder .enc-read")).to_contain_text(f"2 of {count}")
    colours = """all => all.map((one) => {
        const half = one.getContext('2d').getImageData(0, 0, one.width / 2, 1).data
        const pixels = Array.from({ length: half.length / 4 }, (_, at) => half.slice(4 * at, 4 * at + 4).join())
        return new Set(pixels).size
    })"""
    painted = page.locator("#encoder .enc-heat canvas").evaluate_all(colours)
    assert min(painted[:2]) > 1
    assert max(painted[2:count]) == 1, "what is not read yet is not painted"
    page.get_by_role("button", name="One piece on").click()
    expect(slider).to_have_value("3")


def test_without_attention_one_vector_carries_everything(watched: Watched, server: Server) -> None:
    page = show(watched, "blind-en-fr")
    expect(page.locator("#encoder")).to_contain_text("carry the whole text")
    expect(page.locator("#attention [data-weight]")).to_have_count(0)
    assert len(traced(server, "blind-en-fr")["source"]["summary"]) == 48


def test_the_decoder_goes_from_go_to_the_end_step_by_step(watched: Watched, server: Server) -> None:
    page, path = show(watched), traced(server)["path"]
    chapter = page.locator("#decoder")
    bars = chapter.locator(".decoder-bars [data-probability]")
    onward = chapter.get_by_role("button", name="Next")
    for number, step in enumerate(path):
        expect(chapter.get_by_role("slider")).to_have_value(str(number))
        picked = chapter.locator(f'[data-step="{number}"][data-probability="{step["probability"]}"]').first
        expect(picked).to_be_visible()
        told = {one["piece"]: one["probability"] for one in step["alternatives"]} | {step["piece"]: step["probability"]}
        for bar in bars.all():
            assert float(bar.get_attribute("data-probability") or "nan") == told[bar.get_attribute("data-piece") or ""]
        expect(chapter.locator(".decoder-fed")).to_contain_text(shown(step["input"]))
        if number + 1 < len(path):
            onward.click()
    assert path[0]["input"] == "GO"
    assert path[-1]["piece"] == "EOS"
    expect(onward).to_be_disabled()
    chapter.get_by_role("button", name="First").click()
    expect(chapter.locator(".decoder-fed")).to_contain_text("GO")


def test_the_decoder_plays_by_itself_to_the_end(watched: Watched, server: Server) -> None:
    page = show(watched)
    page.clock.install()
    page.locator("#decoder").get_by_role("button", name="Play").click()
    for _ in traced(server)["path"]:
        page.clock.run_for(1000)
    slider = page.locator("#decoder").get_by_role("slider")
    expect(slider).to_have_value(str(len(traced(server)["path"]) - 1))


def test_teacher_forcing_shows_where_the_model_would_have_strayed(watched: Watched, server: Server) -> None:
    page, target = show(watched), traced(server, target=TRUE)["target"]
    page.get_by_label("The true output").fill(TRUE)
    page.get_by_role("button", name="Score it").click()
    rows = page.locator("#decoder [data-loss]")
    expect(rows).to_have_count(len(target["tokens"]))
    assert numbers(rows, "data-loss") == [token["loss"] for token in target["tokens"]]
    strayed = [token["best_piece"] for token in target["tokens"] if token["best_piece"] != token["piece"]]
    assert strayed, "so small a model strays"
    for row, token in zip(rows.all(), target["tokens"], strict=True):
        if token["best_piece"] != token["piece"]:
            expect(row).to_contain_text(shown(token["best_piece"]))
    expect(page.locator("#decoder")).to_contain_text(f"{target['perplexity']:.3g}")


@pytest.mark.parametrize("model", ["attentive-en-fr", "recurrent-en-fr"])
def test_weights_read_from_the_heat_map_are_those_of_the_trace(watched: Watched, server: Server, model: str) -> None:
    page, path = show(watched, model), traced(server, model)["path"]
    cells = page.locator("#attention td[data-weight]")
    layers, heads = len(path[0]["attention"]), len(path[0]["attention"][0])
    for layer in range(layers):
        for head in range(heads):
            if layers > 1:
                page.locator("#attention").get_by_role("group", name="Layer").get_by_text(str(layer + 1)).click()
            if heads > 1:
                page.locator("#attention").get_by_role("group", name="Head").get_by_text(str(head + 1)).click()
            expected = [weight for step in path for weight in step["attention"][layer][head]]
            assert numbers(cells, "data-weight") == expected
    if heads > 1:
        page.locator("#attention").get_by_role("group", name="Head").get_by_text("mean").click()
        mean = [sum(column) / heads for step in path for column in zip(*step["attention"][-1], strict=True)]
        assert numbers(cells, "data-weight") == pytest.approx(mean, abs=1e-9)


def test_texts_and_heat_map_are_linked(watched: Watched) -> None:
    page = show(watched)
    page.locator('#attention td[data-step="2"][data-source="1"]').hover()
    expect(page.locator("#decoder").get_by_role("slider")).to_have_value("2")
    expect(page.locator('#attention tr[data-row="2"]')).to_have_class("att-row")


def test_the_tree_is_the_trace_s(watched: Watched, server: Server) -> None:
    page, trace = show(watched, more="&width=3"), traced(server, beam_size=3, n_best=1)
    page.locator("#search").get_by_text("All", exact=True).click()
    drawn = page.locator("#search svg [data-node]")
    expect(drawn).to_have_count(len(trace["nodes"]))
    nodes = {node["id"]: node for node in trace["nodes"]}
    found = drawn.evaluate_all("all => all.map(one => [one.dataset.node, one.dataset.score, one.dataset.fate])")
    for id, score, fate in found:
        assert (float(score), fate) == (nodes[int(id)]["score"], nodes[int(id)]["fate"])
    ended = page.locator("#search li[data-node], #search tr[data-node]")
    assert [int(one) for one in numbers(ended, "data-node")] == [one["node"] for one in trace["outputs"]]
    assert numbers(ended, "data-score") == [one["score"] for one in trace["outputs"]]


def test_bytes_of_a_character_are_told_together(watched: Watched) -> None:
    def answer(route: Route) -> None:
        trace = route.fetch().json()
        for step, piece in zip(trace["path"], [" caf", "\\xc3", "\\xa9"], strict=False):
            trace["nodes"][step["node"]]["piece"] = piece
        route.fulfill(json=trace)

    watched.page.route("**/v1/trace", answer)
    page = show(watched, more="&width=1")
    page.locator('#search [data-step="3"]').first.focus()
    expect(page.locator(".search-said")).to_have_text("café")


def test_the_beam_is_widened_by_dragging(watched: Watched, server: Server) -> None:
    page = show(watched)
    before = page.locator("#search svg [data-node]").count()
    page.get_by_label("Beam width").fill("5")
    fates = page.locator("#search svg [data-fate=finished]")
    expected = [node for node in traced(server, beam_size=5, n_best=1)["nodes"] if node["fate"] == "finished"]
    expect(fates).to_have_count(len(expected))
    assert page.locator("#search svg [data-node]").count() > before
    assert "width=5" in page.url


def test_nodes_are_reached_by_keyboard_and_tell_their_fate(watched: Watched) -> None:
    page = show(watched, more="&width=3")
    page.locator('#search svg [data-node="0"]').focus()
    page.keyboard.press("ArrowRight")
    focussed = page.locator("#search svg [data-node]:focus")
    expect(focussed).to_have_attribute("data-step", "1")
    label = focussed.get_attribute("aria-label") or ""
    assert "score" in label
    page.keyboard.press("ArrowLeft")
    expect(page.locator('#search svg [data-node="0"]')).to_be_focused()


def test_a_parts_of_the_journey_lead_to_their_chapters(watched: Watched) -> None:
    page = show(watched)
    page.locator(".journey").get_by_role("button", name="Decoder").first.click()
    expect(page.locator("#decoder-title")).to_be_in_viewport()


def test_a_link_restores_the_explanation(watched: Watched) -> None:
    page = show(watched, "recurrent-en-fr", "&width=4")
    page.get_by_label("The true output").fill(TRUE)
    page.get_by_role("button", name="Score it").click()
    expect(page.locator("#decoder [data-loss]").first).to_be_visible()
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    expect(page.locator("#decoder [data-loss]").first).to_be_visible()
    expect(page.get_by_label("Beam width")).to_have_value("4")
    expect(page.get_by_label("Model")).to_have_value("recurrent-en-fr")


def test_what_cannot_be_traced_is_told_in_a_sentence(watched: Watched) -> None:
    page = show(watched)
    page.get_by_label("Source text").fill("dog " * 600)
    expect(page.get_by_text("at most 256 tokens")).to_be_visible()
    expect(page.locator(".chapters")).to_be_hidden()  # they are of something else
    page.get_by_label("Source text").fill(TEXT)
    expect(page.locator(".chapters")).to_be_visible()
    watched.faults = [fault for fault in watched.faults if "422" not in fault]


def test_all_but_a_true_output_that_is_refused_is_shown(watched: Watched) -> None:
    page = show(watched)
    told = page.locator(".explain > .error")
    page.get_by_label("The true output").fill("chien " * 600)
    page.get_by_role("button", name="Score it").click()
    expect(told).to_contain_text("target: at most 256 tokens")
    assert "target=" not in page.url
    page.get_by_label("Model").select_option("recurrent-en-fr")
    expect(told).to_have_text("")
    page.goto("about:blank")
    page = show(watched, more=f"&target={'chien ' * 600}")  # which waits for the chapters
    expect(told).to_contain_text("target: at most 256 tokens")
    page.get_by_label("Source text").fill("The dog slept.")
    expect(told).to_have_text("")
    watched.faults = [fault for fault in watched.faults if "422" not in fault]


def test_without_a_text_nothing_is_waited_for_or_shown(watched: Watched) -> None:
    page = show(watched)
    page.route("**/v1/trace", lambda route: None, times=1)  # one that is not answered
    with page.expect_request("**/v1/trace"):
        page.get_by_label("Source text").fill("The dog slept.")
    page.get_by_label("Source text").fill("")
    expect(page.get_by_text("Give a text to decode.")).to_be_visible()
    expect(page.locator(".chapters")).to_be_hidden()
    expect(page.locator(".explain[aria-busy]")).to_have_count(0)
