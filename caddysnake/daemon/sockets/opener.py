"""Opens listeners: those that a service manager has passed are used as they are, the others are made.

What is made is also left with the service manager, in its descriptor store, when there is one. Its socket then outlives
this process: whoever connects while nobody accepts waits in its queue, and the next process goes on accepting.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import MutableMapping

from ...config.language.values import MAX_UNIX_PATH_BYTES
from ..system.log.fields import FieldLog
from ..system.notify import Notifier
from . import activation
from .addresses import Address, FdAddress, TcpAddress, UnixAddress, address_name, key_of
from .listener import Listener, set_tcp_options
from .socket_file import (
    BACKLOG,
    ListenError,
    identity,
    leads_to,
    listen_at,
    lock_path,
    regive,
    remove,
    unlock_path,
)


def open_unix(path: str, mode: int | None, owner: str | None, group: str | None) -> Listener:
    """Listen at ``path`` (absolute), which a lock file says whose is; a stale socket goes. Raises ``ListenError``."""
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
    """Listen on a copy of ``fd``, whose path is others' to unlink. Raises ``ListenError``: it cannot be."""
    name = f"fd/{fd}"
    try:
        copy = os.dup(fd)
    except OSError:
        raise ListenError(f"cannot listen on {name}: no such descriptor was inherited") from None
    sock = activation.listening(copy)
    if sock is None:
        raise ListenError(f"cannot listen on {name}: it is not a listening socket")
    return Listener(sock, name, None, None)


log = FieldLog("caddysnake.listener")


class ListenerOpener:
    """Where listeners come from, and where they are left."""

    def __init__(self, passed: activation.Passed | None = None, notifier: Notifier | None = None) -> None:
        self._passed = passed or activation.Passed()
        self._notifier = notifier or Notifier()
        self._adopted: dict[object, Listener] = {}
        self._origins: dict[Listener, str] = {}
        """As in ``ListenerSnapshot``, of those that are not ours alone."""

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str], notifier: Notifier) -> ListenerOpener:
        """What was passed to this process; the variables that say so are removed."""
        return cls(activation.Passed.from_environ(environ), notifier)

    def open(self, address: Address) -> Listener:
        """Listen at ``address``, over a passed socket if one is there for it. Raises ``ListenError``."""
        adopted = self._adopted.pop(key_of(address), None)
        if adopted is not None:
            return adopted
        if isinstance(address, FdAddress):
            self._passed.take(lambda each: each.fd == address.fd)
            return self._not_ours(open_inherited(address.fd))
        name = address_name(address)
        own = self._passed.take(lambda each: each.name == activation.stored_name(name))
        if own is not None:
            if (listener := _adopted(own, name, address)) is not None:
                self._origins[listener] = "stored"
                log.info("listener taken up again", listener=name)
                return listener
            self._notifier.send("FDSTOREREMOVE=1", f"FDNAME={own.name}")
        given = self._passed.take(
            lambda each: not activation.is_stored_name(each.name) and activation.is_at(each.fd, address)
        )
        if given is not None:
            log.info("listener was passed", listener=name, from_=given.name or "-")
            return self._not_ours(activation.activated(given.fd, name))
        return open_unix(*address) if isinstance(address, UnixAddress) else open_tcp(*address)

    def origin(self, listener: Listener) -> str:
        """Where it is left, or comes from, for another image of the daemon."""
        return self._origins.get(listener, "")

    def restore(self, listener: Listener, origin: str) -> None:
        """It comes from another image of the daemon, where this was its ``origin``."""
        if origin:
            self._origins[listener] = origin

    def adopt(self, key: object, listener: Listener) -> None:
        """It is open already: ``open`` finds it by ``key``."""
        self._adopted[key] = listener

    def tell_rest(self) -> None:
        """Close what was passed and is nobody's. Of a stranger's the operator is told: who connects there waits."""
        while self._adopted:
            self._close(self._adopted.popitem()[1])
        for each in self._passed.take_rest():
            if activation.is_stored_name(each.name):
                _give_up_stored(each, self._notifier)
                log.info("a former listener is given up", listener=each.name)
            else:
                what = "a socket was passed that no site listens on: who connects to it gets no answer"
                hint = "write a site for it, or take it out of the socket unit"
                log.warning(what, socket=activation.describe(each.fd), from_=each.name or "-", hint=hint)
            os.close(each.fd)

    def keep(self, listener: Listener) -> None:
        """It serves from now on: leave a copy with the service manager."""
        if not self._notifier or listener in self._origins:
            return
        name = activation.stored_name(listener.name)
        self._notifier.send("FDSTORE=1", f"FDNAME={name}", descriptors=[listener.sock.fileno()])
        self._origins[listener] = "stored"

    def renew(self, listener: Listener, mode: int | None, owner: str | None, group: str | None) -> None:
        """Make the file of ``listener`` anew: somebody has removed it. Raises ``ListenError``."""
        is_told = bool(listener.trouble)
        try:
            listener.renew(mode, owner, group)
        except ListenError as exc:
            listener.trouble = str(exc)
            if not is_told:
                why = "a socket is gone, and cannot be made anew for now"
                log.error(why, listener=listener.name, error=str(exc))
            raise
        log.warning("a socket was gone, and is made anew", listener=listener.name)
        if self.origin(listener) == "stored":
            self._notifier.send("FDSTOREREMOVE=1", f"FDNAME={activation.stored_name(listener.name)}")
            del self._origins[listener]
            self.keep(listener)

    def give_up(self, listener: Listener) -> None:
        """Nobody listens there any more."""
        if self.origin(listener) == "stored":
            self._notifier.send("FDSTOREREMOVE=1", f"FDNAME={activation.stored_name(listener.name)}")
        self._close(listener)

    def leave(self, listener: Listener) -> None:
        """This process accepts no more. Where somebody else has the socket too, those who have connected wait for the
        next who accepts; else they are the last that this process accepts.
        """
        if listener not in self._origins:
            listener.accept_rest()
        self._close(listener, leave_path=self.origin(listener) == "stored")

    def _close(self, listener: Listener, leave_path: bool = False) -> None:
        listener.close(leave_path)
        self._origins.pop(listener, None)

    def _not_ours(self, listener: Listener) -> Listener:
        self._origins[listener] = "foreign"
        return listener


def forsake(environ: MutableMapping[str, str], notifier: Notifier) -> None:
    """This start has failed before anything was opened: let those who connect be refused, rather than wait."""
    for each in activation.Passed.from_environ(environ).take_rest():
        if activation.is_stored_name(each.name):
            _give_up_stored(each, notifier)
        os.close(each.fd)


def _adopted(own: activation.PassedSocket, name: str, address: UnixAddress | TcpAddress) -> Listener | None:
    """The listener that a former self has left; ``None``, and it is closed, when it is of no use any more."""
    sock = activation.listening(own.fd)
    if sock is None:
        return None
    if isinstance(address, TcpAddress):
        return Listener(sock, name, None, None)
    with contextlib.ExitStack() as unused:
        unused.callback(sock.close)
        lock = lock_path(address.path)
        unused.callback(unlock_path, address.path, lock)
        if regive(address.path, sock, address.mode, address.owner, address.group):
            unused.pop_all()
            return Listener(sock, name, address.path, lock)
    log.info("the path of a listener leads elsewhere: it is made anew", listener=name)
    return None


def _give_up_stored(stored: activation.PassedSocket, notifier: Notifier) -> None:
    """Have it stored no more, and unlink what a former self has bound, if it is still that."""
    notifier.send("FDSTOREREMOVE=1", f"FDNAME={stored.name}")
    path = activation.stored_path(stored.name)
    if path is None:
        return
    with contextlib.suppress(OSError, ListenError), socket.socket(fileno=os.dup(stored.fd)) as sock:
        lock = lock_path(path)
        try:
            known = identity(path)
            if known is not None and leads_to(path, sock):
                remove(path, known)
        finally:
            unlock_path(path, lock)
