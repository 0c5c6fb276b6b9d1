"""What is answered in the place of an app that cannot: status, stable code, reason. Pure."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Refusal(NamedTuple):
    """What a client is told: ``code`` is a stable word, ``retry_after_s`` 0 means that trying again will not help."""

    status: int
    code: str
    text: str
    retry_after_s: int = 0


CAPACITY = Refusal(503, "capacity", "as many apps as may run are busy", retry_after_s=5)
QUEUE_FULL = Refusal(503, "queue-full", "as many requests as may wait for this app do", retry_after_s=1)
STOPPING = Refusal(503, "stopping", "the app is being stopped", retry_after_s=1)
NO_SUCH_APP = Refusal(404, "no-such-app", "there is no such app")
DEADLINE = Refusal(504, "deadline", "the app took too long")


class Failure(Protocol):
    """Why an app did not start: ``code`` is the worker's, the text may be a traceback."""

    code: str


# What a worker says it failed of, and what that means to a client. Anything else is the app's own doing: 500.
_KINDS = {
    "start timeout": (503, "start-timeout", 5),
    "crashed": (503, "crashed", 5),
    "memory": (503, "crashed", 5),
    "breach": (503, "crashed", 5),
    "deadline": (503, "crashed", 5),
    "resources": (503, "resources", 5),
    "internal": (503, "resources", 5),
    "spawner": (503, "resources", 5),
    "host": (503, "resources", 5),
    "spawners": (503, "capacity", 5),
    "setup": (503, "setup-failed", 5),
    "module": (404, "no-such-app", 0),
    "directory": (404, "no-such-app", 0),
    "lifespan": (500, "lifespan-failed", 5),
}
_APPS_OWN = (500, "import-failed", 5)


def of_failure(failure: Failure) -> Refusal:
    """What to answer while an app fails to start."""
    status, code, retry_after_s = _KINDS.get(failure.code, _APPS_OWN)
    return Refusal(status, code, str(failure), retry_after_s)


def of_broken(failure: Failure) -> Refusal:
    """What to answer for an app whose code was changed and does not start: 500, until somebody mends it."""
    status, code, _ = _KINDS.get(failure.code, _APPS_OWN)
    return Refusal(500, "import-failed" if status == 404 else code, str(failure))


def of_unstarted(failure: Failure, retry_after_s: int) -> Refusal:
    """What to answer for an app that has not come up since the daemon started, and is tried again."""
    return of_broken(failure)._replace(status=503, retry_after_s=retry_after_s)


def response(refusal: Refusal) -> bytes:
    """*refusal* as a response over a link, for the one case in which no relay can write it."""
    retry = f"retry-after: {refusal.retry_after_s}\r\n" if refusal.retry_after_s else ""
    head = f"HTTP/1.1 {refusal.status} \r\ncaddysnake-code: {refusal.code}\r\n{retry}"
    return f"{head}content-length: 0\r\nconnection: close\r\n\r\n".encode()
