"""Imports an app: ``module:variable`` where variable is an attribute path or a factory call."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
import time
import traceback
from importlib.machinery import SourceFileLoader
from types import TracebackType
from typing import Any

from ...channel.settings import APPS, FACTORIES, Settings
from .advice import advice

_FRESH_S = 2.0
_done = False


def distrust_fresh_sources() -> None:
    """From now on this process writes no bytecode of a source that is younger than two seconds, or of the future."""
    global _done
    if _done:
        return
    _done = True
    write = SourceFileLoader.set_data

    def set_data(self: SourceFileLoader, path: str, data: Any, **options: Any) -> None:
        try:
            is_settled = time.time() - os.stat(self.path).st_mtime > _FRESH_S
        except OSError:
            is_settled = False
        if is_settled:
            write(self, path, data, **options)

    SourceFileLoader.set_data = set_data  # type: ignore[method-assign]


_FIRST_ARGUMENTS = ("environ", "env", "scope")
_VARIABLE = re.compile(r"(?P<path>[^\W\d]\w*(\.[^\W\d]\w*)*)(?P<call>\(\))?\Z")


class AppError(Exception):
    """The app cannot be loaded. ``code`` is a stable word, the text names what was searched and what to do."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def load(settings: Settings) -> Any:
    """The app object that ``settings`` names. The working directory and ``sys.path`` must be set already.

    Raises ``AppError``: ``no-such-app`` (no such module), else ``import-failed``: the module or the factory raised
    (with the traceback), there is no such attribute, or it is not callable, or a factory that nobody calls.
    """
    is_sought = settings.finds_app and not settings.variable
    match = _VARIABLE.match(settings.variable)
    if match is None and not is_sought:
        raise AppError("import-failed", f"{settings.variable!r} is not a variable, an attribute path or a factory call")
    if settings.development:
        distrust_fresh_sources()
    module = _import(settings.module, settings.working_dir)
    if match is None:
        settings = settings._replace(variable=_found_in(module))
        match = _VARIABLE.match(settings.variable)
        assert match is not None
    target: Any = module
    walked = settings.module
    for name in match["path"].split("."):
        try:
            target = getattr(target, name)
        except AttributeError:
            raise AppError("import-failed", _no_attribute(walked, name, target)) from None
        walked = f"{walked}.{name}"
    if match["call"]:
        target = _call(walked, target, settings.working_dir)
    if not callable(target):
        raise AppError(
            "import-failed",
            f"{settings.module}:{settings.variable} is {type(target).__name__!r}, which cannot be called: "
            f"name the application object, or a factory as `{match['path']}()`",
        )
    if is_factory(target) and settings.finds_app:
        target = _call(walked, target, settings.working_dir)
    if is_factory(target):
        raise AppError(
            "import-failed",
            f"{settings.module}:{settings.variable} takes no request, so it is not an app but makes one: "
            f"write `{settings.module}:{settings.variable}()` to have it called",
        )
    return target


def _found_in(module: Any) -> str:
    """The variable that is the app in ``module``, or the factory that makes it. Raises ``AppError``."""
    for name in (*APPS, *FACTORIES):
        if callable(getattr(module, name, None)):
            return name
    callables = [str(name) for name, each in vars(module).items() if not name.startswith("_") and _may_be_app(each)]
    if len(callables) == 1:
        return callables[0]
    several = f"; it could be {' or '.join(callables)}" if callables else ""
    raise AppError(
        "import-failed",
        f"{module.__name__} has no {', '.join(APPS + FACTORIES)}{several}: "
        f"name the app as {module.__name__}:VARIABLE (loaded from {getattr(module, '__file__', None)})",
    )


def _may_be_app(value: Any) -> bool:
    """Whether it is an object that takes what an app takes: functions and classes may be anything."""
    if inspect.isroutine(value) or inspect.isclass(value) or inspect.ismodule(value) or not callable(value):
        return False
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return False
    named = [each.name for each in parameters]
    return named[:1] in (["environ"], ["env"], ["scope"])


def is_factory(target: Any) -> bool:
    """Whether ``target`` is a function or class that wants no arguments. An app gets two (PEP 3333), or three (ASGI):
    one that names them, with defaults, is called with them.
    """
    if not (inspect.isroutine(target) or inspect.isclass(target)):
        return False
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError):
        return False
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return False  # a decorator's: who knows what is behind it
    named = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    if any(each.default is each.empty for each in parameters if each.kind is not each.VAR_KEYWORD):
        return False
    return not named or named[0].name not in _FIRST_ARGUMENTS


def _import(name: str, working_dir: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and (name == exc.name or name.startswith(exc.name + ".")):
            searched = "\n".join(f"  {entry or os.getcwd()}" for entry in sys.path)
            raise AppError(
                "no-such-app",
                f"no module named {exc.name!r}. Working directory: {working_dir}\n"
                f"Interpreter: {sys.executable}\nSearched:\n{searched}\n"
                "Check the module's name, `working_dir` and `venv`.",
            ) from None
        raise AppError("import-failed", foreign_traceback(exc) + advice(exc, working_dir)) from None
    except SystemExit as exc:
        why = f"module {name!r} called sys.exit({exc.code!r}) while it was imported"
        raise AppError("import-failed", why) from None
    except BaseException as exc:  # foreign code may raise anything, KeyboardInterrupt and GeneratorExit included
        raise AppError("import-failed", foreign_traceback(exc) + advice(exc, working_dir)) from None


def _call(path: str, factory: Any, working_dir: str) -> Any:
    if not callable(factory):
        raise AppError("import-failed", f"{path} is {type(factory).__name__!r}, which cannot be called as a factory")
    try:
        return factory()
    except BaseException as exc:
        raise AppError("import-failed", foreign_traceback(exc) + advice(exc, working_dir)) from None


def _no_attribute(path: str, name: str, holder: Any) -> str:
    known = [entry for entry in dir(holder) if not entry.startswith("_")]
    close = _nearest(name, known)
    hint = f"; did you mean {close!r}?" if close else ""
    place = getattr(holder, "__file__", None)
    return f"{path} has no attribute {name!r}{hint}" + (f" (loaded from {place})" if place else "")


def _nearest(name: str, known: list[str]) -> str | None:
    from difflib import get_close_matches  # only on the way to an error

    found = get_close_matches(name, known, n=1)
    return found[0] if found else None


def foreign_traceback(exc: BaseException) -> str:
    """The traceback of ``exc`` without our own frames and without importlib's in front of the app's."""
    trimmed = _trim(exc.__traceback__)
    return "".join(traceback.format_exception(type(exc), exc, trimmed)).rstrip("\n")


def _trim(trace: TracebackType | None) -> TracebackType | None:
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
    first = trace
    while first is not None:
        file = first.tb_frame.f_code.co_filename
        if not (file.startswith(ours) or "importlib" in file):
            return first
        first = first.tb_next
    return None if trace is None else first
