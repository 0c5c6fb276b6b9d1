"""Workers that live and answer nobody, by what the API says of them. `status` asks too, so this imports nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LONG_S = 10.0


def stuck(app: Mapping[str, Any]) -> tuple[str, int] | None:
    """What to say of the worker of ``app`` that has been blocked for longest, and its pid; None: none is."""
    blocked = {each["pid"]: each.get("blocked_s") or 0.0 for each in app["workers"]}
    pid = max(blocked, key=blocked.__getitem__, default=0)
    if blocked.get(pid, 0.0) < _LONG_S:
        return None
    what = "its event loop is blocked, or all of its threads are, or it is stopped as a whole"
    return f"worker {pid} has taken no request for {blocked[pid]:.0f} s: {what}", pid
