"""A real browser on a real server with models that were trained for it.

Chromium must be there (Debian: `apt-get install chromium`); without it these tests are skipped, but where CI is set
they fail. Every test also checks that the page wrote no error to the console and asked nobody but its server.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing.served import Server, Watched
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from antiphon.config import changed, load_config
from antiphon.data import corpora
from antiphon.data.pairs import Pair
from antiphon.training.train import train

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]

RECURRENT = {"encoder": "gru", "decoder": "gru", "encoder_layers": 1, "decoder_layers": 1, "d_model": 48}
SHAPES: dict[str, dict[str, Any]] = {
    "attentive-en-fr": {"d_model": 48, "d_ff": 96, "num_heads": 2, "encoder_layers": 2, "decoder_layers": 2},
    "recurrent-en-fr": RECURRENT,
    "blind-en-fr": RECURRENT | {"attention": "none"},
    "back-fr-en": RECURRENT,
}
TRAINING = {"batch_tokens": 512, "max_steps": 250, "warmup_steps": 20, "learning_rate": 5e-3, "label_smoothing": 0.0}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.slow)
            if CHROMIUM is None and not os.environ.get("CI"):
                item.add_marker(pytest.mark.skip(reason="there is no Chromium; on Debian: apt-get install chromium"))


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of trained models, good enough to say something of their own."""
    folder = tmp_path_factory.mktemp("runs")
    corpus = corpora.build("english-french", 3, 4000, 60)
    for name, shape in SHAPES.items():
        is_back = name.endswith("fr-en")
        tables = {"tokenizer": {"vocab_size": 900}, "model": shape | {"dropout": 0.0}}
        training = TRAINING | {"validations": 4, "eval_pairs": 40, "metric": "exact_match"}
        config = changed(load_config(None, None), tables | {"training": training})
        pairs, dev = ([_turned(pair) if is_back else pair for pair in part] for part in (corpus.train, corpus.held_out))
        train(pairs, folder / name, dev=dev, config=config)
    return folder


def _turned(pair: Pair) -> Pair:
    return Pair(pair.target, pair.source)


@pytest.fixture(scope="session")
def server(runs: Path) -> Iterator[Server]:
    server = Server([*(str(runs / name) for name in SHAPES), "--watch", str(runs)])
    yield server
    server.end()


@pytest.fixture(scope="module")  # while it runs, so does a loop of asyncio, which others want to begin themselves
def browser() -> Iterator[Browser]:
    assert CHROMIUM is not None, "there is no Chromium; on Debian: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser, server: Server) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, permissions=["clipboard-write"])
    context.set_default_timeout(15_000)
    yield context
    context.close()


@pytest.fixture
def watched(context: BrowserContext, server: Server) -> Iterator[Watched]:
    watched = Watched(context, server.address)
    yield watched
    assert not watched.faults
