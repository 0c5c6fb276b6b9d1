"""Where a supervised Caddy is told of another configuration: a socket that nobody else finds.

Caddy's admin API asks nobody who he is, and apps may have the daemon's user. So Caddy inherits a socket whose path is
gone before it listens (``admin fd/N``); the daemon, which is undumpable, keeps a handle of that path (open(2), O_PATH).
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import tempfile
from typing import Final

_SINCE: Final = (2, 9)
"""The first Caddy that takes a descriptor for an address."""
_BACKLOG: Final = 128
_ASKING_S: Final = 10.0


def knows_descriptors(binary: str) -> bool:
    """Whether the Caddy at ``binary`` can listen on one; False if it does not say."""
    try:
        done = subprocess.run([binary, "version"], capture_output=True, text=True, timeout=_ASKING_S, check=False)
    except (OSError, subprocess.SubprocessError):
        return False
    found = re.match(r"v?(\d+)\.(\d+)\.", done.stdout)
    return found is not None and (int(found[1]), int(found[2])) >= _SINCE


class Door:
    """``listening`` is for Caddy, which has it by the same number; ``handle`` is how it is reached."""

    def __init__(self, listening: int, handle: int) -> None:
        self.listening = listening
        self.handle = handle

    def __bool__(self) -> bool:
        """It is open."""
        return self.listening >= 0

    @classmethod
    def make(cls) -> Door:
        """A new one. Raises ``OSError``."""
        with tempfile.TemporaryDirectory(prefix="caddysnake-") as folder:
            path = f"{folder}/admin.sock"
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.bind(path)
                handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
                os.unlink(path)
                sock.listen(_BACKLOG)
                return cls(sock.detach(), handle)

    @property
    def address(self) -> str:
        """As a Caddyfile has it."""
        return f"fd/{self.listening}"

    def load(self, config: bytes, timeout_s: float) -> str:
        """Have Caddy run ``config``, JSON; its complaint, empty when it does. Raises ``OSError``, ``HTTPException``."""
        connection = _Connection("localhost", timeout=timeout_s)
        connection.handle = self.handle
        try:
            connection.request("POST", "/load", config, {"Content-Type": "application/json"})
            response = connection.getresponse()
            said = response.read().decode(errors="replace")
        finally:
            connection.close()
        if response.status == http.client.OK:
            return ""
        try:
            return str(json.loads(said)["error"])
        except (ValueError, KeyError, TypeError):
            return said or f"status {response.status}"

    def close(self) -> None:
        """Nobody gets in any more."""
        for fd in (self.listening, self.handle):
            if fd >= 0:
                os.close(fd)
        self.listening = self.handle = -1


class _Connection(http.client.HTTPConnection):
    handle = -1

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(f"/proc/self/fd/{self.handle}")
