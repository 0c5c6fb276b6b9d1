"""The app that the settings name, and what it is: ``asgi`` or ``wsgi``, as they say or as it looks."""

from __future__ import annotations

import inspect
from typing import Any

from ...channel.settings import Settings
from . import misfits
from .health import before_asgi, before_wsgi
from .loader import AppError, load

_REST = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def load_app(settings: Settings) -> tuple[Any, str]:
    """The app, and ``asgi`` or ``wsgi``. Raises ``AppError``."""
    app = load(settings)
    if (why := misfits.patched()) is not None:
        raise AppError("import-failed", why)
    misfits.tell_of_one_worker(app, settings)
    if is_asgi2(app):
        app = from_asgi2(app)
    interface = _interface(settings, app)
    if settings.build:
        from . import build

        app = (build.before_asgi if interface == "asgi" else build.before_wsgi)(app, settings.build)
    if settings.health_path:
        app = (before_asgi if interface == "asgi" else before_wsgi)(app, settings.health_path)
    return app, interface


def _interface(settings: Settings, app: Any) -> str:
    """``asgi`` or ``wsgi``. Raises ``AppError`` for an app that cannot be what the settings call it."""
    if _fits("wsgi", app) is False and _fits("asgi", app) is False:
        raise AppError("import-failed", _fits_neither(f"{settings.module}:{settings.variable}", app))
    if settings.interface == "auto":
        return told_by_inspection(app)
    other = {"wsgi": "asgi", "asgi": "wsgi"}[settings.interface]
    if _fits(settings.interface, app) is False and _fits(other, app):
        name = f"{settings.module}:{settings.variable}"
        short = " (the short form `python module:variable` is for WSGI)" if other == "asgi" else ""
        raise AppError(
            "import-failed", f"{name} takes what {other.upper()} apps take: write `module_{other} {name}`{short}"
        )
    return settings.interface


def is_asgi2(app: Any) -> bool:
    """Whether ``app`` is of ASGI 2: it takes a scope, and what it returns takes receive and send."""
    try:
        parameters = list(inspect.signature(app).parameters.values())
    except (TypeError, ValueError):
        return False
    required = [each for each in parameters if each.default is each.empty and each.kind not in _REST]
    if len(required) != 1 or inspect.iscoroutinefunction(app):
        return False
    if inspect.isclass(app):
        return inspect.iscoroutinefunction(getattr(app, "__call__", None))  # noqa: B004  # of its instances
    return required[0].name == "scope"


def from_asgi2(app: Any) -> Any:
    """``app``, of ASGI 2, as one of ASGI 3."""

    async def asgi3(scope: Any, receive: Any, send: Any) -> None:
        await app(scope)(receive, send)

    return asgi3


def _fits_neither(name: str, app: Any) -> str:
    call = app if inspect.isroutine(app) or inspect.isclass(app) else type(app).__call__
    is_async = "async " if inspect.iscoroutinefunction(call) else ""
    return (
        f"{name} is {is_async}{getattr(app, '__name__', type(app).__name__)}{inspect.signature(app)}, which no server "
        "calls: a WSGI app takes (environ, start_response), an ASGI app is async and takes (scope, receive, send). "
        f"A factory is named with parentheses and takes nothing: `{name}()`"
    )


def _fits(interface: str, app: Any) -> bool | None:
    """Whether ``app`` can be called as ``interface`` calls it; None where that cannot be told."""
    if interface == "wsgi" and (inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(type(app).__call__)):
        return False
    try:
        inspect.signature(app).bind(*range(3 if interface == "asgi" else 2))
    except TypeError:
        return False
    except ValueError:
        return None
    return True


def told_by_inspection(app: Any) -> str:
    """``asgi`` or ``wsgi``, by what a call of ``app`` takes and is (PEP 3333: two positionals; ASGI 3.0: three)."""
    call = app if inspect.isroutine(app) else type(app).__call__ if not inspect.isclass(app) else app.__init__
    if inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(call):
        return "asgi"
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return "wsgi"
    named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [each for each in parameters if each.kind in named and each.default is each.empty]
    return "asgi" if len(required) == 3 else "wsgi"
