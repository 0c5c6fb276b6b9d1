"""A real worker, forked by a real fork server in a real interpreter, with the test in the daemon's place."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httptools

import caddysnake
from caddysnake.channel import vitals
from caddysnake.channel.endpoint import ChannelClosed, Endpoint, pair
from caddysnake.channel.messages import (
    PROTOCOL_VERSION,
    TAKE_TRUSTED,
    Configure,
    Drain,
    Failed,
    Message,
    Prepared,
    Ready,
    Spawn,
    Spawned,
    Take,
    Takes,
)
from caddysnake.channel.settings import Settings, seal

PACKAGE = Path(caddysnake.__file__).parent
SITE = str(Path(httptools.__file__).parent.parent)
PATIENCE_S = 30.0


def receive(endpoint: Endpoint, timeout: float = PATIENCE_S) -> Message:
    """The next message, within ``timeout`` seconds. Raises ``TimeoutError``, ``ChannelClosed``."""
    poller = select.poll()
    poller.register(endpoint.fileno(), select.POLLIN)
    if not poller.poll(timeout * 1000):
        raise TimeoutError("no message on the channel")
    received = endpoint.receive()
    assert received is not None
    return received[0]


class ForkServer:
    """A fork server process; ``fork`` gives the test's end of a new worker's channel."""

    def __init__(
        self,
        python: str = sys.executable,
        interface: str = "auto",
        preload: list[str] | None = None,
        libraries: list[str] | None = None,
        path: list[str] | None = None,
        grace_s: float = 5.0,
        waits: bool = True,
    ) -> None:
        ours, theirs = pair()
        options = {
            "channel": theirs.fileno(),
            "libraries": libraries or [SITE],
            "interface": interface,
            "preload": preload or [],
            "path": path or [],
        }
        self.process = subprocess.Popen(
            [python, str(PACKAGE / "worker" / "bootstrap.py"), json.dumps(options)],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"]},
        )
        theirs.close()
        self.endpoint = Endpoint(ours)
        if waits:
            self.first = receive(self.endpoint)
        self._count = 0
        self._grace_s = grace_s

    def fork(self) -> tuple[Endpoint, int]:
        assert isinstance(self.first, Prepared), self.first
        ours, theirs = pair()
        self._count += 1
        assert self.endpoint.hand_over(Spawn(self._count, self._grace_s), [theirs.fileno()])
        theirs.close()
        spawned = receive(self.endpoint)
        assert isinstance(spawned, Spawned), spawned
        return Endpoint(ours), spawned.pid

    def close(self) -> None:
        self.endpoint.close()
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


class Worker:
    """A configured worker. ``ready`` is the message it answered with: ``Ready`` or ``Failed``."""

    def __init__(self, fork_server: ForkServer, settings: Settings) -> None:
        self.endpoint, self.pid = fork_server.fork()
        page_fd = vitals.create("test")
        settings_fd = seal(settings)
        self.page = vitals.Page(page_fd)
        assert self.endpoint.hand_over(Configure(PROTOCOL_VERSION), [settings_fd, page_fd])
        os.close(page_fd)
        os.close(settings_fd)
        self.ready: Message = receive(self.endpoint)
        self._slot = 0
        self._kept: dict[int, socket.socket] = {}

    def give(self, sock: socket.socket, flags: int = TAKE_TRUSTED) -> int:
        """Hand ``sock`` over as the daemon does, keeping this copy as the daemon's duplicate; its slot."""
        slot = self._slot
        self._slot += 1
        self.page.slots[slot] = vitals.SLOT_GIVEN
        assert self.endpoint.hand_over(Take(slot, flags), [sock.fileno()])
        self._kept[slot] = sock
        return slot

    def give_together(self, socks: list[socket.socket], flags: int = TAKE_TRUSTED) -> None:
        """Hand ``socks`` over in one message, as the daemon does with a burst of connections."""
        takes = []
        for sock in socks:
            takes.append(Take(self._slot, flags))
            self.page.slots[self._slot] = vitals.SLOT_GIVEN
            self._kept[self._slot] = sock
            self._slot += 1
        assert self.endpoint.hand_over(Takes.several(takes), [sock.fileno() for sock in socks])

    def connect(self, flags: int = TAKE_TRUSTED) -> socket.socket:
        """A client's socket to this worker (blocking, with a time-out)."""
        client, server = socket.socketpair()
        client.settimeout(PATIENCE_S)
        self.give(server, flags)
        return client

    def connect_tcp(self, flags: int = TAKE_TRUSTED) -> socket.socket:
        """As ``connect``, over TCP."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname(), PATIENCE_S)
            server, _ = listener.accept()
        self.give(server, flags)
        return client

    def duplicate(self, slot: int) -> socket.socket:
        """The daemon's duplicate of the connection in ``slot``."""
        return self._kept[slot]

    def drop_duplicates(self) -> None:
        for sock in self._kept.values():
            sock.close()
        self._kept.clear()

    def message(self, timeout: float = PATIENCE_S) -> Message:
        return receive(self.endpoint, timeout)

    def drain(self, grace_s: float = 5.0) -> None:
        self.endpoint.send(Drain(grace_s))

    def close(self) -> None:
        """End it: the channel's end makes it leave; what stays is killed by its fork server."""
        self.drop_duplicates()
        with contextlib.suppress(ChannelClosed):
            self.drain(0.5)
        self.endpoint.close()
        self.page.close()
        deadline = time.monotonic() + PATIENCE_S
        while _alive(self.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        if _alive(self.pid):
            os.kill(self.pid, signal.SIGKILL)
            raise AssertionError(f"worker {self.pid} did not leave when its channel ended")


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def settings(app: str, interface: str, working_dir: Path | str, **more: Any) -> Settings:
    """Settings for ``module:variable`` found in ``working_dir``."""
    module, _, variable = app.partition(":")
    environ = more.pop("environ", {"PATH": os.environ["PATH"]})
    return Settings(app, interface, module, variable, str(working_dir), environ, **more)


@contextlib.contextmanager
def running(wanted: Settings, python: str = sys.executable, **options: Any) -> Iterator[Worker]:
    """A ready worker for ``wanted``, ended afterwards with its fork server."""
    fork_server = ForkServer(python, **options)
    try:
        worker = Worker(fork_server, wanted)
        try:
            assert isinstance(worker.ready, Ready), worker.ready
            yield worker
        finally:
            worker.close()
    finally:
        fork_server.close()


__all__ = ["Failed", "ForkServer", "Worker", "receive", "running", "settings"]
