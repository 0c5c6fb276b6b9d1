"""Starting a server, waiting until it gives the right answer, and ending it."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .scenarios import EXPECTED_BODY
from .servers import BenchmarkError

START_S = 30.0
STOP_S = 15.0


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket, for the first question only."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=5)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(name: str, command: list[str], log: Path, *, core: int | None) -> Iterator[int]:
    """The process of `command`, pinned to `core` if given, for the length of the block. Yields its pid."""
    pin = ["taskset", "--cpu-list", str(core)] if core is not None else []
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                [*pin, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        except OSError as error:
            raise BenchmarkError(f"{name} cannot be started: {error}") from None
    try:
        yield process.pid
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        pass
    # Whatever it left behind is in the session that was made for it.
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def wait_for_answer(name: str, pid: int, log: Path, *, port: int = 0, path: Path | None = None) -> None:
    """Until the server answers as the apps do.

    Raises BenchmarkError, with the end of its log, when it ends or takes too long.
    """
    deadline = time.monotonic() + START_S
    answer: object = "nothing"
    while time.monotonic() < deadline:
        if _has_ended(pid):
            answer = "nothing: it ended"
            break
        try:
            answer = _ask(UnixConnection(path) if path else http.client.HTTPConnection("127.0.0.1", port, timeout=5))
        except (OSError, http.client.HTTPException) as error:
            answer = error
        if answer == EXPECTED_BODY:
            return
        time.sleep(0.05)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
    raise BenchmarkError(f"{name} does not answer as it should ({answer}). Its log ends with:\n{tail}")


def _has_ended(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _ask(connection: http.client.HTTPConnection) -> bytes:
    try:
        connection.request("GET", "/")
        return connection.getresponse().read()
    finally:
        connection.close()
