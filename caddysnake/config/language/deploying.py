"""The subdirectives of ``python`` that say how one build of an app takes over from another, and how it grows."""

from __future__ import annotations

import re
from typing import Any

from ...caddyfile.dispenser import Dispenser
from . import values
from .directives import SUBDIRECTIVES, AppDraft
from .models import Canary, Warmup
from .registry import argument, arguments, block_fields, one
from .values import InvalidValue

_subdirective = SUBDIRECTIVES.register

_PATH = re.compile(r"/[!\"$-~]*")
_HOST = re.compile(r"[A-Za-z0-9._~\[\]:-]+")
_STATUS = re.compile(r"[2-5](?:xx|[0-9][0-9])")


@_subdirective("warmup <path>... [{ host <name>, timeout <duration>, expect <status>... }]")
def warmup(d: Dispenser, app: AppDraft) -> None:
    """Requests (GET) that each new worker answers before it counts as ready. When one of them fails at a start or a
    reload, that is refused, with what was answered and the traceback. In the block: `host` is the `Host` to ask for,
    by default that of the site; `timeout` (10s) is for each request; `expect` names statuses or their classes, by
    default `2xx 3xx`."""
    hint = "write one such as /healthz, with %20 for a space"
    fields: dict[str, Any] = {"paths": tuple(values.like(path, _PATH, "a path", hint) for path in arguments(d, 1))}
    fields |= block_fields(
        d,
        host=("host", one(values.like, _HOST, "a host", "write one such as example.com")),
        timeout=("timeout_s", one(values.positive_duration)),
        expect=("expect", _statuses),
    )
    app.fields["warmup"] = Warmup(**fields)


def _statuses(line: Dispenser) -> tuple[str, ...]:
    hint = "write such as 200, or 2xx for all of a class"
    return tuple(values.like(word, _STATUS, "a status", hint) for word in "|".join(arguments(line, 1)).split("|"))


@_subdirective("reload_strategy parallel|rolling|stop_first")
def reload_strategy(d: Dispenser, app: AppDraft) -> None:
    """How new workers take the place of old ones: all beside the old (`parallel`), one at a time (`rolling`), or not
    before the old have ended (`stop_first`), for an app that holds what only one can have, such as a lock on a file or
    a port: requests wait meanwhile, and the old build comes back if the new one does not start. Default: the global
    option `reload_strategy`."""
    app.fields["reload_strategy"] = values.choice(argument(d), ("parallel", "rolling", "stop_first"))


@_subdirective("scale_down_after <duration>")
def scale_down_after(d: Dispenser, app: AppDraft) -> None:
    """How long one worker fewer must have been enough until one is let go, where `workers` has two numbers. Default:
    60s."""
    app.fields["scale_down_after_s"] = values.positive_duration(argument(d))


_TIMES = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3})?)x")


@_subdirective(
    "canary [{ share <workers>|<percent>, for <duration>, min_requests <count>, max_errors <percent>, "
    "max_slowdown <times> }]"
)
def canary(d: Dispenser, app: AppDraft) -> None:
    """Try the new build of a reload beside the old one before it takes over. `share 10%`, the default, is of the
    requests; `share 1` is one new worker, which gets its part of them. It is returned, and the reload fails, as soon
    as it has answered `min_requests` (50) and more of them failed than `max_errors` (1%) and than of the old build's,
    or its 95th percentile is more than `max_slowdown` (2x) times the old one's; else it takes over at the end of `for`
    (60s). With fewer requests than that the warm-up decides. Errors are answers of the class 5xx, and requests that
    were lost with a worker."""
    arguments(d, 0, 0)
    fields = block_fields(
        d,
        share=("share", one(_share)),
        **{"for": ("for_s", one(values.positive_duration))},
        min_requests=("min_requests", one(values.count)),
        max_errors=("max_errors", one(lambda text: values.percent(text, 0, 100, 3) / 100)),
        max_slowdown=("max_slowdown", one(_times)),
    )
    share: dict[str, Any] = fields.pop("share", {})
    app.fields["canary"] = Canary(**fields, **share)


def _share(text: str) -> dict[str, float]:
    if "%" in text:
        return {"share": values.percent(text, 0.1, 90, 3) / 100}
    return {"workers": values.count(text, most=512)}


def _times(text: str) -> float:
    found = _TIMES.fullmatch(text)
    if found is None or float(found[1]) < 1:
        raise InvalidValue(f"{text!r} is not so many times", "write such as 2x, or 1.5x")
    return float(found[1])


@_subdirective("keep_previous <duration>|off")
def keep_previous(d: Dispenser, app: AppDraft) -> None:
    """How long the build before stays, without connections, after another has taken over: `caddysnake rollback` gives
    it the connections back. Its workers keep their memory; one that ends is not replaced. Default: off."""
    app.fields["keep_previous_s"] = values.duration_or_off(argument(d)) or 0.0
