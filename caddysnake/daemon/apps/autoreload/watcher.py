"""Folders whose files are watched, by one thread and one inotify instance for all of them.

An inotify instance is scarce (128 a user), and so is a watched folder; therefore each folder is watched once, whoever
asks, and folders that hold no code of the app's are not watched at all: hidden ones, ``__pycache__``, ``node_modules``
and virtual environments. The kernel watches no tree, only folders, so trees are walked here, again when a folder comes
or goes. What was written before a folder was watched is found by comparing: nothing falls between two looks.

A root is resolved through symlinks, and looked at every second: it may lead elsewhere (``current -> releases/42``), be
replaced by another folder of its name, or come back.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from watchfiles._rust_notify import RustNotify

log = logging.getLogger("caddysnake.autoreload")

SKIPPED = frozenset({"__pycache__", "node_modules"})
_BATCH_MS, _STEP_MS, _LOOK_MS = 100, 50, 1000
_DRAIN_MS = 20
_ADDED, _DELETED = 1, 3  # as watchfiles numbers kinds of changes
_RETRY_S, _RETRY_SOON_S = 5.0, 0.05
_PATIENCE_S = 5.0
_AT_MOST = 10
"""Changes that do not end are told after this many debounce times."""

Paths = frozenset[str]
Tell = Callable[[Paths], None]


class Root(NamedTuple):
    """A folder as it was named, and which files in it matter besides ``*.py``."""

    folder: str
    patterns: tuple[str, ...] = ()

    def wants(self, path: str) -> bool:
        """Whether the file ``path``, relative to the folder, matters. A pattern with a slash is for all of the path."""
        name = os.path.basename(path)
        if name.endswith(".py") and not name.startswith("."):
            return True
        return any(fnmatchcase(path if "/" in pattern else name, pattern) for pattern in self.patterns)


class Tree(NamedTuple):
    """What a root held when it was looked at. Paths are absolute and resolved."""

    resolved: str
    identity: tuple[int, int] | None
    """Device and inode of the root; None when it is not there."""
    folders: frozenset[str]
    files: set[str]
    """Those that matter."""


def walk(root: Root) -> Tree:
    """Look at all of ``root``. What cannot be read is left out."""
    resolved = os.path.realpath(root.folder)
    identity = identify(resolved)
    folders: set[str] = set()
    files: set[str] = set()
    if identity is not None:
        for folder, below, names in os.walk(resolved):
            if folder != resolved and "pyvenv.cfg" in names:
                below.clear()
                continue
            below[:] = [name for name in below if not is_skipped(name)]
            folders.add(folder)
            prefix = "" if folder == resolved else os.path.relpath(folder, resolved) + "/"
            files |= {os.path.join(folder, name) for name in names if root.wants(prefix + name)}
    return Tree(resolved, identity, frozenset(folders), files)


def is_skipped(name: str) -> bool:
    """Whether folders of this name hold no code of the app's."""
    return name.startswith(".") or name in SKIPPED


def identify(path: str) -> tuple[int, int] | None:
    """Device and inode number of ``path``: a folder replaced by another of its name has others. None when it is
    not there.
    """
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


class Debounce:
    """Tells once when ``quiet_s`` seconds have passed without another change."""

    def __init__(self, loop: asyncio.AbstractEventLoop, quiet_s: float, tell: Tell) -> None:
        self._loop = loop
        self._quiet_s = quiet_s
        self._tell = tell
        self._paths: set[str] = set()
        self._latest = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.since: float | None = None
        """``time.time()`` of the first change that is not told yet."""
        self.told_from = 0.0
        """``time.time()`` of the first change of those told last."""

    def note(self, paths: Iterable[str]) -> None:
        """``paths`` have changed. Told later: ``quiet_s`` after the last, and within a bound after the first."""
        if self._timer is None:
            self._latest = self._loop.time() + self._quiet_s * _AT_MOST
            self.since = time.time()
        else:
            self._timer.cancel()
        self._paths.update(paths)
        self._timer = self._loop.call_at(min(self._loop.time() + self._quiet_s, self._latest), self._fire)

    def cancel(self) -> None:
        """Forget what is not told yet."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self.since = None

    def _fire(self) -> None:
        self._timer = None
        self.told_from, self.since = self.since or time.time(), None
        paths, self._paths = frozenset(self._paths), set()
        self._tell(paths)


class Watch:
    """Somebody's interest in a root, until ``cancel``."""

    def __init__(self, watching: Watching, root: Root, debounce: Debounce) -> None:
        self.root = root
        self.debounce = debounce
        self._watching = watching

    def cancel(self) -> None:
        """No longer interested; ``tell`` is not called after this. No harm twice."""
        self.debounce.cancel()
        self._watching.unwatch(self)


class Watching:
    """All that is watched. The thread lives as long as there is anything."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._watches: dict[Root, set[Watch]] = {}
        self._told_at: dict[Root, float] = {}
        self._scout: Scout | None = None
        self._leaving: list[Scout] = []

    def watch(self, root: Root, quiet_s: float, tell: Tell, since: float) -> Watch:
        """Call ``tell`` with the paths that change from ``since`` (``time.time()``) on, ``quiet_s`` after the last."""
        watch = Watch(self, root, Debounce(self._loop, quiet_s, tell))
        known = self._watches.get(root)
        if known is not None:
            known.add(watch)
            if self._told_at.get(root, since) > since:
                watch.debounce.note([root.folder])
            return watch
        self._watches[root] = {watch}
        if self._scout is None:
            self._scout = Scout(self._report, self._complain)
            self._scout.start()
        self._scout.want(root, since)
        return watch

    def unwatch(self, watch: Watch) -> None:
        """Forget ``watch``. The thread leaves when it was the last."""
        known = self._watches.get(watch.root, set())
        known.discard(watch)
        if known or watch.root not in self._watches:
            return
        del self._watches[watch.root]
        self._told_at.pop(watch.root, None)
        if self._scout is not None:
            self._scout.unwant(watch.root)
            if not self._watches:
                self._scout.end()
                self._leaving = [*(scout for scout in self._leaving if scout.is_alive()), self._scout]
                self._scout = None

    async def close(self) -> None:
        """End all watches, and wait until the thread has left."""
        for watches in list(self._watches.values()):
            for watch in list(watches):
                watch.cancel()
        for scout in self._leaving:
            await asyncio.to_thread(scout.join, _PATIENCE_S)

    # -- called in the scout's thread --------------------------------------------------------------------------

    def _report(self, root: Root, paths: set[str]) -> None:
        self._in_loop(self._reported, root, paths)

    def _complain(self, trouble: str) -> None:
        self._in_loop(self._troubled, trouble)

    def _in_loop(self, call: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            pass  # the loop is closed: nobody wants to know any more

    # -- called in the loop ------------------------------------------------------------------------------------

    def _reported(self, root: Root, paths: set[str]) -> None:
        self._told_at[root] = time.time()
        for watch in self._watches.get(root, ()):
            watch.debounce.note(paths)

    def _troubled(self, trouble: str) -> None:
        hint = "the kernel's limits are fs.inotify.max_user_watches and max_user_instances"
        fields = {"error": trouble, "hint": hint}
        log.error("files cannot be watched; trying again", extra={"fields": fields})


class Scout(threading.Thread):
    """The thread. ``want``, ``unwant`` and ``end`` are called from another one, ``report`` and ``complain`` in it."""

    def __init__(self, report: Callable[[Root, set[str]], None], complain: Callable[[str], None]) -> None:
        super().__init__(name="watching", daemon=True)
        self._report = report
        self._complain = complain
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._is_over = False
        self._wanted: dict[Root, float] = {}
        self._trees: dict[Root, Tree] = {}
        self._roots: dict[str, list[Root]] = {}
        """Whose the folders are that are watched."""
        self._stale: set[Root] = set()
        self._notify: RustNotify | None = None
        self._complained = ""

    def want(self, root: Root, since: float) -> None:
        """Watch ``root``, and report what has changed ``since`` (``time.time()``). From any thread."""
        with self._lock:
            self._wanted[root] = since
        self._wake.set()

    def unwant(self, root: Root) -> None:
        """Watch ``root`` no more. From any thread."""
        with self._lock:
            self._wanted.pop(root, None)
        self._wake.set()

    def end(self) -> None:
        """It leaves within a step."""
        self._is_over = True
        self._wake.set()

    def run(self) -> None:
        """The thread's work, until ``end``; trouble with the kernel is complained of, and tried again."""
        try:
            while not self._is_over:
                self._wake.clear()
                if self._watch_all():
                    self._look()
                else:
                    self._wake.wait(_RETRY_S if self._complained else _RETRY_SOON_S)
        finally:
            if self._notify is not None:
                self._notify.close()

    # -- which folders -----------------------------------------------------------------------------------------

    def _watch_all(self) -> bool:
        """Watch the folders of all roots as they are now, and tell what has changed since the last look."""
        with self._lock:
            wanted = dict(self._wanted)
        before = self._trees
        again = {root for root in wanted if root not in before or root in self._stale}
        trees = {root: walk(root) if root in again else before[root] for root in wanted}
        self._stale.clear()
        if not self._open({folder for tree in trees.values() for folder in tree.folders}):
            self._stale |= again & before.keys()
            return False
        self._trees = trees
        self._roots = {}
        for root, tree in trees.items():
            for folder in tree.folders:
                self._roots.setdefault(folder, []).append(root)
        for root in again:
            # Once more, now that it is watched: what came between the walk and the watch made no event.
            found = walk(root)
            known = before.get(root)
            if known is None:
                changed = {path for path in found.files if _changed_since(path, wanted[root])}
            else:
                changed = found.files ^ known.files
            changed |= found.files ^ trees[root].files
            if found.folders != trees[root].folders or found.identity != trees[root].identity:
                self._stale.add(root)
            self._trees[root] = trees[root]._replace(files=found.files)
            if changed:
                self._report(root, changed)
        return True

    def _open(self, folders: set[str]) -> bool:
        from watchfiles._rust_notify import RustNotify  # here, since most daemons watch nothing

        former = self._notify
        try:
            self._notify = RustNotify(sorted(folders), False, False, 0, False, True)
        except FileNotFoundError:  # one has just gone
            self._stale |= self._trees.keys()
            return False
        except (OSError, RuntimeError) as exc:
            if str(exc) != self._complained:
                self._complained = str(exc)
                self._complain(str(exc))
            return False
        self._complained = ""
        if former is not None:
            last_words = former.watch(_DRAIN_MS, _DRAIN_MS // 2, _DRAIN_MS, None)
            former.close()
            if not isinstance(last_words, str):
                self._digest(last_words)
        return True

    # -- what happens ------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Tell what changes, until the folders to watch are others."""
        assert self._notify is not None
        while not self._wake.is_set() and not self._stale:
            found = self._notify.watch(_BATCH_MS, _STEP_MS, _LOOK_MS, self._wake)
            if isinstance(found, str):
                self._stale |= {root for root, tree in self._trees.items() if _has_moved(root, tree)}
            else:
                self._digest(found)

    def _digest(self, changes: set[tuple[int, str]]) -> None:
        changed: dict[Root, set[str]] = {}
        for kind, path in changes:
            for root in self._roots.get(os.path.dirname(path), ()):
                tree = self._trees.get(root)
                if tree is None:
                    continue
                if root.wants(os.path.relpath(path, tree.resolved)):
                    changed.setdefault(root, set()).add(path)
                    (tree.files.discard if kind == _DELETED else tree.files.add)(path)
                if kind == _ADDED and not is_skipped(os.path.basename(path)) and _is_folder(path):
                    # Perhaps not the one of its name that was here: whatever it holds is new.
                    tree.files.difference_update([file for file in tree.files if file.startswith(path + "/")])
                    self._stale.add(root)
            if kind == _DELETED:
                self._stale.update(self._roots.get(path, ()))
        for root, paths in changed.items():
            self._report(root, paths)


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _has_moved(root: Root, tree: Tree) -> bool:
    resolved = os.path.realpath(root.folder)
    return resolved != tree.resolved or identify(resolved) != tree.identity


def _changed_since(path: str, since: float) -> bool:
    try:
        return os.stat(path).st_ctime > since
    except OSError:
        return False
