"""The LibreTranslate dialect, asked by libretranslatepy over a socket, and in what that client cannot ask."""

import asyncio
import json
import shutil
import socket
import threading
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from antiphon.run import Model
from antiphon.serving.api import libretranslate
from antiphon.serving.app import create_app
from antiphon.serving.languages import Route, can_detect, detect, language_routes, name_of, pair_of
from antiphon.serving.markup import put_together, take_apart
from antiphon.serving.settings import ServerSettings

KEY = "a-key-of-this-test"


def serve(settings: ServerSettings) -> Iterator[str]:
    """The address of a server that runs in a thread."""
    app = create_app(settings)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not (server.started and app.state.service.is_ready):
                time.sleep(0.02)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    runs = dict.fromkeys(["plain", "mine-en-fr", "de_fr", "fr-en", "other"], folder)
    yield from serve(ServerSettings(runs=runs, languages={"other": ("pt-BR", "ga")}, max_texts=4))


@pytest.fixture
def client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address) as client:
        yield client


def asked(client: httpx.Client, **fields: Any) -> dict[str, Any]:
    response = client.post("/translate", json={"source": "en", "target": "fr"} | fields)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def refused(response: httpx.Response, *parts: str, status: int = 400) -> None:
    assert response.status_code == status, response.text
    assert response.json().keys() == {"error"}
    for part in parts:
        assert part in response.json()["error"]


# The real client


def test_its_own_client_translates_detects_and_lists(address: str, model: Model) -> None:
    from libretranslatepy import LibreTranslateAPI

    api = LibreTranslateAPI(address)
    assert api.translate("ab 01", "en", "fr") == model.generate(["ab 01"])[0]
    assert api.translate("ab 01", "auto", "en") == model.generate(["ab 01"])[0]
    assert api.languages()[0] == {"code": "en", "name": "English", "targets": ["fr"]}
    if can_detect():
        found = api.detect("Il pleut depuis ce matin et nous restons à la maison.")
        assert found[0]["language"] == "fr"
        assert 50 < found[0]["confidence"] <= 100
    with pytest.raises(urllib.error.HTTPError) as error:
        api.translate("ab 01", "en", "es")
    assert "es" in json.load(error.value)["error"]


def test_its_own_client_gives_its_key_in_the_body(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from libretranslatepy import LibreTranslateAPI

    monkeypatch.setenv("ANTIPHON_API_KEY", KEY)
    for address in serve(ServerSettings(runs={"en-fr": folder})):
        assert LibreTranslateAPI(address, KEY).translate("ab 01", "en", "fr")
        assert len(LibreTranslateAPI(address).languages()) == 2
        for api in (LibreTranslateAPI(address), LibreTranslateAPI(address, "another-key-than-that")):
            with pytest.raises(urllib.error.HTTPError) as error:
                api.translate("ab 01", "en", "fr")
            assert error.value.code == 403
            error.value.close()
        settings = httpx.get(f"{address}/frontend/settings").json()
        assert settings["apiKeys"]
        assert settings["keyRequired"]


# What can be asked


def test_a_text_has_a_text_and_nothing_else(client: httpx.Client, model: Model) -> None:
    assert asked(client, q="ab 01") == {"translatedText": model.generate(["ab 01"])[0]}


def test_a_list_has_a_list_and_blanks_are_blank(client: httpx.Client, model: Model) -> None:
    found = asked(client, q=["ab 01", "", " ", "ab 02"])
    first, last = model.generate(["ab 01", "ab 02"])
    assert found == {"translatedText": [first, "", " ", last]}


def test_a_long_text_is_answered_by_sentences_and_keeps_its_lines(client: httpx.Client) -> None:
    text = "ab 01 ab 02 ab.\n\n" * 8
    assert asked(client, q=text)["translatedText"].count("\n\n") == 8


def test_alternatives_are_other_outputs_of_the_beam(client: httpx.Client, model: Model) -> None:
    outputs = [output.text for output in model.outputs(["ab 01"], beam_size=4, n_best=4)[0]]
    found = asked(client, q="ab 01", alternatives=3)
    others = [text for text in dict.fromkeys(outputs) if text not in ("", outputs[0])]
    assert found == {"translatedText": outputs[0], "alternatives": others}
    assert asked(client, q=["ab 01", ""], alternatives=3)["alternatives"] == [others, []]


def test_html_keeps_its_markup(client: httpx.Client, model: Model) -> None:
    first, second = model.generate(["ab 01", "ab 02"])
    found = asked(client, q='<p title="ab 03">ab\n01 <b>ab 02</b>&nbsp;<br></p><code>ab</code>', format="html")
    assert found["translatedText"] == put_together(
        take_apart('<p title="ab 03">ab 01 <b>ab 02</b>&nbsp;<br></p><code>ab</code>'), [first, second]
    )


def test_html_of_many_texts_has_no_more_time_than_another_request(folder: Path) -> None:
    for address in serve(ServerSettings(runs={"en-fr": folder}, max_texts=1, timeout=1)):
        with httpx.Client(base_url=address, timeout=60) as client:
            body = {"q": "<p>ab 01</p>" * 1000, "source": "en", "target": "fr", "format": "html"}
            refused(client.post("/translate", json=body), "deadline", status=504)


def test_html_may_have_more_texts_than_a_request(client: httpx.Client) -> None:
    found = asked(client, q="<li>ab 01</li>" * 11, format="html", alternatives=1)
    assert found["translatedText"].count("</li>") == 11
    assert all(text.count("</li>") == 11 for text in found["alternatives"])


@pytest.mark.parametrize("form", ["body", "parts", "address"])
def test_forms_are_taken_as_json_is(client: httpx.Client, form: str, model: Model) -> None:
    fields = {"q": "ab 01\r\nab é", "source": "en", "target": "fr", "format": "text", "alternatives": "0"}
    if form == "body":
        response = client.post("/translate", data=fields)
    elif form == "parts":
        response = client.post("/translate", files={name: (None, value) for name, value in fields.items()})
    else:
        response = client.post("/translate", params=fields)
    assert response.status_code == 200, response.text
    assert response.json() == {"translatedText": "\n".join(model.generate(["ab 01", "ab é"]))}


@pytest.mark.skipif(not can_detect(), reason="needs py3langid")
def test_auto_tells_the_source_apart(client: httpx.Client) -> None:
    german = "Es regnet und\nwir bleiben\nzu Hause."
    found = asked(client, q=german, source="auto")
    assert found.keys() == {"translatedText", "detectedLanguage"}
    assert found["detectedLanguage"]["language"] == "de"
    assert found["detectedLanguage"]["confidence"] > 50
    listed = asked(client, q=[german, german], source="auto")
    assert [one["language"] for one in listed["detectedLanguage"]] == ["de", "de"]


def test_without_a_detector_auto_needs_a_single_source(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libretranslate, "can_detect", lambda: False)
    found = asked(client, q="ab 01", source="auto", target="en")
    assert found["detectedLanguage"] == {"confidence": 0.0, "language": "fr"}
    response = client.post("/translate", json={"q": "ab 01", "source": "auto", "target": "fr"})
    refused(response, "en, de", "antiphon[detect]")
    refused(client.post("/detect", data={"q": "ab"}), "antiphon[detect]")


def test_languages_are_those_of_the_pairs(client: httpx.Client) -> None:
    assert client.get("/languages").json() == [
        {"code": "en", "name": "English", "targets": ["fr"]},
        {"code": "fr", "name": "French", "targets": ["en"]},
        {"code": "de", "name": "German", "targets": ["fr"]},
        {"code": "pt-BR", "name": "Portuguese (BR)", "targets": ["ga"]},
        {"code": "ga", "name": "Irish", "targets": []},
    ]


def test_the_settings_of_the_page_have_libretranslate_s_names(client: httpx.Client) -> None:
    assert client.get("/frontend/settings").json() == {
        "apiKeys": False,
        "charLimit": -1,
        "filesTranslation": False,
        "frontendTimeout": 500,
        "keyRequired": False,
        "language": {"source": {"code": "en", "name": "English"}, "target": {"code": "fr", "name": "French"}},
        "suggestions": False,
        "supportedFilesFormat": [],
    }


# What cannot


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"q": ""}, "q"),
        ({"q": []}, "q"),
        ({"q": 3}, "q"),
        ({"q": ["a", 3]}, "q"),
        ({"q": "a", "source": ""}, "source"),
        ({"q": "a", "source": None}, "source"),
        ({"q": "a", "source": "xx"}, "xx is not supported"),
        ({"q": "a", "target": "de"}, "de is not available from en; there are: fr"),
        ({"q": "a", "source": "ga"}, "there are: none"),
        ({"q": "a", "source": "auto", "target": "de"}, "no served model translates to de"),
        ({"q": "a", "format": "markdown"}, "format"),
        ({"q": "a", "alternatives": -1}, "alternatives"),
        ({"q": "a", "alternatives": 32}, "alternatives"),
        ({"q": "a", "alternatives": "many"}, "alternatives"),
        ({"q": "a", "temperature": 1}, "temperature"),
        ({"q": ["a"] * 5}, "at most 4 texts"),
        ({"q": "ab" * 300}, "at most 20 tokens"),
    ],
)
def test_what_cannot_be_is_refused_with_400_and_a_sentence(
    client: httpx.Client, fields: dict[str, object], part: str
) -> None:
    refused(client.post("/translate", json={"source": "en", "target": "fr"} | fields), part)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b'{"q": "\\ud800"}', b'{"q": "\xff"}', b"[" * 5000])
def test_bodies_that_are_no_json_are_refused(client: httpx.Client, content: bytes) -> None:
    refused(client.post("/translate", content=content, headers={"content-type": "application/json"}))


@pytest.mark.parametrize(
    ("content", "kind", "part"),
    [
        (b"q=a&q=b&source=en&target=fr", "application/x-www-form-urlencoded", "twice"),
        (b"q=%ff&source=en&target=fr", "application/x-www-form-urlencoded", "UTF-8"),
        (b"q=a&source=en", "application/x-www-form-urlencoded", "target"),
        (b"hello", "text/plain", "text/plain"),
        (b"hello", "multipart/form-data", "no end"),
        (b"--x\r\n\r\na", "multipart/form-data; boundary=x", "no end"),
        (
            b'--x\r\ncontent-disposition: form-data; name="q"; filename="a"\r\n\r\na\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
            "no text",
        ),
    ],
)
def test_forms_that_are_broken_are_refused(client: httpx.Client, content: bytes, kind: str, part: str) -> None:
    refused(client.post("/translate", content=content, headers={"content-type": kind}), part)


def test_without_pairs_nothing_can_be_asked(folder: Path) -> None:
    app = create_app(ServerSettings(runs={"plain": folder}))

    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            body = {"q": "a", "source": "en", "target": "fr"}
            return [
                await client.get("/languages"),
                await client.post("/translate", json=body),
                await client.get("/frontend/settings"),
            ]

    languages, translation, settings = asyncio.run(ask())
    assert languages.json() == []
    refused(translation, "en is not supported")
    refused(settings, "language pair")


# Languages


@pytest.mark.parametrize(
    ("name", "pair"),
    [
        ("en-fr", ("en", "fr")),
        ("en_fr", ("en", "fr")),
        ("mine-en-fr", ("en", "fr")),
        ("opus.mt_en-fr", ("en", "fr")),
        ("en-fr+en-fr", ("en", "fr")),
        ("mine-en-pt_BR", ("en", "pt-BR")),
        ("zh-Hant-en", ("zh-Hant", "en")),
        ("en-en", None),
        ("en", None),
        ("my-model", None),
        ("g2p-en-us", None),
        ("open-fr", None),
        ("en-fr-small", None),
        ("EN-FR", None),
        ("", None),
    ],
)
def test_a_name_tells_a_pair_or_none(name: str, pair: tuple[str, str] | None) -> None:
    assert pair_of(name) == pair


def test_what_is_told_of_a_model_counts_more_than_its_name() -> None:
    models: dict[str, list[str]] = {"a": [], "b": [], "en-fr": [], "en-de": []}
    assert language_routes(models, {"b": ("en", "en"), "en-fr": ("en", "fr-CA")}) == [
        Route("en", "en", "b"),
        Route("en", "fr-CA", "en-fr"),
        Route("en", "de", "en-de"),
    ]


def test_tags_that_are_languages_or_pairs_are_further_ways() -> None:
    models = {"en-fr": ["de", "fr", "loud", "en"], "any": ["en-fr", "fr-en"], "en-it": ["de", "fr"], "none": ["de"]}
    assert language_routes(models, {}) == [
        Route("en", "de", "en-fr", "de"),
        Route("en", "fr", "en-fr", "fr"),
        Route("en", "fr", "any", "en-fr"),
        Route("fr", "en", "any", "fr-en"),
        Route("en", "it", "en-it"),
    ]


def test_a_model_of_several_languages_is_told_which_by_its_tag(folder: Path, model: Model, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "en-ab")
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    (tmp_path / "en-ab" / "facts.json").write_text(json.dumps(facts | {"tags": ["ab", "fr"]}), encoding="utf-8")
    for address in serve(ServerSettings(runs={"en-ab": tmp_path / "en-ab"})):
        with httpx.Client(base_url=address) as client:
            assert client.get("/languages").json()[0]["targets"] == ["ab", "fr"]
            for target in ("ab", "fr"):
                first, second = model.generate([f"{target} ab 01.", f"{target} 02."])
                found = asked(client, q=["ab 01. \n02.", " "], target=target)
                assert found["translatedText"] == [f"{first} \n{second}", " "]
                assert (
                    asked(client, q="<p>02.</p>", target=target, format="html")["translatedText"] == f"<p>{second}</p>"
                )
            (told,) = client.get("/v1/server").json()["models"]
            assert (told["source"], told["tags"]) == (None, ["ab", "fr"])
    assert model.generate(["ab 02."]) != model.generate(["fr 02."])


def test_languages_have_names() -> None:
    assert [name_of(code) for code in ("fr", "pt-BR", "xx", "kab")] == ["French", "Portuguese (BR)", "xx", "kab"]


@pytest.mark.parametrize("languages", [{"b": ("en", "fr")}, {"a": ("en", "auto detect")}, {"a": ("", "fr")}])
def test_settings_name_served_models_and_codes(languages: dict[str, tuple[str, str]]) -> None:
    with pytest.raises(ValueError, match="languages"):
        ServerSettings(runs={"a": Path("x")}, languages=languages)


@pytest.mark.skipif(not can_detect(), reason="needs py3langid")
def test_a_language_is_detected_among_those_that_are_asked_for() -> None:
    found = detect("It rains, and we stay at home.", ["fr", "en", "xx"])
    assert [code for code, _ in found] == ["en", "fr"]
    assert found[0][1] > 0.9


# HTML


@given(st.lists(st.sampled_from(["<", ">", "a b", "/", "p", "!--", "-->", '"', "'", "=", " ", "&amp;", "script", "?"])))
def test_html_that_is_not_answered_otherwise_stays(words: list[str]) -> None:
    text = "".join(words)
    parts = take_apart(text)
    again = put_together(parts, parts.sentences)
    assert take_apart(again) == parts
    place = 0
    for gap in parts.gaps:
        place = text.index(gap, place) + len(gap)


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        ("plain & simple", ["plain & simple"]),
        ("<p>a</p><P CLASS=x>b</P>", ["a", "b"]),
        ('<a title="x > y" href=/z>b</a>', ["b"]),
        ("<p title=it's>b</p><p>c's</p>", ["b", "c's"]),
        ("<!-- a --><!doctype html><?xml a?>b", ["b"]),
        ("<style>a</style><SCRIPT>'<p>a</p>'</script>b", ["b"]),
        ("<script>never closed <p>b", []),
        ("a<!-- never closed <p>b", ["a"]),
        ("<code>a<code>b</code>c</code>d<kbd>e</kbd>", ["d"]),
        ('<div translate="no">a<div>b</div><br>c</div>d', ["d"]),
        ("<span class='x notranslate'>a</span>b<span class=y>c</span>", ["b", "c"]),
        ("<p>two\n  lines</p><pre>two\n  lines</pre>", ["two lines", "two\n  lines"]),
        ("1 &lt; 2 &eacute;", ["1 < 2 é"]),
        ("1 < 2, <3", ["1 < 2, <3"]),
        ("<p> ... </p>", []),
        ("", []),
    ],
)
def test_html_is_taken_apart_as_browsers_read_it(text: str, texts: list[str]) -> None:
    assert list(take_apart(text).sentences) == texts


def test_html_is_put_together_with_its_markup_and_answers_escaped() -> None:
    text = '<!DOCTYPE html>\n<p class="x">Hi <b>you</b> &amp;\n me&nbsp;<br/></p><script>if (a < b) {}</script>'
    parts = take_apart(text)
    assert list(parts.sentences) == ["Hi", "you", "& me"]
    found = put_together(parts, ["A", "<B>", "C"])
    assert found == '<!DOCTYPE html>\n<p class="x">A <b>&lt;B&gt;</b> C&nbsp;<br/></p><script>if (a < b) {}</script>'


@pytest.mark.parametrize(
    "piece", ["<", "<a ", "<!--", '<a ="', "<a ='>", "<script", "<script>", "<code>", "a<br>", "</p"]
)
def test_html_of_any_form_takes_time_in_proportion(piece: str) -> None:
    start = time.monotonic()
    take_apart(piece * (300_000 // len(piece)))
    assert time.monotonic() - start < 5
