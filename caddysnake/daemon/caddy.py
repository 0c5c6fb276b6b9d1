"""A stock Caddy as a companion: found, started on the generated Caddyfile, watched, ended.

It says READY=1 over a notify socket of ours (sd_notify(3)) once it serves, so nothing is guessed from time.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from . import processes
from .backoff import Backoff
from .companion import Companion
from .pools import StartFailed

log = logging.getLogger("caddysnake.caddy")

_READY_TIMEOUT_S = 60.0
_NAME = "caddy"


def find_caddy(environ: Mapping[str, str]) -> str | None:
    """The path of a Caddy: the one on PATH, else the one that the ``caddy`` extra installed beside this Python."""
    beside = str(Path(sys.executable).parent)
    return shutil.which("caddy", path=environ.get("PATH")) or shutil.which("caddy", path=beside)


class Caddy(Companion):
    """``folder`` is a private directory for the Caddyfile and the notify socket."""

    def __init__(self, binary: str, caddyfile: str, folder: Path) -> None:
        self._binary = binary
        # Named after what it says: another daemon on the same file, with another environment, must not find this one.
        self._file = folder / f"Caddyfile-{hashlib.sha256(caddyfile.encode()).hexdigest()[:12]}"
        self._file.write_text(caddyfile)
        _remove_stale(folder)
        self._notify_path = str(folder / f"notify-{os.getpid()}.sock")
        self._loop = asyncio.get_running_loop()
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._ended = asyncio.Event()
        self._notify: socket.socket | None = None
        self._ready: asyncio.Future[None] | None = None
        self._stopping = False
        self._started_at = 0.0
        self._backoff = Backoff()
        self._restart: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        self._listen_for_notice()
        self._ready = self._loop.create_future()
        self._spawn()
        try:
            await asyncio.wait_for(self._ready, _READY_TIMEOUT_S)
        except TimeoutError:
            self.kill()
            raise StartFailed(_NAME, "caddy", f"not ready within {_READY_TIMEOUT_S:g}s") from None

    async def stop(self, grace_s: float) -> None:
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
        self._close()

    def kill(self) -> None:
        self._stopping = True
        if self._process is not None and not self._ended.is_set():
            self._process.kill()

    def pids(self) -> set[int]:
        return {self._process.pid} if self._process is not None else set()

    def _listen_for_notice(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._notify_path)
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._notify.bind(self._notify_path)
        self._loop.add_reader(self._notify.fileno(), self._on_notice)

    def _on_notice(self) -> None:
        assert self._notify is not None
        with contextlib.suppress(BlockingIOError):
            if b"READY=1" in self._notify.recv(4096) and self._ready is not None and not self._ready.done():
                self._ready.set_result(None)

    def _spawn(self) -> None:
        self._restart = None
        self._ended.clear()
        self._started_at = time.monotonic()
        try:
            self._process = subprocess.Popen(
                [self._binary, "run", "--config", str(self._file), "--adapter", "caddyfile"],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "NOTIFY_SOCKET": self._notify_path},
                start_new_session=True,
                preexec_fn=processes.die_with_parent,  # noqa: PLW1509  # the daemon has one thread
            )
        except OSError as exc:
            raise StartFailed(_NAME, "caddy", f"cannot run {self._binary}: {exc.strerror}") from None
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

    def _close(self) -> None:
        if self._notify is not None:
            self._loop.remove_reader(self._notify.fileno())
            self._notify.close()
            self._notify = None
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._notify_path)


def _remove_stale(folder: Path) -> None:
    """Remove the notify sockets that killed daemons left."""
    for path in folder.glob("notify-*.sock"):
        number = path.stem.removeprefix("notify-")
        if number.isdigit() and not Path(f"/proc/{number}").exists():
            path.unlink(missing_ok=True)
