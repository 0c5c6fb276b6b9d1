"""Specs and keys out of a state: NamedTuples that were written as objects by the names of their fields.

A field that is not known any more is passed over, one that has come since has its default.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import ValidationError

from ...channel.settings import RelaySettings, Settings
from ...config.language.models import Canary
from ...config.plan.accounts import Account
from ..apps.restarting import RestartLimits
from ..apps.spec import PoolSpec
from ..commands.spec import ProcessSpec, ReleaseCommand, ScheduleSpec
from ..system.plain import named
from ..system.sealed import malformed
from ..system.state import ThreadHostSnapshot
from ..workers.child.launcher import ForkServerKey
from ..workers.threads.host import HostPlace
from ..workers.warmup import WarmUp

_Kind = TypeVar("_Kind")


def spec_of(raw: dict[str, Any]) -> PoolSpec:
    """The spec of which ``snapshots.plain`` made ``raw``. Raises ``StateError``."""
    settings = raw.get("settings") or {}
    kind = RelaySettings if "listeners" in settings else Settings
    whole = {"settings": _known(kind, settings), "key": _known_key(raw.get("key") or {})}
    whole["limits"] = _known(RestartLimits, raw.get("limits") or {})
    whole["commands"] = _known_commands(raw.get("commands") or {})
    if raw.get("canary"):
        whole["canary"] = _known(Canary, raw["canary"])
    if raw.get("warmup"):
        whole["warmup"] = _known(WarmUp, raw["warmup"])
    return _validated(PoolSpec, _known(PoolSpec, {**raw, **whole}))


def spawner_key_of(raw: dict[str, Any]) -> ForkServerKey:
    """The key of which ``snapshots.plain`` made ``raw``. Raises ``StateError``."""
    return _validated(ForkServerKey, _known_key(raw))


def place_of(host: ThreadHostSnapshot) -> HostPlace:
    """Where ``host`` is. Raises ``StateError``."""
    raw = host.place
    return _validated(HostPlace, _known(HostPlace, {**raw, "spawner": _known_key(raw.get("spawner") or {})}))


def _known_key(raw: dict[str, Any]) -> dict[str, Any]:
    account = raw.get("account")
    return _known(ForkServerKey, {**raw, "account": None if account is None else _known(Account, account)})


def _known_commands(raw: dict[str, Any]) -> dict[str, Any]:
    kinds = {"release": ReleaseCommand, "processes": ProcessSpec, "schedules": ScheduleSpec}
    return {name: [_known(kind, each) for each in raw.get(name) or ()] for name, kind in kinds.items()}


def _known(kind: Any, raw: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in raw.items() if name in kind._fields}


def _validated(kind: type[_Kind], raw: dict[str, Any]) -> _Kind:
    try:
        return named(kind, raw)
    except ValidationError as exc:
        raise malformed(exc) from None
