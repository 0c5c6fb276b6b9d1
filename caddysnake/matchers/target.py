"""Where a request goes: what the relay asks its router, and what it is told."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from ..placeholders.request import Head


class Target(NamedTuple):
    """The app a request is for. ``route`` and ``key`` name it to the daemon; equal ones are the same app."""

    route: int
    key: str = ""
    prefix: bytes = b""
    """What was taken off the path, percent-encoded: the app's SCRIPT_NAME or root_path. Empty: nothing was."""
    path: bytes = b""
    """What is left of the path, percent-encoded and beginning with a slash. Of no meaning without ``prefix``."""


ALIVE = Target(-1)
"""No app: a health check of apps that start when they are asked for. That there is an answer is all it asks."""


class Router(Protocol):
    """From a request head to an app. Pure; called once a request, on the relay's loop."""

    def route(self, listener: int, head: Head, peer: str, is_trusted: bool) -> Target | None:
        """The app for the request with ``head`` that came over a connection of ``listener``; None for 404.

        ``peer`` is the address at the other end, empty for a unix socket. ``is_trusted``: what the head says in
        X-Forwarded-* is true.
        """
