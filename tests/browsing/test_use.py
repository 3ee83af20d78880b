"""Using a model in a browser: the output is written while one types, and any word of it can be changed."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
from browsing.served import Server, Watched
from playwright.sync_api import Browser, Locator, Page, Route, expect

TEXT = "The cat ate the mouse."
TWO = "The cat ate the mouse. The old man opened the door."
RARE = "The king never gave the small dogs to the girl."


def ask(server: Server, path: str, **body: Any) -> Any:
    answer = httpx.post(f"{server.address}/v1/{path}", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def said(server: Server, text: str, **body: Any) -> str:
    return str(ask(server, "generate", text=text, **{"beam_size": 1} | body)["outputs"][0][0]["text"])


def output(page: Page) -> Locator:
    return page.locator("#output:not([aria-busy])")


def write(page: Page, text: str) -> None:
    page.get_by_label("English").fill(text)


def test_the_output_is_written_while_one_types_and_older_requests_are_cancelled(
    watched: Watched, server: Server
) -> None:
    page = watched.open("#use")
    streams: list[str] = []
    page.on("request", lambda one: streams.append(one.post_data or "") if one.url.endswith("/v1/generate") else None)
    page.get_by_label("English").press_sequentially(TEXT, delay=40)
    expect(output(page)).to_have_text(said(server, TEXT))
    assert streams
    assert all(json.loads(body)["stream"] for body in streams)
    page.route("**/v1/generate", lambda route: None, times=1)  # one that is not answered
    with page.expect_request("**/v1/generate"):
        write(page, RARE)
    with page.expect_event("requestfailed") as cancelled:
        write(page, "The dog slept.")
    assert cancelled.value.failure == "net::ERR_ABORTED"
    assert RARE in (cancelled.value.post_data or "")
    expect(output(page)).to_have_text(said(server, "The dog slept."))


def test_pieces_of_a_stream_are_shown_before_its_end(watched: Watched) -> None:
    page = watched.open("#use")
    page.evaluate("""() => {  // events come one by one, as over a slow line
        const real = window.fetch
        window.fetch = async (...asked) => {
            const answer = await real(...asked)
            const apart = new TransformStream({ async transform(event, out) {
                out.enqueue(event)
                await new Promise((resolve) => setTimeout(resolve, 20))
            } })
            const events = new TransformStream({ transform(text, out) {
                for (const event of text.split(/(?<=\\n\\n)/)) out.enqueue(event)
            } })
            const body = answer.body.pipeThrough(new TextDecoderStream()).pipeThrough(events).pipeThrough(apart)
            return new Response(body.pipeThrough(new TextEncoderStream()), answer)
        }
        window.shown = []
        const see = () => { const body = document.querySelector('#output')
            if (body.hasAttribute('aria-busy')) window.shown.push(body.textContent) }
        new MutationObserver(see).observe(document.querySelector('#output'), { childList: true, subtree: true })
    }""")
    write(page, TWO)
    expect(output(page).locator(".use-word").first).to_be_visible()
    shown = page.evaluate("window.shown")
    whole = output(page).text_content() or ""
    assert len(shown[0]) < len(whole)
    assert len(set(shown)) > 1
    assert all(later.startswith(earlier) for earlier, later in pairwise(shown))


def test_words_are_shaded_by_how_sure_the_model_is(watched: Watched, server: Server) -> None:
    page = watched.open("#use")
    write(page, RARE)
    words = output(page).locator(".use-word")
    expect(words.first).to_be_visible()
    found = ask(server, "generate", text=RARE, beam_size=1, words=True)["outputs"][0][0]["words"]
    assert words.all_text_contents() == [word["text"] for word in found]
    for word, told in zip(words.all(), found, strict=True):
        chance = float(word.get_attribute("data-probability") or "nan")
        assert abs(chance - told["probability"]) < 1e-3
        assert ("is-unsure" in (word.get_attribute("class") or "")) == (chance < 0.6)
    colours = {word.evaluate("one => getComputedStyle(one).backgroundColor") for word in words.all()}
    assert len(colours) > 1


def test_another_word_is_chosen_and_the_rest_is_written_anew_from_it(watched: Watched, server: Server) -> None:
    page = watched.open("#use")
    write(page, RARE)
    expect(output(page)).to_have_text(said(server, RARE))
    before = output(page).inner_text()
    word = output(page).locator(".use-word").nth(2)
    place = before.index(word.inner_text(), len(" ".join(before.split()[:2])))
    word.click()
    choices = page.get_by_role("dialog", name="Other words").get_by_role("button")
    expect(choices.nth(1)).to_be_visible()
    found = ask(server, "alternatives", text=RARE, prefix=before[:place].strip(), beam_size=1, count=10)["alternatives"]
    outputs = {one["word"]: one["output"]["text"] for one in found if one["output"]["text"].startswith(before[:place])}
    assert choices.evaluate_all("all => all.map(one => one.dataset.word)") == list(outputs)
    other = next(one for one in list(outputs) if one != word.inner_text())
    choices.locator(f'xpath=self::*[@data-word="{other}"]').click()
    expect(output(page)).to_have_text(outputs[other])
    assert output(page).inner_text() != before
    expect(page.locator(".use-word.is-chosen")).to_have_text(other)


def test_a_word_is_changed_with_the_keyboard_alone(watched: Watched) -> None:
    page = watched.open("#use")
    write(page, TEXT)
    words = output(page).locator(".use-word")
    expect(words.first).to_be_visible()
    words.first.focus()
    page.keyboard.press("ArrowRight")
    expect(words.nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    choices = page.get_by_role("dialog", name="Other words").get_by_role("button")
    expect(choices.first).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(choices.nth(1)).to_be_focused()
    page.keyboard.press("Escape")
    expect(words.nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    expect(choices.first).to_be_focused()
    page.keyboard.press("ArrowDown")
    chosen = choices.nth(1).get_attribute("data-word")
    page.keyboard.press("Enter")
    expect(page.locator(".use-word.is-chosen")).to_have_text(chosen or "")


def test_at_a_second_word_nothing_is_shown_of_the_first(watched: Watched) -> None:
    page = watched.open("#use")
    write(page, RARE)
    words = output(page).locator(".use-word")
    expect(words.first).to_be_visible()
    page.route("**/v1/alternatives", lambda route: None, times=1)  # one that is not answered
    words.first.focus()
    with page.expect_request("**/v1/alternatives"):
        page.keyboard.press("Enter")
    with page.expect_event("requestfailed") as cancelled:
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
    assert cancelled.value.failure == "net::ERR_ABORTED"
    now = page.get_by_role("dialog", name="Other words").locator("[aria-current=true]")
    expect(now).to_have_attribute("data-word", words.nth(1).inner_text())
    expect(page.locator(".use-word.is-open")).to_have_attribute("data-place", "1")


def test_other_versions_of_the_whole_are_the_best_of_a_beam(watched: Watched, server: Server) -> None:
    page = watched.open("#use")
    write(page, RARE)
    expect(output(page).locator(".use-word").first).to_be_visible()
    page.get_by_role("button", name="Other versions").click()
    versions = page.locator(".use-version")
    expect(versions.first).to_be_visible()
    found = ask(server, "generate", text=RARE, beam_size=5, n_best=5)["outputs"][0]
    texts = [one["text"] for one in found]
    assert versions.locator("span:first-child").all_text_contents() == texts
    versions.nth(2).click()
    expect(output(page)).to_have_text(texts[2])


def test_a_sentence_is_asked_about_with_the_tag_of_its_text(browser: Browser, runs: Path, tmp_path: Path) -> None:
    facts = shutil.copytree(runs / "attentive-en-fr", tmp_path / "tagged") / "facts.json"
    told = json.loads(facts.read_text(encoding="utf-8")) | {"tags": ["fr"]}
    facts.write_text(json.dumps(told), encoding="utf-8")
    server = Server([str(tmp_path / "tagged")])
    context = browser.new_context()
    try:
        page = Watched(context, server.address).open("#use")
        page.locator("#source").fill(f"fr {TWO}")
        second = output(page).locator(".use-sentence").nth(1)
        with page.expect_request("**/v1/alternatives") as word:
            second.locator(".use-word").first.click()
        page.keyboard.press("Escape")
        with page.expect_request("**/v1/generate") as versions:
            page.get_by_role("button", name="Other versions").click()
        with page.expect_request("**/v1/trace") as explained:
            page.get_by_role("button", name="Explain").click()
        asked = [one.value.post_data_json["text"] for one in (word, versions, explained)]
        assert asked == ["fr The old man opened the door."] * 3
    finally:
        context.close()
        server.end()


def test_the_search_can_be_chosen(watched: Watched, server: Server) -> None:
    page = watched.open("#use")
    write(page, RARE)
    page.get_by_text("Beam", exact=True).click()
    page.get_by_label("Width").fill("4")
    expect(output(page)).to_have_text(said(server, RARE, beam_size=4))
    page.get_by_text("Sampling", exact=True).click()
    page.get_by_label("Temperature").fill("2")
    page.get_by_role("button", name="Draw again").click()
    drawn = said(server, RARE, sample=True, temperature=2, top_p=0.95, seed=2)
    expect(output(page)).to_have_text(drawn)
    assert drawn != said(server, RARE)


def test_a_model_s_own_search_is_asked_for_and_only_what_is_chosen_is_linked(watched: Watched) -> None:
    own = {"sample": True, "beam_size": 1, "temperature": 0.33, "top_p": 0.98}

    def answer(route: Route) -> None:
        body = route.fetch().json()
        searches = {"attentive-en-fr": own, "recurrent-en-fr": {"beam_size": 14}}
        for model in body["models"]:
            model["generation"] |= searches.get(model["name"], {})
        route.fulfill(json=body)

    watched.page.route("**/v1/server", answer)
    page = watched.open("#use")

    def asked(act: Callable[[], object]) -> dict[str, Any]:
        with page.expect_request("**/v1/generate") as request:
            act()
        expect(output(page).locator(".use-word").first).to_be_visible()
        return dict(request.value.post_data_json)

    assert own.items() <= asked(lambda: write(page, TEXT)).items()
    model = page.get_by_label("Model")
    assert asked(lambda: model.select_option("recurrent-en-fr"))["beam_size"] == 14
    assert own.items() <= asked(lambda: model.select_option("attentive-en-fr")).items()
    assert "search=" not in page.url
    chosen = own | {"seed": 2}
    assert chosen.items() <= asked(page.get_by_role("button", name="Draw again").click).items()
    assert "search=sample&temperature=0.33&top_p=0.98&seed=2" in page.url
    assert chosen.items() <= asked(page.reload).items()


def test_source_and_output_are_swapped_where_a_model_leads_back(watched: Watched, server: Server) -> None:
    page = watched.open("#use")
    write(page, TEXT)
    french = said(server, TEXT)
    expect(output(page)).to_have_text(french)
    page.get_by_role("button", name="Swap").click()
    expect(page.get_by_label("Model")).to_have_value("back-fr-en")
    expect(page.get_by_label("French")).to_have_value(french)
    expect(output(page)).to_have_text(said(server, french, model="back-fr-en"))


def test_sentences_correspond_when_pointed_at(watched: Watched) -> None:
    page = watched.open("#use")
    write(page, TWO)
    sentences = output(page).locator(".use-sentence")
    expect(sentences).to_have_count(2)
    sentences.nth(1).hover()
    expect(page.locator(".use-mirror .is-marked")).to_have_text("The old man opened the door.")
    box = page.locator(".use-mirror span").first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    expect(page.locator(".use-sentence.is-marked")).to_have_attribute("data-index", "0")


def test_a_link_restores_the_view(watched: Watched, server: Server) -> None:
    page = watched.open("#use")
    write(page, RARE)
    page.get_by_label("Model").select_option("recurrent-en-fr")
    page.get_by_text("Beam", exact=True).click()
    page.get_by_label("Width").fill("3")
    expected = said(server, RARE, model="recurrent-en-fr", beam_size=3)
    expect(output(page)).to_have_text(expected)
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    expect(output(page)).to_have_text(expected)
    expect(page.get_by_label("English")).to_have_value(RARE)
    expect(page.get_by_label("Model")).to_have_value("recurrent-en-fr")


def test_the_output_is_copied(watched: Watched, server: Server) -> None:
    page = watched.open("#use")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    write(page, TEXT)
    expect(output(page)).to_have_text(said(server, TEXT))
    page.get_by_role("button", name="Copy", exact=True).click()
    expect(page.locator("[data-done]")).to_have_attribute("data-done", "Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == said(server, TEXT)


def test_while_an_answer_streams_it_and_not_the_one_before_is_used(watched: Watched) -> None:
    page = watched.open("#use")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    write(page, TEXT)
    expect(output(page).locator(".use-word").first).to_be_visible()
    page.evaluate("""() => {  // of what is streamed the first event comes, and no more
        const real = window.fetch
        window.fetch = async (...asked) => {
            const answer = await real(...asked)
            const first = (await answer.text()).split('\\n\\n')[0] + '\\n\\n'
            const start = (body) => body.enqueue(new TextEncoder().encode(first))
            return new Response(new ReadableStream({ start }), answer)
        }
        const see = () => { document.body.dataset.begun = '' }
        new MutationObserver(see).observe(document.querySelector('#output'), { childList: true })
    }""")
    write(page, RARE)
    page.locator("[data-begun]").wait_for()
    asked: list[str] = []
    page.on("request", lambda one: asked.append(one.url) if "/v1/" in one.url else None)
    page.get_by_role("button", name="Other versions").click()
    page.get_by_role("button", name="Swap").click()
    page.get_by_role("button", name="Copy", exact=True).click()
    expect(page.locator("[data-done]")).to_have_attribute("data-done", "Copied.")
    assert not asked
    expect(page.get_by_label("English")).to_have_value(RARE)
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#output").text_content()


def test_history_keeps_a_source_with_its_own_output(watched: Watched, server: Server) -> None:
    page = watched.open("#use")
    write(page, TEXT)
    expect(output(page)).to_have_text(said(server, TEXT))
    page.evaluate(
        """(text) => {  // leaves before the text is sent
            window.setTimeout = () => 0
            document.querySelector('#source').value = text
            document.querySelector('#source').dispatchEvent(new Event('input'))
            location.hash = '#training'
        }""",
        RARE,
    )
    expect(page).to_have_title("Training · Antiphon")
    kept = page.evaluate("JSON.parse(localStorage.getItem('antiphon.history'))")
    assert [(one["source"], one["output"]) for one in kept] == [(TEXT, said(server, TEXT))]


def test_history_stays_in_the_browser_and_can_be_taken_up_again(watched: Watched, server: Server) -> None:
    page = watched.open("#use")
    write(page, TEXT)
    expect(output(page)).to_have_text(said(server, TEXT))
    page.get_by_text("History (1)").wait_for()
    write(page, RARE)
    page.get_by_text("History (2)").wait_for()
    page.reload()
    page.get_by_text("History (2)").click()
    page.locator(".use-entry").filter(has_text=TEXT).click()
    expect(page.get_by_label("English")).to_have_value(TEXT)
    expect(output(page)).to_have_text(said(server, TEXT))
    page.get_by_role("button", name="Clear the history").click()
    expect(page.locator(".use-entry")).to_have_count(0)


def test_the_request_as_code_gives_the_same_output(watched: Watched, server: Server, tmp_path: Path) -> None:
    page = watched.open("#use")
    text = 'The cat\'s "mouse" ate\nthe dog.'
    write(page, text)
    expect(output(page).locator(".use-word").first).to_be_visible()
    shown = output(page).inner_text()
    page.get_by_text("This request as code").click()
    curl, python = page.locator("#as-curl").inner_text(), page.locator("#as-python").inner_text()
    answered = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, check=True)
    assert json.loads(answered.stdout)["outputs"][0][0]["text"] == shown
    answered = subprocess.run([sys.executable, "-c", python], capture_output=True, text=True, check=True)
    assert answered.stdout == f"{shown}\n"


def lines_file(tmp_path: Path, lines: list[str]) -> Path:
    file = tmp_path / "sentences.txt"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def test_a_file_of_lines_is_answered_and_downloaded(watched: Watched, server: Server, tmp_path: Path) -> None:
    page = watched.open("#use")
    lines = [TEXT, "", RARE, *[f"The dog ate {number} mice." for number in range(60)]]
    page.locator("#lines-file").set_input_files(lines_file(tmp_path, lines))
    expect(page.get_by_text("63 of 63 lines")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the result").click()
    assert download.value.suggested_filename == "sentences.attentive-en-fr.txt"
    found = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    expected = ask(server, "generate", text=lines, beam_size=1, split="sentence")["outputs"]
    assert found == [some[0]["text"] for some in expected]


def test_a_file_is_answered_to_its_end_as_it_was_begun(watched: Watched, server: Server, tmp_path: Path) -> None:
    page = watched.open("#use")
    held: list[Route] = []
    page.route("**/v1/generate", lambda route: held.append(route), times=1)
    lines = [f"The dog ate {number} mice." for number in range(40)]
    with page.expect_request("**/v1/generate"):
        page.locator("#lines-file").set_input_files(lines_file(tmp_path, lines))
    page.get_by_label("Model").select_option("blind-en-fr")
    held[0].continue_()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the result").click()
    assert download.value.suggested_filename == "sentences.attentive-en-fr.txt"
    found = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert found == [some[0]["text"] for some in ask(server, "generate", text=lines, beam_size=1)["outputs"]]


def test_a_line_that_cannot_be_answered_is_told_and_the_others_are_answered(
    watched: Watched, server: Server, tmp_path: Path
) -> None:
    page = watched.open("#use")
    page.locator("#lines-file").set_input_files(lines_file(tmp_path, [TEXT, "dog " * 2000, RARE]))
    expect(page.get_by_text("Line 2:")).to_contain_text("at most 256 tokens")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the result").click()
    found = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert found == [said(server, TEXT), "", said(server, RARE)]
    watched.faults = [fault for fault in watched.faults if "422" not in fault]  # the browser tells of every refusal


def test_a_file_is_dropped_on_the_page_and_cancelled(watched: Watched) -> None:
    page = watched.open("#use")
    expect(page.get_by_label("English")).to_be_visible()
    page.evaluate("""() => {
        const data = new DataTransfer()
        data.items.add(new File(['The dog slept.\\n'.repeat(20000)], 'many.txt', { type: 'text/plain' }))
        for (const type of ['dragover', 'drop'])
            document.querySelector('main').dispatchEvent(new DragEvent(type, { bubbles: true, dataTransfer: data }))
    }""")
    expect(page.get_by_text(re.compile(r"\d+ of 20,000 lines"))).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("Cancelled.")).to_be_visible()
    expect(page.get_by_role("link", name="Download the result")).to_be_hidden()


def test_right_to_left_and_long_texts_have_their_place(watched: Watched) -> None:
    page = watched.open("#use")
    write(page, "القط أكل الفأر.")
    assert page.get_by_label("English").evaluate("one => getComputedStyle(one).direction") == "rtl"
    write(page, " ".join([RARE] * 60))
    expect(output(page).locator(".use-sentence")).to_have_count(60, timeout=60_000)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
