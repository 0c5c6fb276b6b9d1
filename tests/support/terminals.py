"""A command on a terminal of its own."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from support.daemon import PATIENCE_S


def on_terminal(folder: Path, *words: str, environ: dict[str, str] | None = None, until: bytes | None = None) -> bytes:
    """What a terminal is shown by ``caddysnake``, to its end; or, by one that runs on, ``until`` a line with this has
    stood there for a moment."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "caddysnake", *words],
        cwd=folder,
        env={**os.environ, "TERM": "xterm", **(environ or {})},
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
    )
    os.close(follower)
    shown = b""
    deadline = time.monotonic() + PATIENCE_S
    with contextlib.suppress(OSError):  # nobody has the other end any more
        while time.monotonic() < deadline:
            is_there = until is not None and until in shown
            if not select.select([leader], [], [], 1.0)[0]:
                if is_there:
                    break
            elif not (data := os.read(leader, 65536)):
                break
            else:
                shown += data
    if process.poll() is None and until is not None:
        process.send_signal(signal.SIGINT)
    with contextlib.suppress(OSError):
        while os.read(leader, 65536):
            pass
    os.close(leader)
    assert process.wait(PATIENCE_S) in (0, 1), shown
    return shown
