"""Where an app asks for its store with ``caddysnake.cache``: without a line `cache` with its first call, else when it
does not find it.

It says its name on a unix socket of the daemon's, and is told the address of the store, or why there is none.
Whoever asks must run as the app does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable

from ...channel.settings import Settings
from ...config.language.models import Cache
from ..apps.app import App
from ..commands.spec import Commands
from ..commands.store import NAME, SERVERS, find_server, store_of, trouble
from ..commands.surroundings import store_socket
from ..system.kinship import peer_uid
from ..system.signing import bell_name
from ..system.tasks import KeptTasks

_ASKING_MAX = 32
_ASKED_S = 5.0
_NAME_MAX = 4096
_UP_S = 12.0
_LOOK_S = 0.02


class Bell:
    """``find`` knows the apps by their names."""

    def __init__(self, find: Callable[[str], App | None]) -> None:
        self._find = find
        self._sock: socket.socket | None = None
        self._asking = KeptTasks()

    def open(self) -> None:
        """Begin to listen, unless it does, every second or so: a stand-in may still have the name."""
        if self._sock is not None:
            return
        try:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError:  # no descriptor is left
            return
        try:
            sock.bind(bell_name())
            sock.listen(_ASKING_MAX)
        except OSError:
            sock.close()
            return
        self._sock = sock
        asyncio.get_running_loop().add_reader(sock.fileno(), self._accept)

    def close(self) -> None:
        """Listen no more."""
        for task in self._asking:
            task.cancel()
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock.fileno())
            self._sock.close()
            self._sock = None

    def _accept(self) -> None:
        assert self._sock is not None
        with contextlib.suppress(OSError):
            asked, _ = self._sock.accept()
            if len(self._asking) >= _ASKING_MAX:
                asked.close()
                return
            asked.setblocking(False)
            self._asking.begin(self._serve(asked))

    async def _serve(self, asked: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with asked, contextlib.suppress(OSError, TimeoutError):
            name = b""
            async with asyncio.timeout(_ASKED_S):
                while not name.endswith(b"\n") and len(name) < _NAME_MAX:
                    more = await loop.sock_recv(asked, _NAME_MAX)
                    if not more:
                        return
                    name += more
            answer = await self._answer(name[:-1].decode("utf-8", "replace"), peer_uid(asked))
            async with asyncio.timeout(_ASKED_S):
                await loop.sock_sendall(asked, answer.encode())

    async def _answer(self, name: str, uid: int) -> str:
        app = self._find(name)
        if app is None or app.is_stopping or not isinstance(app.spec.settings, Settings):
            return "there is no such app any more"
        account = app.spec.key.account
        if uid != (os.geteuid() if account is None else account.uid):
            return "this is not the user of the app"
        if why := await asyncio.to_thread(trouble, find_server(os.environ) or SERVERS[0]):
            return why
        store = store_of(name, Cache(), os.environ, is_asked_for=True)
        assert store is not None
        app.background.keep(Commands(processes=(store,)), app.surroundings.of(app.spec))
        path = store_socket(app.folder.path(account))
        patience = asyncio.get_running_loop().time() + _UP_S
        while not os.access(path, os.F_OK):  # a file of the app's, which nobody tells of
            kept = [each for each in app.background.processes if each.spec.name == NAME]
            if any(each.has_failed for each in kept) or asyncio.get_running_loop().time() > patience:
                ends = [each.last_end[1] for each in kept if each.last_end is not None]
                return f"the store does not start{': '.join(['', *ends])}; what it wrote is in the daemon's log"
            await asyncio.sleep(_LOOK_S)
        return f"unix://{path}"
