"""Trainings and the server's load in a browser, as they go on."""

import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from browsing.served import Server, Watched
from playwright.sync_api import Browser, Route, expect

NAMES = ["attentive-en-fr", "recurrent-en-fr", "blind-en-fr", "back-fr-en"]


def test_trainings_are_listed_and_laid_over_one_another(watched: Watched, server: Server) -> None:
    page = watched.open("#training")
    runs = page.locator("[data-run]")
    expect(runs).to_have_count(len(NAMES))
    told = {run["name"]: run for run in httpx.get(f"{server.address}/v1/runs").json()["runs"]}
    for run in runs.all():
        facts = told[run.get_attribute("data-run") or ""]
        values = run.locator("[data-value]").evaluate_all("all => all.map(one => Number(one.dataset.value))")
        assert facts["loss"] in values
        assert facts["best"] in values
    charts = page.locator(".watch-plot")
    expect(charts).to_have_count(4)
    lines = charts.first.locator("polyline.watch-line")
    before = lines.count()
    runs.last.get_by_role("checkbox").check()
    expect(lines).to_have_count(before + 2)  # of the training, and of the validations


def test_runs_that_are_gone_hold_no_lines(watched: Watched) -> None:
    gone = ",".join(f"gone-{number}" for number in range(5))
    page = watched.open(f"#training?runs=back-fr-en,{gone}")
    lines = page.locator(".watch-plot").first.locator("polyline.watch-line")
    expect(lines).to_have_count(2)  # of the training, and of the validations
    for box in page.locator("[data-run]").get_by_role("checkbox").all():
        box.check()
    expect(lines).to_have_count(2 * len(NAMES))


def test_how_long_a_run_was_trained_is_told_in_hours_and_minutes(watched: Watched) -> None:
    def answer(route: Route) -> None:
        body = route.fetch().json()
        for run in body["runs"]:
            run["seconds"] = 7199
        route.fulfill(json=body)

    watched.page.route("**/v1/runs", answer)
    page = watched.open("#training")
    expect(page.locator("[data-run]").first).to_contain_text("1 h 59 min")


def test_samples_show_how_the_outputs_became_better(watched: Watched, server: Server) -> None:
    page = watched.open("#training")
    page.locator(".watch-plot").first.wait_for()
    rows = page.locator("tr[data-step]")
    rows.first.wait_for()
    curves = httpx.get(f"{server.address}/v1/runs/curves", params={"name": NAMES}).json()["runs"]
    outputs = {one["output"] for run in curves for sample in run["samples"] for one in sample["outputs"]}
    for row in rows.all():
        assert row.locator("td").last.inner_text().strip() in outputs
    assert rows.count() >= 4


def test_samples_are_those_of_the_run_that_is_named(watched: Watched, server: Server) -> None:
    page = watched.open("#training")
    page.locator(".watch-plot").first.wait_for()
    for box in page.locator("[data-run]").get_by_role("checkbox").all():
        box.check()
    for name in NAMES:
        page.get_by_label("Run", exact=True).select_option(name)
        (run,) = httpx.get(f"{server.address}/v1/runs/curves", params={"name": name}).json()["runs"]
        source = page.get_by_label("Dev source").input_value()
        outputs = next(sample["outputs"] for sample in run["samples"] if sample["source"] == source)
        shown = page.locator("tr[data-step] td")
        expect(shown).to_have_text([one["output"] or "nothing" for one in outputs])


def test_a_training_is_followed_live(browser: Browser, runs: Path, tmp_path: Path) -> None:
    source = runs / "recurrent-en-fr"
    lines = (source / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    folder = tmp_path / "trainings" / "young"
    folder.mkdir(parents=True)
    shutil.copy(source / "config.json", folder)
    (folder / "metrics.jsonl").write_text("".join(lines[:20]), encoding="utf-8")
    server = Server(["--watch", str(tmp_path / "trainings")])
    context = browser.new_context()
    try:
        watched = Watched(context, server.address)
        page = watched.open("#training")
        run = page.locator('[data-run="young"]')
        expect(run).to_contain_text("training")
        expect(run.locator('[data-value="20"]')).to_be_visible()
        with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write("".join(lines[20:]))
        last = max(json.loads(line)["step"] for line in lines)
        expect(run.locator(f'[data-value="{last}"]').first).to_be_visible()
        expect(run).to_contain_text("ended")
        page.goto(f"{server.address}/#use")
        expect(page.get_by_text("No model is served here")).to_be_visible()
        assert not watched.faults
    finally:
        context.close()
        server.end()


def test_a_training_s_own_process_is_seen_while_it_trains(browser: Browser, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("".join(f"a {n} b\tB {n} A\n" for n in range(400)), encoding="utf-8")
    folder = tmp_path / "trainings"
    folder.mkdir()
    words = ["model.d_model=32", "model.d_ff=32", "training.validations=3", "training.max_steps=1200"]
    sets = [part for word in words for part in ("--set", word)]
    server = Server(["--watch", str(folder)])
    context = browser.new_context()
    page = Watched(context, server.address).open("#training")
    command = [sys.executable, "-m", "antiphon", "train", str(pairs), "--out", str(folder / "real"), *sets]
    command += ["--preset", "tiny"]
    training = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        run = page.locator('[data-run="real"]')
        expect(run).to_contain_text("training", timeout=60_000)
        assert training.wait(600) == 0
        expect(run).to_contain_text("ended", timeout=30_000)
        page.locator("tr[data-step]").first.wait_for()
    finally:
        context.close()
        server.end()
        training.kill()
        training.wait()


def test_the_server_s_load_is_shown_live(watched: Watched, server: Server) -> None:
    page = watched.open("#server")
    page.locator(".watch-plot").first.wait_for()

    def ask(_: int) -> int:
        body = {"text": "The dog slept.", "beam_size": 2}
        return httpx.post(f"{server.address}/v1/generate", json=body, timeout=60).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(40))) == {200}
    answered = page.locator("dt:has-text('Answered in the last minute') + dd")
    expect(answered).to_have_attribute("data-value", re.compile(r"[4-9]\d|\d{3,}"))
    for name in NAMES:
        expect(page.get_by_role("table")).to_contain_text(name)
