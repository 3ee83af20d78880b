"""Trainings that a server watches: found in a folder, read as they grow, and told; and a server without models."""

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from letters import train_letters

from antiphon.config import Config, changed
from antiphon.serving import watch
from antiphon.serving.app import create_app
from antiphon.serving.errors import RefusedError
from antiphon.serving.settings import ServerSettings, server_settings
from antiphon.serving.watch import Watcher, architecture

WORDS = ["training.max_steps=6", "training.validations=3"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a real run in it."""
    folder = tmp_path_factory.mktemp("runs")
    train_letters(folder / "letters" / "tiny", *WORDS)
    return folder


def update(step: int, loss: float = 2.0, share: float = 0.5) -> dict[str, Any]:
    return {
        "step": step,
        "loss": loss,
        "learning_rate": 0.001,
        "gradient_norm": 1.0,
        "target_tokens": 64,
        "tokens_per_second": 100.0,
        "seconds": step / 10,
        "share": share,
    }


def validation(step: int, bleu: float) -> dict[str, Any]:
    return {"step": step, "dev_loss": 1.0, "dev_bleu": bleu, "seconds": step / 10}


def make_run(folder: Path, *entries: dict[str, Any], metric: str = "bleu") -> Path:
    """A run with these lines; its metrics.jsonl."""
    folder.mkdir(parents=True)
    config = changed(Config(), {"training": {"metric": metric}})
    (folder / "config.json").write_text(config.model_dump_json(), encoding="utf-8")
    write(folder / "metrics.jsonl", *entries, mode="w")
    return folder / "metrics.jsonl"


def write(file: Path, *entries: dict[str, Any], mode: str = "a") -> None:
    with file.open(mode, encoding="utf-8") as opened:
        opened.writelines(json.dumps(entry) + "\n" for entry in entries)


def steps(watcher: Watcher, name: str = "run") -> list[int]:
    return watcher.curves([name])[0].steps


# What a run is


def test_a_run_that_was_trained_is_told_from_its_settings_to_its_samples(runs: Path) -> None:
    watcher = Watcher(runs)
    (summary,) = watcher.summaries()
    assert (summary.name, summary.step, summary.share) == ("letters/tiny", 6, 1.0)
    assert summary.architecture.startswith("transformer")
    assert summary.architecture.endswith("width 16")
    assert summary.kept is not None
    assert not summary.live
    assert summary.unreadable == 0
    (curves,) = watcher.curves(["letters/tiny"])
    assert curves.steps == [1, 2, 3, 4, 5, 6]
    assert curves.loss[-1] == pytest.approx(summary.loss, rel=1e-3)
    assert curves.dev[summary.metric].steps == curves.dev["loss"].steps == [2, 4, 6]
    assert summary.best == max(curves.dev[summary.metric].values)
    assert [[one.step for one in sample.outputs] for sample in curves.samples] == [[2, 4, 6]] * len(curves.samples)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"encoder_layers": 3, "decoder_layers": 2, "d_model": 128}, "transformer 3+2, width 128"),
        ({"encoder": "gru", "decoder": "gru", "attention": "additive", "d_model": 64}, "additive attention, width 64"),
        ({"encoder": "lstm", "decoder": "lstm", "attention": "none"}, "no attention"),
        ({"decoder": "ssru", "encoder_layers": 6, "decoder_layers": 1}, "transformer 6 + ssru 1"),
    ],
)
def test_an_architecture_is_told_in_a_few_words(model: dict[str, Any], words: str) -> None:
    assert words in architecture(changed(Config(), {"model": model}))


def test_runs_are_found_at_some_depth_and_nowhere_else(tmp_path: Path) -> None:
    folder, outside = tmp_path / "runs", tmp_path / "outside"
    make_run(outside, update(1))
    for name in ("a", "b/c/d/e", "b/c/d/e/too-deep", "a/checkpoints/step-1", ".hidden"):
        make_run(folder / name, update(1))
    (folder / "link").symlink_to(outside)
    (folder / "half").mkdir()
    (folder / "half" / "config.json").write_text("{}", encoding="utf-8")
    (folder / "half" / "metrics.jsonl").symlink_to(outside / "metrics.jsonl")
    assert sorted(one.name for one in Watcher(folder).summaries()) == ["a", "b/c/d/e"]


def test_the_folder_itself_may_be_a_run(tmp_path: Path) -> None:
    make_run(tmp_path / "run", update(1))
    assert [one.name for one in Watcher(tmp_path / "run").summaries()] == ["."]


def test_a_run_that_is_gone_is_not_told_any_more(tmp_path: Path) -> None:
    metrics = make_run(tmp_path / "run", update(1))
    watcher = Watcher(tmp_path)
    assert len(watcher.summaries()) == 1
    metrics.unlink()
    assert watcher.summaries() == []
    with pytest.raises(RefusedError, match="run"):
        watcher.curves(["run"])


def test_settings_that_cannot_be_read_hide_no_curves(tmp_path: Path) -> None:
    make_run(tmp_path / "run", update(1))
    (tmp_path / "run" / "config.json").write_text("{", encoding="utf-8")
    watcher = Watcher(tmp_path)
    (summary,) = watcher.summaries()
    assert "cannot be read" in summary.architecture
    assert summary.step == 1
    (tmp_path / "run" / "config.json").write_text(Config().model_dump_json(), encoding="utf-8")
    assert "transformer" in watcher.summaries()[0].architecture


@pytest.mark.parametrize(("metric", "best"), [("bleu", (8.0, 2)), ("wer", (3.0, 1)), ("loss", (1.0, 1))])
def test_the_best_is_the_highest_or_the_lowest_as_the_metric_wants_it(
    metric: str, best: tuple[float, int], tmp_path: Path
) -> None:
    lines = [validation(1, 3.0), validation(2, 8.0), validation(3, 5.0)]
    lines = [line | {"dev_wer": line["dev_bleu"]} for line in lines]
    make_run(tmp_path / "run", *lines, metric=metric)
    (summary,) = Watcher(tmp_path).summaries()
    assert (summary.best, summary.best_step) == best


def test_a_run_is_live_until_it_ends_or_is_not_heard_of(tmp_path: Path) -> None:
    metrics = make_run(tmp_path / "run", update(1))
    watcher = Watcher(tmp_path)
    assert watcher.summaries()[0].live
    long_ago = time.time() - watch.LIVE_SECONDS - 5
    os.utime(metrics, (long_ago, long_ago))
    assert not watcher.summaries()[0].live
    write(metrics, update(2), {"step": 2, "kept": "the weights of step 2", "metric": "bleu", "value": 1.0})
    assert not watcher.summaries()[0].live
    assert watcher.summaries()[0].kept == "the weights of step 2"


# A file that grows


def test_only_what_is_new_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = make_run(tmp_path / "run", *map(update, range(1, 50)))
    watcher = Watcher(tmp_path)
    assert steps(watcher)[-1] == 49
    taken: list[bytes] = []
    take = watch.History.take
    monkeypatch.setattr(watch.History, "take", lambda self, line: (taken.append(line), take(self, line)))
    assert steps(watcher)[-1] == 49
    assert taken == []
    write(metrics, update(50), update(51))
    assert steps(watcher)[-3:] == [49, 50, 51]
    assert len(taken) == 2


def test_a_line_that_is_not_whole_waits(tmp_path: Path) -> None:
    metrics = make_run(tmp_path / "run", update(1))
    watcher = Watcher(tmp_path)
    line = json.dumps(update(2)) + "\n"
    for end in range(1, len(line), 7):
        metrics.write_text(json.dumps(update(1)) + "\n" + line[:end], encoding="utf-8")
        assert steps(watcher) == [1]
    metrics.write_text(json.dumps(update(1)) + "\n" + line, encoding="utf-8")
    assert steps(watcher) == [1, 2]
    assert watcher.summaries()[0].unreadable == 0


@pytest.mark.parametrize("in_place", [True, False])
def test_a_file_that_was_cut_or_replaced_is_read_anew(in_place: bool, tmp_path: Path) -> None:
    """As a resumed run does, which forgets what came after its last checkpoint, and goes on differently."""
    metrics = make_run(tmp_path / "run", *map(update, range(1, 6)))
    watcher = Watcher(tmp_path)
    assert steps(watcher) == [1, 2, 3, 4, 5]
    if not in_place:
        metrics.unlink()
    write(metrics, update(1), update(2), mode="w")
    assert steps(watcher) == [1, 2]
    if not in_place:
        metrics.rename(tmp_path / "before")
    write(metrics, update(1), update(2, 3.0), update(3, 4.0), update(4), mode="w")
    (curves,) = watcher.curves(["run"])
    assert (curves.steps, curves.loss) == ([1, 2, 3, 4], [2.0, 3.0, 4.0, 2.0])


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[1]",
        "3",
        "{}",
        '{"step": 2, "loss": "x"}',
        '{"step": 2, "loss": 1.0}',
        json.dumps(update(2, float("nan"))),
        json.dumps(update(2, float("inf"))),
        json.dumps(update(2) | {"step": 10**400}),
        '{"step": 2, "samples": [{"source": 1}]}',
        '{"step": 2, "samples": 7}',
        "[" * 100_000,
    ],
)
def test_a_line_that_is_nothing_is_counted_and_left_out(line: str, tmp_path: Path) -> None:
    metrics = make_run(tmp_path / "run", update(1))
    with metrics.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    write(metrics, update(3))
    watcher = Watcher(tmp_path)
    assert steps(watcher) == [1, 3]
    assert watcher.summaries()[0].unreadable == 1


def test_a_long_run_is_reduced_to_means(tmp_path: Path) -> None:
    make_run(tmp_path / "run", *(update(step, float(step)) for step in range(1, 1201)), validation(1200, 5.0))
    (curves,) = Watcher(tmp_path).curves(["run"])
    assert len(curves.steps) == len(curves.loss) == len(curves.seconds) == 400
    assert curves.steps[:2] == [3, 6]
    assert curves.loss[:2] == [2.0, 5.0]
    assert curves.steps[-1] == 1200
    assert curves.dev["bleu"].values == [5.0]


# Over HTTP


@contextmanager
def client(**settings: Any) -> Iterator[TestClient]:
    with TestClient(create_app(server_settings(**settings))) as client:
        while client.get("/readyz").status_code != 200:
            time.sleep(0.02)
        yield client


@pytest.fixture(scope="module")
def watching(runs: Path) -> Iterator[TestClient]:
    with client(watch=runs) as found:
        yield found


def test_runs_and_their_curves_are_told(watching: TestClient, runs: Path) -> None:
    watcher = Watcher(runs)
    assert watching.get("/v1/runs").json() == {"runs": [asdict(one) for one in watcher.summaries()]}
    found = watching.get("/v1/runs/curves", params={"name": ["letters/tiny"]})
    assert found.json() == {"runs": [asdict(one) for one in watcher.curves(["letters/tiny"])]}


@pytest.mark.parametrize(
    "name", ["none", "", ".", "..", "../runs", "letters/../letters/tiny", "/etc", "letters", "letters/tiny/checkpoints"]
)
def test_a_name_that_is_no_run_is_refused_in_a_sentence(name: str, watching: TestClient) -> None:
    found = watching.get("/v1/runs/curves", params={"name": name})
    assert found.status_code == 404
    assert found.json()["error"]["message"].startswith(f"run {name!r} is not in the folder")


def test_no_name_and_too_many_are_refused(watching: TestClient) -> None:
    assert watching.get("/v1/runs/curves").status_code == 422
    assert watching.get("/v1/runs/curves", params={"name": ["letters/tiny"] * 13}).status_code == 422


def test_texts_and_names_that_are_no_unicode_can_be_told(tmp_path: Path) -> None:
    name = os.fsdecode(b"run-\xff")
    sample = {"source": "a", "reference": "b", "output": "\ud800"}
    make_run(tmp_path / name, update(1), {"step": 1, "samples": [sample]})
    with client(watch=tmp_path) as asked:
        (run,) = asked.get("/v1/runs").json()["runs"]
        (curves,) = asked.get("/v1/runs/curves", params={"name": run["name"]}).json()["runs"]
    assert curves["samples"][0]["outputs"] == [{"step": 1, "output": "?"}]


def test_a_folder_without_runs_is_an_empty_list(tmp_path: Path) -> None:
    with client(watch=tmp_path) as asked:
        assert asked.get("/v1/runs").json() == {"runs": []}


def test_a_server_that_watches_nothing_has_no_such_address(runs: Path) -> None:
    with client(runs={"tiny": runs / "letters" / "tiny"}) as asked:
        assert asked.get("/v1/runs").status_code == 404
        assert asked.get("/v1/server").json()["watching"] is False


def test_a_server_may_serve_and_watch(runs: Path) -> None:
    with client(runs={"tiny": runs / "letters" / "tiny"}, watch=runs) as asked:
        assert asked.get("/v1/server").json()["watching"] is True
        assert asked.post("/v1/generate", json={"text": "ab 01"}).status_code == 200
        assert len(asked.get("/v1/runs").json()["runs"]) == 1


# Without models


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/healthz", {"status": "ok", "models": []}),
        ("/readyz", {"status": "ready"}),
        ("/v1/server", {"status": "ready", "models": [], "max_texts": 256, "watching": True}),
        ("/v1/models", {"object": "list", "data": []}),
        ("/languages", []),
    ],
)
def test_without_models_it_says_that_there_are_none(path: str, found: object, watching: TestClient) -> None:
    answer = watching.get(path)
    assert (answer.status_code, answer.json()) == (200, found)


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/v2", "/v2/health/ready", "/metrics", "/v1/load"])
def test_without_models_its_other_pages_are_there(path: str, watching: TestClient) -> None:
    assert watching.get(path).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/generate", {"text": "a"}),
        ("/v1/generate", {"text": "a", "model": "tiny"}),
        ("/v1/trace", {"text": "a"}),
        ("/v1/score", {"pairs": [["a", "b"]]}),
        ("/v1/completions", {"model": "tiny", "prompt": "a"}),
        ("/v1/chat/completions", {"model": "tiny", "messages": [{"role": "user", "content": "a"}]}),
        ("/v2/models/tiny/generate", {"text_input": "a"}),
    ],
)
def test_without_models_requests_for_one_are_refused(path: str, body: dict[str, Any], watching: TestClient) -> None:
    answer = watching.post(path, json=body)
    assert 400 <= answer.status_code < 500, answer.text
    assert "no model is served" in answer.text or answer.status_code == 422


def test_without_models_a_translation_is_refused(watching: TestClient) -> None:
    answer = watching.post("/translate", json={"q": "a", "source": "en", "target": "fr"})
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]
    assert 400 <= watching.post("/translate", json={"q": "a", "source": "auto", "target": "fr"}).status_code < 500
    assert watching.get("/frontend/settings").json()["error"]
    assert watching.post("/detect", json={"q": "a"}).status_code < 500


def test_a_server_for_nothing_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match=re.escape("there is nothing to serve")):
        server_settings(runs={})


@pytest.mark.parametrize("kind", ["missing", "a file"])
def test_a_folder_to_watch_that_is_none_is_refused_in_a_sentence(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    if kind == "a file":
        folder.write_text("x", encoding="utf-8")
    with pytest.raises(ValueError, match="no such folder to watch"):
        create_app(ServerSettings(watch=folder))
