"""The server of each interface: imported before the fork, run to its end, or why there will be none."""

from __future__ import annotations

import contextlib
from select import POLLOUT, poll  # now: an app may take them away
from typing import Any

from ..channel.endpoint import ChannelClosed, Endpoint
from ..channel.messages import Failed
from ..channel.settings import Settings
from ..channel.vitals import Page

_FAREWELL_S = 5.0


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
    with contextlib.suppress(ChannelClosed):
        poller = poll()
        poller.register(endpoint.fileno(), POLLOUT)
        if not endpoint.send(message):
            poller.poll(_FAREWELL_S * 1000)
            endpoint.flush()
