"""A stock Caddy beside the apps: started on the generated Caddyfile, watched, ended.

It calls us back (`caddy run --pingback`, as `caddy start` has it) once it serves, so nothing is guessed from time. Its
READY=1 of sd_notify(3) would not do: it also comes after a configuration that failed to load, just before the exit.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from .... import files
from ....config.plan.admin import make_private
from ....config.stock.caddy_admin import CADDYS_DEFAULT, OFF
from ...apps.spec import StartFailed
from ...system import kinship, processes
from ...system.backoff import Backoff
from ...system.log.fields import FieldLog
from ...system.log.held import HeldOutput
from ...system.state import CaddySnapshot
from ..beside import FrontProxy
from ..document import CaddyPart, ReloadFailed
from .admin_socket import Door, knows_descriptors
from .binary import ASKING_S, environment
from .complaint import complaint_of, last_words, of_port

log = FieldLog("caddysnake.caddy")

_READY_TIMEOUT_S = 60.0
_SLOW_S = 3.0
_CALL_TIMEOUT_S = 5.0
_NAME = "caddy"
_OWN = re.compile(r"Caddyfile-(\d+)-[0-9a-f]+|caddy-(\d+)\.sock")
"""What belongs to the daemon with that pid."""


class _EndedEarly(Exception):
    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status


class Caddy(FrontProxy):
    """``folder`` is a private directory for the Caddyfile."""

    def __init__(self, binary: str, part: CaddyPart, folder: Path) -> None:
        self._binary = binary
        self._folder = folder
        self._part = part
        """What it runs, or is to run when it is started again."""
        self._door = Door(-1, -1)
        """There is none where its part says where, or it was started by a version that knew no such door."""
        self._knows_default = False
        """The one that runs was told by a variable where its admin API listens, should its part not say that."""
        self._file = self._write(part)
        self._spared = -1  # what ``files.spare`` gave for the folder
        self._output = HeldOutput()
        self._asking: subprocess.Popen[bytes] | None = None
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
        await self._make_door()
        self._ready = self._loop.create_future()
        secret = secrets.token_hex(16).encode()  # a stranger on this machine may find the port
        server = await asyncio.start_server(partial(self._called_back, secret), "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        slow = self._loop.call_later(_SLOW_S, _tell_slow)
        try:
            self._spawn(["--pingback", f"{host}:{port}"], secret)
            await asyncio.wait_for(self._ready, _READY_TIMEOUT_S)
        except TimeoutError:
            self.kill()
            raise StartFailed(_NAME, "caddy", f"not ready within {_READY_TIMEOUT_S:g}s") from None
        except _EndedEarly as exc:
            raise StartFailed(_NAME, "caddy", await self._why_ended(exc)) from None
        finally:
            slow.cancel()
            server.close()
            self._output.release()

    async def _make_door(self) -> None:
        """Where a file leaves its admin API to us, and it can listen there, nobody but us gets in."""
        if self._part.admin == OFF or not await asyncio.to_thread(knows_descriptors, self._binary):
            return
        try:
            self._door = Door.make()
        except OSError as exc:
            raise StartFailed(_NAME, "caddy", f"no socket for its admin API: {exc.strerror}") from None
        former, self._file = self._file, self._write(self._part)
        self._forget(former)

    @property
    def _own_address(self) -> str:
        return f"unix/{self._folder}/caddy-{os.getpid()}.sock"

    @property
    def _address(self) -> str:
        """Where its admin API listens, unless its part says otherwise."""
        return self._door.address if self._door else self._own_address

    async def _why_ended(self, ended: _EndedEarly) -> str:
        """What is wrong with its part of the file, if that is what it ended of; its own log may go anywhere."""
        words = last_words(self._output.said(_NAME))
        if why := of_port(words):
            self._output.forget()
            return why
        try:
            await self._ask(self._part, self._file, "validate")
        except ReloadFailed as exc:
            self._output.forget()
            return str(exc)
        return f"caddy ended with status {ended.status} before it served: {words or 'its own log says why'}"

    async def check(self, part: CaddyPart) -> None:
        """Have ``part`` validated. Raises ``ReloadFailed``, also when a Caddy that runs cannot be told."""
        if part.is_same(self._part):  # but what is imported may say something else
            return
        if self._part.admin == OFF and not self._ended.is_set():
            hint = "restart, or take `admin off` away and restart once: Caddy then gets a socket for this user alone"
            raise ReloadFailed(f"Caddy's part has changed, and with `admin off` it cannot be told: {hint}", "restart")
        file = self._write(part)
        try:
            await self._ask(part, file, "validate")
        except ReloadFailed:
            self._forget(file)
            raise

    async def change(self, part: CaddyPart) -> None:
        """Tell Caddy, unless that comes to what it has; one that is down starts on it. Raises ``ReloadFailed``."""
        file = self._write(part)
        if not self._ended.is_set() and (not part.is_same(self._part) or self._may_differ()):
            try:
                await self._tell(part, file)
            except ReloadFailed:
                self._forget(file)
                raise
        former, self._part, self._file = self._file, part, file
        self._forget(former)

    async def _tell(self, part: CaddyPart, file: Path) -> None:
        address = self._part.admin
        if address == self._own_address and not self._knows_default and address not in self._part.text:
            address = CADDYS_DEFAULT
        if not self._door or address != self._own_address:
            await self._ask(part, file, "reload", "--address", address)
            return
        config = await self._ask(part, file, "adapt")
        try:
            complaint = await asyncio.to_thread(self._door.load, config, ASKING_S)
        except (OSError, http.client.HTTPException) as exc:
            raise ReloadFailed(f"caddy does not answer: {exc}", "caddy") from None
        if complaint:
            raise ReloadFailed(complaint_of(complaint, part, file), "caddy")

    def _may_differ(self) -> bool:
        return self._part.admin != OFF and "import" in self._part.text

    async def _ask(self, part: CaddyPart, file: Path, command: str, *options: str) -> bytes:
        """What ``caddy`` prints when it does ``command`` with ``file``. Raises ``ReloadFailed`` with what it says."""
        words = (command, "--config", str(file), "--adapter", "caddyfile", *options)
        try:
            status, printed, said = await asyncio.to_thread(self._ask_in_thread, words)
        except subprocess.TimeoutExpired:
            raise ReloadFailed(f"`caddy {command}` did not end within {ASKING_S:g}s", "caddy") from None
        except OSError as exc:
            raise ReloadFailed(f"cannot run {self._binary}: {exc.strerror}", "caddy") from None
        if status:
            raise ReloadFailed(complaint_of(said, part, file), "caddy")
        return printed

    def _ask_in_thread(self, words: Sequence[str]) -> tuple[int, bytes, str]:
        process = subprocess.Popen(
            [self._binary, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            start_new_session=True,
        )
        self._asking = process
        try:
            printed, said = process.communicate(timeout=ASKING_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        finally:
            self._asking = None
        return process.returncode, printed, said.decode(errors="replace")

    def _write(self, part: CaddyPart) -> Path:
        """Another daemon on the same file, which may have another environment, must not find this one."""
        text = self._text(part)
        file = self._folder / f"Caddyfile-{os.getpid()}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        try:
            file.write_text(text)
        except OSError as exc:
            raise ReloadFailed(f"cannot write {file}: {exc.strerror}", "caddy") from None
        return file

    def _text(self, part: CaddyPart) -> str:
        return part.text if part.admin != self._own_address else part.text.replace(part.admin, self._address, 1)

    def _clear_up(self) -> None:
        """Remove what a Caddy that was killed has left, and daemons that were."""
        for file in self._folder.iterdir():
            found = _OWN.fullmatch(file.name)
            if found is not None and file != self._file:
                pid = int(found[1] or found[2])
                if pid == os.getpid() or not kinship.exists(pid):
                    file.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Should somebody have cleared up the folder, in which the sockets are too, make it anew."""
        if not self._stopping and not self._file.exists():
            with contextlib.suppress(OSError):  # whose sockets are gone say why
                self._settle()

    def _settle(self) -> None:
        make_private(str(self._folder))
        self._spared = files.spare(str(self._folder), self._spared)
        self._clear_up()
        if not self._file.exists():
            self._file.write_text(self._text(self._part))

    def _remove_files(self) -> None:
        with contextlib.suppress(OSError):
            self._file.unlink(missing_ok=True)
            self._clear_up()
        self._door.close()

    def _forget(self, file: Path) -> None:
        if file != self._file:
            file.unlink(missing_ok=True)

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
        self._remove_files()

    def snapshot(self) -> CaddySnapshot | None:
        """All that whoever goes on with it must know; None when it was never started."""
        if self._process is None:
            return None
        is_up = not self._ended.is_set()
        return CaddySnapshot(
            pid=self._process.pid if is_up else 0,
            pidfd=self._pidfd if is_up else -1,
            started_at=self._started_at,
            failures=self._backoff.failures,
            listening=self._door.listening,
            door=self._door.handle,
            knows_default=self._knows_default,
            outlets=self._output.snapshot() if is_up else None,
            restart_in_s=0.0 if self._restart is None else max(0.0, self._restart.when() - self._loop.time()),
            folder=str(self._folder),
        )

    def restore(self, saved: CaddySnapshot | None) -> None:
        """What it runs is what the former version wrote; the next start is of what this one has."""
        if saved is None:
            return
        with contextlib.suppress(OSError):
            self._settle()
        self._started_at = saved.started_at
        self._backoff.failures = saved.failures
        self._output.restore(saved.outlets)
        self._knows_default = saved.knows_default
        if saved.listening >= 0:
            self._door = Door(saved.listening, saved.door)
            former, self._file = self._file, self._write(self._part)
            self._forget(former)
        if saved.pid:
            self._process = processes.InheritedChild(saved.pid)
            self._pidfd = saved.pidfd
            self._loop.add_reader(self._pidfd, self._on_exit)
        else:
            self._ended.set()
            self._restart = self._loop.call_later(saved.restart_in_s, self._spawn_again)

    def kill(self) -> None:
        """SIGKILL, without waiting; it is not started again."""
        self._stopping = True
        if self._asking is not None:
            self._asking.kill()
        if self._process is not None and not self._ended.is_set():
            self._process.kill()
        self._remove_files()

    def pids(self) -> set[int]:
        """The children that are waited for here, and by nobody else."""
        return {each.pid for each in (self._process, self._asking) if each is not None}

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
        try:
            self._settle()
        except OSError as exc:
            raise StartFailed(_NAME, "caddy", f"cannot use {self._folder}: {exc.strerror}") from None
        self._ended.clear()
        self._started_at = time.monotonic()
        try:
            self._process = process = subprocess.Popen(
                [self._binary, "run", "--config", str(self._file), "--adapter", "caddyfile", *options],
                stdin=subprocess.PIPE,
                stderr=self._output.open(_NAME, {"process": _NAME}, (_NAME,))[0],
                env={**environment(), "CADDY_ADMIN": self._address},
                start_new_session=True,
                pass_fds=[self._door.listening] if self._door else (),
                preexec_fn=processes.die_with_parent,  # noqa: PLW1509  # the daemon has one thread
            )
        except OSError as exc:
            raise StartFailed(_NAME, "caddy", f"cannot run {self._binary}: {exc.strerror}") from None
        self._knows_default = True
        self._output.hold(process.pid)
        if self._ready is None or self._ready.done():  # nobody waits for it to say why it does not serve
            self._output.release()
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
        is_starting = self._ready is not None and not self._ready.done()
        if self._stopping or not is_starting:
            self._output.end()
        if self._stopping:
            return
        if self._ready is not None and is_starting:
            self._ready.set_exception(_EndedEarly(status))
            return
        pause = self._backoff.pause_after(time.monotonic() - self._started_at)
        log.error("caddy ended and is started again", status=status, in_s=round(pause, 1))
        self._restart = self._loop.call_later(pause, self._spawn_again)

    def _spawn_again(self) -> None:
        try:
            self._spawn()
        except StartFailed as exc:  # the binary was replaced, or taken away for a moment
            pause = self._backoff.pause_after(0.0)
            log.error("caddy cannot be started", error=str(exc), in_s=round(pause, 1))
            self._restart = self._loop.call_later(pause, self._spawn_again)


def _tell_slow() -> None:
    log.info("waiting for caddy; the first time that it signs a site itself it installs its root certificate")
