"""A service manager of the test's own: it hears sd_notify(3), and passes sockets as sd_listen_fds(3) has it."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from support.daemon import PATIENCE_S, Process

_PASS = 'n=3; for fd in $FDS; do eval "exec $n<&$fd"; n=$((n+1)); done; unset FDS; LISTEN_PID=$$ exec "$@"'
"""The descriptors get the numbers from 3 on, and who gets them is the process that becomes the program."""


class Manager:
    """A context manager. ``said``: every ``NAME=value`` line, in order. ``store``: the descriptors that were left."""

    def __init__(self, folder: Path, is_abstract: bool = False) -> None:
        self._folder = folder
        self.said: list[str] = []
        self.store: dict[str, int] = {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        name = f"caddysnake-test-{os.getpid()}-{id(self)}"
        self._socket.bind(f"\0{name}" if is_abstract else str(folder / "notify"))
        self.address = f"@{name}" if is_abstract else str(folder / "notify")
        self._starts = 0

    def __enter__(self) -> Manager:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        for fd in self.store.values():
            os.close(fd)

    def listen(self) -> None:
        """Hear what has been said until now."""
        while True:
            try:
                message, descriptors, _, _ = socket.recv_fds(self._socket, 65536, 16)
            except BlockingIOError:
                return
            lines = message.decode().split("\n")
            self.said += lines
            fields = dict(line.split("=", 1) for line in lines)
            if fields.get("FDSTORE") == "1":
                for fd in descriptors:
                    self._remove(fields["FDNAME"])
                    self.store[fields["FDNAME"]] = fd
            elif fields.get("FDSTOREREMOVE") == "1":
                self._remove(fields["FDNAME"])

    def _remove(self, name: str) -> None:
        if (fd := self.store.pop(name, None)) is not None:
            os.close(fd)

    def wait_for(self, line: str, times: int = 1) -> None:
        """Until a line that begins with ``line`` was said so often."""
        deadline = time.monotonic() + PATIENCE_S
        while sum(each.startswith(line) for each in self.said) < times:
            assert time.monotonic() < deadline, f"{line!r} was not said {times} times, but {self.said}"
            time.sleep(0.01)
            self.listen()

    def forget(self) -> None:
        """What was said until now."""
        self.listen()
        self.said.clear()

    def start(self, passed: dict[str, int] | None = None, **environ: str) -> Process:
        """``caddysnake run`` in the folder, with ``passed`` and what is in the store."""
        self._starts += 1
        sockets = (passed or {}) | self.store
        variables = {"NOTIFY_SOCKET": self.address, **environ}
        if sockets:
            variables |= {
                "LISTEN_FDS": str(len(sockets)),
                "LISTEN_FDNAMES": ":".join(sockets),
                "FDS": " ".join(map(str, sockets.values())),
            }
        command = ["bash", "-c", _PASS, "bash", sys.executable, "-m", "caddysnake", "run"]
        return Process(command, self._folder, f"daemon-{self._starts}", variables, tuple(sockets.values()))

    @contextlib.contextmanager
    def daemon(self, passed: dict[str, int] | None = None, **environ: str) -> Iterator[Process]:
        """The same, ready."""
        process = self.start(passed, **environ)
        try:
            process.wait_for_log(" ready in ")
            yield process
        finally:
            process.close()
