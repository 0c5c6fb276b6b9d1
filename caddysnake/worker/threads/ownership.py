"""What the apps of a thread host leave in their process: who started which thread, and who wants to be told of the end.

A process ends and takes all of it along; an app that is threads must be taken apart. So in a thread host, and nowhere
else, a thread belongs to whom the thread that started it belongs to, and ``atexit`` is an app's own: its functions run
when its last worker has ended, not when the process does, and are not kept longer.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from ...channel.records import say
from ..app.loader import foreign_traceback

_MARK = "_caddysnake_lodger"


class Owner:
    """One app of a thread host, or rather one import of it."""

    def __init__(self, name: str, names: frozenset[str]) -> None:
        """``names``: its top-level modules."""
        self.name = name
        self.names = names
        self._farewells: list[tuple[Callable[..., object], tuple[Any, ...], dict[str, Any]]] = []

    def threads(self) -> list[threading.Thread]:
        """Those alive that it, or a thread of its, has started."""
        return [thread for thread in threading.enumerate() if (found := lodger_of(thread)) and found.owner is self]

    def wants_farewell(self, function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """``atexit.register``: call ``function`` with these arguments when its last worker has ended."""
        self._farewells.append((function, args, kwargs))

    def waives_farewell(self, function: Callable[..., object]) -> None:
        """``atexit.unregister``: forget every call of what equals ``function``."""
        self._farewells = [each for each in self._farewells if each[0] != function]

    def bid_farewell(self) -> None:
        """Call what it gave to ``atexit``, the last first."""
        while self._farewells:
            function, args, kwargs = self._farewells.pop()
            try:
                function(*args, **kwargs)
            except BaseException as exc:  # foreign code
                say("error", "a function given to atexit raised", foreign_traceback(exc), app=self.name)


class Lodger(NamedTuple):
    """One worker of an app, by its number."""

    owner: Owner
    worker: int


def lodger_of(thread: threading.Thread) -> Lodger | None:
    """The worker that ``thread`` belongs to; None when it is the host's own."""
    found: Lodger | None = getattr(thread, _MARK, None)
    return found


def mark(thread: threading.Thread, lodger: Lodger) -> None:
    """``thread``, and all that it starts, belongs to ``lodger``."""
    setattr(thread, _MARK, lodger)


changed_by: dict[str, Owner] = {}
"""Who set, or took away, which variable of the environment last."""


def keep_books() -> None:
    """From now on know whose threads, farewells and variables are whose. Once, in the process of a thread host."""
    start = threading.Thread.start
    register, unregister = atexit.register, atexit.unregister

    def start_owned(self: threading.Thread) -> None:
        lodger = lodger_of(threading.current_thread())
        if lodger is not None and lodger_of(self) is None:
            mark(self, lodger)
        start(self)

    def register_owned(function: Callable[..., object], /, *args: Any, **kwargs: Any) -> Callable[..., object]:
        lodger = lodger_of(threading.current_thread())
        if lodger is None or not _is_called_by(lodger.owner):  # a library's functions are for the whole process
            return register(function, *args, **kwargs)
        lodger.owner.wants_farewell(function, args, kwargs)
        return function

    def unregister_owned(function: Callable[..., object], /) -> None:
        lodger = lodger_of(threading.current_thread())
        if lodger is not None:
            lodger.owner.waives_farewell(function)
        unregister(function)

    def owned(change: Callable[..., None]) -> Callable[..., None]:
        def changed(name: bytes | str, *value: bytes | str) -> None:
            lodger = lodger_of(threading.current_thread())
            if lodger is not None:
                changed_by[os.fsdecode(name)] = lodger.owner
            change(name, *value)

        return changed

    os.putenv, os.unsetenv = owned(os.putenv), owned(os.unsetenv)  # which os.environ calls
    threading.Thread.start = start_owned  # type: ignore[method-assign]
    atexit.register = register_owned  # type: ignore[assignment]
    atexit.unregister = unregister_owned


def _is_called_by(owner: Owner) -> bool:
    """Whether the caller's caller is a module of the app's own."""
    name = sys._getframe(2).f_globals.get("__name__")
    return isinstance(name, str) and name.partition(".")[0] in owner.names


def interrupt(worker: int) -> None:
    """Raise ``SystemExit`` in each thread of ``worker``, when it next runs Python: what waits in C does not notice."""
    for thread in threading.enumerate():
        lodger = lodger_of(thread)
        if lodger is not None and lodger.worker == worker and thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
