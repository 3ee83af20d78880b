"""`antiphon serve` in a process of its own, and a page of a browser that is watched for what it must not do."""

import re
import signal
import subprocess
import sys
import threading

from playwright.sync_api import BrowserContext, Page


class Server:
    """`antiphon serve`, which can be stopped, and begun again at the same address."""

    def __init__(self, arguments: list[str]) -> None:
        self._arguments = arguments
        self.port = 0
        self.begin()

    def begin(self) -> None:
        """Returns when it is ready."""
        command = [sys.executable, "-m", "antiphon", "serve", *self._arguments, "--workers", "0", "--port"]
        self._process = subprocess.Popen(
            [*command, str(self.port)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._errors: list[str] = []
        self._reader = threading.Thread(target=self._errors.extend, args=(self._process.stderr,))
        self._reader.start()
        address = re.search(r"http://127.0.0.1:(\d+)", self._process.stdout.readline())
        assert address is not None, self._errors
        self.port, self.address = int(address[1]), address[0]

    def end(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._process.stdout.close()
        self._process.stderr.close()


class Watched:
    """A page of the browser, and what it must not do."""

    def __init__(self, context: BrowserContext, address: str) -> None:
        self.page: Page = context.new_page()
        self.address = address
        self.faults: list[str] = []
        self.loaded: dict[str, int] = {}  # bytes of each file that was sent, by its path
        self.page.on("console", lambda one: self.faults.append(one.text) if one.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", lambda one: self._asked(one.url))

    def _asked(self, url: str) -> None:
        if not url.startswith((self.address, "blob:")):
            self.faults.append(f"asked for {url}")

    def open(self, view: str = "") -> Page:
        """Returns when the view is there."""
        self.page.goto(f"{self.address}/{view}")
        self.page.locator("#waiting").wait_for(state="detached")
        return self.page
