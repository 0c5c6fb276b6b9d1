"""Which apps run as one user, and so are not kept apart by the system: each can signal the others' processes, and read
and change what the others can (docs/isolation.md).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from ...files import user_name
from ...placeholders import template
from ...placeholders.names import PlaceholderError
from . import accounts
from .accounts import AccountError
from .plan import AppSpec, Plan


class Shared(NamedTuple):
    """Apps that run as one user. ``many``: one of them is a template, of as many apps as are asked for."""

    user: str
    uid: int
    apps: tuple[str, ...]
    many: bool

    def __str__(self) -> str:
        each = f"each of the apps of {self.apps[0]} runs" if len(self.apps) == 1 else f"{', '.join(self.apps)} run"
        return f"not isolated: {each} as user {self.user}"


class Residents:
    """Who runs as whom, by the apps' names."""

    def __init__(self) -> None:
        self._apps: dict[int, set[str]] = {os.geteuid(): {""}}  # the daemon itself

    def add(self, uid: int, app: str) -> None:
        """*app* runs as *uid*."""
        self._apps.setdefault(uid, set()).add(app)

    def is_alone(self, uid: int, app: str) -> bool:
        """Nobody else runs as *uid* but *app*."""
        return self._apps.get(uid, set()) <= {app}


def residents(plan: Plan) -> Residents:
    """Those that *plan* alone decides."""
    found = Residents()
    for spec in plan.apps:
        uid = _uid(spec)
        if uid is not None:
            found.add(uid, spec.name)
    return found


def shared(plan: Plan, runner: int | None = None) -> Sequence[Shared]:
    """The groups of apps in *plan* that run as one user. Apps whose user a request decides are not among them.
    *runner*: who runs the daemon, if not whoever asks.
    """
    groups: dict[int, list[AppSpec]] = {}
    for spec in plan.apps:
        uid = _uid(spec, runner)
        if uid is not None:
            groups.setdefault(uid, []).append(spec)
    return [
        Shared(user_name(uid), uid, tuple(spec.name for spec in specs), any(spec.dynamic for spec in specs))
        for uid, specs in groups.items()
        if len(specs) > 1 or specs[0].dynamic
    ]


def user_is_by_request(spec: AppSpec) -> bool:
    """A request has a say in who the apps of *spec* run as."""
    try:
        return spec.dynamic and spec.block.user is not None and not template.compile(spec.block.user).is_static
    except PlaceholderError:
        return False  # the routes say so


def _uid(spec: AppSpec, runner: int | None = None) -> int | None:
    if user_is_by_request(spec):
        return None
    try:
        if spec.block.user is None:
            return os.geteuid() if runner is None else runner
        return accounts.user_id(spec.block.user)
    except AccountError:
        return None  # the checks say so
