"""What the machine says of release commands, processes and schedules: are they there for that user, and when they come.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import islice

from ...caddyfile.errors import CaddyfileError, nearest
from ..language import cron
from ..language.values import unescaped
from ..plan import accounts
from ..plan.accounts import AccountError
from ..plan.plan import AppSpec, Plan
from ..plan.routing import commands
from ..plan.search import names_near

_PYTHON = ("python", "python3")
_NEXT = 3


def missing_commands(plan: Plan, environ: Mapping[str, str]) -> list[CaddyfileError]:
    """Commands that their user would not find, or may not execute. What a request decides is not looked at."""
    return [error for app in plan.apps if not app.block.placeholders for error in _missing(app, environ)]


def _missing(app: AppSpec, environ: Mapping[str, str]) -> Iterator[CaddyfileError]:
    try:
        account = accounts.resolve(app.block.user, app.block.group)
    except AccountError:
        return  # the checks say so
    if account is not None and (closed := account.closed_from(app.working_dir)) is not None:
        message = f"working_dir {app.working_dir}: user {account.name} may not enter {closed}"
        hint = f"chmod a+x {closed}, or name a folder that it may enter"
        yield app.block.at("working_dir", "user").error(message, hint)
    path = app.environ.get("PATH") or environ.get("PATH") or os.defpath
    folders = [os.path.dirname(app.python), *path.split(os.pathsep)]
    for kind, each in commands(app.block):
        word, what = unescaped(each.command[0]), kind.partition("[")[0]
        if word in _PYTHON:
            continue
        if os.sep in word:
            places = [os.path.join(app.working_dir, word)]
        else:
            places = [os.path.join(app.working_dir, folder, word) for folder in folders]
        found = next((place for place in places if os.path.isfile(place) and os.access(place, os.X_OK)), None)
        plain = next(filter(os.path.isfile, places), None)
        if found is None and plain is not None:
            yield each.position.error(f"{what}: {plain} may not be executed", f"chmod +x {plain}")
        elif found is None:
            near = nearest(word, names_near(folders[0])) if os.sep not in word else None
            hint = near or "install it there, or write its whole path"
            where = "" if os.sep in word else f" in {os.pathsep.join(folders[:4])}{' …' if len(folders) > 4 else ''}"
            yield each.position.error(f"{what}: there is no command {word}{where}", hint)
        elif account is not None and (closed := account.closed_from(found)) is not None:
            message = f"{what}: user {account.name} may not execute {found}: the mode of {closed} keeps it out"
            yield each.position.error(message, "install it where that user may read it")


def told_schedules(plan: Plan, now: float) -> Iterator[str]:
    """What each schedule's line means, and when it is due next, for people."""
    for app in plan.apps:
        for each in app.block.schedules:
            zone = cron.zone(each.timezone)
            times = islice(cron.times(each.cron, datetime.fromtimestamp(now, zone)), _NEXT)
            upcoming = ", ".join(f"{moment:%Y-%m-%d %H:%M}" for moment in times)
            where = f" ({each.timezone})" if each.timezone else ""
            yield f"schedule {each.name} of {app.name}: {cron.explained(each.cron)}{where}; next {upcoming}"
