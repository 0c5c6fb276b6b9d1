"""What is answered in the place of an app that cannot: status, stable code, reason. Pure."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from ...channel.codes import STATUS


class Refusal(NamedTuple):
    """What a client is told: ``code`` is a stable word, ``retry_after_s`` 0 means that trying again will not help."""

    status: int
    code: str
    text: str
    retry_after_s: int = 0


def refusal(code: str, text: str, retry_after_s: int = 0) -> Refusal:
    """The refusal of ``code``, with its status."""
    return Refusal(STATUS[code], code, text, retry_after_s)


CAPACITY = refusal("capacity", "as many apps as may run are busy", retry_after_s=5)
QUEUE_FULL = refusal("queue-full", "as many requests as may wait for this app do", retry_after_s=1)
STOPPING = refusal("stopping", "the app is being stopped", retry_after_s=1)
NO_SUCH_APP = refusal("no-such-app", "there is no such app")
INTERNAL = refusal("internal", "an error inside caddysnake")
NO_DESCRIPTORS = refusal("resources", "too many open files", retry_after_s=1)
DEADLINE = refusal("deadline", "the app took too long")


class Failure(Protocol):
    """Why an app did not start: ``code`` is one of ``codes.FAILURES``, the text may be a traceback."""

    code: str


_RETRY_AFTER_S = 5


def of_failure(failure: Failure) -> Refusal:
    """What to answer while an app fails to start."""
    found = refusal(failure.code, str(failure), _RETRY_AFTER_S)
    return found._replace(retry_after_s=0) if found.status == 404 else found


def of_broken(failure: Failure) -> Refusal:
    """What to answer for an app whose code was changed and does not start: 500, until somebody fixes it."""
    return Refusal(500, failure.code, str(failure))


def of_unstarted(failure: Failure, retry_after_s: int) -> Refusal:
    """What to answer for an app that has not come up since the daemon started, and is tried again."""
    return of_broken(failure)._replace(status=503, retry_after_s=retry_after_s)


def response(refusal: Refusal) -> bytes:
    """*refusal* as a response over a link, for the one case in which no relay can write it."""
    retry = f"retry-after: {refusal.retry_after_s}\r\n" if refusal.retry_after_s else ""
    head = f"HTTP/1.1 {refusal.status} \r\ncaddysnake-code: {refusal.code}\r\n{retry}"
    return f"{head}content-length: 0\r\nconnection: close\r\n\r\n".encode()
