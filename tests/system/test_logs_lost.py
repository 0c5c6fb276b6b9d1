"""A log that cannot be written does not stop the serving."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.daemon import PATIENCE_S, get, workers

pytestmark = pytest.mark.system

APP = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'ok']\n"


def full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def pipe_without_reader() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize("log", [full_disk, pipe_without_reader])
def test_serving_goes_on_when_the_log_is_lost(tmp_path: Path, log: Callable[[], int]) -> None:
    """From start to stop, a crash of a worker between."""
    (tmp_path / "blog.py").write_text(APP)
    block = "\tpython {\n\t\tmodule_wsgi blog:app\n\t\tworkers 1\n\t}\n"
    (tmp_path / "Caddyfile").write_text(f"unix/{tmp_path}/app.sock {{\n{block}}}\n")
    descriptor = log()
    process = subprocess.Popen(
        [sys.executable, "-m", "caddysnake", "run"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=descriptor,
        stderr=descriptor,
        start_new_session=True,
    )
    os.close(descriptor)
    try:
        deadline = time.monotonic() + PATIENCE_S
        served: set[int] = set()
        while not (served := workers(process.pid)):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert get("/", path=tmp_path / "app.sock") == (200, b"ok")
        for pid in served:
            os.kill(pid, signal.SIGKILL)
        assert get("/", path=tmp_path / "app.sock") == (200, b"ok")
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()
