"""Whether a host is served here: what Caddy asks before it gets a certificate for one (on-demand TLS).

Whoever can send a ClientHello can make Caddy ask, for any name. So the answer is yes only for a host that a site names
in full, and for one whose dynamic app is there: the routes that would place its requests are walked, and the folder,
virtual environment and module of the app that they lead to are looked for. Nothing is started, and no code is run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from ...matchers.router import Router
from ...matchers.table import Table
from ...placeholders.keys import AppTemplate, UnsafeValue
from ...placeholders.request import Request
from ..language.listeners import Opening, Tenancy, openings, site_hosts
from ..language.models import Config
from ..plan import accounts
from ..plan.accounts import AccountError
from ..plan.plan import Plan
from ..plan.routing import app_template, table_of
from .tenancy import NoSuchApp, tenant

_NAME_MAX: Final = 253  # RFC 1035 section 2.3.4, without the root's dot
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")


class FirstHead(NamedTuple):
    """The request that a browser would send first."""

    host: bytes
    method: str = "GET"
    target: bytes = b"/"
    path: bytes = b"/"
    query: bytes = b""
    version: str = "1.1"

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Its fields."""
        return ((b"host", self.host), (b"x-forwarded-proto", b"https"))


def key_of_host(template: AppTemplate, host: str) -> str | None:
    """Return the key of the app of *template* that answers at *host*, be it there or not; None: there can be none."""
    try:
        return template.key(Request(FirstHead(host.encode()), is_trusted=True))
    except UnsafeValue:
        return None


class HostDirectory:
    """Knows which hosts a configuration serves. ``plan``: settled, made of ``config``; the rest as it was for that."""

    def __init__(
        self, config: Config, plan: Plan, environ: Mapping[str, str], base_dir: str, *, own_sockets: bool = False
    ) -> None:
        self._plan = plan
        self._environ = environ
        self._base_dir = base_dir
        self._named = {host.lower() for site in config.sites if site.apps() for host in site.named_hosts}
        self._templates: dict[int, AppTemplate] = {
            number: app_template(number, spec.block, environ) for number, spec in enumerate(plan.apps) if spec.dynamic
        }
        self._tables: list[Table] = []
        if self._templates:
            self._tables = [table_of(opening, plan, environ) for opening in _relayed(config, own_sockets=own_sockets)]
        self._router = Router(self._tables)

    def serves(self, host: str) -> bool:
        """*host* (a name, in any case, perhaps with the root's dot) is served here. Looks at the file system, so it
        may take as long as that does."""
        name = host.lower().removesuffix(".")
        if len(name) > _NAME_MAX or not all(map(_LABEL.fullmatch, name.split("."))):
            return False
        if name in self._named:
            return True
        return any(self._leads_to_app(listener, name) for listener in range(len(self._tables)))

    def _leads_to_app(self, listener: int, name: str) -> bool:
        target = self._router.route(listener, FirstHead(name.encode()), "", True)
        if target is None or target.route not in self._templates:
            return False
        spec = self._plan.apps[target.route]
        try:
            values = self._templates[target.route].resolve(target.key)
            found = tenant(spec, spec.name, values, self._environ, self._base_dir)
            user, group = found.block.user, found.block.group
            accounts.resolve(user, group, user_by_request="user" in values, group_by_request="group" in values)
        except (UnsafeValue, NoSuchApp, AccountError):
            return False
        return True


def _relayed(config: Config, *, own_sockets: bool) -> Iterator[Opening]:
    """The sockets, as if all went through the relay; sites whose sockets Caddy routes to are together on one."""
    found, _ = openings(config, own_sockets=own_sockets)
    yield from (replace(opening, kind="relay") for opening in found if not opening.own)
    own = [opening for opening in found if opening.own]
    if own:
        apps = {id(app) for opening in own for app in opening.apps}
        sites = [site for site in config.sites if any(id(app) in apps for app in site.apps())]
        tenancies = tuple(Tenancy(site, site_hosts(site)) for site in sites)
        yield replace(own[0], kind="relay", own=False, tenancies=tenancies, apps=tuple(config.apps()))
