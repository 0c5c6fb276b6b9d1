"""From a request's head to the app it is for. Pure.

A router is made from a table of plain data that the daemon sends (``config.plan.routing`` makes it). The sites of a
listener are tried as Caddy tries them, the most specific first; the first that takes the request decides, and within it
the routes are walked in order: the first app that is reached gets the request. How many sites there are does not
matter: plain hosts and hosts with wildcards are looked up, not tried one by one. Where the host alone decides, as it
does for tenants by subdomain, what was found for a host is remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..caddyfile.hosts import integer
from ..placeholders import template
from ..placeholders.keys import AppTemplate, Field, UnsafeValue, Use
from ..placeholders.request import Head, Request
from ..placeholders.template import Template
from . import matcher
from .matcher import MatcherSet, Predicate
from .table import RouteTable, SiteTable, Table
from .target import ALIVE, Target

_DEFAULT_PORTS = {"http": 80, "https": 443}

_HOSTS_MAX = 4096
"""How many hosts a listener remembers: all are forgotten when there are more, which costs as much as never knowing."""
_HOST_MAX_BYTES = 256
_OF_HOST = ("http.request.host", "http.request.hostport")
_LABELS = "http.request.host.labels."


class Router:
    """Finds the app of each request. ``tables``: one for each listener, in the order of their numbers. ``refused``:
    called when a request has a value that must not be used; the answer is the same as for no app. Raises
    ``MatcherError``, ``PlaceholderError``: a table holds what the daemon should have refused.
    """

    def __init__(self, tables: Sequence[Table], refused: Callable[[UnsafeValue], None] = lambda _: None) -> None:
        self._listeners = [_Listener(table) for table in tables]
        self._refused = refused

    def route(self, listener: int, head: Head, peer: str, is_trusted: bool) -> Target | None:
        """The app for the request with *head* that came over a connection of *listener*; ``None`` for 404. Called once
        a request, on the relay's loop. *peer*: the address at the other end, empty for a unix socket. *is_trusted*:
        what the head says in X-Forwarded-* is true.
        """
        routes = self._listeners[listener]
        if routes.only is not None:
            return routes.only
        host = head.host
        if routes.health and head.path in routes.health:
            return routes.checked(head, Request(head, peer=peer, is_trusted=is_trusted))
        if host in routes.by_host:
            return routes.by_host[host]
        try:
            target = routes.find(Request(head, peer=peer, is_trusted=is_trusted))
        except UnsafeValue as exc:
            self._refused(exc)
            return None
        if routes.is_decided_by_host and host is not None and len(host) <= _HOST_MAX_BYTES:
            if len(routes.by_host) >= _HOSTS_MAX:
                routes.by_host.clear()
            routes.by_host[host] = target
        return target


class _Listener:
    """The sites and routes of one listener."""

    def __init__(self, table: Table) -> None:
        self._variables = table["variables"]
        self._templates = {
            int(number): AppTemplate(int(number), [Field(name, Use(use), text) for name, use, text in fields])
            for number, fields in table["templates"].items()
        }
        self._sites = _Sites(table["sites"])
        self.health = {path.encode(): numbers for path, numbers in table.get("health", {}).items()}
        number = self._sites.only_app()
        self.only = None if number is None or number in self._templates else Target(number)
        """Where every request goes, if that is so."""
        names = [name for app in self._templates.values() for name in app.names]
        self.is_decided_by_host = all(map(_is_decided_by_host, table["sites"])) and all(
            name in _OF_HOST or name.startswith(_LABELS) for name in names
        )
        self.by_host: dict[bytes | None, Target | None] = {}
        """What was found for a Host field, where nothing else decides."""

    def find(self, request: Request) -> Target | None:
        """Where *request* goes. It is used up: its path may be stripped. Raises ``UnsafeValue``: it is for an app of
        which it decides a value that must not be used.
        """
        if self._variables:
            request.variables.update(self._variables)
        site = self._sites.find(request)
        number = None if site is None else _walk(site.routes, request, set())
        if number is None or number == _FOREIGN:
            return None
        app = self._templates.get(number)
        key = "" if app is None else app.key(request)
        return Target(number, key, request.prefix, request.raw_path) if request.prefix else Target(number, key)

    def checked(self, head: Head, request: Request) -> Target | None:
        """Where a request goes of which the path is a health check's.

        Caddy sends the address of the socket for a host, so the first app that has the path answers for a host that is
        nobody's.
        """
        numbers = self.health[head.path]
        try:
            found = self.find(request)
        except UnsafeValue:
            found = None
        if head.method not in ("GET", "HEAD") or (found is not None and found.route not in numbers):
            return found
        number = numbers[0] if found is None else found.route
        return ALIVE if number in self._templates else Target(number)


def _is_decided_by_host(table: SiteTable) -> bool:
    """Whether a site takes a request, and which app of it does, depends on the request's host and nothing else."""
    hosts = [host for matchers in table.get("match", ()) for host in matchers.get("host", ())]
    return (
        not table.get("ports")
        and all(matchers.keys() <= {"host"} for matchers in table.get("match", ()))
        and all(matcher.plain_host(host) is not None for host in hosts)
        and all(map(_is_without_condition, table.get("routes", ())))
    )


def _is_without_condition(table: RouteTable) -> bool:
    return (
        not table.get("match") and not table.get("strip") and all(map(_is_without_condition, table.get("routes", ())))
    )


# Routes


class _Route(NamedTuple):
    matches: Predicate | None
    group: str | None
    strip: Template | None
    app: int | None
    routes: tuple[_Route, ...]
    is_foreign: bool


_FOREIGN = -1


def _routes(tables: Sequence[RouteTable]) -> tuple[_Route, ...]:
    return tuple(
        _Route(
            matcher.compile_set(table.get("match")),
            table.get("group"),
            template.compile(table["strip"]) if table.get("strip") else None,
            table.get("app"),
            _routes(table.get("routes", ())),
            table.get("foreign", False),
        )
        for table in tables
    )


def _walk(routes: tuple[_Route, ...], request: Request, taken: set[str]) -> int | None:
    """The app that *request* reaches first; ``None`` when the routes let it pass, ``_FOREIGN`` when they end it.

    *taken* are the groups of which a route has matched.
    """
    for route in routes:
        if route.matches is not None and not route.matches(request):
            continue
        if route.group is not None:
            if route.group in taken:
                continue
            taken.add(route.group)
        if route.strip is not None:
            # What is off stays off, also for the routes behind this one: Caddy changes the request.
            request.strip(route.strip.expand(request))
        if route.app is not None:
            return route.app
        if route.is_foreign:
            return _FOREIGN
        if (found := _walk(route.routes, request, taken)) is not None:
            return found
    return None


# Sites


class _Site(NamedTuple):
    ports: frozenset[int] | None
    routes: tuple[_Route, ...]

    def fits_port(self, request: Request) -> bool:
        if self.ports is None:
            return True
        port = integer(request.port) if request.port else _DEFAULT_PORTS[request.scheme]
        return port in self.ports


class _Entry(NamedTuple):
    """One way into a site: its place in the order, and what must match besides the host."""

    rank: int
    matches: Predicate | None


class _Sites:
    """The sites of a listener, by host."""

    def __init__(self, tables: Sequence[SiteTable]) -> None:
        self._sites = [
            _Site(frozenset(table["ports"]) if table.get("ports") else None, _routes(table.get("routes", ())))
            for table in tables
        ]
        self._exact: dict[str, list[_Entry]] = {}
        # By the places of the asterisks: how many labels, and which of them may be anything.
        self._wild: dict[tuple[int, tuple[int, ...]], dict[str, list[_Entry]]] = {}
        self._other: list[_Entry] = []
        for rank, table in enumerate(tables):
            for matchers in table.get("match") or [{}]:
                self._add(rank, matchers)

    def _add(self, rank: int, matchers: MatcherSet) -> None:
        hosts = matchers.get("host")
        if not hosts:
            self._other.append(_Entry(rank, matcher.compile_set(matchers)))
            return
        rest = matcher.compile_set({kind: holds for kind, holds in matchers.items() if kind != "host"})
        for host in map(matcher.plain_host, hosts):
            if host is None:  # it depends on the request
                self._other.append(_Entry(rank, matcher.compile_set(matchers)))
            elif "*" in host:
                labels = host.split(".")
                stars = tuple(place for place, label in enumerate(labels) if label == "*")
                by_name = self._wild.setdefault((len(labels), stars), {})
                by_name.setdefault(host, []).append(_Entry(rank, rest))
            else:
                self._exact.setdefault(host, []).append(_Entry(rank, rest))

    def only_app(self) -> int | None:
        """The app that takes every request; ``None`` when none does."""
        if len(self._sites) != 1 or len(self._sites[0].routes) != 1 or self._other != [_Entry(0, None)]:
            return None
        route = self._sites[0].routes[0]
        return route.app if route.matches is None and route.strip is None else None

    def find(self, request: Request) -> _Site | None:
        """The first site that takes *request*."""
        of_other_port: _Site | None = None
        candidates = self._candidates(request.bare_host) if self._exact or self._wild else self._other
        for rank, matches in candidates:
            if matches is not None and not matches(request):
                continue
            site = self._sites[rank]
            if site.fits_port(request):
                # A site that only its port kept from fitting has the better host, unless ports count here too.
                return of_other_port if of_other_port is not None and site.ports is None else site
            of_other_port = of_other_port or site
        return of_other_port

    def _candidates(self, host: str) -> list[_Entry]:
        """What *host* may get into, the most specific first."""
        lists = [self._exact[host]] if host in self._exact else []
        if self._wild:
            labels = host.split(".")
            for (count, stars), by_name in self._wild.items():
                if count == len(labels):
                    masked = ".".join("*" if place in stars else label for place, label in enumerate(labels))
                    if masked in by_name:
                        lists.append(by_name[masked])
        if self._other:
            lists.append(self._other)
        if len(lists) == 1:
            return lists[0]
        return sorted((entry for entries in lists for entry in entries), key=lambda entry: entry.rank)
