"""Which app of a new configuration continues which of those that run. Pure.

Names are for people, and depend on what else is in the file: ``main:app`` becomes ``blog/main:app`` when another app is
called alike. An app is the same when the same code runs for the same user. Connections migrate from an app to its
successor, so a user is never followed by another: a worker of the former may have kept a copy. One that has had no
worker is followed by its namesake, whoever that runs as.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..apps.spec import UNKNOWN, Identity


def successors(running: Mapping[str, Identity], wanted: Mapping[str, Identity]) -> dict[str, str]:
    """Names of ``wanted``, each with the name of ``running`` that it continues. What is in neither is new, or gone."""
    found: dict[str, str] = {}
    left = dict(running)

    def claim(name: str, former: str | None) -> None:
        if former is not None:
            found[name] = former
            del left[former]

    for name, identity in wanted.items():
        claim(name, name if left.get(name) == identity else None)
    for name, identity in wanted.items():
        if name not in found:
            claim(name, next((former for former, other in left.items() if other == identity), None))
    for name, identity in wanted.items():
        if name not in found:
            claim(name, name if name in left and _same_user(left[name], identity) else None)
    return found


def _same_user(former: Identity, later: Identity) -> bool:
    return former.user == later.user or UNKNOWN in (former.user, later.user)
