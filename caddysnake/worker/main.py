"""One worker: configure, load, serve, drain, exit status.

Workers that are threads of one process share all of it but ``process.setup`` (``threads.host``).
"""

from __future__ import annotations

import os
import socket
import sys
from functools import partial

from ..channel.configuring import await_configuration, redirect
from ..channel.endpoint import ChannelClosed, ChannelError, Endpoint
from ..channel.messages import Failed
from ..channel.settings import unseal
from .app.interface import load_app
from .app.loader import AppError
from .process import lingering, looking, profiling
from .process.customize import customize, offer
from .process.setup import DieWithDaemon, enter_directory, enter_process, keep_path, path_entries
from .servers import report, serve


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
    if settings.rehearses:
        from . import rehearsal

        try:
            rehearsal.begin(settings.app, settings.sandbox or {}, endpoint)
        except OSError as exc:
            report(endpoint, Failed("setup-failed", f"it cannot be watched: {exc}"))
            return 1
    try:
        enter_process(settings)
        looking.on_signal(settings.app, page, settings.slow_at, partial(_refuse, endpoint))
        enter_directory(settings)
        sys.path[:] = [settings.working_dir, *path_entries(settings), *sys.path]
        keep_path()
        offer()
        with DieWithDaemon(channel):
            customize(settings, path_entries(settings))
            app, interface = load_app(settings)
        try:
            return serve(interface, app, settings, endpoint, page)
        finally:
            profiling.finish()
            lingering.watch(settings.app)
    except AppError as exc:
        report(endpoint, Failed(exc.code, str(exc)))
        return 1


def _refuse(endpoint: Endpoint, why: str) -> None:
    """End at once: what the app is at would go on for ever."""
    report(endpoint, Failed("import-failed", why))
    os._exit(1)
