"""Pictures of the page for the documents, from a real server and a real browser.

    python docs/page/screenshots.py            # writes docs/images/*.png; trains runs/tour first, if it is not there

It needs Chromium, and what the extra `dev` brings.
"""

import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import httpx
from models import SHAPES, train_all
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

IMAGES = Path(__file__).parent.parent / "images"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
WIDE, NARROW = 1200, 390

TEXT = "The black dog has never eaten the mouse."
TRUE = "Le chien noir n'a jamais vu la souris."
LONG = "The old queen will never give the letters to the small boys."
TWO = "The cat ate the mouse. The old man gave the zebra to the girl."
LOAD = 24  # requests at once, for the pictures of a busy server


@contextmanager
def served(runs: dict[str, Path]) -> Iterator[str]:
    """The address of a server."""
    command = [sys.executable, "-m", "antiphon", "serve", *map(str, runs.values())]
    folder = next(iter(runs.values())).parent
    with subprocess.Popen([*command, "--watch", folder, "--port", "0"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = re.search(r"http://127.0.0.1:\d+", process.stdout.readline())
        assert address is not None, "the server did not begin"
        yield address[0]
        process.terminate()


def picture(page: Page, name: str, selector: str | None = None) -> None:
    """Of what is to be seen, or of a part of it."""
    page.wait_for_timeout(700)
    file = IMAGES / f"{name}.png"
    if selector is None:
        page.screenshot(path=file)
    else:
        page.locator(selector).first.screenshot(path=file)
    with Image.open(file) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)  # a third of the bytes
    print(file.name)


@contextmanager
def busy(address: str) -> Iterator[None]:
    """The server has something to do meanwhile, now more and now less."""
    ended = Event()

    def ask(number: int) -> None:
        while not ended.is_set():
            body = {"text": LONG, "beam_size": 1 + number % 4, "model": list(SHAPES)[number % 2]}
            httpx.post(f"{address}/v1/generate", json=body, timeout=60)
            ended.wait(random.random() * number / 60)

    with ThreadPoolExecutor(LOAD) as pool:
        for number in range(LOAD):
            pool.submit(ask, number)
        yield
        ended.set()


def views(browser: Browser, address: str, look: str, **context: Any) -> None:
    """Every view as it opens, in one look."""
    page = browser.new_page(**context)
    page.goto(f"{address}/#use?text={TWO}&model=recurrent-en-fr")
    page.locator(".use-word").first.wait_for()
    page.get_by_role("button", name="Other versions").click()
    page.locator(".use-version").first.wait_for()
    picture(page, f"use-{look}")
    page.goto(f"{address}/#explain?text={TEXT}&model=transformer-en-fr&width=3&target={TRUE}")
    page.locator("#search svg [data-node]").first.wait_for()
    picture(page, f"explain-{look}")
    page.goto(f"{address}/#compare?text={LONG}&left=no-attention-en-fr&right=recurrent-en-fr")
    page.locator(".compare-output").nth(1).wait_for()
    picture(page, f"compare-{look}")
    page.goto(f"{address}/#training")
    page.locator("tr[data-step]").first.wait_for()
    picture(page, f"training-{look}")
    page.goto(f"{address}/#server")
    page.locator(".watch-plot").first.wait_for()
    with busy(address):
        page.wait_for_timeout(25_000)
        picture(page, f"server-{look}")
    page.close()


def chapters(browser: Browser, address: str) -> None:
    """What the tour shows, one part at a time."""
    page = browser.new_page(viewport={"width": WIDE, "height": 680})
    page.goto(f"{address}/#use?text={TWO}&model=recurrent-en-fr")
    page.locator(".use-word").nth(8).click()
    page.get_by_role("dialog").get_by_role("button").first.wait_for()
    picture(page, "tour-word")
    page.set_viewport_size({"width": WIDE, "height": 1600})
    page.goto(f"{address}/#explain?text={TEXT}&model=transformer-en-fr&width=3&target={TRUE}")
    page.locator("#decoder [data-loss]").first.wait_for()
    page.locator("#decoder").get_by_role("slider").fill("2")
    picture(page, "tour-journey", ".journey")
    picture(page, "tour-encoder", "#encoder")
    picture(page, "tour-decoder", ".card.decoder")
    picture(page, "tour-forcing", ".decoder-forcing")
    picture(page, "tour-attention", "#attention")
    page.goto(f"{address}/#explain?text={TEXT}&model=recurrent-en-fr&width=3&target=")
    page.get_by_label("Read up to").fill("5")
    picture(page, "tour-recurrent", "#encoder")
    page.mouse.move(0, 0)
    page.locator("#decoder").get_by_role("slider").fill("1")
    picture(page, "tour-search", "#search")
    page.goto(f"{address}/#training?runs=no-attention-en-fr")
    page.locator("tr[data-step]").first.wait_for()
    page.get_by_label("Dev source").select_option(index=5)
    picture(page, "tour-samples", ".watch-samples")
    page.close()


def main() -> None:
    if CHROMIUM is None:
        sys.exit("There is no Chromium; on Debian: apt-get install chromium.")
    runs = train_all(Path("runs/tour"))
    IMAGES.mkdir(exist_ok=True)
    with served({name: runs[name] for name in SHAPES}) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for scheme in ("light", "dark"):
            views(browser, address, scheme, color_scheme=scheme, viewport={"width": WIDE, "height": 900})
        views(browser, address, "narrow", viewport={"width": NARROW, "height": 844})
        chapters(browser, address)
        browser.close()


if __name__ == "__main__":
    main()
