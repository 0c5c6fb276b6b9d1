"""What the threaded server says in the log: one record for each request that dies, and why."""

from __future__ import annotations

from ....channel.records import say
from ....http1.request import RequestHead
from ...app.loader import foreign_traceback

_PATH_MAX = 200


def report(level: str, what: str, app: str, head: RequestHead, exc: BaseException | None = None) -> None:
    """One record about a request, with the traceback of ``exc`` cut down to the app's own frames.

    The query is left out: it is where people put secrets.
    """
    path = head.path[:_PATH_MAX].decode("ascii", "backslashreplace")
    say(level, what, "" if exc is None else foreign_traceback(exc), app=app, method=head.method, path=path)
