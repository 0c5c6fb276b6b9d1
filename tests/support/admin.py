"""A daemon's admin API, called as an operator's tools call it."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from support.daemon import PATIENCE_S, Process, UnixHTTPConnection


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers.get_content_type() == "application/json", self
        return json.loads(self.body)


def socket_of(process: Process) -> Path:
    """The default admin socket of the daemon."""
    (found,) = Path(process.runtime_dir).glob("caddysnake/admin/*.sock")
    return found


def call(
    where: Process | Path | int, method: str, target: str, body: bytes | str | None = None, **headers: str
) -> Answer:
    """One request to the daemon's default socket, to another, or to a port on loopback."""
    connection: http.client.HTTPConnection
    if isinstance(where, int):
        connection = http.client.HTTPConnection("127.0.0.1", where, PATIENCE_S)
    else:
        connection = UnixHTTPConnection(socket_of(where) if isinstance(where, Process) else where)
    try:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, target, body, fields)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


def command(
    process: Process, folder: Path, *words: str, check: bool = False, **more: str
) -> subprocess.CompletedProcess[str]:
    """``caddysnake WORDS`` as the daemon's operator runs it, in ``folder``, with ``more`` variables."""
    environ = {**os.environ, "HOME": str(folder), "XDG_RUNTIME_DIR": process.runtime_dir, "COLUMNS": "300", **more}
    done = subprocess.run(
        [sys.executable, "-m", "caddysnake", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env=environ,
    )
    assert "in main\n" not in done.stderr, done.stderr
    assert not check or done.returncode == 0, done.stderr
    return done
