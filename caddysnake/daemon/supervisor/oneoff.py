"""One-off commands that run: found by the app's name, begun, told to end with the daemon, carried over an upgrade."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Coroutine
from typing import Any, Protocol

from ...channel.settings import Settings
from ..apps.app import App
from ..apps.folder import PrivateFolder
from ..apps.surroundings import AppSurroundings
from ..commands.schedule import Run
from ..commands.session import OneOff, Session
from ..commands.surroundings import Surroundings
from ..sockets.refusals import Refusal
from ..system.snapshots import SessionSnapshot
from ..system.tasks import KeptTasks
from ..tenants.lookup import DynamicApp, UnknownApp, find
from ..tenants.tenants import Tenants


class Inhabited(Protocol):
    """What runs."""

    apps: dict[str, App]
    templates: dict[str, Tenants]


class OneOffs:
    """All of ``running``."""

    def __init__(self, running: Inhabited) -> None:
        self._running = running
        self.sessions: dict[Session, PrivateFolder | None] = {}
        """Each with the folder that is to end with it, of an app that sleeps."""
        self._tasks = KeptTasks()
        self._patient_until = 0.0

    async def around(self, name: str) -> tuple[str, Surroundings, PrivateFolder | None]:
        """Return the name and the surroundings of the app called ``name``, as ``find`` has it; and a folder that is to
        end with the command. Raises ``UnknownApp``, ``OSError``."""
        found = await self.find(name)
        if isinstance(found, App):
            around = found.background.around or found.surroundings.of(found.spec)
            return found.name, await around.get(), None
        live = found.tenants.apps.get(found.key)
        if live is not None and live.background.around is not None:
            return live.name, await live.background.around.get(), None
        resolved = await found.tenants.schedules.resolve(found.key)
        if isinstance(resolved, Refusal):
            raise UnknownApp.among(name, self.names())
        folder = PrivateFolder(resolved.name)
        return resolved.name, await AppSurroundings(folder, found.tenants.ledger).of(resolved).get(), folder

    async def find(self, name: str) -> App | DynamicApp:
        """Return the app called ``name``, as logs call it; the only one of which that is the beginning, or the folder;
        or a tenant by its host, be it asleep. Raises ``UnknownApp``."""
        running = self._running
        try:
            return find(running.apps, running.templates, name)
        except UnknownApp as exc:
            near = [app for app in running.apps.values() if _is_meant(app, name)]
            if len(near) == 1:
                return near[0]
            for tenants in running.templates.values():
                key = tenants.spec.key_of_host(name)
                if key is not None and not isinstance(await tenants.schedules.resolve(key), Refusal):
                    return DynamicApp(tenants, key)
            raise UnknownApp.among(name, self.names()) if exc.code == "no-such-app" else exc from None

    def names(self) -> list[str]:
        """Return what apps are called."""
        running = self._running
        return [*running.apps, *(app.name for each in running.templates.values() for app in each.apps.values())]

    def begin(
        self, sock: socket.socket, name: str, asked: OneOff, surroundings: Surroundings, folder: PrivateFolder | None
    ) -> None:
        """Execute what is ``asked`` for whoever is at the other end of ``sock``."""
        session = Session(name, sock)
        self._keep(session, session.run(asked, surroundings), folder)

    def _keep(self, session: Session, work: Coroutine[Any, Any, None], folder: PrivateFolder | None) -> None:
        self.sessions[session] = folder

        def over(_: object) -> None:
            del self.sessions[session]
            if folder is not None:
                folder.end()

        self._tasks.begin(work).add_done_callback(over)

    async def run_schedule(self, name: str, schedule: str) -> Run:
        """Run that schedule now, and wait for its end. Raises ``UnknownApp``; ``KeyError`` with those there are."""
        found = await self.find(name)
        if isinstance(found, App):
            if schedule not in found.background.schedules:
                raise KeyError(*found.background.schedules)
            return await found.background.schedules[schedule].run()
        if schedule not in found.tenants.schedules.timetables:
            raise KeyError(*found.tenants.schedules.timetables)
        run = await found.tenants.schedules.run(found.key, schedule)
        if isinstance(run, Refusal):
            raise UnknownApp.among(name, self.names())
        return run

    # -- the end, and going on in another image of the daemon ------------------------------------------------------

    def stop(self, patience_s: float) -> None:
        """Tell all to end; ``ended`` ends by force those that have not within ``patience_s``."""
        self._patient_until = time.monotonic() + patience_s
        for session in self.sessions:
            session.stop()

    async def ended(self) -> None:
        """Wait until none runs."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=max(0.0, self._patient_until - time.monotonic()))
            self.kill()
            await asyncio.gather(*self._tasks)

    def kill(self) -> None:
        """End all by force."""
        for session in self.sessions:
            session.kill()

    @property
    def is_settled(self) -> bool:
        """None is being started, or reaped, just now."""
        return all(session.is_settled for session in self.sessions)

    def snapshot(self) -> list[SessionSnapshot]:
        """Return what ``restore`` needs in another image of the daemon."""
        found = [(session.snapshot(), folder and folder.snapshot()) for session, folder in self.sessions.items()]
        return [saved.model_copy(update={"folder": folder}) for saved, folder in found if saved is not None]

    def restore(self, saved: list[SessionSnapshot]) -> None:
        """Go on where ``saved`` says."""
        for each in saved:
            session = Session(each.app, socket.socket(fileno=each.sock))
            folder = PrivateFolder.restored(each.app, each.folder)
            self._keep(session, session.go_on(each), folder)


def _is_meant(app: App, name: str) -> bool:
    settings = app.spec.settings
    folder = settings.working_dir if isinstance(settings, Settings) else ""
    return app.name.startswith((f"{name}:", f"{name}.", f"{name}/")) or os.path.basename(folder) == name
