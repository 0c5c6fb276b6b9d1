"""Which sockets there are, who answers on each, and whether that takes the relay: with the reason, for people.

A connection that can only carry requests for one app is handed to that app's workers (direct). One that may carry
requests for several, or whose requests must be looked at to be placed, goes to the relay.

Pure: a configuration in, sockets out.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from ...caddyfile.errors import CaddyfileError
from .models import Config, Position, PythonApp, Route, Site
from .values import MAX_UNIX_PATH_BYTES, SocketAddress

Kind = Literal["direct", "relay"]

_SLUG_LENGTH: Final = 40


@dataclass(frozen=True, slots=True)
class Tenancy:
    """One site's claim to a socket."""

    site: Site
    hosts: tuple[str, ...]
    """The hosts it answers for there; none means every host."""


@dataclass(frozen=True, slots=True)
class Opening:
    """One socket and everybody on it."""

    socket: SocketAddress
    position: Position
    kind: Kind
    reason: str
    apps: tuple[PythonApp, ...]
    """By identity those of the configuration, in the order in which they are tried."""
    tenancies: tuple[Tenancy, ...] = ()
    own: bool = False
    """The socket of a block whose site names none; its folder is the daemon's to choose, and ``path`` only a name."""


@dataclass(slots=True)
class _Draft:
    socket: SocketAddress
    position: Position
    tenancies: list[Tenancy] = field(default_factory=list)


def openings(config: Config, *, own_sockets: bool = False) -> tuple[list[Opening], list[CaddyfileError]]:
    """Every socket that *config* needs, and what is wrong with them. A site listens on the socket addresses in front of
    its block. Where it has others too, or only those, it listens on its ``bind``, else on ``default_bind``; else each
    of its ``python`` blocks gets a socket of its own, to which ``caddysnake caddyfile`` points Caddy. With
    *own_sockets* Caddy reads the same file: those two are Caddy's, and each block has its own socket.
    """
    drafts: dict[str, _Draft] = {}
    own: list[Opening] = []
    errors: list[CaddyfileError] = []
    for site in config.sites:
        if not site.apps():
            errors += _useless(site)
            continue
        sockets = [(address.socket, address.position) for address in site.addresses if address.socket is not None]
        for socket, position in sockets:
            _claim(drafts, socket, position, Tenancy(site, ()), errors)
        if len(sockets) == len(site.addresses):
            continue
        bound = [] if own_sockets else _bound(config, site)
        hosts = site_hosts(site)
        for socket, position in bound:
            _claim(drafts, socket, position, Tenancy(site, hosts), errors)
        if not bound:
            own += _own(site)
    shared = [_opening(draft) for draft in drafts.values()]
    return [*shared, *_distinct(own)], errors


def _useless(site: Site) -> list[CaddyfileError]:
    """A site that only we could serve, and that says nothing that we do."""
    for address in site.addresses:
        if address.socket is not None:
            hint = "put a python block into it, or take the site away"
            return [address.position.error(f"the site on {address.text} has no python block", hint)]
    return []


def _bound(config: Config, site: Site) -> list[tuple[SocketAddress, Position]]:
    if site.bind:
        found = [(socket, site.bind_position) for socket in site.bind]
    else:
        found = [(socket, config.options.at("default_bind")) for socket in config.options.default_bind]
    # A bare interface, as in "bind 127.0.0.1", takes its port from the site's address, and those are Caddy's.
    return [(socket, position) for socket, position in found if socket.network in ("unix", "fd") or socket.port]


def site_hosts(site: Site) -> tuple[str, ...]:
    """The hosts of a site's addresses; none when one of them takes every host."""
    theirs = [address for address in site.addresses if address.socket is None]
    if any(not address.host and not address.path for address in theirs):
        return ()
    return tuple(dict.fromkeys((address.host or "*") + address.path for address in theirs))


def _claim(
    drafts: dict[str, _Draft], socket: SocketAddress, position: Position, tenancy: Tenancy, errors: list[CaddyfileError]
) -> None:
    draft = drafts.setdefault(socket.name, _Draft(socket, position))
    if draft.socket != socket:
        message = f"{socket} is written with another mode or owner than on line {draft.position.line}: {draft.socket}"
        errors.append(position.error(message, "write both alike"))
        return
    if not tenancy.hosts:
        for other in draft.tenancies:
            if not other.hosts:
                message = (
                    f"two sites take every request on {socket.name}; the first is on line {other.site.position.line}"
                )
                errors.append(position.error(message, "give each a socket of its own"))
                return
    draft.tenancies.append(tenancy)


def _opening(draft: _Draft) -> Opening:
    apps = tuple(app for tenancy in draft.tenancies for app in tenancy.site.apps())
    reason = _relay_reason(draft, apps)
    kind: Kind = "relay" if reason else "direct"
    return Opening(
        draft.socket, draft.position, kind, reason or "one app takes every request", apps, tuple(draft.tenancies)
    )


def _relay_reason(draft: _Draft, apps: tuple[PythonApp, ...]) -> str:
    """Why the requests on a socket must be looked at one by one; empty when they need not."""
    if len(draft.tenancies) > 1:
        return f"{len(draft.tenancies)} sites share it"
    if hosts := draft.tenancies[0].hosts:
        named = ", ".join(hosts[:3]) + (f" and {len(hosts) - 3} more" if len(hosts) > 3 else "")
        return f"only requests for {named} are for the app"
    if len(apps) > 1:
        return f"{len(apps)} python blocks share it"
    if reason := _reason_of(apps[0]):
        return reason
    for route in _conditional(draft.tenancies[0].site.routes):
        return f"{route.directive} on line {route.position.line} takes only some requests"
    return ""


def _reason_of(app: PythonApp) -> str:
    if app.request_placeholders:
        return f"the app depends on {{{app.request_placeholders[0]}}}"
    return "its clients stay with their workers (affinity)" if app.affinity is not None else ""


def _conditional(routes: tuple[Route, ...]) -> Iterator[Route]:
    """The routes, at any depth, by which a request may be treated otherwise than its neighbour."""
    for route in routes:
        if route.matcher is not None or route.strip_prefix is not None:
            yield route
        yield from _conditional(route.routes)


def _own(site: Site) -> list[Opening]:
    found: dict[int, Opening] = {}
    for chain in _chains(site.routes):
        app = chain[-1].app
        assert app is not None
        if id(app) in found:
            continue  # a named route that the site invokes twice
        reason = _reason_of(app)
        kind: Kind = "relay" if reason else "direct"
        reason = reason or "the block has its own socket"
        socket = SocketAddress("unix", path=own_socket_name(site, chain))
        found[id(app)] = Opening(socket, app.position, kind, reason, (app,), (Tenancy(site, ()),), own=True)
    return list(found.values())


def _chains(routes: tuple[Route, ...], above: tuple[Route, ...] = ()) -> Iterator[tuple[Route, ...]]:
    """The routes that lead to each app, outermost first."""
    for route in routes:
        chain = (*above, route)
        if route.app is not None:
            yield chain
        yield from _chains(route.routes, chain)


def root_paths(config: Config, needed: list[Opening]) -> dict[int, str]:
    """What Caddy takes off the path of every request to an app, by the app's ``id``: the prefixes of ``handle_path``.

    Only where it is the same for all: for apps on sockets of their own alone, which are reached in one way or in ways
    that take the same away. On any other socket the relay takes it off, and says so.
    """
    own = {id(opening.apps[0]) for opening in needed if opening.own}
    shared = {id(app) for opening in needed if not opening.own for app in opening.apps}
    found: dict[int, set[str]] = {}
    for site in config.sites:
        for chain in _chains(site.routes):
            prefix = "".join("/" + route.strip_prefix.strip("/") for route in chain if route.strip_prefix)
            found.setdefault(id(chain[-1].app), set()).add(prefix)
    return {
        app: prefix
        for app, prefixes in found.items()
        if app in own - shared and len(prefixes) == 1 and "{" not in (prefix := next(iter(prefixes)))
    }


def own_hosts(config: Config) -> dict[int, str]:
    """One host for each app whose site names one, by the app's ``id``."""
    found: dict[int, str] = {}
    for site in config.sites:
        for app in site.apps() if site.named_hosts else []:
            found.setdefault(id(app), site.named_hosts[0])
    return found


def own_socket_name(site: Site, chain: tuple[Route, ...]) -> str:
    """The file name of a block's own socket.

    It must not change when something else in the file does: Caddy, who was told the name, is not reloaded with us. So
    it is made of what the block is: the site, the module, and a digest of the matchers around it.
    """
    app = chain[-1].app
    assert app is not None
    address = next((address.text for address in site.addresses if address.socket is None), "")
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", f"{address} {app.module}").strip("-.")[:_SLUG_LENGTH]
    identity = [address, str(app.module), app.working_dir, [[r.directive, r.matcher, r.strip_prefix] for r in chain]]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:10]
    return f"{slug}-{digest}.sock"


def own_socket_path(folder: str, name: str) -> str:
    """The path of a block's own socket in *folder*; without the readable part of its name where that is too long."""
    path = os.path.join(folder, name)
    if len(os.fsencode(path)) <= MAX_UNIX_PATH_BYTES:
        return path
    return os.path.join(folder, re.sub(r"\A.*-(?=[0-9a-f]{10}(-[0-9]+)?\.sock\Z)", "", name))


def _distinct(own: list[Opening]) -> list[Opening]:
    """*own* with a number behind the names that occur again."""
    first: dict[int, Opening] = {}
    for opening in own:
        # Of the sites that invoke one named route, the first gives the socket its name.
        first.setdefault(id(opening.apps[0]), opening)
    seen: dict[str, int] = {}
    found = []
    for opening in first.values():
        name = opening.socket.path
        seen[name] = number = seen.get(name, 0) + 1
        if number > 1:
            path = f"{name.removesuffix('.sock')}-{number}.sock"
            found.append(replace(opening, socket=opening.socket._replace(path=path)))
        else:
            found.append(opening)
    return found
