"""A profile of this process, or of one worker's threads in it: what its threads, and the tasks of its event loop, are
at, a hundred times a second or so, and how much processor time each has used meanwhile.

From within, by a thread: an undumpable process cannot be looked at from outside. It measures what it costs itself, and
looks less often where stacks are deep or many. Nothing of it is there before, or after.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from itertools import islice
from types import CodeType, FrameType
from typing import Any

from ..coroutines import awaited
from .looking import OURS

INTERVAL_S = 0.01
SHARE = 0.015
"""Of a core, that the thread may use."""
DEPTH_MAX = 200
STACKS_MAX = 10_000
TASKS_MAX = 1000
_TASKS_S = 0.1
_NUMBER = "0123456789-_ "
_STDLIB = os.path.dirname(os.__file__) + os.sep
_MACHINERY = (OURS, f"{_STDLIB}threading.py", f"{_STDLIB}asyncio{os.sep}")
_WAITS = (*_MACHINERY, f"{_STDLIB}selectors.py")

Stack = tuple[str, tuple[int, ...]]
"""What it is of, and the ids of its code objects, the innermost first."""

_loops: dict[int, Any] = {}
"""Event loops, by the thread that runs each."""
_running: dict[int, Profiler] = {}


def knows_loop(loop: Any) -> None:
    """Have profiles tell of the tasks of ``loop``, which this thread runs."""
    _loops[threading.get_ident()] = loop


def forget_loop() -> None:
    """This thread runs none any more."""
    _loops.pop(threading.get_ident(), None)


def begin(worker: int, seconds: float, fd: int, is_its: Callable[[threading.Thread], bool] | None = None) -> None:
    """Write a profile of the next ``seconds`` into ``fd``, ours now; one at a time. ``is_its``: whose threads."""
    if worker in _running:
        os.close(fd)
        return
    profiler = _running[worker] = Profiler(seconds, fd, is_its)

    def run() -> None:
        try:
            profiler.run()
        finally:
            _running.pop(worker, None)

    try:
        threading.Thread(target=run, name="caddysnake-profile", daemon=True).start()
    except RuntimeError:  # no more threads
        del _running[worker]
        os.close(fd)


def finish(worker: int | None = None) -> None:
    """The worker (or all) is about to go: write what was seen so far."""
    for number in list(_running) if worker is None else [worker]:
        profiler = _running.get(number)
        if profiler is not None:
            profiler.finish()


class Profiler:
    """Looks, for ``seconds``, and writes what it has seen into ``fd``."""

    def __init__(self, seconds: float, fd: int, is_its: Callable[[threading.Thread], bool] | None) -> None:
        self._seconds = seconds
        self._fd = fd
        self._is_its = is_its
        self._end = threading.Event()
        self._done = threading.Event()
        self._codes: dict[int, CodeType] = {}
        self._stacks: dict[Stack, list[int]] = {}
        """Microseconds of wall, and nanoseconds of processor time."""
        self._threads: dict[int, tuple[str, int] | None] = {}
        self._used: dict[int, int] = {}
        self._looks = 0
        self._looked_at_tasks = 0.0

    def finish(self) -> None:
        """Stop looking, and be done before this returns, unless nobody reads."""
        self._end.set()
        self._done.wait(1.0)

    def run(self) -> None:
        """Look, then write. In a thread of its own."""
        begun = last = time.monotonic()
        try:
            own = threading.get_ident()
            pause = INTERVAL_S
            reader = select.poll()
            reader.register(self._fd, 0)  # tells when nobody reads any more
            while last - begun < self._seconds and not self._end.wait(pause) and not reader.poll(0):
                before = time.thread_time()
                now = time.monotonic()
                self._look(own, round((now - last) * 1e6), now)
                last = now
                cost = time.thread_time() - before
                # Not in step with anything that the app does again and again.
                pause = max(INTERVAL_S, cost / SHARE) * (0.5 + time.monotonic_ns() % 1009 / 1009)
                pause = min(pause, max(0.0, begun + self._seconds - now))
            self._write(last - begun)
        finally:
            os.close(self._fd)
            self._done.set()

    def _look(self, own: int, wall_us: int, now: float) -> None:
        self._looks += 1
        seen = sys._current_frames()
        if not self._threads.keys() >= seen.keys():
            self._meet(seen)
        for ident, frame in seen.items():
            thread = self._threads.get(ident)
            if ident != own and thread is not None:
                name, native = thread
                self._count(name, self._walk(frame), wall_us, self._cpu_ns(ident, native))
        del seen
        if now - self._looked_at_tasks >= _TASKS_S:
            since, self._looked_at_tasks = self._looked_at_tasks, now
            if since:
                self._look_at_tasks(round((now - since) * 1e6))

    def _meet(self, seen: dict[int, FrameType]) -> None:
        known = {thread.ident: thread for thread in threading.enumerate()}
        main = threading.main_thread()
        self._threads = {}
        for ident in seen:
            thread = known.get(ident)
            if thread is None:
                self._threads[ident] = ("thread", 0) if self._is_its is None else None
            elif self._is_its is None or self._is_its(thread):
                # Of a process that was forked, an older Python still has the main thread's number in its parent.
                native = os.getpid() if thread is main else thread.native_id
                self._threads[ident] = (thread.name.rstrip(_NUMBER) or thread.name, native or 0)
            else:
                self._threads[ident] = None

    def _cpu_ns(self, ident: int, native: int) -> int:
        """What this thread has used since the last look."""
        if not native:
            return 0
        try:
            # clock_getcpuclockid(3) of a thread by its number: pthread's own function must not be asked of one that has
            # ended meanwhile.
            used = time.clock_gettime_ns((~native << 3) | 6)
        except OSError:
            return 0
        before = self._used.get(ident, used)
        self._used[ident] = used
        return max(0, used - before)

    def _walk(self, frame: FrameType | None) -> tuple[int, ...]:
        codes = self._codes
        found: list[int] = []
        while frame is not None and len(found) < DEPTH_MAX:
            code = frame.f_code
            found.append(id(code))
            codes[id(code)] = code
            frame = frame.f_back
        return tuple(found)

    def _count(self, name: str, ids: tuple[int, ...], wall_us: int, cpu_ns: int) -> None:
        if len(self._stacks) >= STACKS_MAX and (name, ids) not in self._stacks:
            ids = ()
        counts = self._stacks.setdefault((name, ids), [0, 0])
        counts[0] += wall_us
        counts[1] += cpu_ns

    def _look_at_tasks(self, wall_us: int) -> None:
        asyncio: Any = sys.modules.get("asyncio")
        for ident, loop in list(_loops.items()):
            if asyncio is None or self._threads.get(ident) is None:
                continue
            try:
                tasks = asyncio.all_tasks(loop)
            except RuntimeError:  # they came and went too fast
                continue
            weight = wall_us * max(1.0, len(tasks) / TASKS_MAX)
            for task in islice(tasks, TASKS_MAX):
                ids = self._walk_task(task.get_coro())
                if ids:
                    self._count("tasks that wait", ids, round(weight), 0)

    def _walk_task(self, coro: Any) -> tuple[int, ...]:
        """Where a task waits; nothing for one that runs just now, which is seen as its thread is."""
        if getattr(coro, "cr_running", False):
            return ()
        codes = [frame.f_code for frame in islice(awaited(coro), DEPTH_MAX)]
        self._codes.update((id(code), code) for code in codes)
        return tuple(map(id, reversed(codes)))

    def _write(self, seconds: float) -> None:
        frames: dict[int, int] = {}
        table: list[tuple[str, str, int]] = []
        stacks = []
        for (name, ids), (wall_us, cpu_ns) in self._stacks.items():
            numbers = []
            shown = self._outermost_first(ids)
            cpu_us = cpu_ns // 1000
            waits_for_work = len(shown) == 1 and self._codes[shown[0]].co_filename.startswith(_WAITS)
            for key in shown:
                if key not in frames:
                    code = self._codes[key]
                    frames[key] = len(table)
                    table.append((getattr(code, "co_qualname", code.co_name), code.co_filename, code.co_firstlineno))
                numbers.append(frames[key])
            stacks.append((name, numbers, min(wall_us, cpu_us) if waits_for_work else wall_us, cpu_us))
        told = {"seconds": round(seconds, 3), "looks": self._looks, "frames": table, "stacks": stacks}
        body = json.dumps(told).encode("utf-8", "replace")
        data = b"%d\n" % len(body) + body
        with contextlib.suppress(OSError):  # nobody reads it any more
            while data:
                data = data[os.write(self._fd, data) :]

    def _outermost_first(self, ids: tuple[int, ...]) -> list[int]:
        """Without what only carries the app: threading, the event loop, and our own frames outside of its own."""
        found = list(reversed(ids))
        at = 0
        while at < len(found) - 1 and self._codes[found[at]].co_filename.startswith(_MACHINERY):
            at += 1
        return found[at:]
