"""Finding one app among those that run, by what people call it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ..apps.app import App
from ..system.log.records import printable
from .tenants import Tenants


class UnknownApp(Exception):
    """No such app runs; the text says so, and what there is instead. ``code`` is a stable word for it."""

    def __init__(self, text: str, code: str = "no-such-app") -> None:
        super().__init__(text)
        self.code = code

    @classmethod
    def among(cls, name: str, names: Iterable[str], what: str = "there is no app") -> UnknownApp:
        """There is none of this ``name``; the text has the nearest of ``names``, or the first ten."""
        known = sorted(names)
        near = difflib.get_close_matches(name, known, 1)
        more = f"Did you mean {near[0]!r}?" if near else f"There is: {', '.join(known[:10]) or 'none'}"
        return cls(f"{what} {name!r}. {more}")

    @classmethod
    def asleep(cls, name: str) -> UnknownApp:
        """It is of the template ``name``, and does not run just now. Code ``asleep``."""
        return cls(f"that app of {name!r} does not run: its next request starts it", "asleep")


class DynamicApp(NamedTuple):
    """A dynamic app: those that it is one of, and its key there."""

    tenants: Tenants
    key: str


def find(
    apps: Mapping[str, App], templates: Mapping[str, Tenants], name: str, key: str | None = None
) -> App | DynamicApp:
    """The app called ``name``: a static one; a dynamic one by the name that logs have for it; or, with ``key``, that
    app of the template ``name``. Keys may be given as logs print them. Raises ``UnknownApp``."""
    if key is not None:
        tenants = templates.get(name)
        if tenants is None:
            raise UnknownApp.among(name, templates)
        live = [*tenants.apps, *tenants.starting]
        return DynamicApp(tenants, next((each for each in live if key in (each, printable(each))), key))
    if name in apps:
        return apps[name]
    dynamic = {
        app.name: DynamicApp(tenants, each)
        for tenants in templates.values()
        for each, app in (*tenants.starting.items(), *tenants.apps.items())
    }
    if name in dynamic:
        return dynamic[name]
    if name in templates:
        raise UnknownApp(f"{name!r} is a template of apps: say the key of the app too", "template")
    raise UnknownApp.among(name, [*apps, *dynamic])
