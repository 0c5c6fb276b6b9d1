"""A real daemon (``caddysnake run``) and a real stock Caddy, each a process of its own with its log in a file."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from support.caddies import caddy as find_caddy

PATIENCE_S = 60.0
CADDY = b"--adapter\0caddyfile"
"""Stands in the command line of each Caddy that a daemon or a test has started."""


class Process:
    """A child with its output in ``log_path``; ended and reaped by ``close`` at the latest."""

    def __init__(
        self,
        command: list[str],
        folder: Path,
        name: str,
        environ: dict[str, str] | None = None,
        descriptors: tuple[int, ...] = (),
        cwd: Path | None = None,
        user: int | None = None,
    ) -> None:
        self.log_path = folder / f"{name}.log"
        # Sockets have short names (unix(7)), and the folder of a test has a long one.
        self._runtime = tempfile.TemporaryDirectory(prefix="cs-")
        with self.log_path.open("wb") as log:
            self.popen = subprocess.Popen(
                command,
                cwd=cwd or folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "HOME": str(folder), "XDG_RUNTIME_DIR": self._runtime.name, **(environ or {})},
                start_new_session=True,
                pass_fds=descriptors,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
            )

    @property
    def runtime_dir(self) -> str:
        """Its ``XDG_RUNTIME_DIR``."""
        return self._runtime.name

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def wait_for_log(self, text: str, times: int = 1) -> None:
        """Wait until ``text`` stands ``times`` times in the log, or fail with the log."""
        deadline = time.monotonic() + PATIENCE_S
        while self.log.count(text) < times:
            if self.popen.poll() is not None and self.log.count(text) < times:
                raise AssertionError(f"ended with {self.popen.returncode} without saying {text!r}:\n{self.log}")
            if time.monotonic() > deadline:
                raise AssertionError(f"did not say {text!r}:\n{self.log}")
            time.sleep(0.02)

    def wait(self, timeout: float = PATIENCE_S) -> int:
        """The exit status."""
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"did not end:\n{self.log}") from None

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.popen.send_signal(number)
        return self.wait()

    def close(self) -> None:
        try:
            if self.popen.poll() is None:
                self.popen.terminate()
                try:
                    self.popen.wait(PATIENCE_S)
                except subprocess.TimeoutExpired:
                    self.popen.kill()
                    self.popen.wait()
                    raise AssertionError(f"did not end on SIGTERM:\n{self.log}") from None
            left = [str(path) for path in Path(self.runtime_dir).rglob("*") if not path.is_dir()]
            assert self.popen.returncode or not left, f"it has ended well and left {left}"
        finally:
            self._runtime.cleanup()


def as_text(log: str) -> str:
    """What the records of ``log``, lines of JSON, say to a person: messages, tracebacks."""
    said = [json.loads(line) for line in log.splitlines()]
    return "".join(f"{part}\n" for each in said for part in (each["msg"], each.get("error")) if part)


def children(pid: int) -> set[int]:
    """All descendants of ``pid``."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                parents[int(entry.name)] = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
    found: set[int] = set()
    frontier = {pid}
    while frontier:
        frontier = {child for child, parent in parents.items() if parent in frontier} - found
        found |= frontier
    return found


def workers(pid: int) -> set[int]:
    """The worker processes below the daemon ``pid``, by their titles."""
    return below(pid, b"caddysnake: worker")


def below(pid: int, part: bytes) -> set[int]:
    """The processes below ``pid`` whose command line has ``part``."""
    return {child for child in children(pid) if part in command_line(child)}


def command_line(pid: int) -> bytes:
    """The words of a process, each with a NUL behind it; nothing when it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def cpu_s(*pids: int) -> float:
    """The processor time that these have used, by the kernel's clock of each."""
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def descriptors(pid: int) -> int:
    """How many files it has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def eventually(condition: Callable[[], object], what: str | Process = "it") -> None:
    """Wait until it holds, or fail with ``what`` was waited for, or with the log of a process."""
    deadline, pause_s = time.monotonic() + PATIENCE_S, 0.005
    while not condition():
        said = what if isinstance(what, str) else what.log
        assert time.monotonic() < deadline, f"waited in vain for {said}"
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.05)


def wait_for_spare_relay(pid: int) -> None:
    """Until the daemon ``pid``, which has relays, has the one that stands by: then its children stay the same."""
    eventually(lambda: below(pid, b'"control"'), "a relay that stands by")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def is_spared(folder: Path) -> bool:
    """Whether systemd-tmpfiles(8) leaves it, however old what is in there: it asks for this lock first."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


_given: set[int] = set()
_chance = random.SystemRandom()


def free_port() -> int:
    """A port of the loopback that nobody has, and that this process was not given before.

    Below those that the kernel gives to clients and to whoever asks for any: until our server listens, one of those
    can go to somebody else, or be given here a second time. Of the processes that run tests each has its own.
    """
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        port = _chance.randrange(20_000 + number, 32_768, processes)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port


def python_site(address: str, *lines: str) -> str:
    """A site of one ``python`` block with these ``lines``."""
    inside = "".join(f"\t\t{line}\n" for line in lines)
    return f"{address} {{\n\tpython {{\n{inside}\t}}\n}}\n"


@contextlib.contextmanager
def daemon(folder: Path, caddyfile: str, *arguments: str, environ: dict[str, str] | None = None) -> Iterator[Process]:
    """``caddysnake run`` on ``caddyfile`` in ``folder``, all its apps ready."""
    (folder / "Caddyfile").write_text(caddyfile)
    environ = {"STATE_DIRECTORY": str(folder / "state"), **(environ or {})}
    process = Process([sys.executable, "-m", "caddysnake", "run", *arguments], folder, "daemon", environ)
    try:
        process.wait_for_log(" ready in ")
        yield process
    finally:
        process.close()


@contextlib.contextmanager
def caddy(
    folder: Path, caddyfile: str, binary: str | None = None, options: str = ""
) -> Iterator[tuple[Process, int]]:
    """A stock Caddy on ``caddyfile``, in which ``{port}`` stands for a free port; the process and the port.

    ``options``: global options, beside those that every test needs.
    """
    binary = binary or find_caddy("current")
    port = free_port()
    path = folder / "Caddyfile.stock"
    path.write_text(f"{{\n\tadmin off\n\tauto_https off\n{options}}}\n" + caddyfile.replace("{port}", str(port)))
    process = Process([binary, "run", "--config", str(path), "--adapter", "caddyfile"], folder, "caddy")
    try:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
                break
            if process.popen.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"caddy does not listen:\n{process.log}")
            time.sleep(0.02)
        yield process, port
    finally:
        process.close()


class UnixHTTPConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path | str, timeout: float = PATIENCE_S) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def get(target: str, port: int | None = None, path: Path | str | None = None, **headers: str) -> tuple[int, bytes]:
    """GET over TCP to loopback, or over the unix socket ``path``: status and body."""
    connection: http.client.HTTPConnection
    if path is not None:
        connection = UnixHTTPConnection(path)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, PATIENCE_S)
    try:
        connection.request("GET", target, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
