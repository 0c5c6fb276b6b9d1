"""What can go wrong when the API is called: a stable code, what it means, and what to do."""

from __future__ import annotations

from ..channel.codes import Code
from ..daemon.supervisor.document import ReloadFailed
from ..daemon.tenants.lookup import UnknownApp

CODES: dict[str, Code] = {
    "bad-request": Code(400, "a parameter, or the content, is not what it should be"),
    "config": Code(400, "the configuration is wrong", "fix the file; nothing has changed"),
    "forbidden-host": Code(403, "its Host is not one of the API's"),
    "forbidden-origin": Code(403, "it comes from a page of somebody else"),
    "forbidden-user": Code(403, "the caller's user is not the daemon's, nor root"),
    "unix-only": Code(403, "this is for the admin API's unix socket only", "leave --address away, or name the socket"),
    "forbidden-process": Code(403, "the caller was started by the daemon, or by an app"),
    "not-found": Code(404, "there is no such endpoint"),
    "no-such-app": Code(404, "no app of that name runs"),
    "no-such-schedule": Code(404, "the app has no schedule of that name"),
    "no-such-process": Code(404, "the app has no process of that name"),
    "no-such-worker": Code(404, "no worker has that process id"),
    "method-not-allowed": Code(405, "the endpoint knows other methods"),
    "request-timeout": Code(408, "the request did not come whole in time"),
    "template": Code(409, "a dynamic block is meant, and not one of its apps"),
    "asleep": Code(409, "the app of a dynamic block does not run just now"),
    "static-app": Code(409, "only apps of dynamic blocks can be told to go"),
    "restart": Code(409, "a reload cannot carry this out", "restart the daemon"),
    "caddy": Code(409, "the supervised Caddy refuses its part", "fix Caddy's part of the file; nothing has changed"),
    "upgrade": Code(
        409, "the upgrade was refused", "the daemon keeps running as it is; fix what is installed, or restart it"
    ),
    "listen": Code(409, "an address cannot be listened on", "free the address, or name another; nothing has changed"),
    "cancelled": Code(409, "somebody cancelled the reload", "what release commands have done by then stays done"),
    "no-change": Code(409, "nothing is being changed that could be cancelled"),
    "nothing-kept": Code(
        409, "no build before is kept, and none is on trial", "write keep_previous into its block, for the next time"
    ),
    "nothing-to-promote": Code(409, "no new build is on trial", "`caddysnake status` says which are"),
    "too-large": Code(413, "the content is larger than it may be"),
    "unsupported-media-type": Code(415, "the content is of a type that is not read here"),
    "start": Code(
        422,
        "an app does not start: `app` says which, `detail` its code above",
        "fix the app; nothing has changed",
    ),
    "internal": Code(500, "an error inside caddysnake", "the log has the traceback: please report it"),
    "profile": Code(502, "a profile could not be made"),
    "resources": Code(
        503, "nothing was left to look who calls with", "try again; `caddysnake doctor` says which limit is near"
    ),
    "busy": Code(503, "the daemon starts or stops, or other reloads wait", "try again in a moment"),
}
"""Every code."""


class ApiError(Exception):
    """A request that cannot be carried out."""

    def __init__(self, code: str, text: str, hint: str = "", **more: object) -> None:
        super().__init__(text)
        self.code = code
        self.status = CODES[code].status
        self.hint = hint or CODES[code].remedy
        self.more = more
        """Further fields of the answer."""
        self.headers = {"Retry-After": "1"} if self.status == 503 else {}


_HINTS = {
    "no-such-app": "`caddysnake status`, or GET /apps, lists them",
    "template": "`caddysnake status`, or GET /apps, lists the apps that were made of it",
    "asleep": "there is nothing to do: the next request starts it with what is there then",
    "static-app": "take its block out of the file and reload",
}


def of_unknown(unknown: UnknownApp) -> ApiError:
    """The answer to whoever asked for an app that is not there."""
    return ApiError(unknown.code, str(unknown), _HINTS[unknown.code])


def of_reload(failure: ReloadFailed, hint: str) -> ApiError:
    """The answer to whoever asked for a reload that was refused."""
    problems = [problem._asdict() for problem in failure.problems]
    return ApiError(failure.code, str(failure), hint, problems=problems, app=failure.app, detail=failure.detail)
