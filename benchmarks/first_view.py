"""How soon the page is there: from the address to the first view, and to the output of a text that a link names.

    python benchmarks/first_view.py RUN [--rounds 10]

Each round opens a new browser profile, so nothing is cached. Needs Chromium, and Antiphon's extra `dev`.
"""

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import time

from playwright.sync_api import Browser, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
TEXT = "The cat ate the mouse."


def seconds(browser: Browser, address: str) -> tuple[float, float]:
    """Until the field to type in is there; until the whole output is."""
    context = browser.new_context()
    page = context.new_page()
    start = time.perf_counter()
    page.goto(f"{address}/#use?text={TEXT}", wait_until="commit")
    page.locator("#source").wait_for()
    there = time.perf_counter() - start
    page.locator("#output:not([aria-busy]) .use-word").first.wait_for()
    answered = time.perf_counter() - start
    context.close()
    return there, answered


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", help="a run folder that `antiphon train` wrote")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    if CHROMIUM is None:
        sys.exit("There is no Chromium; on Debian: apt-get install chromium.")
    command = [sys.executable, "-m", "antiphon", "serve", options.run, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        address = re.search(r"http://127.0.0.1:\d+", process.stdout.readline())
        if address is None:
            sys.exit(f"{options.run} could not be served.")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            found = [seconds(browser, address[0]) for _ in range(options.rounds)]
            browser.close()
        process.terminate()
    for name, times in zip(("first view", "first output"), zip(*found, strict=True), strict=True):
        print(f"{name}: {statistics.median(times):.3f} s [{min(times):.3f}-{max(times):.3f}]")


if __name__ == "__main__":
    main()
