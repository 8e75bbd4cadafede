"""Firefox for browser tests: Debian's own, spoken to in WebDriver BiDi.

Playwright drives a Firefox of its own build, and a stock one only where it knows a command (to emulate media features)
that the long-term release does not have yet.
"""

import json
import shutil
import socket
import subprocess
import time
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
import websocket

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
WITH_FIREFOX = [
    pytest.mark.browser,
    pytest.mark.skipif(not FIREFOX, reason="no Firefox here (Debian: apt-get install firefox-esr)"),
]


class Firefox:
    """One headless Firefox with one page.

    Args:
        folder: an empty one, for its profile.

    Attributes:
        said: errors and warnings of the console, and what scripts did not catch.
    """

    def __init__(self, folder: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [FIREFOX, "--headless", "--profile", str(folder), "--remote-debugging-port", str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.said: list[str] = []
        self._number, self._socket = 0, self._connected(f"ws://127.0.0.1:{port}/session")
        self.ask("session.new", capabilities={})
        self.ask("session.subscribe", events=["log.entryAdded"])
        self.page = self.ask("browsingContext.getTree")["contexts"][0]["context"]

    def _connected(self, address: str) -> websocket.WebSocket:
        for _ in range(240):
            try:
                return websocket.create_connection(address, timeout=600, suppress_origin=True)
            except OSError:
                assert self.process.poll() is None, "Firefox has ended"
                time.sleep(0.5)
        raise AssertionError("Firefox does not answer")

    def ask(self, method: str, **params: Any) -> dict:
        """What a command of WebDriver BiDi gives."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("method") == "log.entryAdded":
                if message["params"]["level"] in ("error", "warn"):
                    self.said.append(str(message["params"]["text"]))
            elif message.get("id") == self._number:
                assert message["type"] == "success", message
                return message["result"]

    def resize(self, width: int, zoom: float = 1.0) -> None:
        """A window of so many pixels; a browser's zoom leaves a page fewer and larger ones."""
        size = {"width": int(width / zoom), "height": int(800 / zoom)}
        self.ask("browsingContext.setViewport", context=self.page, viewport=size, devicePixelRatio=zoom)

    def go(self, address: str, width: int, zoom: float = 1.0) -> None:
        """Open an address in a window of so many pixels."""
        self.resize(width, zoom)
        self.said.clear()
        self.ask("browsingContext.navigate", context=self.page, url=address, wait="complete")

    def evaluate(self, expression: str) -> Any:
        """The value of an expression on the page, as JSON carries it; a promise is waited for."""
        code = f"(async () => JSON.stringify((await ({expression})) ?? null))()"
        target = {"target": {"context": self.page}, "awaitPromise": True}
        answer = self.ask("script.evaluate", expression=code, **target)
        assert answer["type"] == "success", answer["exceptionDetails"]["text"]
        return json.loads(answer["result"]["value"])

    def wait(self, expression: str, seconds: int = 600) -> None:
        """Until an expression is true on the page."""
        end = time.monotonic() + seconds
        while not self.evaluate(expression):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.5)

    def shoot(self, path: Path) -> None:
        """An image of the window."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b64decode(self.ask("browsingContext.captureScreenshot", context=self.page)["data"]))

    def close(self) -> None:
        """End it."""
        self._socket.close()
        self.process.terminate()
        self.process.wait(60)


@pytest.fixture(scope="module")
def firefox(tmp_path_factory):
    """A Firefox for a module's tests."""
    browser = Firefox(tmp_path_factory.mktemp("firefox"))
    yield browser
    browser.close()
