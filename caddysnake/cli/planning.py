"""What a Caddyfile comes to on this machine, for commands that only look."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from ..caddyfile.errors import CaddyfileError
from ..config.check.settled import settle
from ..config.language.adapt import load
from ..config.language.models import Config
from ..config.plan.plan import Plan, plan, usable_cores
from ..config.plan.search import installation
from ..config.stock.stock import stock
from ..daemon.supervisor.document import CaddyPart, Document
from ..doctor.software import lacks_libraries
from ..matchers.table import Table
from .reading import Source


class Planned(NamedTuple):
    """The file as it is written, its plan, and what of that plan cannot be carried out here."""

    config: Config
    plan: Plan
    errors: list[CaddyfileError]
    caddy: CaddyPart
    """What a supervised Caddy would run, if there is to be one."""
    tables: list[Table]
    """The routes of each listener of the plan."""


def planned(source: Source, *, with_caddy: bool, socket_dir: str | None = None) -> Planned:
    """Plan ``source`` as ``run`` would, ``with_caddy`` as ``run --caddy``. Raises ``ConfigErrors``."""
    if with_caddy:
        text, found, config = stock(source.content, source.file, os.environ, cores=usable_cores())
    else:
        text = ""
        config = load(source.content, source.file, os.environ)
        found = plan(config, cores=usable_cores(), socket_dir=socket_dir)
    settled = settle(config, found, os.environ, own_sockets=with_caddy)
    return Planned(config, settled.plan, settled.all_errors, CaddyPart(text, source=Document(*source)), settled.tables)


def missing_libraries(plan: Plan, environ: Mapping[str, str]) -> list[CaddyfileError]:
    """Apps whose Python is of another version than ours, without libraries that were installed for it."""
    found = []
    for app in plan.apps:
        version = () if app.block.placeholders else installation(app.python).version[:2]
        if version and lacks_libraries(version, environ):
            named = ".".join(map(str, version))
            message = f"there are no libraries of workers for {app.python}, which is Python {named}"
            hint = f"install them once: caddysnake runtime install --python {app.python}"
            found.append(app.block.at("python_path", "venv").error(message, hint))
    return found
