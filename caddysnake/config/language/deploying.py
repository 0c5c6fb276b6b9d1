"""The subdirectives of ``python`` that say how one build of an app takes over from another, and how it grows."""

from __future__ import annotations

import re
from typing import Any

from ...caddyfile.dispenser import Dispenser
from . import values
from .directives import SUBDIRECTIVES, AppDraft
from .models import Warmup
from .registry import argument, arguments, lines
from .values import InvalidValue

_subdirective = SUBDIRECTIVES.register

_PATH = re.compile(r"/[!-~]*")
_HOST = re.compile(r"[A-Za-z0-9._~\[\]:-]+")
_STATUS = re.compile(r"[2-5](?:xx|[0-9][0-9])")


@_subdirective("warmup", "warmup <path>... [{ host <name>, timeout <duration>, expect <status>... }]")
def warmup(d: Dispenser, app: AppDraft) -> None:
    """Requests (GET) that each new worker answers before it counts as ready. When one of them fails at a start or a
    reload, that is refused, with what was answered and the traceback. In the block: `host` is the `Host` to ask for,
    by default that of the site; `timeout` (10s) is for each request; `expect` names statuses or their classes, by
    default `2xx 3xx`."""
    fields: dict[str, Any] = {"paths": tuple(arguments(d, 1))}
    for path in fields["paths"]:
        if not _PATH.fullmatch(path) or "#" in path:
            raise InvalidValue(f"{path!r} is not a path", "write one such as /healthz, with %20 for a space")
    for line in lines(d):
        inner = Dispenser(line)
        inner.next()
        match inner.val():
            case "host":
                fields["host"] = argument(inner)
                if not _HOST.fullmatch(fields["host"]):
                    raise InvalidValue(f"{fields['host']!r} is not a host", "write one such as example.com")
            case "timeout":
                fields["timeout_s"] = values.positive_duration(argument(inner))
            case "expect":
                expected = [each for text in arguments(inner, 1) for each in text.split("|")]
                if wrong := next((each for each in expected if not _STATUS.fullmatch(each)), None):
                    raise InvalidValue(f"{wrong!r} is not a status", "write such as 200, or 2xx for all of a class")
                fields["expect"] = (*fields.get("expect", ()), *expected)
            case unknown:
                raise InvalidValue(f'unknown line "{unknown}" in its block', "known are host, timeout and expect")
    app.fields["warmup"] = Warmup(**fields)


@_subdirective("reload_strategy", "reload_strategy parallel|rolling|stop_first")
def reload_strategy(d: Dispenser, app: AppDraft) -> None:
    """How new workers take the place of old ones: all beside the old (`parallel`), one at a time (`rolling`), or not
    before the old have ended (`stop_first`), for an app that holds what only one can have, such as a lock on a file or
    a port: requests wait meanwhile, and the old build comes back if the new one does not start. Default: the global
    option `reload_strategy`."""
    app.fields["reload_strategy"] = values.choice(argument(d), ("parallel", "rolling", "stop_first"))


@_subdirective("scale_down_after", "scale_down_after <duration>")
def scale_down_after(d: Dispenser, app: AppDraft) -> None:
    """How long one worker fewer must have been enough until one is let go, where `workers` has two numbers. Default:
    60s."""
    app.fields["scale_down_after_s"] = values.positive_duration(argument(d))
