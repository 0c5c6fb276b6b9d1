"""Every cause that has a name: one word for it in the field ``caddysnake-code``, in the log, in metrics, in ``status``
and in the docs, whose table is made of what stands here.

One table for the daemon, relays and workers. What breaks a rule of HTTP has words of its own, in ``http1.errors``.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Code(NamedTuple):
    """What a word means. ``status``: of an answer that it is in."""

    status: int
    about: str
    remedy: str = ""
    """What to do; empty where that is obvious, or nothing."""


FAILURES: Final[dict[str, Code]] = {
    "import-failed": Code(
        500,
        "the app could not be imported: its module raised, or has no such app. 503 as long as it has not been up",
        "the log, and `caddysnake status`, have the traceback; the message ends with where it was looked for",
    ),
    "lifespan-failed": Code(
        500,
        "its lifespan said so, or raised, under `lifespan on`. 503 as long as it has not been up",
        "the log has what it said",
    ),
    "release-failed": Code(
        503,
        "a release command of the build has failed, or took longer than its `timeout`",
        "the message has what it said at last; `caddysnake exec` runs it by hand",
    ),
    "warmup-failed": Code(
        503,
        "a new worker did not answer a request of `warmup` as it should",
        "the message has its status, the beginning of its answer and its traceback",
    ),
    "canary-failed": Code(
        503, "a new build was returned after its trial", "the message has the figures, and the most frequent traceback"
    ),
    "rolled-back": Code(503, "somebody gave the connections back to the build before"),
    "no-such-app": Code(
        404,
        "the app of a dynamic block that this request leads to is not on disk: its folder, module, environment or user",
        "compare the value that the request has with what is on disk; the log names it once a minute",
    ),
    "setup-failed": Code(
        503,
        "its folder, virtual environment, interpreter, user, env file or limits are not as the file says",
        "the log has the line of the file; `caddysnake validate` looks at all of them",
    ),
    "start-timeout": Code(
        503,
        "the app did not get ready within `start_timeout`",
        "see what it waits for: the log has a warning after ten seconds; `start_timeout` may be longer",
    ),
    "crashed": Code(
        503,
        "a worker crashed, by a signal or an exit; the next try is after `Retry-After`",
        "the log has the signal or the exit status; SIGSEGV is an extension module, SIGKILL often the kernel, out of "
        "memory (`journalctl -k`)",
    ),
    "memory": Code(
        503,
        "the kernel ended a worker at its limit of memory",
        "raise `limits { memory }`, or have it replaced in good time with `max_memory`",
    ),
    "breach": Code(
        503,
        "a worker broke a rule between it and the daemon, and was ended",
        "look for code in the app that closes, or writes to, descriptors that are not its own",
    ),
    "deadline": Code(
        504,
        "the request took longer than `request_timeout`; of a worker: it did not come back from such a request",
        "the log has the stacks of that moment, just before",
    ),
    "resources": Code(
        503, "the system had no process, memory or descriptor left", "`caddysnake doctor` says which limit is near"
    ),
    "capacity": Code(503, "as many apps, or interpreters, as may run are busy", "raise `max_dynamic_apps`"),
    "spawn-failed": Code(
        503, "the process that workers are forked from ended, or did not answer", "the log has its last words"
    ),
    "internal": Code(503, "an error inside caddysnake", "the log has the traceback: please report it"),
    "stopping": Code(503, "the app, or the daemon, is being stopped"),
}
"""Why a worker ended, or did not start, against our will; requests that nobody can answer for that are told it too."""

ANSWERS: Final[dict[str, Code]] = {
    "healthy": Code(200, "a health check of apps that are started when they are asked for"),
    "no-route": Code(
        404, "no site or matcher of the socket takes the request", "compare the request's host with the file's"
    ),
    "key-too-long": Code(404, "the values that name the app are longer than any name"),
    "head-timeout": Code(408, "the client did not send the rest of a head in time"),
    "body-timeout": Code(408, "the client did not send the rest of its content in time"),
    "timeout": Code(408, "the client did not send to, or take from, a WSGI app in time"),
    "in-flight-full": Code(
        429, "as many requests as may be answered, and wait, for an app do", "raise `max_in_flight`, or add workers"
    ),
    "routing-limit": Code(
        431, "its fields are longer than what may be looked at to find an app, for instance by `header_regexp`"
    ),
    "routing": Code(500, "a matcher or placeholder failed on this request", "the log has the traceback: report it"),
    "app-error": Code(500, "the app raised while it answered", "the log has the traceback, with the app's name"),
    "no-response": Code(
        500,
        "the app ended without an answer",
        "with `sendfile on`, perhaps middleware that waits for the content of one",
    ),
    "worker-gone": Code(
        502,
        "the worker ended with this request, before its answer was complete",
        "the log says how it ended, under the app's name; in the table of workers see `crashed` and `memory`",
    ),
    "bad-response": Code(502, "what the app answered is no HTTP response", "the log has the reason"),
    "queue-full": Code(503, "more than `max_queue` requests wait", "more workers or threads, or find what is slow"),
    "websockets-full": Code(
        503, "as many WebSockets as `max_websockets` allows are open in a worker", "more of them, or more workers"
    ),
    "no-link": Code(503, "a relay could not take its connection to the app", "as `resources`"),
}
"""What else requests are told in the place of an answer, or counted as when they are cut."""

REPLACED: Final[dict[str, str]] = {
    "max_requests": "it had answered as many requests as it may",
    "max_lifetime": "it had lived as long as it may",
    "max_memory": "it had grown larger than it may: replaced in good time",
    "host-replaced": "the process whose thread it is was replaced",
}
"""Why a healthy worker was replaced: by the line of the file that asks for it."""

STATUS: Final[dict[str, int]] = {name: code.status for name, code in {**FAILURES, **ANSWERS}.items()}
"""The status of each."""

CAUSES: Final = frozenset({*FAILURES, *REPLACED})
"""Why a worker is replaced, or tried again."""

_FORMER: Final[dict[str, str]] = {
    **dict.fromkeys(("import", "variable", "callable", "factory", "interface", "preload"), "import-failed"),
    **dict.fromkeys(("module", "directory"), "no-such-app"),
    **dict.fromkeys(("setup", "limits", "interpreter", "library"), "setup-failed"),
    **dict.fromkeys(("spawner", "host"), "spawn-failed"),
    "lifespan": "lifespan-failed",
    "start timeout": "start-timeout",
    "request_timeout": "deadline",
    "spawners": "capacity",
}
"""What a daemon called them before 0.3, which may have become this one."""


def today(said: str) -> str:
    """What is called so by a former version, perhaps."""
    return _FORMER.get(said, said)


def failure(said: str) -> str:
    """The code of ``FAILURES`` for what a worker says: whatever else it says is the app's own doing."""
    return said if said in FAILURES else _FORMER.get(said, "import-failed")


def cause(said: str) -> str:
    """The code of ``CAUSES`` for what was counted, by a former version perhaps."""
    return said if said in CAUSES else _FORMER.get(said, "other")
