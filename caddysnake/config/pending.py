"""What is understood and checked, but not built yet: refused at the start, rather than ignored.

When a behaviour arrives, its line here goes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..caddyfile.errors import CaddyfileError
from .models import GlobalOptions
from .plan import AppSpec, Plan
from .registry import error_at

NOT_YET: Final[dict[str, Callable[[AppSpec], bool]]] = {}
"""Subdirectives of ``python``, each with the question whether a block makes use of it."""

NOT_YET_OPTIONS: Final[dict[str, Callable[[GlobalOptions], bool]]] = {
}
"""Global options. ``admin`` is not among them: a file that Caddy reads too may have it for Caddy."""

_HINT: Final = "take it away for now"


def not_yet(plan: Plan) -> list[CaddyfileError]:
    """An error for everything in *plan* that cannot be carried out yet, at its line."""
    errors = [
        error_at(plan.options.at(name), f"the global option {name} is not supported yet", _HINT)
        for name, is_used in NOT_YET_OPTIONS.items()
        if is_used(plan.options)
    ]
    for app in plan.apps:
        for name, is_used_by in NOT_YET.items():
            if is_used_by(app):
                errors.append(error_at(app.block.at(name), f"{name} is not supported yet", _HINT))
    return errors
