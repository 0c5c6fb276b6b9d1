"""From a Caddyfile's bytes to a :class:`Config`, or to everything that is wrong with it at once; and to JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from ...caddyfile.addresses import Address
from ...caddyfile.errors import CaddyfileError
from ...caddyfile.parser import ParsedFile, Segment, parse
from ...caddyfile.structure import RouteNode, build_sites
from ...caddyfile.structure import StructuredSite as SiteNode
from ...caddyfile.tokens import on_new_line
from . import values
from .block import read_app
from .listeners import Opening, openings
from .models import NOWHERE, Config, PythonApp, Route, Site, SiteAddress
from .options import read_bind, read_options
from .registry import position_of
from .values import InvalidValue


class ConfigErrors(Exception):
    """Everything that is wrong with a Caddyfile: at least one error, in the order of the text."""

    def __init__(self, errors: Iterable[CaddyfileError]) -> None:
        # Errors of one file stand together; the files keep the order in which they come up.
        found = list(errors)
        files = list(dict.fromkeys(error.file for error in found))
        self.errors = sorted(found, key=lambda error: (files.index(error.file), error.line))
        super().__init__("\n".join(map(str, self.errors)))


class Reading(NamedTuple):
    """A Caddyfile at every stage, for those who must find their way back from a model to the text."""

    parsed: ParsedFile
    nodes: list[SiteNode]
    config: Config
    apps: dict[int, PythonApp]
    """By the ``id`` of the directive's first token. The tokens live as long as ``parsed``."""


def load(source: bytes, file: str, environ: Mapping[str, str]) -> Config:
    """What the Caddyfile *source* says; all as for ``parse``. Raises ``ConfigErrors``: all that is wrong with it."""
    reading = read(source, file, environ)
    # Which sockets there are follows from the text alone, so their errors belong here.
    _, errors = openings(reading.config)
    if errors:
        raise ConfigErrors(errors)
    return reading.config


def read(source: bytes, file: str, environ: Mapping[str, str]) -> Reading:
    """As :func:`load`, but with all stages, and without looking at which sockets there would be."""
    try:
        parsed = parse(source, file, environ)
    except CaddyfileError as exc:
        raise ConfigErrors([exc]) from None
    options, errors = read_options([segment.tokens for segment in parsed.options])
    nodes, structure_errors = build_sites(parsed)
    errors += structure_errors
    reader = _SiteReader(errors)
    sites = tuple(reader.site(node) for node in nodes)
    if errors:
        raise ConfigErrors(errors)
    config = Config(
        options=options,
        sites=sites,
        warnings=tuple(str(warning) for warning in (*parsed.warnings, *reader.warnings)),
        files=(file, *parsed.files),
    )
    return Reading(parsed, nodes, config, {key: app for key, app in reader.apps.items() if app is not None})


class _SiteReader:
    """Turns the language's sites into models, gathering what is wrong on the way."""

    def __init__(self, errors: list[CaddyfileError]) -> None:
        self._errors = errors
        self.warnings: list[CaddyfileError] = []
        self.apps: dict[int, PythonApp | None] = {}

    def site(self, node: SiteNode) -> Site:
        binds = [segment for segment in node.directives if segment.name == "bind"]
        for segment in node.directives:
            self._refuse_inside(segment)
        return Site(
            addresses=tuple(self._address(address) for address in node.addresses),
            bind=tuple(socket for segment in binds for socket in self._bind(segment)),
            bind_position=position_of(binds[0].tokens[0]) if binds else NOWHERE,
            routes=self._routes(node.routes),
            position=position_of(node.block.keys[0]),
        )

    def _address(self, address: Address) -> SiteAddress:
        socket = None
        try:
            socket = values.socket_address(address.socket) if address.socket else None
            if socket is not None and socket.network.startswith("tcp") and socket.port is None:
                raise InvalidValue(f"{address.text} has no port", f"write {address.text}:9000")
        except InvalidValue as exc:
            self._errors.append(address.token.error(str(exc), exc.hint))
        return SiteAddress(
            text=address.text,
            socket=socket,
            scheme=address.scheme,
            host=address.host,
            port=address.port,
            path=address.path,
            position=position_of(address.token),
        )

    def _bind(self, segment: Segment) -> tuple[values.SocketAddress, ...]:
        dispenser = segment.dispenser()
        dispenser.next()
        try:
            return read_bind(dispenser)
        except CaddyfileError as exc:
            self._errors.append(exc)
        except InvalidValue as exc:
            self._errors.append(dispenser.error(f"bind {exc}", exc.hint or "write bind unix//run/app.sock|0660"))
        return ()

    def _routes(self, nodes: Iterable[RouteNode], *, shared: bool = False) -> tuple[Route, ...]:
        """The routes that lead to apps, and those that keep requests away from them."""
        routes = [route for node in nodes if (route := self._route(node, shared=shared)) is not None]
        whole: Route | None = None
        for route in routes:
            if route.app is not None and whole is not None:
                what = f"this app is never asked: the one of line {whole.position.line} takes every request"
                self.warnings.append(route.position.error(what, "give it a matcher, or a site of its own"))
            elif route.app is not None and not route.matcher:
                whole = route
        groups = {route.group for route in routes if route.group is not None and route.apps()}
        return tuple(route for route in routes if route.app is not None or route.apps() or route.group in groups)

    def _route(self, node: RouteNode, *, shared: bool) -> Route | None:
        app = None
        if node.directive == "python":
            app = self._app(node, shared=shared)
            if app is None:
                return None
        elif node.directive not in ("handle", "handle_path", "route", "invoke"):
            self._refuse_inside(node.segment)
            return None
        return Route(
            directive=node.directive,
            matcher=node.matcher or None,
            group=node.group,
            strip_prefix=node.strip_prefix,
            app=app,
            routes=self._routes(node.children, shared=shared or node.directive == "invoke"),
            position=position_of(node.segment.tokens[0]),
        )

    def _app(self, node: RouteNode, *, shared: bool) -> PythonApp | None:
        """The app of a block; of one in a named route it is the same, however often the route is invoked."""
        key = id(node.segment.tokens[0])
        if not shared or key not in self.apps:
            self.apps[key], errors, warnings = read_app(node.segment.tokens)
            self._errors += errors
            self.warnings += warnings
        return self.apps[key]

    def _refuse_inside(self, segment: Segment) -> None:
        """Complain of ``python`` in those blocks of Caddy's directives that hold routes of their own."""
        if segment.name not in _HOLD_ROUTES:
            return
        for before, token in pairwise(segment.tokens):
            if token.text == "python" and not token.quote and on_new_line(before, token):
                hint = "put it into the site, or into handle, handle_path or route"
                self._errors.append(token.error(f"python cannot be used inside {segment.name}", hint))


_HOLD_ROUTES = frozenset({"handle_errors", "intercept", "reverse_proxy", "forward_auth", "php_fastcgi"})


def to_json(config: Config) -> dict[str, Any]:
    """*config* as JSON, in seconds and bytes: what differs from the defaults, and the sockets that follow."""
    found: dict[str, Any] = config.model_dump(mode="json", exclude_defaults=True)
    needed, _ = openings(config)
    found["listeners"] = [_opening(opening, config) for opening in needed]
    return found


def _opening(opening: Opening, config: Config) -> dict[str, Any]:
    apps = [str(app.module) for app in opening.apps]
    if opening.own:
        return {"own_socket": opening.socket.path, "kind": opening.kind, "reason": opening.reason, "apps": apps}
    options, socket = config.options, opening.socket
    found: dict[str, Any] = {"address": socket.name}
    if socket.network == "unix":
        found["mode"] = f"{options.socket_mode if socket.mode is None else socket.mode:04o}"
        owners = {"owner": socket.owner or options.socket_owner, "group": socket.group or options.socket_group}
        found |= {name: value for name, value in owners.items() if value is not None}
    return found | {"kind": opening.kind, "reason": opening.reason, "apps": apps}
