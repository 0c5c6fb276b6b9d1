"""Tells where the admin API is, so that commands find it which were started in another environment.

A socket that nobody connects to, in the abstract namespace (unix(7)): its name is the message, which every user of the
machine may read. It is gone when this process is, and it is no file that could be left behind.
"""

from __future__ import annotations

import socket

from ..config.language.values import SocketAddress
from ..config.plan.rendezvous import ANNOUNCED, TCP

_LONGEST_BYTES = 107  # of a name, without the zero byte that it begins with (unix(7))


class Announcement:
    """At most one at a time."""

    def __init__(self) -> None:
        self._sock: socket.socket | None = None
        self._name = b""

    def say(self, address: SocketAddress | None) -> None:
        """Announce ``address`` from now on; None: nothing. Nor is one that does not fit into a name."""
        path = "" if address is None else address.path if address.network == "unix" else _of_port(address)
        name = f"{ANNOUNCED}{path}".encode(errors="surrogateescape")
        if self._sock is not None and self._name == name:
            return
        self.end()
        if not path or not path.isprintable() or len(name) > _LONGEST_BYTES:
            return
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            sock.bind(b"\0" + name)
        except OSError:  # somebody says the same already
            sock.close()
            return
        self._sock, self._name = sock, name

    def end(self) -> None:
        """Announce nothing any more."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None


def _of_port(address: SocketAddress) -> str:
    """A port is told as far as this machine goes: whose it is, the kernel says (proc_pid_net(5))."""
    return f"{TCP}{address.port}" if address.network != "fd" and address.port else ""
