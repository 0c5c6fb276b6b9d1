"""The last step before something is started, the same for whoever runs a file and whoever only checks it: routes are
written, what no request decides is filled in, and the file system is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ...caddyfile.errors import CaddyfileError
from ...matchers.table import Table
from ..language.models import Config
from ..plan.plan import Plan
from ..plan.routing import tables
from .check import check_apps, check_sockets
from .sandbox import admin_errors
from .tenancy import settle_plan


class Settled(NamedTuple):
    """``tables``: of each of the plan's listeners, in their order. With ``errors`` nothing must be carried out."""

    plan: Plan
    tables: list[Table]
    errors: list[CaddyfileError]
    unready: dict[int, list[CaddyfileError]]
    """What keeps single apps from being started, by their indices."""

    @property
    def all_errors(self) -> list[CaddyfileError]:
        """Everything that is wrong."""
        return [*self.errors, *(error for errors in self.unready.values() for error in errors)]


def settle(
    config: Config,
    planned: Plan,
    environ: Mapping[str, str],
    *,
    base_dir: str | None = None,
    own_sockets: bool = False,
    caddys_admin: str = "",
) -> Settled:
    """What *planned*, made of *config*, comes to here, and all that is wrong. The rest is as it was for the plan.

    ``caddys_admin``: where a supervised Caddy's admin API is, although no line of the file says so.
    """
    written, errors = tables(config, planned, environ, own_sockets=own_sockets)
    if not errors:  # a placeholder that cannot be used cannot be filled in either
        planned = settle_plan(planned, environ, base_dir)
    errors += [*planned.problems, *check_sockets(planned)]
    if own_sockets:
        errors += admin_errors(planned, caddys_admin)
    return Settled(planned, written, errors, check_apps(planned))
