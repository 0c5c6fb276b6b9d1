"""A headless Chromium, driven over its debugging protocol (CDP). Debian's package is `chromium`."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from support.daemon import PATIENCE_S

_FLAGS = """
    --headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update
    --disable-sync --disable-extensions --disable-dev-shm-usage --hide-scrollbars --mute-audio --no-proxy-server
    --remote-debugging-port=0 --remote-allow-origins=*
"""

requires_chromium = pytest.mark.skipif(
    shutil.which("chromium") is None, reason="there is no Chromium: install Debian's package `chromium`"
)


class Page:
    """One tab. ``errors``: what its console complained of."""

    def __init__(self, connection: ClientConnection, session: str) -> None:
        self._connection = connection
        self._session = session
        self._last = 0
        self.errors: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Accessibility"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> Any:
        """A command's result."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": params, "sessionId": self._session}
        self._connection.send(json.dumps(message))
        deadline = time.monotonic() + PATIENCE_S
        while True:
            answer = json.loads(self._connection.recv(timeout=max(0.1, deadline - time.monotonic())))
            if answer.get("id") == self._last:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(json.dumps(params["exceptionDetails"]))
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.errors.append(params["entry"]["text"] + " " + params["entry"].get("url", ""))

    def open(self, url: str) -> None:
        self.send("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def evaluate(self, script: str) -> Any:
        """The value of an expression, or of the promise that it is."""
        result = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until the expression is true."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.evaluate(script):
            assert time.monotonic() < deadline, f"never: {script}\n{self.evaluate('document.body.innerText')}"
            time.sleep(0.1)

    def press(self, key: str) -> None:
        """One key, such as ``Tab`` or ``Enter``."""
        text = {"Enter": "\r", "Space": " "}.get(key, "")
        name = {"Space": " "}.get(key, key)
        code = {"Tab": 9, "Enter": 13, "Space": 32}[key]
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=name, code=key, windowsVirtualKeyCode=code, **more)

    def appear(self, width: int, height: int, *, dark: bool) -> None:
        """The size of the window, and what its user prefers."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path) -> None:
        """The whole page, as PNG."""
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextlib.contextmanager
def browser() -> Iterator[Page]:
    """A tab of a Chromium of its own."""
    profile = tempfile.mkdtemp(prefix="browser-")
    process = subprocess.Popen(
        ["chromium", *_FLAGS.split(), f"--user-data-dir={profile}", "about:blank"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": profile},
        start_new_session=True,
    )
    try:
        with connect(_address(Path(profile)), max_size=None, proxy=None) as connection:
            yield Page(connection, _attach(connection))
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            pass
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its children end a little later, and write until then
        process.wait()
        _remove(profile)


def _remove(folder: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while os.path.exists(folder) and time.monotonic() < deadline:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.02)


def _address(profile: Path) -> str:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(OSError, ValueError):
            port, path = (profile / "DevToolsActivePort").read_text().split()
            return f"ws://127.0.0.1:{port}{path}"
        assert time.monotonic() < deadline, "Chromium does not say where it can be reached"
        time.sleep(0.1)


def _attach(connection: ClientConnection) -> str:
    def ask(number: int, method: str, **params: Any) -> Any:
        connection.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            answer = json.loads(connection.recv(timeout=PATIENCE_S))
            if answer.get("id") == number:
                return answer["result"]

    targets = ask(1, "Target.getTargets")["targetInfos"]
    tab = next(each["targetId"] for each in targets if each["type"] == "page")
    return str(ask(2, "Target.attachToTarget", targetId=tab, flatten=True)["sessionId"])
