"""Where Caddy asks whether a host is served here, before it gets a certificate for it: ``on_demand_ask``.

An attendant of the daemon's with a listener of its own, since Caddy asks over HTTP on TCP and nothing else may be asked
there. The answer is the status: 200 for yes, 404 for no; anything but a 2xx refuses.
"""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from ..daemon.sockets.listener import Listener
from ..daemon.sockets.opener import open_tcp
from ..daemon.sockets.socket_file import ListenError
from ..daemon.supervisor.beside import ControlEndpoint, persist, take_saved
from ..daemon.supervisor.document import Asked, Configuration
from ..daemon.system.state import ListenerSnapshot
from ..daemon.tenants.known_hosts import HostAnswer, KnownHosts

if TYPE_CHECKING:
    from .hosting import Hosting
    from .request import Answer, Request

CONNECTIONS_MAX = 256
_STATUS = {HostAnswer.YES: 200, HostAnswer.NO: 404, HostAnswer.BUSY: 503}
_SHUTDOWN_S = 1.0


class _Open(NamedTuple):
    asked: Asked
    listener: Listener


class OnDemandEndpoint(ControlEndpoint):
    """Answers Caddy while a configuration asks for that."""

    def __init__(self) -> None:
        self._present: _Open | None = None
        self._coming: _Open | None = None
        self._saved: list[ListenerSnapshot] = []
        self._hosts = KnownHosts(lambda _: False)
        self._server: Hosting | None = None
        self._is_started = False
        self._starting: asyncio.Task[None] | None = None

    def prepare(self, configuration: Configuration) -> None:
        """Open the address of ``on_demand_ask``, unless it is open already. Raises ``ListenError``."""
        asked = configuration.asked
        if asked is None:
            self._coming = None
        elif self._present is not None and self._present.asked.listen == asked.listen:
            self._coming = _Open(asked, self._present.listener)
        else:
            try:
                key: list[str | int] = ["ask", asked.listen.name]
                listener = take_saved(self._saved, key) or open_tcp(asked.listen.host, asked.listen.port or 0)
            except ListenError as exc:
                raise ListenError(f"on_demand_ask: {exc}") from None
            self._coming = _Open(asked, listener)

    def revert(self) -> None:
        """Close what ``prepare`` has opened."""
        coming, self._coming = self._coming, None
        if coming is not None and (self._present is None or coming.listener is not self._present.listener):
            coming.listener.close()

    def commit(self) -> None:
        """Answer from now on where, and for the hosts that, the configuration says."""
        former, self._present, self._coming = self._present, self._coming, None
        if former is not None and (self._present is None or self._present.listener is not former.listener):
            former.listener.close()
        if self._present is not None:
            self._hosts.change(self._present.asked.serves)
            if self._is_started and (former is None or former.listener is not self._present.listener):
                self._starting = asyncio.get_running_loop().create_task(persist(self._accept, "on_demand_ask"))

    def snapshot(self) -> list[ListenerSnapshot]:
        """Its listener, for another image of the daemon; empty when it has none."""
        present = self._present
        return [] if present is None else [present.listener.snapshot(-1, ["ask", present.asked.listen.name], -1)]

    async def start(self) -> None:
        """Begin to answer, and with each ``commit`` that asks for it."""
        self._is_started = True
        await persist(self._accept, "on_demand_ask")

    async def stop(self) -> None:
        """Close the listener, and end connections."""
        self._is_started = False
        if self._starting is not None:
            self._starting.cancel()
        present, self._present = self._present, None
        if present is not None:
            present.listener.close()
        if self._server is not None:
            await self._server.stop()
        self._hosts.close()

    async def _accept(self) -> None:
        """Answer who connects to the present listener; who came before waits there."""
        if self._present is None:
            return
        if self._server is None:
            module = await asyncio.to_thread(import_module, ".hosting", __package__)
            self._server = module.Hosting(
                self._answer, lambda exc: _said(exc.status, str(exc)), CONNECTIONS_MAX, _SHUTDOWN_S
            )
        if self._present is not None:
            self._present.listener.accept_into(asyncio.get_running_loop(), self._server.accept, self._server.has_room)

    async def _answer(self, request: Request) -> Answer:
        """``GET /…?domain=HOST``, whatever the path."""
        if request.method not in ("GET", "HEAD"):
            return _said(405, "ask with GET")._replace(headers={"Allow": "GET, HEAD"})
        if len(request.queries.get("domain", [])) != 1:
            return _said(400, "ask with ?domain=HOST")
        found = await self._hosts.answer(request.query["domain"])
        return _said(_STATUS[found], found.value)


def _said(status: int, text: str) -> Answer:
    from .request import Answer  # there is a server by now

    return Answer(status, f"{text}\n".encode(), {"Content-Type": "text/plain; charset=utf-8"})
