"""A thread host: one process, one interpreter, in which many workers run as threads.

The main thread obeys the daemon and runs no app's code but what apps gave to ``atexit``. Each worker is a thread that
reads its own ``Configure`` from its own channel, imports its app (the first of a group does, for all) and serves it
with the same code as a worker process.

Two apps are never in one host when a name could mean the code of either (``survey``), and never two imports of one
app: a new generation is imported in another host, so that the old one, which serves on meanwhile, never sees a module
of the new. What a departed app has imported is forgotten here, and the host can take it in again.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import errno
import faulthandler
import os
import select
import socket
import sys
import threading
import time
from collections import deque
from functools import partial
from typing import Any, NamedTuple

from ... import keyring
from ...channel.configuring import await_configuration
from ...channel.endpoint import ChannelClosed, ChannelError, Endpoint
from ...channel.farewell import AFTER_END_S, END_S
from ...channel.messages import MOVES, Cancel, Dump, Failed, Join, LeftBehind, Profile, Reaped, Spawned
from ...channel.records import say
from ...channel.settings import Settings, native, unseal
from ..app.interface import load_app
from ..app.loader import AppError, foreign_traceback
from ..process import looking, profiling, tracing
from ..process.customize import named, offer
from ..process.setup import enter_directory, enter_process, keep_path, path_entries
from ..process.termination import forget_terminate, hear_terminate, on_terminate
from ..servers import report, serve
from . import modules, ownership
from .conflicts import Survey, interpreter_names, survey
from .output import fall_silent, share, speak_as
from .ownership import Lodger, Owner

_CLONE_FS = 0x200
_LOOK_S = 1.0
_SETTLE_S = 2.0
"""How long threads of an app that has left may take to notice it."""
_AFTER_GRACE_S = END_S + AFTER_END_S
_STDERR = 2


class _Imported(NamedTuple):
    app: Any
    interface: str
    context: contextvars.Context
    """What the import left in context variables: all threads of the group begin with it, as one process's would."""


class _Group:
    """One import of one app, and the workers that share it."""

    def __init__(self, found: Survey, name: str) -> None:
        self.survey = found
        self.owner = Owner(name, found.has)
        self.left_at: float | None = None
        """When its last worker had ended; it is here until its threads have, too."""
        self._workers: set[int] = set()
        self._is_over = False
        self._book = threading.Lock()
        self._lock = threading.Lock()
        self._imported: _Imported | None = None

    def imported(self, settings: Settings, host: ThreadHost) -> _Imported:
        """The app: imported by whoever comes first. Raises ``AppError``."""
        with self._lock:
            if self._imported is None:
                modules.enter(self.survey.root)
                if skipped := named(path_entries(settings)):
                    what = f"{', '.join(skipped)} of PYTHONPATH is not imported: threads of apps share an interpreter"
                    say("warn", what, app=settings.app)
                try:
                    app, interface = load_app(settings)
                    host.check_for_changes(self)
                except AppError as exc:
                    modules.forget(self.survey.root)
                    raise AppError(exc.code, str(exc) + _hint(str(exc))) from None
                self._imported = _Imported(app, interface, contextvars.copy_context())
            return self._imported

    def enters(self, number: int) -> bool:
        """One more worker; False when the last has left: what it imported is on its way out."""
        with self._book:
            if not self._is_over:
                self._workers.add(number)
            return not self._is_over

    def leaves(self, number: int) -> None:
        """For the worker's own thread, which is in the app's directory. The last one runs what is to run at exit."""
        with self._book:
            self._workers.discard(number)
            self._is_over = not self._workers
        if self._is_over:
            self.owner.bid_farewell()

    @property
    def is_over(self) -> bool:
        return self._is_over

    def forget(self) -> None:
        self._imported = None
        modules.forget(self.survey.root)


class ThreadHost:
    """``run`` obeys the daemon until that lets the host go, and every worker has ended."""

    def __init__(self, endpoint: Endpoint, settings: Settings) -> None:
        self._endpoint = endpoint
        self._settings = settings
        self._groups: dict[int, _Group] = {}
        self._leaving: list[_Group] = []
        self._group_of: dict[int, _Group] = {}
        self._threads: dict[int, threading.Thread] = {}
        self._ended: deque[tuple[int, int]] = deque()
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._grace_s = 0.0
        self._left_behind = 0
        self._is_told_to_end = False
        self._names: frozenset[str] | None = None
        self._private: _Group | None = None

    def run(self) -> int:
        """The process's exit status."""
        enter_process(self._settings)
        sys.path[:0] = path_entries(self._settings)
        keep_path()
        offer()
        self._environ = dict(os.environ)
        self._path = list(sys.path)
        on_terminate(self._told_to_end)
        hear_terminate()
        ownership.keep_books()
        share()
        poller = select.poll()
        poller.register(self._wake_fd, select.POLLIN)
        poller.register(self._endpoint.fileno(), select.POLLIN)
        try:
            while self._group_of or not self._is_told_to_end:
                poller.modify(self._endpoint.fileno(), select.POLLIN | (select.POLLOUT if self._endpoint.outbox else 0))
                poller.poll(_LOOK_S * 1000 if self._leaving else None)
                self._note_ended()
                self._look_after_the_leaving()
                self._endpoint.flush()
                self._obey()
        except (ChannelClosed, ChannelError) as exc:
            if not isinstance(exc, ChannelClosed):
                say("error", "the daemon broke a rule of the channel", reason=str(exc))
        return self._leave()

    def _told_to_end(self) -> None:
        """SIGTERM, between two instructions; the workers are told as well. Nobody joins any more."""
        self._is_told_to_end = True
        os.eventfd_write(self._wake_fd, 1)

    # -- what the daemon says ----------------------------------------------------------------------------------

    def _obey(self) -> None:
        received = self._endpoint.receive()
        if received is None:
            return
        message, descriptors = received
        if isinstance(message, Join):
            self._join(message, socket.socket(fileno=descriptors[0]))
        elif isinstance(message, Cancel):
            ownership.interrupt(message.worker)
            self._endpoint.send(LeftBehind(self._left_behind))  # it is heard here
        elif isinstance(message, Profile):
            number = message.worker

            def is_its(thread: threading.Thread) -> bool:
                lodger = ownership.lodger_of(thread)
                return lodger is not None and lodger.worker == number

            profiling.begin(number, message.seconds, descriptors[0], is_its)
        elif isinstance(message, Dump):
            faulthandler.dump_traceback(_STDERR, all_threads=True)

    def _join(self, message: Join, channel: socket.socket) -> None:
        group = self._groups.get(message.group)
        if group is None or group.is_over:
            group = self._admitted(message)
        if group is None or self._is_told_to_end or not group.enters(message.worker):
            channel.close()
            self._endpoint.send(Spawned(message.worker, -errno.EEXIST))
            return
        self._groups[message.group] = group
        self._group_of[message.worker] = group
        self._grace_s = max(self._grace_s, message.grace_s)
        thread = threading.Thread(
            target=self._work, args=(message.worker, group, channel), name=f"worker-{message.worker}", daemon=True
        )
        ownership.mark(thread, Lodger(group.owner, message.worker))
        self._threads[message.worker] = thread
        try:
            thread.start()
        except RuntimeError:  # no more threads
            channel.close()
            self._endpoint.send(Spawned(message.worker, -errno.EAGAIN))
            group.leaves(message.worker)
            self._ended.append((message.worker, 1))
            self._note_ended()
            return
        self._endpoint.send(Spawned(message.worker, os.getpid()))

    def _admitted(self, message: Join) -> _Group | None:
        """A new group; None when its app must not be in one process with those that are here."""
        if self._names is None:
            self._names = interpreter_names(self._path)
        root = native(message.root)
        found = survey(root, self._names)
        here = [*self._groups.values(), *self._leaving]
        if here and self._private is not None:
            return None
        if any(found.collides(other.survey) for other in here):
            return None
        group = _Group(found, root)
        if found.is_private:
            self._private = group
        return group

    # -- a worker's thread -------------------------------------------------------------------------------------

    def _work(self, number: int, group: _Group, channel: socket.socket) -> None:
        endpoint = Endpoint(channel)
        status = 1
        try:
            status = self._serve(number, group, endpoint)
        except (ChannelClosed, ChannelError, TimeoutError) as exc:
            say("error", "worker without settings", reason=str(exc))
        except SystemExit:
            pass  # it was asked to, or its app asked for it
        except BaseException as exc:
            say("error", "worker ends", foreign_traceback(exc))
        finally:
            endpoint.close()
            forget_terminate()
            group.leaves(number)
            self._ended.append((number, status))
            os.eventfd_write(self._wake_fd, 1)

    def _serve(self, number: int, group: _Group, endpoint: Endpoint) -> int:
        settings, page = await_configuration(endpoint, unseal, partial(speak_as, number))
        group.owner.name = settings.app
        tracing.turn(settings.marks_traces)
        looking.knows(page)
        try:
            if not _own_directory() and len({each.survey.root for each in self._groups.values()}) > 1:
                raise AppError("setup-failed", "a thread may have no working directory of its own here (unshare(2))")
            keyring.join_own()
            enter_directory(settings)
            with looking.Overseen(settings.app, settings.slow_at, partial(_refuse, endpoint)):
                imported = group.imported(settings, self)
        except AppError as exc:
            report(endpoint, Failed(exc.code, str(exc)))
            return 1
        context = imported.context.copy()
        return context.run(serve, imported.interface, imported.app, settings, endpoint, page)

    def check_for_changes(self, group: _Group) -> None:
        """Raises ``AppError`` when importing ``group`` has changed what all apps here share, and there are others. Of
        those some may be at their imports, too.
        """
        changed = [name for name in {**self._environ, **os.environ} if self._environ.get(name) != os.environ.get(name)]
        here = {*self._groups.values(), *self._leaving} - {group}
        changed = [name for name in changed if ownership.changed_by.get(name) not in {each.owner for each in here}]
        roots = [each.survey.root for each in (group, *here)]
        theirs = tuple(f"{root}{os.sep}" for root in roots[1:])
        added = [entry for entry in sys.path if entry not in {*self._path, *roots} and not entry.startswith(theirs)]
        if not changed and not added:
            return
        if not here:
            self._private = group
            return
        for name in changed:
            if name in self._environ:
                os.environ[name] = self._environ[name]
            else:
                del os.environ[name]
        for entry in added:
            sys.path.remove(entry)
        raise AppError(MOVES, f"importing it changed {', '.join([*changed, *added])} for the whole process")

    # -- those that have ended ---------------------------------------------------------------------------------

    def _note_ended(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake_fd)
        while self._ended:
            number, status = self._ended.popleft()
            thread = self._threads.pop(number)
            if thread.ident is not None:
                thread.join(_LOOK_S)  # it has said its last word
            fall_silent(number)
            profiling.finish(number)
            group = self._group_of.pop(number)
            if group.is_over and group not in self._group_of.values():
                self._part_with(group)
            self._endpoint.send(Reaped(number, status << 8))

    def _part_with(self, group: _Group) -> None:
        for key in [key for key, each in self._groups.items() if each is group]:
            del self._groups[key]
        group.forget()
        group.left_at = time.monotonic()
        if self._private is group:
            self._private = None
            os.environ.clear()
            os.environ.update(self._environ)
            sys.path[:] = self._path
        if group.owner.threads():
            self._leaving.append(group)

    def _look_after_the_leaving(self) -> None:
        """Those whose threads have ended can come again. Threads that live on are told to the daemon."""
        if not self._leaving:
            return
        now = time.monotonic()
        self._leaving = [group for group in self._leaving if group.owner.threads()]
        late = [group for group in self._leaving if group.left_at is not None and now - group.left_at >= _SETTLE_S]
        left_behind = sum(len(group.owner.threads()) for group in late)
        if left_behind > self._left_behind:
            names = {thread.name for group in late for thread in group.owner.threads()}
            apps = ", ".join(sorted({group.owner.name for group in late}))
            say("warn", "it has left, and its threads live on", app=apps, threads=", ".join(sorted(names)))
        if left_behind != self._left_behind:
            self._left_behind = left_behind
            self._endpoint.send(LeftBehind(left_behind))

    def _leave(self) -> int:
        """The daemon is gone, or lets this host go: the workers' own channels tell them the same."""
        # Nobody else is left to use force on what is stuck; and threads that are not daemons would be waited for.
        faulthandler.dump_traceback_later(self._grace_s + _AFTER_GRACE_S, exit=True, file=_STDERR)
        deadline = time.monotonic() + self._grace_s + _AFTER_GRACE_S
        self._endpoint.close()
        poller = select.poll()
        poller.register(self._wake_fd, select.POLLIN)
        while self._group_of and time.monotonic() < deadline:
            poller.poll(_LOOK_S * 1000)
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake_fd)
            while self._ended:
                number, _ = self._ended.popleft()
                self._group_of.pop(number)
        return 0


def _refuse(endpoint: Endpoint, why: str) -> None:
    report(endpoint, Failed("import-failed", why))


def _hint(text: str) -> str:
    if "main thread" in text and "signal" in text:
        return "\n(An app that handles signals needs a process of its own: `workers_runtime process`.)"
    return ""


def _own_directory() -> bool:
    """Give this thread, and those that it starts, a working directory and a umask apart from the other threads'.

    unshare(2), CLONE_FS: needs no privilege. Where it is forbidden, the daemon puts no two directories into one host.
    """
    return bool(ctypes.CDLL(None, use_errno=True).unshare(_CLONE_FS) == 0)
