"""Sockets that were passed to this process when it was started: sd_listen_fds(3).

They come from a socket unit, from systemd's descriptor store, where a former self has left them, or from anybody else
who starts programs this way. ``LISTEN_FDS`` counts them, from descriptor 3 on, and ``LISTEN_FDNAMES`` names them.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, MutableMapping
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from .addresses import TcpAddress, UnixAddress, address_name
from .listener import Listener, set_tcp_options
from .socket_file import BACKLOG, ListenError

FIRST: Final = 3
_NAME_MAX: Final = 255
_SAFE: Final = "/.,@_-+=~"
_WILDCARDS: Final = ("0.0.0.0", "::")
_VARIABLES: Final = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


class PassedSocket(NamedTuple):
    """A descriptor and what it is called."""

    fd: int
    name: str


class Passed:
    """What was passed and has not been taken yet."""

    def __init__(self, sockets: list[PassedSocket] | None = None) -> None:
        self._left = list(sockets or ())

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str]) -> Passed:
        """What ``environ`` says was passed to us, and no more: what we start, or become, was passed nothing."""
        count, pid, names, _ = (environ.pop(name, "") for name in _VARIABLES)
        if pid != str(os.getpid()) or not count.isascii() or not count.isdigit():
            return cls()
        called = names.split(":")
        found = []
        for number in range(min(int(count), os.sysconf("SC_OPEN_MAX"))):
            fd = FIRST + number
            try:
                os.set_inheritable(fd, False)
            except OSError:
                continue
            found.append(PassedSocket(fd, called[number] if number < len(called) else ""))
        return cls(found)

    def __len__(self) -> int:
        return len(self._left)

    def take(self, suits: Callable[[PassedSocket], bool]) -> PassedSocket | None:
        """The first one that suits, which is the caller's then."""
        for each in self._left:
            if suits(each):
                self._left.remove(each)
                return each
        return None

    def take_rest(self) -> list[PassedSocket]:
        """All that nobody has taken."""
        rest, self._left = self._left, []
        return rest


def stored_name(listener: str) -> str:
    """What a listener is called in systemd's descriptor store: printable ASCII without colons."""
    name = quote(listener, safe=_SAFE)
    return name if len(name) <= _NAME_MAX else name[-_NAME_MAX:]


def stored_path(name: str) -> str | None:
    """The path of the unix socket of that name in the store, ``None`` when it is none."""
    return unquote(name).removeprefix("unix/") if name.startswith("unix//") else None


def is_stored_name(name: str) -> bool:
    """It is one that we give."""
    return name.startswith(("unix//", "tcp/"))


def describe(fd: int) -> str:
    """What a passed descriptor is, for people."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as sock:
        if sock.family == socket.AF_UNIX:
            return f"unix/{_printed(sock.getsockname())}"
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            host, port = sock.getsockname()[:2]
            return address_name(TcpAddress(host, port))
        return f"descriptor {fd}, a socket of family {int(sock.family)}"
    return f"descriptor {fd}, which is not a socket"


def _printed(name: str | bytes) -> str:
    return "@" + name[1:].decode("utf-8", "backslashreplace") if isinstance(name, bytes) else name


def activated(fd: int, name: str) -> Listener:
    """Return a listener over ``fd``, which was passed for ``name``. Raises ``ListenError``."""
    sock = listening(fd)
    if sock is None:
        raise ListenError(f"cannot listen on {name}: what was passed for it does not listen (a socket unit of systemd "
                          "needs Accept=no)")  # fmt: skip
    sock.listen(BACKLOG)
    set_tcp_options(sock)
    return Listener(sock, name, None, None)


def listening(fd: int) -> socket.socket | None:
    """The stream socket ``fd``, which is closed when it is none that listens."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        with contextlib.suppress(OSError):
            os.close(fd)
        return None
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.close()
        return None
    sock.setblocking(False)
    return sock


def is_at(fd: int, address: UnixAddress | TcpAddress) -> bool:
    """The socket ``fd`` is bound to ``address``."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as sock:
        bound = sock.getsockname()
        if isinstance(address, UnixAddress):
            return sock.family == socket.AF_UNIX and isinstance(bound, str) and _same_path(bound, address.path)
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            return False
        host, port = bound[:2]
        return port == address.port and (host in _hosts(address) or (host in _WILDCARDS and not address.host))
    return False


def _same_path(bound: str, path: str) -> bool:
    if bound == path:
        return True
    folder, name = os.path.split(path)
    return os.path.basename(bound) == name and os.path.realpath(os.path.dirname(bound)) == os.path.realpath(folder)


def _hosts(address: TcpAddress) -> set[str]:
    try:
        found = socket.getaddrinfo(address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        return set()
    return {str(each[4][0]) for each in found}
