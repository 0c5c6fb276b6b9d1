"""A stock Caddy as a companion: found, started on the generated Caddyfile, watched, ended.

It calls us back (`caddy run --pingback`, as `caddy start` has it) once it serves, so nothing is guessed from time. Its
READY=1 of sd_notify(3) would not do: it also comes after a configuration that failed to load, just before the exit.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from ..config.environment import without_service_manager
from . import processes
from .backoff import Backoff
from .carried import CarriedCaddy
from .companion import Companion
from .pools import StartFailed

log = logging.getLogger("caddysnake.caddy")

_READY_TIMEOUT_S = 60.0
_CALL_TIMEOUT_S = 5.0
_NAME = "caddy"
_GOGC = "400"
"""Unless our environment says otherwise. A proxy's heap is small and short-lived: with Go's own 100 a tenth of Caddy's
time goes with collecting it."""


def find_caddy(environ: Mapping[str, str]) -> str | None:
    """The path of a Caddy: the one on PATH, else the one that the ``caddy`` extra installed beside this Python."""
    beside = str(Path(sys.executable).parent)
    return shutil.which("caddy", path=environ.get("PATH")) or shutil.which("caddy", path=beside)


class Caddy(Companion):
    """``folder`` is a private directory for the Caddyfile."""

    def __init__(self, binary: str, caddyfile: str, folder: Path) -> None:
        self._binary = binary
        # Named after what it says: another daemon on the same file, with another environment, must not find this one.
        self._file = folder / f"Caddyfile-{hashlib.sha256(caddyfile.encode()).hexdigest()[:12]}"
        self._file.write_text(caddyfile)
        self._loop = asyncio.get_running_loop()
        self._process: processes.Process | None = None
        self._pidfd = -1
        self._ended = asyncio.Event()
        self._ready: asyncio.Future[None] | None = None
        self._stopping = False
        self._started_at = 0.0
        self._backoff = Backoff()
        self._restart: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Start it and wait until it says that it serves (``caddy run --pingback``). Raises ``StartFailed``."""
        self._ready = self._loop.create_future()
        secret = secrets.token_hex(16).encode()  # a stranger on this machine may find the port
        server = await asyncio.start_server(partial(self._called_back, secret), "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        try:
            self._spawn(["--pingback", f"{host}:{port}"], secret)
            await asyncio.wait_for(self._ready, _READY_TIMEOUT_S)
        except TimeoutError:
            self.kill()
            raise StartFailed(_NAME, "caddy", f"not ready within {_READY_TIMEOUT_S:g}s") from None
        finally:
            server.close()

    async def stop(self, grace_s: float) -> None:
        """End it: SIGTERM, and SIGKILL when ``grace_s`` seconds have not been enough. Returns when it is gone."""
        self._stopping = True
        if self._restart is not None:
            self._restart.cancel()
        if self._process is not None and not self._ended.is_set():
            self._process.send_signal(signal.SIGTERM)
            # Caddy itself waits for its requests without a limit.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), grace_s)
            self.kill()
            await self._ended.wait()

    def carry(self) -> CarriedCaddy | None:
        """All that whoever goes on with it must know; None when it was never started."""
        if self._process is None:
            return None
        is_up = not self._ended.is_set()
        return CarriedCaddy(
            pid=self._process.pid if is_up else 0,
            pidfd=self._pidfd if is_up else -1,
            started_at=self._started_at,
            failures=self._backoff.failures,
            restart_in_s=0.0 if self._restart is None else max(0.0, self._restart.when() - self._loop.time()),
        )

    def resume(self, carried: CarriedCaddy | None) -> None:
        """What it runs is what the former version wrote; the next start is of what this one has."""
        if carried is None:
            return
        self._started_at = carried.started_at
        self._backoff.failures = carried.failures
        if carried.pid:
            self._process = processes.Child(carried.pid)
            self._pidfd = carried.pidfd
            self._loop.add_reader(self._pidfd, self._on_exit)
        else:
            self._ended.set()
            self._restart = self._loop.call_later(carried.restart_in_s, self._spawn_again)

    def kill(self) -> None:
        """SIGKILL, without waiting; it is not started again."""
        self._stopping = True
        if self._process is not None and not self._ended.is_set():
            self._process.kill()

    def pids(self) -> set[int]:
        """The children that are waited for here, and by nobody else."""
        return {self._process.pid} if self._process is not None else set()

    async def _called_back(self, secret: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_CALL_TIMEOUT_S):
                said = await reader.readexactly(len(secret))
        except (OSError, EOFError, TimeoutError):
            said = b""
        finally:
            writer.close()
        if secrets.compare_digest(said, secret) and self._ready is not None and not self._ready.done():
            self._ready.set_result(None)

    def _spawn(self, options: Sequence[str] = (), told: bytes = b"") -> None:
        """``told`` is what it reads on standard input."""
        self._restart = None
        self._ended.clear()
        self._started_at = time.monotonic()
        try:
            self._process = process = subprocess.Popen(
                [self._binary, "run", "--config", str(self._file), "--adapter", "caddyfile", *options],
                stdin=subprocess.PIPE,
                # What a service manager is told is the daemon's business.
                env={"GOGC": _GOGC} | without_service_manager(os.environ),
                start_new_session=True,
                preexec_fn=processes.die_with_parent,  # noqa: PLW1509  # the daemon has one thread
            )
        except OSError as exc:
            raise StartFailed(_NAME, "caddy", f"cannot run {self._binary}: {exc.strerror}") from None
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin as standard_input:
            standard_input.write(told)
        self._pidfd = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._pidfd, self._on_exit)

    def _on_exit(self) -> None:
        assert self._process is not None
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        status = self._process.wait()
        self._ended.set()
        if self._stopping:
            return
        if self._ready is not None and not self._ready.done():
            text = f"caddy ended with status {status} before it served: its own message is above"
            self._ready.set_exception(StartFailed(_NAME, "caddy", text))
            return
        pause = self._backoff.pause_after(time.monotonic() - self._started_at)
        log.error("caddy ended and is started again", extra={"fields": {"status": status, "in_s": round(pause, 1)}})
        self._restart = self._loop.call_later(pause, self._spawn_again)

    def _spawn_again(self) -> None:
        try:
            self._spawn()
        except StartFailed as exc:  # the binary was replaced, or taken away for a moment
            pause = self._backoff.pause_after(0.0)
            log.error("caddy cannot be started", extra={"fields": {"error": str(exc), "in_s": round(pause, 1)}})
            self._restart = self._loop.call_later(pause, self._spawn_again)
