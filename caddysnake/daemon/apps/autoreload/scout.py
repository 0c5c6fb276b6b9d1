"""Folders whose files are watched, by one thread and one inotify instance for all of them.

An inotify instance is scarce (128 a user), and so is a watched folder; therefore each folder is watched once, whoever
asks, and folders that hold no code of the app's are not watched at all: hidden ones, ``__pycache__``, ``node_modules``
and virtual environments. The kernel watches no tree, only folders, so trees are walked here, again when a folder comes
or goes. What was written before a folder was watched is found by comparing: nothing falls between two looks.

A root is resolved through symlinks, and looked at every second: it may lead elsewhere (``current -> releases/42``), be
replaced by another folder of its name, or come back.

Whoever may write to a root must not end the watch over the others. One that holds too much, or a name that watchfiles
cannot carry (which fails for all that is watched with it), is left out for a while, and told; what happens meanwhile is
found when it is taken up again. Looking at a root may take a tenth of the time. Whatever else goes wrong is told, and
all is begun anew.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from .trees import FOLDERS_MAX, Root, TooMuch, WatchedTree, identify, is_skipped, walk

if TYPE_CHECKING:
    from watchfiles._rust_notify import RustNotify

_BATCH_MS, _STEP_MS, _LOOK_MS = 100, 50, 1000
_DRAIN_MS = 20
_ADDED, _DELETED = 1, 3  # as watchfiles numbers kinds of changes
_RETRY_S, _RETRY_SOON_S = 5.0, 0.05
_LEFT_OUT_S, _LEFT_OUT_MAX_S = 5.0, 600.0
"""For how long a root is left out at first, and when it is left out again and again."""
_RARER = 10
"""A root is not looked at again before this many times what the last look has taken."""


class _Out(NamedTuple):
    """A root that is left out. Times of ``time.monotonic()``."""

    until: float
    pause_s: float


class Scout(threading.Thread):
    """The thread. ``want``, ``unwant`` and ``end`` are called from another one, ``report``, ``complain`` and
    ``leave_out`` (a root, why, for how many seconds) in it.
    """

    def __init__(
        self,
        report: Callable[[Root, set[str]], None],
        complain: Callable[[str], None],
        leave_out: Callable[[Root, str, float], None],
    ) -> None:
        super().__init__(name="watching", daemon=True)
        self._report = report
        self._complain = complain
        self._tell_left_out = leave_out
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._is_over = False
        self._wanted: dict[Root, float] = {}
        self._trees: dict[Root, WatchedTree] = {}
        self._roots: dict[str, list[Root]] = {}
        """Whose the folders are that are watched."""
        self._stale: set[Root] = set()
        self._out: dict[Root, _Out] = {}
        self._not_before: dict[Root, float] = {}
        """When a root may be looked at again; ``time.monotonic()``."""
        self._notify: RustNotify | None = None
        self._seen_at = 0.0
        """``time.time()``: until then nothing that changed was missed."""
        self._blind: dict[Root, float] = {}
        """Roots of which something may have been missed, and since when; ``time.time()``."""
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
        """The thread's work, until ``end``; trouble of any kind is complained of, and all is tried again."""
        while not self._is_over:
            self._wake.clear()
            try:
                is_watching = self._watch_all()
                if is_watching:
                    self._look()
            except Exception as exc:
                is_watching = False
                self._begin_anew(exc)
            if not is_watching:
                self._wake.wait(_RETRY_S if self._complained else _RETRY_SOON_S)
        self._close()

    def _close(self) -> None:
        notify, self._notify = self._notify, None
        if notify is not None:
            notify.close()

    def _begin_anew(self, exc: Exception) -> None:
        """What is watched fails as a whole, and goes on failing. Leave out whose fault it is, if that can be told."""
        guilty = _blamed(str(exc), self._trees.items())
        for root in guilty:
            self._leave_out(root, str(exc))
        if not guilty:
            self._say(f"{type(exc).__name__}: {exc}")
        self._not_before.clear()
        self._was_blind(self._seen_at)
        self._close()

    def _was_blind(self, since: float) -> None:
        """Something may have changed ``since`` (``time.time()``) that nobody has told: look at all roots."""
        for root in self._trees:
            self._blind.setdefault(root, since)
        self._stale |= self._trees.keys()

    def _leave_out(self, root: Root, why: str) -> None:
        """Watch ``root`` no more for a while: twice as long as the last time, if that was lately."""
        now = time.monotonic()
        former = self._out.get(root)
        pause_s = _LEFT_OUT_S
        if former is not None and now - former.until < former.pause_s * 2:
            pause_s = min(former.pause_s * 2, _LEFT_OUT_MAX_S)
        self._out[root] = _Out(now + pause_s, pause_s)
        if self._trees.pop(root, None) is not None:
            with self._lock:
                if root in self._wanted:  # what changes from now on is to be told when it is taken up again
                    self._wanted[root] = time.time() - _BATCH_MS / 1000
        self._tell_left_out(root, why, pause_s)

    def _is_out(self, root: Root) -> bool:
        out = self._out.get(root)
        return out is not None and out.until > time.monotonic()

    def _say(self, trouble: str) -> None:
        """Complain of ``trouble``, once."""
        if trouble != self._complained:
            self._complained = trouble
            self._complain(trouble)

    # -- which folders -----------------------------------------------------------------------------------------

    def _watch_all(self) -> bool:
        """Watch the folders of all roots as they are now, and tell what has changed since the last look."""
        with self._lock:
            wanted = dict(self._wanted)
        self._out = {root: out for root, out in self._out.items() if root in wanted}
        self._not_before = {root: at for root, at in self._not_before.items() if root in wanted}
        before = self._trees
        due = self._due()
        again = {root for root in wanted if not self._is_out(root) and (root not in before or root in due)}
        trees: dict[Root, WatchedTree] = {}
        for root in wanted:
            tree = self._walk(root) if root in again else before.get(root)
            if tree is not None:
                trees[root] = tree
        again &= trees.keys()
        self._stale = (self._stale - due) & before.keys()
        if not self._open({folder for tree in trees.values() for folder in tree.folders}, trees):
            self._stale |= again & before.keys()
            return False
        self._trees = trees
        self._roots = {}
        for root, tree in trees.items():
            for folder in tree.folders:
                self._roots.setdefault(folder, []).append(root)
        for root in again:
            # Once more, now that it is watched: what came between the walk and the watch made no event.
            found = self._walk(root)
            if found is None:
                continue
            known = before.get(root)
            since = self._blind.pop(root, None)
            if known is None:
                since = wanted[root]
            changed = set() if since is None else {path for path in found.files if _changed_since(path, since)}
            if known is not None:
                changed |= found.files ^ known.files
            changed |= found.files ^ trees[root].files
            if found.folders != trees[root].folders or found.identity != trees[root].identity:
                self._stale.add(root)
            self._trees[root] = trees[root]._replace(files=found.files)
            if changed:
                self._report(root, changed)
        self._blind = {root: since for root, since in self._blind.items() if root in trees}
        return True

    def _due(self) -> set[Root]:
        """Those of the stale roots that may be looked at now."""
        now = time.monotonic()
        return {root for root in self._stale if self._not_before.get(root, 0.0) <= now}

    def _walk(self, root: Root) -> WatchedTree | None:
        """Look at all of ``root``; None, and it is left out, when that is too much."""
        begun = time.monotonic()
        try:
            return walk(root)
        except TooMuch as exc:
            self._leave_out(root, str(exc))
            return None
        finally:
            now = time.monotonic()
            self._not_before[root] = now + (now - begun) * _RARER

    def _open(self, folders: set[str], trees: dict[Root, WatchedTree]) -> bool:
        from watchfiles._rust_notify import RustNotify  # here, since most daemons watch nothing

        former = self._notify
        try:
            self._notify = RustNotify(sorted(folders), False, False, 0, False, True)
        except FileNotFoundError:  # one has just gone
            self._stale |= self._trees.keys()
            return False
        except (OSError, RuntimeError) as exc:
            largest = max(trees, key=lambda root: len(trees[root].folders), default=None)
            if largest is not None and len(trees) > 1 and len(trees[largest].folders) > FOLDERS_MAX // 10:
                self._leave_out(largest, f"{exc} ({len(trees[largest].folders):,} folders are in it)")
            else:
                self._say(str(exc))
            return False
        self._complained = ""
        if former is not None:
            try:
                last_words = former.watch(_DRAIN_MS, _DRAIN_MS // 2, _DRAIN_MS, None)
            except Exception as exc:
                self._notify, opened = former, self._notify
                self._begin_anew(exc)
                opened.close()
                return False
            former.close()
            if not isinstance(last_words, str):
                self._digest(last_words)
        return True

    # -- what happens ------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Tell what changes, until the folders to watch are others."""
        assert self._notify is not None
        while not self._wake.is_set() and not self._due() and not self._is_one_back():
            begun = time.time()
            found = self._notify.watch(_BATCH_MS, _STEP_MS, _LOOK_MS, self._wake)
            self._seen_at = begun - _BATCH_MS / 1000
            if isinstance(found, str) and self._wake.is_set():
                self._was_blind(self._seen_at)  # who is woken up drops what has come meanwhile
            elif isinstance(found, str):
                self._stale |= {root for root, tree in self._trees.items() if _has_moved(root, tree)}
            else:
                self._digest(found)

    def _is_one_back(self) -> bool:
        """A root that was left out may be tried again."""
        return any(root not in self._trees and not self._is_out(root) for root in self._out)

    def _digest(self, changes: set[tuple[int, str]]) -> None:
        changed: dict[Root, set[str]] = {}
        new: dict[Root, set[str]] = {}
        for kind, path in changes:
            for root in self._roots.get(os.path.dirname(path), ()):
                tree = self._trees.get(root)
                if tree is None:
                    continue
                if root.wants(os.path.relpath(path, tree.resolved)):
                    changed.setdefault(root, set()).add(path)
                    (tree.files.discard if kind == _DELETED else tree.files.add)(path)
                if kind == _ADDED and not is_skipped(os.path.basename(path)) and _is_folder(path):
                    new.setdefault(root, set()).add(path)
                    self._stale.add(root)
            if kind == _DELETED:
                self._stale.update(self._roots.get(path, ()))
        for root, paths in new.items():
            # Perhaps not the ones of their names that were here: whatever they hold is new.
            files = self._trees[root].files
            files.difference_update([file for file in files if not paths.isdisjoint(_above(file))])
        for root, paths in changed.items():
            self._report(root, paths)


def _above(path: str) -> Iterator[str]:
    """The folders that ``path`` is in, the nearest first."""
    while (path := os.path.dirname(path)) != "/":
        yield path


def _blamed(text: str, trees: Iterable[tuple[Root, WatchedTree]]) -> list[Root]:
    """The roots in which the path is that an error of watchfiles names, as Rust quotes it."""
    path = text.partition('"')[2]
    found = [(len(tree.resolved), root) for root, tree in trees if path.startswith(tree.resolved.rstrip("/") + "/")]
    longest = max((length for length, _ in found), default=0)
    return [root for length, root in found if length == longest]


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _has_moved(root: Root, tree: WatchedTree) -> bool:
    resolved = os.path.realpath(root.folder)
    return resolved != tree.resolved or identify(resolved) != tree.identity


def _changed_since(path: str, since: float) -> bool:
    try:
        return os.stat(path).st_ctime > since
    except OSError:
        return False
