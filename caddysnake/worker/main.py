"""One worker: configure, load, serve, drain, exit status.

The same code runs in a forked process and in threads of a thread host (``thread_host``); what belongs to a process
alone is in ``enter_process``.
"""

from __future__ import annotations

import ctypes
import fcntl
import inspect
import os
import select
import signal
import socket
import sys
import time
from typing import Any

from ..channel.configuring import await_configuration, redirect
from ..channel.endpoint import ChannelClosed, ChannelError, Endpoint
from ..channel.messages import Failed
from ..channel.settings import Settings, unseal
from ..channel.vitals import Page
from .app.health import before_asgi, before_wsgi
from .app.loader import AppError, load
from .process import limits, stacks

_FAREWELL_S = 5.0
_PR_SET_NAME = 15
_F_SETSIG = 10  # fcntl.F_SETSIG is not in every build of the module


def main(channel: socket.socket) -> int:
    """Run the worker whose channel this is, to its end; the process's exit status: 0 drained, 1 never ready."""
    endpoint = Endpoint(channel)
    try:
        settings, page = await_configuration(endpoint, unseal, redirect)
    except (ChannelClosed, ChannelError, TimeoutError, ValueError) as exc:
        print(f"caddysnake: worker without settings: {exc}", file=sys.stderr)
        return 1
    if settings.interface == "host":
        from .threads.host import ThreadHost

        return ThreadHost(endpoint, settings).run()
    try:
        enter_process(settings)
        enter_directory(settings)
        sys.path[:] = [settings.working_dir, *path_entries(settings), *sys.path]
        keep_path()
        with DieWithDaemon(channel):
            app, interface = load_app(settings)
        return serve(interface, app, settings, endpoint, page)
    except AppError as exc:
        report(endpoint, Failed(exc.code, str(exc)))
        return 1


def load_app(settings: Settings) -> tuple[Any, str]:
    """The app, and ``asgi`` or ``wsgi``. Raises ``AppError``."""
    app = load(settings)
    interface = _interface(settings, app)
    if settings.health_path:
        app = (before_asgi if interface == "asgi" else before_wsgi)(app, settings.health_path)
    return app, interface


def enter_process(settings: Settings) -> None:
    """Make this process the app's: environment, streams, title, limits. Raises ``AppError``."""
    os.environ.clear()
    os.environ.update(settings.environ)
    if "TZ" in settings.environ:
        time.tzset()
    stacks.on_signal()
    by_line()
    set_title(_title(settings))
    tempfile: Any = sys.modules.get("tempfile")
    if tempfile is not None:  # a preload may have asked, when there was no TMPDIR of this app's
        tempfile.tempdir = None
    if settings.limits:
        try:
            limits.apply(settings.limits)
        except OSError as exc:
            raise AppError("limits", f"limits {settings.limits}: {exc.strerror}") from None


def enter_directory(settings: Settings) -> None:
    """Make the working directory the app's. Raises ``AppError``."""
    try:
        os.chdir(settings.working_dir)
    except OSError as exc:
        raise AppError("directory", f"working_dir {settings.working_dir}: {exc.strerror}") from None


def path_entries(settings: Settings) -> list[str]:
    """What ``PYTHONPATH`` adds to the module search path."""
    return [entry for entry in settings.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]


def keep_path() -> None:
    """Follow the links in ``sys.path`` once: what is imported late is of the release that was there at the start.

    The interpreter's own folders have been found already, and are compared with ``sys.prefix`` by others.
    """
    own = tuple(os.path.join(prefix, "") for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix))
    sys.path[:] = [
        entry if entry.startswith(own) or not os.path.isabs(entry) else os.path.realpath(entry) for entry in sys.path
    ]


def _title(settings: Settings) -> str:
    if settings.interface == "host":
        return "caddysnake: thread host"
    place = f" [{settings.worker_index + 1}/{settings.workers}]" if settings.workers > 1 else ""
    return f"caddysnake: worker {settings.app}{place}"


def by_line() -> None:
    """A line printed is a line in the log now, not when a buffer is full."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(line_buffering=True, errors="backslashreplace")


def set_title(title: str) -> None:
    """Show ``title`` in ps and top: overwrites the argument area in place, which needs no library (proc(5), stat).

    /proc/self/mem and /proc/self/comm would do as well, but an undumpable process may not open its own.
    """
    try:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        raw = title.encode()[: end - start - 1]
        if start:
            ctypes.memset(start, 0, end - start)
            ctypes.memmove(start, raw, len(raw))
        ctypes.CDLL(None).prctl(_PR_SET_NAME, b"caddysnake", 0, 0, 0)
    except (OSError, ValueError, IndexError):
        pass  # a title is a comfort


class DieWithDaemon:
    """While foreign code is being imported nobody reads the channel; its end then kills this process, GIL or no GIL.

    Anything that arrives on the channel does, in fact, so the daemon sends nothing between ``Configure`` and ``Ready``.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._fd = channel.fileno()

    def __enter__(self) -> None:
        fcntl.fcntl(self._fd, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(self._fd, _F_SETSIG, int(signal.SIGKILL))
        self._set(True)
        # What ended before the signal was armed sends none.
        poller = select.poll()
        poller.register(self._fd, select.POLLHUP)
        if poller.poll(0):
            os._exit(1)

    def __exit__(self, *_: object) -> None:
        self._set(False)

    def _set(self, on: bool) -> None:
        flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
        fcntl.fcntl(self._fd, fcntl.F_SETFL, flags | os.O_ASYNC if on else flags & ~os.O_ASYNC)


def _interface(settings: Settings, app: Any) -> str:
    """``asgi`` or ``wsgi``. Raises ``AppError`` for an app that cannot be what the settings call it."""
    if _fits("wsgi", app) is False and _fits("asgi", app) is False:
        raise AppError("interface", _fits_neither(f"{settings.module}:{settings.variable}", app))
    if settings.interface == "auto":
        return told_by_inspection(app)
    other = {"wsgi": "asgi", "asgi": "wsgi"}[settings.interface]
    if _fits(settings.interface, app) is False and _fits(other, app):
        name = f"{settings.module}:{settings.variable}"
        short = " (the short form `python module:variable` is for WSGI)" if other == "asgi" else ""
        raise AppError(
            "interface", f"{name} takes what {other.upper()} apps take: write `module_{other} {name}`{short}"
        )
    return settings.interface


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


def prepare(interface: str) -> None:
    """Import the server of ``interface``, and its event loop's library, ahead of the fork; nothing for ``auto``."""
    if interface == "asgi":
        from .asgi import server as asgi  # noqa: F401
        from .asgi.loop import import_uvloop

        import_uvloop()
    elif interface == "wsgi":
        from .wsgi import server as wsgi  # noqa: F401


def serve(interface: str, app: Any, settings: Settings, endpoint: Endpoint, page: Page) -> int:
    """Serve ``app`` until drained, or until the daemon is gone; the worker's exit status."""
    # Only the server that is needed: a threaded worker pays for no event loop.
    if interface == "asgi":
        from .asgi.server import AsgiServer

        return AsgiServer(app, settings, endpoint, page).run()
    from .wsgi.server import WsgiServer

    return WsgiServer(app, settings, endpoint, page).run()


def report(endpoint: Endpoint, message: Failed) -> None:
    """Tell the daemon why there will be no worker."""
    try:
        poller = select.poll()
        poller.register(endpoint.fileno(), select.POLLOUT)
        if not endpoint.send(message):
            poller.poll(_FAREWELL_S * 1000)
            endpoint.flush()
    except ChannelClosed:
        pass
