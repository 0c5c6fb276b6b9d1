"""Opens listeners: on a unix socket's path, on TCP, on a descriptor that was inherited."""

from __future__ import annotations

import errno
import os
import socket

from ...config.language.values import MAX_UNIX_PATH_BYTES
from .addresses import TcpAddress, address_name
from .listener import Listener, set_tcp_options
from .socket_file import BACKLOG, ListenError, listen_at, lock_path, unlock_path


def open_unix(path: str, mode: int | None, owner: str | None, group: str | None) -> Listener:
    """Listen on a unix socket at ``path`` (absolute). Raises ``ListenError``.

    A lock file beside it decides who owns the path; a stale socket is replaced.
    """
    size = len(os.fsencode(path))
    if size > MAX_UNIX_PATH_BYTES:
        raise ListenError(f"socket path {path} is {size} bytes long: the kernel allows {MAX_UNIX_PATH_BYTES}")
    lock = lock_path(path)
    try:
        sock = listen_at(path, mode, owner, group)
    except BaseException:
        unlock_path(path, lock)
        raise
    return Listener(sock, f"unix/{path}", path, lock)


def open_tcp(host: str, port: int) -> Listener:
    """Listen on TCP. Raises ``ListenError``."""
    name = address_name(TcpAddress(host, port))
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind | socket.SOCK_NONBLOCK, proto)
    except (OSError, UnicodeError) as exc:  # UnicodeError: a name that no name server could be asked for
        raise ListenError(f"cannot listen on {name}: {getattr(exc, 'strerror', None) or exc}") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        set_tcp_options(sock)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as exc:
        sock.close()
        hint = ": another process uses it; stop that, or use another port" if exc.errno == errno.EADDRINUSE else ""
        raise ListenError(f"cannot listen on {name}: {exc.strerror}{hint}") from None
    return Listener(sock, name, None, None)


def open_inherited(fd: int) -> Listener:
    """Listen on a socket that whoever started us opened; its path, if any, is theirs to unlink.

    ``fd`` stays as it is: a copy is used. Raises ``ListenError`` when it is no listening socket.
    """
    name = f"fd/{fd}"
    try:
        copy = os.dup(fd)
    except OSError:
        raise ListenError(f"cannot listen on {name}: no such descriptor was inherited") from None
    try:
        sock = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise ListenError(f"cannot listen on {name}: it is not a socket") from None
    listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if not listening:
        sock.close()
        raise ListenError(f"cannot listen on {name}: it is not a listening socket")
    sock.setblocking(False)
    sock.set_inheritable(False)
    return Listener(sock, name, None, None)
