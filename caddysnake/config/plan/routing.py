"""From the plan to what the relay needs to know: for each listener a table of sites and routes, as plain data. Pure.

What no request can change is settled here, where the daemon's environment is: the relay has none of it. Everything is
compiled once to see that it can be, so the relay gets nothing that it would have to refuse.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

from ...caddyfile.addresses import Address, host_matchers, specificity
from ...caddyfile.errors import CaddyfileError, Hinted
from ...caddyfile.tokens import Token
from ...matchers import matcher
from ...matchers.settling import settle
from ...matchers.table import RouteTable, SiteTable, Table
from ...placeholders import template
from ...placeholders.keys import AppTemplate, Field, Use
from ...placeholders.names import PASS_ON
from ..language.listeners import Opening, Tenancy, openings
from ..language.models import Config, Position, ProcessLine, PythonApp, ReleaseLine, Route, ScheduleLine
from .plan import Plan

_CAPTURES = "http.regexp."


def tables(
    config: Config, plan: Plan, environ: Mapping[str, str], *, own_sockets: bool = False
) -> tuple[list[Table], list[CaddyfileError]]:
    """The table of each of the plan's listeners, in their order, and what is wrong. The rest is as for the plan."""
    needed, _ = openings(config, own_sockets=own_sockets)
    writer = _Writer(plan, environ)
    return [writer.table(opening) for opening in needed], list(writer.errors.values())


def table_of(opening: Opening, plan: Plan, environ: Mapping[str, str]) -> Table:
    """The table of one socket, of which ``tables`` has found nothing wrong."""
    return _Writer(plan, environ).table(opening)


def fields(app: PythonApp) -> Iterator[tuple[Field, Position]]:
    """The values of a block in which placeholders may stand, as they are written, and where."""
    found: list[tuple[str, Use, str | None]] = [
        ("module", Use.MODULE, app.module.module),
        ("variable", Use.VARIABLE, app.module.variable),
        ("working_dir", Use.PATH, app.working_dir),
        ("venv", Use.PATH, app.venv),
        *((f"env_file[{number}]", Use.PATH, text) for number, text in enumerate(app.env_files)),
        *((f"env_var[{number}]", Use.ENVIRONMENT, pair.value) for number, pair in enumerate(app.env_vars)),
        ("user", Use.ACCOUNT, app.user),
        ("group", Use.ACCOUNT, app.group),
    ]
    if app.sandbox is not None:
        for how in ("read", "write"):
            found += [(f"{how}[{n}]", Use.PATH, text) for n, text in enumerate(getattr(app.sandbox, how))]
    for name, use, text in found:
        if text is not None:
            subdirective = name.partition("[")[0]
            at = (f"module_{app.interface}",) if use in (Use.MODULE, Use.VARIABLE) else (name, subdirective)
            yield Field(name, use, text), app.at(*at)
    for kind, each in commands(app):
        for number, word in enumerate(each.command):
            if "{" in word:
                yield Field(f"{kind}.command[{number}]", Use.WORD, word), each.position
        for number, pair in enumerate(each.env_vars if isinstance(each, ProcessLine) else ()):
            yield Field(f"{kind}.env_var[{number}]", Use.ENVIRONMENT, pair.value), each.position


def commands(app: PythonApp) -> Iterator[tuple[str, ReleaseLine | ProcessLine | ScheduleLine]]:
    """What of *app* runs beside its workers, each with the name by which ``fields`` calls it."""
    yield from ((f"release[{number}]", each) for number, each in enumerate(app.releases))
    yield from ((f"process[{number}]", each) for number, each in enumerate(app.processes))
    yield from ((f"schedule[{number}]", each) for number, each in enumerate(app.schedules))


def settled_fields(app: PythonApp, environ: Mapping[str, str]) -> dict[str, str]:
    """The values of *app* by the names of their fields: ready to use, or with the placeholders of requests in them.
    Raises ``PlaceholderError``: one of the placeholders is unknown, or cannot be known here.
    """
    found = {}
    for field, _ in fields(app):
        compiled = template.compile(template.settle(field.text, environ))
        found[field.name] = compiled.constant if compiled.is_static else compiled.text
    return found


def app_template(number: int, app: PythonApp, environ: Mapping[str, str]) -> AppTemplate:
    """What decides which of the apps of a block a request is for: the block's fields that depend on requests. Raises
    ``PlaceholderError``: one of the placeholders cannot be used.
    """
    texts = ((field, template.settle(field.text, environ)) for field, _ in fields(app))
    return AppTemplate(
        number, [field._replace(text=text) for field, text in texts if not template.compile(text).is_static]
    )


class _Writer:
    """Writes tables, and gathers what is wrong: once for each place, as a block may be reached in several ways."""

    def __init__(self, plan: Plan, environ: Mapping[str, str]) -> None:
        self._numbers = {id(spec.block): number for number, spec in enumerate(plan.apps)}
        self._environ = environ
        self.errors: dict[tuple[str, int, str], CaddyfileError] = {}

    def table(self, opening: Opening) -> Table:
        """The table of one listener."""
        table: Table = {"sites": [], "templates": {}, "variables": {}}
        captures: set[str] = set()
        if opening.own or opening.kind == "direct":
            # Whatever comes is for the one app: Caddy has matched already, or there is nothing to match.
            (app,) = opening.apps
            table["sites"].append({"routes": [{"app": self._numbers[id(app)]}]})
        else:
            table["sites"] = [self._site(*site, table, captures) for site in _ordered(opening.tenancies)]
        for app in opening.apps:
            self._template(app, table, captures, own=opening.own)
            if path := app.settings.health_path:
                table.setdefault("health", {}).setdefault(path, []).append(self._numbers[id(app)])
        return table

    # Sites and routes

    def _site(
        self, tenancy: Tenancy, addresses: tuple[Address, ...], ports: list[int], table: Table, captures: set[str]
    ) -> SiteTable:
        position = tenancy.site.position
        sets = (self._set(found, position, table, captures) for found in host_matchers(addresses))
        site: SiteTable = {
            "match": [found for found in sets if found],
            "routes": [self._route(route, table, captures) for route in tenancy.site.routes],
        }
        if ports:
            site["ports"] = ports
        return site

    def _route(self, route: Route, table: Table, captures: set[str]) -> RouteTable:
        found: RouteTable = {}
        if route.matcher and (matchers := self._set(route.matcher, route.position, table, captures)):
            found["match"] = matchers
        if route.group is not None:
            found["group"] = route.group
        if route.strip_prefix:
            with self._telling(route.position):
                found["strip"] = template.settle(route.strip_prefix, self._environ)
        if route.app is not None:
            found["app"] = self._numbers[id(route.app)]
        elif route.routes:
            found["routes"] = [self._route(inner, table, captures) for inner in route.routes]
        else:
            found["foreign"] = True
        return found

    def _set(self, matchers: Mapping[str, Any], position: Position, table: Table, captures: set[str]) -> dict[str, Any]:
        with self._telling(position):
            settled = settle(matchers, self._environ, table["variables"])
            matcher.compile_set(settled)
            captures |= matcher.captures(settled)
            return settled
        return {}

    # Apps

    def _template(self, app: PythonApp, table: Table, captures: set[str], *, own: bool) -> None:
        number = self._numbers[id(app)]
        found: list[Field] = []
        for field, position in fields(app):
            with self._telling(position):
                text = template.settle(field.text, self._environ)
                for name in template.compile(text).names:
                    if name.startswith(_CAPTURES) and name not in captures:
                        self._error(position, *_not_captured(name, captures, own=own))
                if not template.compile(text).is_static:
                    found.append(field._replace(text=text))
                    AppTemplate(number, found[-1:])  # to see that it can be
        if found:
            table["templates"][str(number)] = [[field.name, field.use.value, field.text] for field in found]

    @contextmanager
    def _telling(self, position: Position) -> Iterator[None]:
        """What cannot be used in here is wrong at *position*."""
        try:
            yield
        except Hinted as exc:
            self._error(position, str(exc), exc.hint)

    def _error(self, position: Position, message: str, hint: str | None) -> None:
        self.errors.setdefault((position.file, position.line, message), position.error(message, hint))


def _not_captured(name: str, captures: set[str], *, own: bool) -> tuple[str, str]:
    if own:
        return f"{{{name}}} is what Caddy's regular expression captured, which cannot be known here", PASS_ON
    known = sorted(captures)
    return (
        f"no regular expression of this socket's sites captures {{{name}}}",
        f"there are {', '.join(f'{{{found}}}' for found in known[:6])}" if known else "use path_regexp in a matcher",
    )


def _ordered(tenancies: tuple[Tenancy, ...]) -> Iterator[tuple[Tenancy, tuple[Address, ...], list[int]]]:
    """The sites of a socket in the order in which Caddy would try them, with their addresses and, where ports tell two
    of them apart, their ports."""
    found = [(tenancy, _addresses(tenancy)) for tenancy in tenancies]
    names: Callable[[tuple[Address, ...]], set[tuple[str, str]]]
    names = lambda addresses: {(address.host, address.path) for address in addresses}  # noqa: E731
    times = Counter(chain.from_iterable(names(addresses) for _, addresses in found))
    for tenancy, addresses in sorted(found, key=lambda pair: specificity(pair[1])):
        is_alone = all(times[name] == 1 for name in names(addresses))
        ports = [] if is_alone else sorted({int(address.effective_port) for address in addresses})
        yield tenancy, addresses, ports


def _addresses(tenancy: Tenancy) -> tuple[Address, ...]:
    """The hosts and paths that a site answers for on a socket; none when it takes every request there."""
    if not tenancy.hosts:
        return ()
    return tuple(
        Address(
            address.text,
            Token(address.text, address.position.file, address.position.line, 1),
            address.scheme,
            address.host,
            address.port,
            address.path,
        )
        for address in tenancy.site.addresses
        if address.socket is None
    )
