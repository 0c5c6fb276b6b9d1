"""What can go wrong when the API is called: a stable code, what it means, and what to do."""

from __future__ import annotations

from ..daemon.supervisor.document import ReloadFailed

STATUS: dict[str, int] = {
    "bad-request": 400,
    "config": 400,
    "forbidden-host": 403,
    "forbidden-origin": 403,
    "forbidden-user": 403,
    "forbidden-process": 403,
    "not-found": 404,
    "no-such-app": 404,
    "no-such-worker": 404,
    "method-not-allowed": 405,
    "request-timeout": 408,
    "template": 409,
    "asleep": 409,
    "static-app": 409,
    "restart": 409,
    "caddy": 409,
    "upgrade": 409,
    "listen": 409,
    "too-large": 413,
    "unsupported-media-type": 415,
    "start": 422,
    "internal": 500,
    "profile": 502,
    "busy": 503,
}
"""Every code, with its status."""

_HINTS = {
    "config": "mend the file; nothing has changed",
    "listen": "free the address, or name another; nothing has changed",
    "start": "mend the app; what ran goes on",
    "restart": "restart the daemon",
    "caddy": "mend Caddy's part of the file; nothing has changed",
    "upgrade": "the daemon goes on as it is; mend what is installed, or restart it",
    "busy": "try again in a moment",
}


class ApiError(Exception):
    """A request that cannot be carried out."""

    def __init__(self, code: str, text: str, hint: str = "", **more: object) -> None:
        super().__init__(text)
        self.code = code
        self.status = STATUS[code]
        self.hint = hint or _HINTS.get(code, "")
        self.more = more
        """Further fields of the answer."""


def of_reload(failure: ReloadFailed) -> ApiError:
    """The answer to whoever asked for a reload that was refused."""
    problems = [problem._asdict() for problem in failure.problems]
    return ApiError(failure.code, str(failure), problems=problems, app=failure.app, detail=failure.detail)
