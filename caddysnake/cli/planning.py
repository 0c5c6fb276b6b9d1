"""What a Caddyfile comes to on this machine, for commands that only look."""

from __future__ import annotations

import os
from typing import NamedTuple

from ..caddyfile.errors import CaddyfileError
from ..config.check.settled import settle
from ..config.language.adapt import load
from ..config.language.models import Config
from ..config.plan.plan import Plan, plan, usable_cores
from ..config.stock.stock import stock
from ..daemon.supervisor.document import CaddyPart, Document
from .reading import Source


class Planned(NamedTuple):
    """The file as it is written, its plan, and what of that plan cannot be carried out here."""

    config: Config
    plan: Plan
    errors: list[CaddyfileError]
    caddy: CaddyPart
    """What a supervised Caddy would run, if there is to be one."""


def planned(source: Source, *, with_caddy: bool) -> Planned:
    """Plan ``source`` as ``run`` would, ``with_caddy`` as ``run --caddy``. Raises ``ConfigErrors``."""
    if with_caddy:
        text, found, config = stock(source.content, source.file, os.environ, cores=usable_cores())
    else:
        text = ""
        config = load(source.content, source.file, os.environ)
        found = plan(config, cores=usable_cores())
    settled = settle(config, found, os.environ, own_sockets=with_caddy)
    return Planned(config, settled.plan, settled.all_errors, CaddyPart(text, source=Document(*source)))
