"""Which requests are cut when the grace period is over, for the log."""

from __future__ import annotations

from collections.abc import Iterable

from ..http1.heads import RequestHead

_NAMED_MAX = 5
_PATH_MAX = 200


def named(requests: Iterable[tuple[RequestHead, float | None]]) -> str:
    """The first of ``requests``, each with the seconds for which it has run, if they are known: ``GET /report (12.0
    s)``. Without the query: it is where people put secrets.
    """
    told = []
    for head, seconds in requests:
        path = head.path[:_PATH_MAX].decode("ascii", "backslashreplace")
        told.append(f"{head.method} {path}" + ("" if seconds is None else f" ({seconds:.1f} s)"))
    more = f" and {len(told) - _NAMED_MAX} more" if len(told) > _NAMED_MAX else ""
    return ", ".join(told[:_NAMED_MAX]) + more
