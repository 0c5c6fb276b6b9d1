"""A site's segments to the tree of its routes, in the order in which Caddy would try them.

Directives that are Caddy's own business become leaves: their matcher and their place in the order are known, what they
do is not. ``handle``, ``handle_path`` and ``route`` are opened, and ``invoke`` is put in place of the named route.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count

from .addresses import Address, parse_addresses
from .dispenser import Dispenser
from .errors import CaddyfileError, nearest
from .hosts import split_port
from .matchers import MatcherSet, define, matcher_of
from .ordering import EXCLUSIVE, KNOWN_DIRECTIVES, SITE_DIRECTIVES, directive_order, sort_routes
from .parser import ParsedFile, Segment, SiteBlock
from .tokens import Token


@dataclass(frozen=True, slots=True)
class RouteNode:
    """One directive of a block, at its place in the order."""

    directive: str
    matcher: MatcherSet | None
    """The matcher set that must match; ``None`` matches every request, as the empty set does."""
    segment: Segment
    """The directive without its matcher."""
    children: tuple[RouteNode, ...] = ()
    """What is inside, for ``handle``, ``handle_path``, ``route`` and ``invoke``, in order."""
    group: str | None = None
    """Of the nodes of one block that share a group, only the first that matches is taken. Unique within a site."""
    strip_prefix: str | None = None
    """What ``handle_path`` takes off the path."""
    matcher_token: Token | None = None
    """The word that named the matcher, if one did."""


@dataclass(frozen=True, slots=True)
class StructuredSite:
    """One site block, understood."""

    block: SiteBlock
    addresses: tuple[Address, ...]
    directives: tuple[Segment, ...]
    """The directives that are no handlers, such as ``bind``, in the order of the text."""
    routes: tuple[RouteNode, ...]


def build_sites(parsed: ParsedFile) -> tuple[list[StructuredSite], list[CaddyfileError]]:
    """Every site of a file, in the order of the text, and what is wrong: the first mistake of each site.

    A site with a mistake is left out. What is merely suspicious is added to ``parsed.warnings``. Those that share a
    listener are tried in the order of ``addresses.specificity``.
    """
    errors: list[CaddyfileError] = []
    sites: list[StructuredSite] = []
    try:
        order = directive_order(parsed.options)
        for name, route in parsed.named_routes.items():
            with _not_too_deep(route.tokens[0]):
                _Block(order, parsed.named_routes).named(name, ())
    except CaddyfileError as error:
        return [], [error]
    for block in parsed.sites:
        try:
            with _not_too_deep(block.keys[0]):
                sites.append(build_site(block, order, parsed.named_routes))
        except CaddyfileError as error:
            errors.append(error)
    errors += _repeated(sites, parsed.warnings)
    return sites, errors


def build_site(block: SiteBlock, order: Sequence[str], named_routes: Mapping[str, Segment]) -> StructuredSite:
    """One site. Raises ``CaddyfileError``: the first mistake in its addresses, matchers or the structure of its routes.
    """
    addresses = parse_addresses(block.keys, KNOWN_DIRECTIVES)
    definitions: dict[str, MatcherSet] = {}
    segments = _without_definitions(block.segments, definitions)
    for segment in segments:
        if segment.name not in KNOWN_DIRECTIVES:
            raise _unknown(segment, block)
    directives = tuple(segment for segment in segments if segment.name in SITE_DIRECTIVES)
    handlers = [segment for segment in segments if segment.name not in SITE_DIRECTIVES]
    routes = _Block(order, named_routes).routes(handlers, definitions, keep_order=False, invoked=())
    return StructuredSite(block, tuple(addresses), directives, routes)


def _without_definitions(segments: Iterable[Segment], definitions: dict[str, MatcherSet]) -> list[Segment]:
    """*segments* without those of named matchers, which go into *definitions*."""
    found = []
    for segment in segments:
        if segment.name.startswith("@"):
            define(segment, definitions)
        else:
            found.append(segment)
    return found


@contextmanager
def _not_too_deep(token: Token) -> Iterator[None]:
    """Blocks are built recursively; a hundred within each other are no one's intention."""
    try:
        yield
    except RecursionError:
        raise token.error("the blocks in here are nested too deeply", "use snippets") from None


def _unknown(segment: Segment, block: SiteBlock | None = None) -> CaddyfileError:
    name = segment.tokens[0]
    hint = nearest(name.text, KNOWN_DIRECTIVES)
    if hint is None and block is not None and not block.braced:
        hint = "if this is a second site, put braces around each of them"
    return name.error(f'unknown directive "{name.text}"', hint or "is a brace missing, or one too many?")


def _repeated(sites: Sequence[StructuredSite], warnings: list[CaddyfileError]) -> list[CaddyfileError]:
    """An error for each address of an earlier site; for one that is written otherwise, as in Caddy, a warning."""
    written: dict[tuple[str, str], Address] = {}
    meant: dict[tuple[str, str], Address] = {}
    errors: list[CaddyfileError] = []
    for site in sites:
        for address, listeners in _listeners(site).items():
            same = [written.setdefault((listener, address.text), address) for listener in listeners]
            alike = [meant.setdefault((listener, address.host + address.path), address) for listener in listeners]
            message = f"two sites have the same address: {address.text}"
            if first := next((other for other in same if other not in site.addresses), None):
                place = f"the first is at {first.token.file}:{first.token.line}"
                errors.append(address.token.error(message, f"{place}; put both into one"))
            elif first := next((other for other in alike if other not in site.addresses), None):
                place = f"the first, {first.text}, is at {first.token.file}:{first.token.line}"
                warnings.append(address.token.error(message, f"{place}, and answers for both"))
    return errors


def _listeners(site: StructuredSite) -> dict[Address, list[str]]:
    """Where each address of a site is listened for: a socket listens for the others, or for every host."""
    binds: list[str] = []
    for directive in site.directives:
        if directive.name == "bind":
            binds += [argument.text for argument in directive.arguments()]
    sockets = [address.socket for address in site.addresses if address.socket]
    sockets += [bind for bind in binds if "/" in bind]
    named = [address for address in site.addresses if not address.socket]
    if not named:
        return {address: [address.socket] for address in site.addresses}
    # The port of a "bind" does not count, the address's does.
    hosts = [split_port(bind)[0] for bind in binds if "/" not in bind] or ([] if sockets else [""])
    return {address: [*sockets, *(f"{host}:{int(address.effective_port)}" for host in hosts)] for address in named}


class _Block:
    """Builds the routes of one site, nested blocks included. It only holds what stays the same throughout."""

    def __init__(self, order: Sequence[str], named_routes: Mapping[str, Segment]) -> None:
        self._order = order
        self._named_routes = named_routes
        self._groups = count()

    def named(self, name: str, invoked: tuple[str, ...]) -> tuple[RouteNode, ...]:
        """The routes of the named route *name*. *invoked* are those it is being put into."""
        return self._inside(Dispenser(self._named_routes[name].tokens), {}, keep_order=False, invoked=(*invoked, name))

    def routes(
        self,
        segments: Sequence[Segment],
        definitions: Mapping[str, MatcherSet],
        *,
        keep_order: bool,
        invoked: tuple[str, ...],
    ) -> tuple[RouteNode, ...]:
        """The nodes of one block, sorted and grouped."""
        nodes = [self._node(segment, definitions, invoked) for segment in segments]
        for node in nodes:
            is_of_site = node.directive in SITE_DIRECTIVES
            if is_of_site or (not keep_order and node.directive not in self._order):
                hint = "it belongs at the top of a site" if is_of_site else "put it into a route block"
                raise node.segment.tokens[0].error(f'"{node.directive}" cannot be used here', hint)
        if not keep_order:
            nodes = sort_routes(nodes, self._order, lambda node: (node.directive, node.matcher))
        return tuple(self._grouped(nodes))

    def _grouped(self, nodes: Sequence[RouteNode]) -> list[RouteNode]:
        kinds = ["handle" if node.directive == "handle_path" else node.directive for node in nodes]
        groups: dict[str, str] = {}
        for kind in EXCLUSIVE:
            # A rewrite always has a group, even alone: what comes after it must not be merged with what it changes.
            if kinds.count(kind) > 1 or (kind == "rewrite" and kind in kinds):
                groups[kind] = f"group{next(self._groups)}"
        return [
            replace(node, group=groups[kind]) if kind in groups else node
            for kind, node in zip(kinds, nodes, strict=True)
        ]

    def _node(self, segment: Segment, definitions: Mapping[str, MatcherSet], invoked: tuple[str, ...]) -> RouteNode:
        directive = segment.name
        if directive not in KNOWN_DIRECTIVES:
            raise _unknown(segment)
        if directive == "handle_path":
            return self._handle_path(segment, definitions, invoked)
        token, matcher, rest = _take_matcher(segment, definitions)
        children: tuple[RouteNode, ...] = ()
        if directive in ("handle", "route"):
            children = self._inside(rest.dispenser(), definitions, keep_order=directive == "route", invoked=invoked)
        elif directive == "invoke":
            children = self._invoke(rest, invoked)
        return RouteNode(directive, matcher, rest, children, matcher_token=token)

    def _handle_path(
        self, segment: Segment, definitions: Mapping[str, MatcherSet], invoked: tuple[str, ...]
    ) -> RouteNode:
        token = _argument(segment, "handle_path needs a path, such as /api/*")
        path = token.text
        if not path.startswith("/"):
            raise token.error(f"handle_path takes only a path that begins with /, got {path}", "or use handle")
        prefix = path.removesuffix("*")
        prefix = prefix.removesuffix("/") if prefix != path else prefix
        rest = Segment([segment.tokens[0], *segment.tokens[2:]])
        children = self._inside(rest.dispenser(), definitions, keep_order=False, invoked=invoked)
        return RouteNode("handle_path", {"path": [path]}, rest, children, strip_prefix=prefix, matcher_token=token)

    def _invoke(self, rest: Segment, invoked: tuple[str, ...]) -> tuple[RouteNode, ...]:
        token = _argument(rest, "invoke needs the name of a route")
        name = token.text
        if name not in self._named_routes:
            hint = nearest(name, self._named_routes) or f"define it with &({name}) {{ … }} at the top of the file"
            raise token.error(f"unknown named route: {name}", hint)
        if name in invoked:
            # Caddy takes this, and a request then never ends.
            raise token.error(f"the named route {name} invokes itself")
        return self.named(name, invoked)

    def _inside(
        self, line: Dispenser, definitions: Mapping[str, MatcherSet], *, keep_order: bool, invoked: tuple[str, ...]
    ) -> tuple[RouteNode, ...]:
        """The nodes of the block that a directive opens."""
        inner: list[Segment] = []
        while line.next():
            if line.next_arg():
                raise line.arg_error("only a matcher may stand before the {")
            nesting = line.nesting()
            while line.next_block(nesting):
                inner.append(Segment(line.next_segment()))
        known = dict(definitions)
        return self.routes(_without_definitions(inner, known), known, keep_order=keep_order, invoked=invoked)


def _argument(segment: Segment, hint: str) -> Token:
    if arguments := segment.arguments():
        return arguments[0]
    raise segment.tokens[0].error(f'wrong number of arguments at or after "{segment.name}"', hint)


def _take_matcher(
    segment: Segment, definitions: Mapping[str, MatcherSet]
) -> tuple[Token | None, MatcherSet | None, Segment]:
    """The matcher of a directive, if it has one, and the directive without it."""
    arguments = [] if segment.name in _NO_MATCHER else segment.arguments()
    if arguments and not (segment.name in _LONE_ARGUMENT and len(arguments) == 1):
        found, matcher = matcher_of(arguments[0], definitions)
        if found:
            return arguments[0], matcher, Segment([segment.tokens[0], *segment.tokens[2:]])
    return None, None, segment


_NO_MATCHER = SITE_DIRECTIVES | {"try_files"}
# With these a single argument is what the directive is about, even when it looks like a path.
_LONE_ARGUMENT = frozenset(("rewrite", "root"))
