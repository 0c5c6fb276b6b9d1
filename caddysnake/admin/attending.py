"""The admin API as the daemon's attendant: opens its listener at once, and brings its server up when it is told to.

The server and its models take longer to import than most apps, so a thread does that, and the daemon asks for it when
the apps are up. Connections wait in the listener until then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from ..config.language.values import SocketAddress
from ..config.plan.admin import AdminEndpoint, make_private
from ..config.plan.rendezvous import ANNOUNCED, TCP
from ..daemon.sockets.listener import Listener
from ..daemon.sockets.opener import open_inherited, open_tcp, open_unix
from ..daemon.sockets.socket_file import ListenError
from ..daemon.supervisor.beside import ControlEndpoint, persist, take_saved
from ..daemon.supervisor.document import Configuration
from ..daemon.system.state import ListenerSnapshot
from ..daemon.system.tasks import KeptTasks
from ..daemon.system.timings import TIMINGS, Timings
from .access import Access

if TYPE_CHECKING:
    from ..daemon.main import Daemon
    from .history import History
    from .server import Server


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


log = logging.getLogger("caddysnake.admin")

class _Open(NamedTuple):
    endpoint: AdminEndpoint
    listener: Listener


class AdminServer(ControlEndpoint):
    """Of ``daemon``."""

    def __init__(self, daemon: Daemon, timings: Timings = TIMINGS) -> None:
        self._daemon = daemon
        self._timings = timings
        self._present: _Open | None = None
        self._coming: _Open | None = None
        self._is_kept = False
        """What was prepared listens where the present one does."""
        self._saved: list[ListenerSnapshot] = []
        self._memory = ""
        self._history: History | None = None
        self._is_started = False
        self._server: Server | None = None
        self._served: Listener | None = None
        """Whose connections the server gets."""
        self._missing: AdminEndpoint | None = None
        """Could not be opened, and is tried again."""
        self._tasks = KeptTasks()
        self._announcement = Announcement()

    # -- the listener -----------------------------------------------------------------------------------------

    def prepare(self, configuration: Configuration) -> None:
        """Open the API's address, if need be. Raises ``ListenError``, but only for one that somebody asked for."""
        endpoint = configuration.admin
        present = self._present
        self._is_kept = present is not None and present.endpoint.listen == endpoint.listen
        if self._is_kept and present is not None:
            _renew_if_lost(present)
            self._coming = _Open(endpoint, present.listener)
            return
        listener = None
        if endpoint.listen is not None:
            listener = take_saved(self._saved, ["admin", endpoint.listen.name]) or _open(endpoint)
        self._missing = endpoint if listener is None and endpoint.listen is not None else None
        self._coming = None if listener is None else _Open(endpoint, listener)

    def revert(self) -> None:
        """Close what ``prepare`` has opened."""
        coming, self._coming = self._coming, None
        if coming is not None and not self._is_kept:
            coming.listener.close()

    def commit(self) -> None:
        """Serve from now on where the configuration says, and only whom it says."""
        former, self._present, self._coming = self._present, self._coming, None
        self._announcement.say(None if self._present is None else self._present.endpoint.listen)
        missing, self._missing = self._missing, None
        if self._present is None and missing is not None:
            self._missing = missing
            self._tasks.begin(self._open_later(missing))
        if self._is_kept and self._present is not None:
            if self._server is not None:
                self._server.access = Access(self._present.endpoint)
            return
        if former is not None:
            former.listener.close()
        if self._is_started:
            self._tasks.begin(persist(self._replace_server, "the admin API"))

    def snapshot(self) -> list[ListenerSnapshot]:
        """Its listener, for another image of the daemon; empty when it has none."""
        present = self._present
        if present is None or present.endpoint.listen is None:
            return []
        return [present.listener.snapshot(-1, ["admin", present.endpoint.listen.name], -1)]

    def memory(self) -> str:
        """The history that the live page shows."""
        return self._memory if self._history is None else self._history.snapshot()

    def recall(self, memory: str) -> None:
        """Go on with it."""
        self._memory = memory

    def sweep(self) -> None:
        """Make its socket anew when somebody has removed that."""
        if self._present is not None:
            with contextlib.suppress(ListenError):  # it is told, and tried again
                _renew_if_lost(self._present)

    # -- the server -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bring the server up; it is imported here, in a thread."""
        self._is_started = True
        await persist(self._replace_server, "the admin API")

    async def stop(self) -> None:
        """Close the listener, and end connections."""
        self._is_started = False
        present, self._present = self._present, None
        self._announcement.end()
        if present is not None:
            present.listener.close()
        for task in self._tasks:
            task.cancel()
        if self._server is not None:
            await self._server.stop()

    async def _replace_server(self) -> None:
        """Have whoever connects to the present listener answered. May be called again, whatever became of it."""
        present = self._present
        server: Server | None = None
        if present is not None:
            if self._served is present.listener:
                return
            module = await asyncio.to_thread(import_module, ".server", __package__)
            if self._history is None:
                self._history = module.History(self._daemon, self._memory)
                self._tasks.begin(self._history.run())
            server = module.Server(self._daemon, Access(present.endpoint), present.listener.name, self._history)
            current = self._present
            if current is None or current.listener is not present.listener or self._served is present.listener:
                await server.stop()  # another came first
                return
            server.access = Access(current.endpoint)  # a reload may have changed whom it serves meanwhile
            present.listener.accept_into(asyncio.get_running_loop(), server.accept, server.has_room)
            log.info("admin API ready", extra={"fields": {"listener": present.listener.name}})
        former, self._server = self._server, server
        self._served = None if present is None else present.listener
        if former is not None:
            await former.stop()  # when it has answered whoever asked for this

    async def _open_later(self, endpoint: AdminEndpoint) -> None:
        """Look now and then whether the address can be had after all."""
        while True:
            await asyncio.sleep(self._timings.admin_again_s)
            if self._missing is not endpoint:
                return
            try:
                listener = _open_or_raise(endpoint)
            except ListenError:
                continue
            self._missing = None
            self._present = _Open(endpoint, listener)
            self._announcement.say(endpoint.listen)
            if self._is_started:
                await persist(self._replace_server, "the admin API")
            return


def import_all() -> None:
    """What is imported late otherwise."""
    import_module(".server", __package__)


def _open(endpoint: AdminEndpoint) -> Listener | None:
    """Raises ``ListenError``, unless nobody asked for this address in particular."""
    try:
        return _open_or_raise(endpoint)
    except ListenError as exc:
        if not endpoint.is_default:
            raise ListenError(f"admin API: {exc}") from None
        hint = "name another address with the global option admin, or --admin"
        log.warning("no admin API", extra={"fields": {"error": str(exc), "hint": hint}})
        return None


def _renew_if_lost(present: _Open) -> None:
    """Raises ``ListenError``."""
    endpoint, listener = present
    listen = endpoint.listen
    if listen is None or not listener.is_lost:
        return
    is_told = bool(listener.trouble)
    try:
        if endpoint.is_default:
            _make_folder(listen.path)
        listener.renew(listen.mode, listen.owner, listen.group)
    except ListenError as exc:
        listener.trouble = str(exc)
        if not is_told:
            log.error("the admin API's socket is gone", extra={"fields": {"error": str(exc)}})
        raise
    log.warning("the admin API's socket was gone, and is made anew", extra={"fields": {"listener": listener.name}})


def _open_or_raise(endpoint: AdminEndpoint) -> Listener:
    address = endpoint.listen
    assert address is not None
    if endpoint.is_default:
        _make_folder(address.path)
    if address.network == "unix":
        return open_unix(address.path, address.mode, address.owner, address.group)
    if address.network == "fd":
        return open_inherited(-1 if address.fd is None else address.fd)
    return open_tcp(address.host, address.port or 0)


def _make_folder(path: str) -> None:
    folder = path.rpartition("/")[0]
    try:
        make_private(folder)
    except OSError as exc:
        raise ListenError(f"cannot use {folder}: {exc.strerror}") from None
