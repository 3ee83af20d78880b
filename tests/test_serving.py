"""The HTTP service, through the application itself; tests/test_cli.py asks a real one over a socket."""

import asyncio
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from letters import train_letters

from antiphon.choosing import left_out
from antiphon.engine.messages import Hosted
from antiphon.engine.pool import EnginePool
from antiphon.run import Model
from antiphon.serving.app import create_app
from antiphon.serving.settings import ServerSettings, best_workers, runs_by_name, server_settings


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    with TestClient(create_app(ServerSettings(runs={"tiny": folder}))) as client:
        while client.get("/readyz").status_code != 200:
            time.sleep(0.02)
        yield client


def test_it_is_healthy_and_says_which_model(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok", "models": ["tiny"]}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"beam_size": 3, "n_best": 2},
        {"sample": True, "seed": 3},
        {"prefix": "AB", "max_length": 6},
        {"mbr": 8, "n_best": 2, "seed": 3, "temperature": 2.0},
    ],
)
def test_answers_equal_those_of_the_model_in_python(client: TestClient, model: Model, settings: dict[str, int]) -> None:
    texts = ["ab 01", "ab 02 ab 03"]
    response = client.post("/v1/generate", json={"text": texts, **settings})
    assert response.status_code == 200, response.text
    expected = model.outputs(texts, **settings)
    for found, wanted in zip(response.json()["outputs"], expected, strict=True):
        assert [output["text"] for output in found] == [output.text for output in wanted]
        assert [output["score"] for output in found] == pytest.approx([output.score for output in wanted], abs=1e-4)


@pytest.mark.parametrize("extra", [{}, {"alignments": True}])
def test_the_hypothesis_that_says_what_is_to_be_kept_comes_first(
    client: TestClient, model: Model, extra: dict[str, bool]
) -> None:
    (found,) = model.outputs(["ab 01"], beam_size=6, n_best=6)
    last = next(one.text[-1] for one in found if one.text[-1].isalnum() and left_out(found[0].text, [one.text[-1]]))
    body = {"text": "ab 01", "beam_size": 6, "n_best": 2, "keep": [last, "nothing like this"], **extra}
    outputs = client.post("/v1/generate", json=body).json()["outputs"][0]
    ranked = sorted(found, key=lambda one: left_out(one.text, [last]))
    assert [output["text"] for output in outputs] == [one.text for one in ranked[:2]]
    assert ranked[0] != found[0]


def test_one_text_may_be_given_alone_and_a_blank_one_has_a_blank_answer(client: TestClient) -> None:
    assert len(client.post("/v1/generate", json={"text": "ab 01"}).json()["outputs"]) == 1
    assert client.post("/v1/generate", json={"text": "  "}).json()["outputs"][0][0]["text"] == ""


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({}, "text"),
        ({"text": 3}, "text"),
        ({"text": []}, "text"),
        ({"text": "a", "beam_size": 0}, "beam_size"),
        ({"text": "a", "beam_size": 99}, "beam_size"),
        ({"text": "a", "beam_size": 2, "n_best": 3}, "n_best"),
        ({"text": "a", "min_length": 5, "max_length": 3}, "min_length"),
        ({"text": "a", "beam_sise": 3}, "beam_sise"),
        ({"text": "a", "mbr": 1}, "mbr"),
        ({"text": "a", "mbr": 4, "beam_size": 4}, "mbr compares samples, not the hypotheses of a beam"),
        ({"text": "a", "mbr": 4, "sample": False}, "mbr draws samples, and sample is false"),
        ({"text": "a", "mbr": 4, "n_best": 5}, "it can be 1 to 4"),
        ({"text": "a", "mbr": 4, "alignments": True}, "not with mbr"),
        ({"text": "a", "mbr": 4, "stream": True}, "nothing to stream"),
        ({"text": "a", "keep": ["a"]}, "search with a beam of 5"),
        ({"text": "a", "keep": [""], "beam_size": 2}, "keep"),
        ({"text": "a", "keep": ["a"], "beam_size": 2, "n_best": 3}, "of 2 hypotheses"),
        ({"text": "a", "keep": ["a"], "beam_size": 2, "stream": True}, "leave out keep, or stream"),
        ({"text": "a", "keep": ["a"], "beam_size": 2, "split": "sentence"}, "set split to none"),
        ({"text": "a " * 500}, "at most 20 tokens"),
        ({"text": "a", "prefix": "a\ud800"}, "prefix: expected Unicode characters"),
    ],
)
def test_what_cannot_be_is_refused_with_422_and_the_reason(
    client: TestClient, body: dict[str, object], part: str
) -> None:
    response = client.post("/v1/generate", content=json.dumps(body), headers={"content-type": "application/json"})
    assert response.status_code == 422
    assert part in response.text


@pytest.mark.parametrize("body", [b"", b"{", b'{"text": "\\ud800"}', b'{"text": "\xff"}', b"[" * 5000])
def test_bodies_that_are_no_json_are_refused(client: TestClient, body: bytes) -> None:
    response = client.post("/v1/generate", content=body, headers={"content-type": "application/json"})
    assert 400 <= response.status_code < 500


@pytest.mark.parametrize(("body", "kind"), [(b'{"text": "ab"}', "text/plain"), (b"[]", "application/json"), (b"", "")])
def test_a_body_that_is_no_object_is_told_how_to_be_one(client: TestClient, body: bytes, kind: str) -> None:
    for path in ("/v1/generate", "/v1/completions"):
        response = client.post(path, content=body, headers={"content-type": kind})
        assert "the body is no JSON object; send one" in response.text, path


def test_a_tag_is_put_before_each_sentence(folder: Path, model: Model, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "tagged")
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    (tmp_path / "tagged" / "facts.json").write_text(json.dumps(facts | {"tags": ["ab"]}), encoding="utf-8")
    with TestClient(create_app(ServerSettings(runs={"tagged": tmp_path / "tagged"}))) as client:
        while client.get("/readyz").status_code != 200:
            time.sleep(0.02)
        body = client.post("/v1/generate", json={"text": "ab 01. \n02.", "split": "sentence"}).json()
    first, second = model.generate(["ab 01.", "ab 02."])
    assert body["outputs"][0][0]["text"] == f"{first} \n{second}"
    assert [sentence["source"] for sentence in body["sentences"][0]] == ["01.", "02."]


def test_words_are_told_with_how_sure_the_model_is(client: TestClient, model: Model) -> None:
    body = client.post("/v1/generate", json={"text": "ab 01", "words": True}).json()
    (output,) = body["outputs"][0]
    expected = model.side.words(model.outputs(["ab 01"])[0][0])
    assert [word["text"] for word in output["words"]] == [word.text for word in expected] == output["text"].split()
    split = client.post("/v1/generate", json={"text": "ab 01", "words": True, "split": "sentence"}).json()
    assert split["sentences"] == [[{"source": "ab 01", "target": output["text"], "words": output["words"]}]]
    assert "words" not in client.post("/v1/generate", json={"text": "ab 01"}).json()["outputs"][0][0]


def test_alternatives_go_on_from_a_prefix_each_with_another_word(client: TestClient, model: Model) -> None:
    response = client.post("/v1/alternatives", json={"text": "ab 01", "prefix": "AB", "count": 6, "max_length": 8})
    assert response.status_code == 200, response.text
    found = response.json()["alternatives"]
    words = [one["word"] for one in found]
    assert 1 < len(words) == len(set(words)) <= 6
    chances = [one["probability"] for one in found]
    assert chances == sorted(chances, reverse=True)
    for one in found:
        assert one["output"]["text"].startswith("AB")
        assert one["word"] in one["output"]["text"]


def test_alternatives_go_on_from_a_prefix_with_words_that_are_not_known(tmp_path: Path) -> None:
    run = train_letters(tmp_path / "words", 'tokenizer.source="words"', 'tokenizer.target="words"')
    with TestClient(create_app(ServerSettings(runs={"words": run}))) as client:
        while client.get("/readyz").status_code != 200:
            time.sleep(0.02)
        plain, spaced, unknown = (
            client.post("/v1/alternatives", json={"text": "ab 01", "prefix": prefix}).json()["alternatives"]
            for prefix in ("AB", "AB      ", "unknown")
        )
        refused = client.post("/v1/generate", json={"text": "ab 01", "prefix": "unknown"})
        assert (refused.status_code, refused.json()["error"]["parameter"]) == (422, "prefix")
    assert len(plain) == 8
    assert spaced == plain
    assert len(unknown) == 8
    assert all(one["output"]["text"].split()[1] == one["word"] for one in unknown)


def test_a_model_whose_own_outputs_may_be_longer_than_the_server_s_is_cut(tmp_path: Path) -> None:
    run = train_letters(tmp_path / "long", "generation.max_length=40", "generation.min_length=9")
    with TestClient(create_app(ServerSettings(runs={"long": run}, max_output=9))) as client:
        while client.get("/readyz").status_code != 200:
            time.sleep(0.02)
        for alignments in (False, True):
            body = client.post("/v1/generate", json={"text": "ab 01", "alignments": alignments}).json()
            assert len(body["outputs"][0][0]["tokens"]) == 9
        assert client.post("/v1/generate", json={"text": "ab 01", "max_length": 10}).status_code == 422


def test_a_long_source_lets_no_output_be_longer_than_the_server_s(model: Model, tmp_path: Path) -> None:
    run = train_letters(tmp_path / "long", "generation.min_length=9")
    text = "ab 01"
    assert model.max_length(len(model.source_ids(text)), model.config.generation) > 9
    with TestClient(create_app(ServerSettings(runs={"long": run}, max_output=9))) as client:
        while client.get("/readyz").status_code != 200:
            time.sleep(0.02)
        for alignments in (False, True):
            body = client.post("/v1/generate", json={"text": text, "alignments": alignments}).json()
            assert len(body["outputs"][0][0]["tokens"]) == 9
        assert len(client.post("/v1/trace", json={"text": text}).json()["path"]) == 9


def test_what_was_begun_before_the_server_drains_is_answered(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = client.app.state.service  # type: ignore[attr-defined]
    call = service.pool.call

    def call_and_drain(*args: Any, **arguments: Any) -> Any:
        monkeypatch.setattr(service, "draining", True)
        return call(*args, **arguments)

    monkeypatch.setattr(service.pool, "call", call_and_drain)
    body = {"text": "ab 01", "count": 2}  # asks the engine twice
    assert len(client.post("/v1/alternatives", json=body).json()["alternatives"]) == 2
    assert client.post("/v1/alternatives", json=body).status_code == 503


@pytest.mark.parametrize(("size", "statuses"), [(256, {200}), (257, {400, 422})])
def test_what_stops_an_output_is_short(client: TestClient, size: int, statuses: set[int]) -> None:
    stop = "x" * size
    for path, body in {
        "/v1/generate": {"text": "ab", "stop": [stop]},
        "/v1/completions": {"model": "tiny", "prompt": "ab", "stop": stop},
        "/v2/models/tiny/generate": {"text_input": "ab", "parameters": {"stop": stop}},
    }.items():
        assert client.post(path, json=body).status_code in statuses, path


def test_time_for_attention_is_limited_too(client: TestClient) -> None:
    asked = {"text": "ab 01", "alignments": True, "timeout": 1e-6}
    assert client.post("/v1/generate", json=asked).status_code == 504


def test_the_first_alternative_is_what_the_model_says_itself(client: TestClient, model: Model) -> None:
    said = model.generate(["ab 02"], max_length=8)[0]
    first = said.split()[0]
    found = client.post("/v1/alternatives", json={"text": "ab 02", "count": 8, "max_length": 8}).json()["alternatives"]
    assert said in [one["output"]["text"] for one in found], f"{said!r} begins with {first!r}"


@pytest.mark.parametrize(
    "body",
    [
        {"text": "a", "count": 0},
        {"text": "a " * 500},
        {"text": "a", "prefix": "b " * 2000},
        {"text": "a", "beam_size": 2, "n_best": 2},
    ],
)
def test_alternatives_that_cannot_be_are_refused(client: TestClient, body: dict[str, object]) -> None:
    assert client.post("/v1/alternatives", json=body).status_code == 422


def test_a_blank_text_has_no_alternatives(client: TestClient) -> None:
    assert client.post("/v1/alternatives", json={"text": "  "}).json()["alternatives"] == []


def test_the_server_tells_what_it_serves_and_what_it_does(client: TestClient, model: Model) -> None:
    told = client.get("/v1/server").json()
    assert told["status"] == "ready"
    (served,) = told["models"]
    assert served["name"] == "tiny"
    assert served["d_model"] == 16
    assert served["target_vocabulary"] == model.tokenizers.target.vocab_size
    before = client.get("/v1/load").json()
    client.post("/v1/generate", json={"text": "ab 01"})
    after = client.get("/v1/load").json()
    assert after["answered"] == before["answered"] + 1
    assert after["engines"] == 1
    assert 0 < after["p50"] <= after["p95"] < 60


@pytest.fixture(scope="module")
def ensemble(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The run, and a recurrent one with its vocabulary."""
    other = tmp_path_factory.mktemp("other") / "gru"
    train_letters(other, "tokenizer.vocab_size=2000", preset="recurrent")
    return f"{folder}+{other}"


def test_a_model_is_called_as_its_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link by its own name, the folder where one is by what it is called."""
    (tmp_path / "run-7").mkdir()
    (tmp_path / "latest").symlink_to("run-7")
    monkeypatch.chdir(tmp_path / "run-7")
    assert list(runs_by_name([str(tmp_path / "latest"), ".", "../"])) == ["latest", "run-7", tmp_path.name]


def test_an_ensemble_is_served_as_one_model(ensemble: str, model: Model) -> None:
    runs = runs_by_name([ensemble])
    assert list(runs) == ["tiny+gru"]
    both = Model.load(ensemble)
    with TestClient(create_app(ServerSettings(runs=runs))) as client:
        while client.get("/readyz").status_code != 200:
            time.sleep(0.02)
        assert [served["members"] for served in client.get("/v1/server").json()["models"]] == [2]
        asked = {"text": ["ab 01", "ab 02 ab 03"], "beam_size": 3}
        found = client.post("/v1/generate", json=asked).json()["outputs"]
        expected = both.outputs(asked["text"], beam_size=3)
        assert [output["text"] for [output] in found] == [output.text for [output] in expected]
        assert [output["score"] for [output] in found] == pytest.approx([o.score for [o] in expected], abs=1e-4)
        assert found[0][0]["score"] != pytest.approx(model.outputs(["ab 01"], beam_size=3)[0][0].score, abs=1e-4)
        assert client.post("/v1/alternatives", json={"text": "ab 01", "prefix": "AB"}).status_code == 200
        pair = {"source": "ab 01", "target": "AB 01"}
        [score] = client.post("/v1/score", json=pair).json()["scores"]
        assert score == pytest.approx(both.score([("ab 01", "AB 01")])[0], abs=1e-4)
        traced = client.post("/v1/trace", json={"text": "ab 01"})
        assert traced.status_code == 422
        assert "with one run, and here are 2" in traced.text


def test_what_is_cut_off_after_a_stop_does_not_count_as_kept(client: TestClient, model: Model) -> None:
    (found,) = model.outputs(["ab 01"], beam_size=6, n_best=6)
    lasts = dict.fromkeys(one.text[-1] for one in found if left_out(found[0].text, [one.text[-1]]))
    stop, last = list(lasts)[:2]  # what ends with the first of them has nothing of both when it is cut
    body = {"text": "ab 01", "beam_size": 6, "n_best": 6, "keep": [stop, last], "stop": [stop]}
    for extra in ({}, {"alignments": True}):
        outputs = client.post("/v1/generate", json=body | extra).json()["outputs"][0]
        lacking = [left_out(output["text"], [stop, last]) for output in outputs]
        assert lacking == sorted(lacking)
        assert (lacking[0], lacking[-1]) == (1, 2)


@pytest.mark.parametrize(("has_gpu", "workers"), [(False, 4), (True, 0)])
def test_a_device_that_is_chosen_has_the_engines_that_suit_it(
    has_gpu: bool, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antiphon.machine.cores", lambda: 4)
    monkeypatch.setattr("torch.cuda.is_available", lambda: has_gpu)
    assert best_workers("auto") == workers


def test_a_drain_without_an_end_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^drain_seconds: .*finite"):
        server_settings(watch=".", drain_seconds=float("inf"))


def test_an_engine_process_does_not_run_what_lies_in_the_folder_it_is_begun_in(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tokenize.py").write_text("raise SystemExit('not Python\\'s own')\n")
    monkeypatch.chdir(tmp_path)

    async def begin() -> bool:
        pool = EnginePool(Hosted({"tiny": folder}, "cpu", "float32"), 1)
        try:
            await pool.start()
            return pool.is_ready
        finally:
            await pool.close()

    assert asyncio.run(begin())
