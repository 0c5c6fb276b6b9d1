"""The same Caddyfile for a stock Caddy: every ``python`` block has become a ``reverse_proxy`` to a socket of its own.

What else changes, and nothing more:

* sites that are only ours (their address is a socket), global options that are only ours, and ``order python …`` go;
* an ``import`` that brings a ``python`` block is written out (see ``expansion``);
* relative paths of imported files become absolute, since the output may be kept elsewhere;
* a file that was formatted stays formatted;
* with ``full_duplex``, the option ``servers`` says ``enable_full_duplex``, for answers to requests that are not read.

``python`` stands before ``route`` in the order of directives, ``reverse_proxy`` behind ``respond``. Where that would
let another directive of the block go first, the ``reverse_proxy`` is put into a ``route``, and where a ``route`` is
what it competes with, both are put into one, in their order. The output is parsed again and must mean the same routes
in the same order; a file for which that fails is refused, never misread.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from ...caddyfile.addresses import is_socket
from ...caddyfile.errors import CaddyfileError
from ...caddyfile.formatter import format_source
from ...caddyfile.ordering import directive_order
from ...caddyfile.structure import RouteNode
from ...caddyfile.structure import StructuredSite as SiteNode
from ...caddyfile.tokens import Token, on_new_line
from ..language.adapt import ConfigErrors, Reading, read
from ..language.listeners import openings, own_socket_path
from ..language.models import Config
from ..language.options import OURS
from ..plan.places import absolute, default_socket_dir, start_folder
from ..plan.plan import Plan, plan
from .expansion import Item, expand_python, items
from .garbage import without_collection
from .printing import print_token
from .sourcetext import Edit, SourceText, begins_line, segment_end

_NOTHING = "# No site is Caddy's: each is a socket of the sidecar's.\n"
"""A file that Caddy takes; it refuses an empty one."""

_TRANSPORT = ("transport http {", "\tcompression off", "\tkeepalive_idle_conns_per_host 256", "}")
"""Caddy would ask the app for gzip and unpack it again, and keep only 32 idle connections."""

_CLIENT = ("header_up X-Forwarded-For {http.vars.client_ip}",)
"""Where Caddy is told of proxies that it trusts, it keeps their list, the last of which is its neighbour and not the
client. Who that is it has found out by then."""

_WRITTEN = [["{", *" ".join(lines).split(), "}"] for lines in (_TRANSPORT, (*_CLIENT, *_TRANSPORT))]
"""The words of a ``reverse_proxy`` of ours, behind its upstream."""

_FULL_DUPLEX = "enable_full_duplex"
"""Go drops up to 256 KiB of an HTTP/1.1 request that it begins to answer, though the upstream is still to get them, and
then cuts the answer."""

_FORMAT_LIMIT = 100_000
"""Characters. Nobody looks at the layout of a longer file, and formatting goes character by character."""


class Stock(NamedTuple):
    """A Caddyfile for Caddy, and what must run beside it."""

    text: str
    plan: Plan
    config: Config


@without_collection()
def stock(
    source: bytes,
    file: str,
    environ: Mapping[str, str],
    *,
    cores: int = 1,
    base_dir: str | None = None,
    socket_dir: str | None = None,
    full_duplex: bool = False,
) -> Stock:
    """Split *source* into Caddy's part and ours; *file*, *environ*, ``cores``, ``base_dir`` and ``socket_dir`` as for
    ``load`` and ``plan``. ``full_duplex``: the Caddy that reads it knows ``enable_full_duplex`` (Debian 12's 2.6.2
    would refuse it). Raises ``ConfigErrors``: it is wrong, or cannot be expressed for a stock Caddy.
    """
    reading = read(source, file, environ)
    planned = plan(reading.config, cores=cores, base_dir=base_dir, socket_dir=socket_dir, own_sockets=True)
    folder = absolute(socket_dir or default_socket_dir(), base_dir or start_folder(environ))
    try:
        original, again = SourceText(source, file, environ), reading
        expanded = expand_python(original, file, reading)
        if expanded is not None and expanded != source:
            original, again = SourceText(expanded, file, environ), read(expanded, file, environ)
        text = _Rewriter(original, file, environ, again, folder).run(reading, full_duplex)
    except CaddyfileError as exc:
        raise ConfigErrors([exc]) from None
    written = source.decode()
    if len(written) < _FORMAT_LIMIT and format_source(written) == written:
        text = format_source(text)
    return Stock(text, planned, reading.config)


class _Rewriter:
    """Edits a text in which every ``python`` block stands itself."""

    def __init__(self, text: SourceText, file: str, environ: Mapping[str, str], reading: Reading, folder: str) -> None:
        self._file = file
        self._environ = environ
        self._reading = reading
        self._text = text
        self._order = {name: place for place, name in enumerate(directive_order(self._reading.parsed.options))}
        self._order["handle_path"] = self._order["handle"]
        self._upstreams = _upstreams(self._reading, folder)
        self._places = {(token.line, token.column): index for index, token in enumerate(self._text.tokens)}
        self._edits: dict[int, Edit] = {}

    def run(self, original: Reading, full_duplex: bool) -> str:
        """The text for Caddy. *original* is the reading of what was there before anything was written out."""
        found = items(self._text.tokens)
        for item in found:
            self._item(item)
        self._imports()
        if full_duplex and self._upstreams:
            self._enable_full_duplex(found)
        for site in self._reading.nodes:
            if not all(address.socket for address in site.addresses):
                self._level(site.routes, keep_order=False)
        text = self._text.edited(self._edits.values())
        if not text.strip():
            text = _NOTHING
        self._verify(text, original)
        return text

    def _edit(self, start: int, end: int, text: str) -> None:
        self._edits[start] = Edit(start, end, text)

    # What goes

    def _item(self, item: Item) -> None:
        if item.kind == "options":
            self._options(item.body)
        elif item.kind == "site":
            theirs = [key for key in item.keys if not is_socket(key.text)]
            if not theirs:
                first, last = item.tokens[0], item.tokens[-1]
                start, end = self._text.whole_lines(self._text.start(first), self._text.end(last))
                self._edit(start, end, "")
            elif len(theirs) < len(item.keys):
                start, end = self._text.start(item.keys[0]), self._text.end(item.keys[-1])
                self._edit(start, end, ", ".join(print_token(key).rstrip(",") for key in theirs))

    def _options(self, body: Sequence[Token]) -> None:
        segments = list(_segments(body))
        written = {segment[0].text for segment in segments}
        ask = self._reading.config.options.on_demand_ask
        for segment in segments:
            name = segment[0].text
            if name in OURS or (name == "order" and [token.text for token in segment[1:2]] == ["python"]):
                start, stop = self._text.start(segment[0]), self._text.end(segment[-1])
                if name == "on_demand_ask" and ask and "on_demand_tls" not in written:
                    self._edit(start, stop, f"on_demand_tls {{\n\t\task http://{ask}\n\t}}")
                else:
                    self._edit(*self._text.whole_lines(start, stop), "")

    def _imports(self) -> None:
        """Make the paths of imported files absolute, also in snippets."""
        folder = os.path.dirname(os.path.abspath(self._file))
        tokens = self._text.tokens
        snippets = {token.text[1:-1] for token in tokens if token.text.startswith("(") and token.text.endswith(")")}
        for index, (token, name) in enumerate(pairwise(tokens)):
            if token.text != "import" or on_new_line(token, name):
                continue
            if not begins_line(tokens, index) and not tokens[index - 1].opens:
                continue
            if name.text in snippets or os.path.isabs(name.text):
                continue
            path = os.path.normpath(os.path.join(folder, name.text))
            if os.path.lexists(path) or any(char in name.text for char in "*?["):
                self._edit(self._text.start(name), self._text.end(name), print_token(name._replace(text=path)))

    def _enable_full_duplex(self, found: Sequence[Item]) -> None:
        """Say so in each ``servers`` of the global options, or in one of ours; not in options that are imported."""
        options = [item for item in found if item.kind == "options"]
        if not options:
            if not self._reading.parsed.options:
                self._edit(0, 0, f"{{\n\tservers {{\n\t\t{_FULL_DUPLEX}\n\t}}\n}}\n\n")
            return
        servers = [segment for segment in _segments(options[0].body) if segment[0].text == "servers"]
        for words in servers:
            if words[-1].closes and _FULL_DUPLEX not in [token.text for token in words]:
                at = self._text.start(words[-1])
                self._edit(at, at, f"\t{_FULL_DUPLEX}\n{self._text.indent(at)}")
        imported = sum(segment.tokens[0].text == "servers" for segment in self._reading.parsed.options) > len(servers)
        if not imported and all(len(words) > 1 and not words[1].opens for words in servers):  # each is of one listener
            at = self._text.start(options[0].tokens[-1])
            self._edit(at, at, f"\tservers {{\n\t\t{_FULL_DUPLEX}\n\t}}\n")

    # What comes instead

    def _level(self, nodes: Sequence[RouteNode], *, keep_order: bool) -> None:
        """Replace the ``python`` blocks among *nodes*, which are one block's, and those further in."""
        for node in nodes:
            self._level(node.children, keep_order=node.directive == "route")
        blocks = [node for node in nodes if node.directive == "python"]
        if not blocks:
            return
        others = [self._order[node.directive] for node in nodes if node.directive != "python"] if not keep_order else []
        python, proxy, route = (self._order[name] for name in ("python", "reverse_proxy", "route"))
        if not _any_between(others, python, proxy):
            for node in blocks:
                self._replace(node, self._proxy(node, with_matcher=True))
        elif not _any_between(others, python, route):
            for node in blocks:
                self._replace(node, ["route" + _matcher(node) + " {", *_indented(self._proxy(node)), "}"])
        else:
            self._fold([node for node in nodes if _is_between(self._order[node.directive], python, route)])

    def _fold(self, nodes: Sequence[RouteNode]) -> None:
        """Put *nodes* into one ``route``, in their order, in the place of the first ``python`` block."""
        first = next(node for node in nodes if node.directive == "python")
        lines: list[str] = []
        for node in nodes:
            start, end = self._range(node)
            if node.directive == "python":
                lines += self._proxy(node, with_matcher=True)
            else:
                moved = self._text.edited(self._edits.values(), start, end)
                # Text over several lines would change by being indented.
                apart = "\n" if any("\n" in token.text for token in node.segment.tokens) else "\n\t"
                lines.append(moved.replace("\n", apart))
            for inner in [edit for edit in self._edits.values() if start <= edit.start and edit.end <= end]:
                del self._edits[inner.start]
            if node is not first:
                self._edit(*self._text.whole_lines(start, end), "")
        self._replace(first, ["route {", *_indented(lines), "}"])

    def _replace(self, node: RouteNode, lines: Sequence[str]) -> None:
        start, end = self._range(node)
        indent = self._text.indent(start)
        self._edit(start, end, f"\n{indent}".join(lines))

    def _range(self, node: RouteNode) -> tuple[int, int]:
        """Where the directive stands in the text, matcher and block included."""
        first = node.segment.tokens[0]
        index = self._places.get((first.line, first.column))
        if index is None or first.file != self._file or first.imports:
            hint = "put the python blocks of this site and its route blocks into one route block"
            raise first.error(f"{first.text} cannot be moved behind python: it is imported", hint)
        last = self._text.tokens[segment_end(self._text.tokens, index) - 1]
        return self._text.start(first), self._text.end(last)

    def _proxy(self, node: RouteNode, *, with_matcher: bool = False) -> list[str]:
        upstream = self._upstreams[id(node.segment.tokens[0])]
        written = print_token(Token(upstream, self._file, 1, 1))
        head = "reverse_proxy" + (_matcher(node) if with_matcher else "")
        client = _CLIENT if _trusts_proxies(self._reading) else ()
        return [f"{head} {written} {{", *_indented((*client, *_TRANSPORT)), "}"]

    # Proof

    def _verify(self, text: str, original: Reading) -> None:
        """Raise unless *text* means what the original means, with each ``python`` block's socket in its place."""
        after = read(text.encode(), self._file, self._environ)
        wanted = [_meaning(site, self._upstreams) for site in self._reading.nodes]
        found = [_meaning(site, {}) for site in after.nodes]
        upstreams = {meaning for site in found for meaning in _proxied(site)}
        missing = set(self._upstreams.values()) - upstreams
        same_sockets = _own_names(self._reading) == _own_names(original)
        if missing or not same_sockets or [site for site in wanted if site is not None] != found:
            place = next(iter(original.config.apps()), original.config).position
            hint = "put the python blocks of each site into a route block, in the order you mean"
            raise place.error("the order of this site's directives cannot be kept for a stock Caddy", hint)


def _segments(body: Sequence[Token]) -> Iterator[Sequence[Token]]:
    """The tokens of each segment of a block."""
    index = 0
    while index < len(body):
        end = segment_end(body, index)
        yield body[index:end]
        index = end


def _upstreams(reading: Reading, folder: str) -> dict[int, str]:
    """The address that Caddy finds each app at, by the ``id`` of its directive's first token."""
    needed, _ = openings(reading.config, own_sockets=True)
    of_app = {
        id(opening.apps[0]): f"unix/{own_socket_path(folder, opening.socket.path)}" for opening in needed if opening.own
    }
    return {token: of_app[id(app)] for token, app in reading.apps.items() if id(app) in of_app}


def _own_names(reading: Reading) -> set[str]:
    needed, _ = openings(reading.config, own_sockets=True)
    return {opening.socket.path for opening in needed if opening.own}


def _matcher(node: RouteNode) -> str:
    return "" if node.matcher_token is None else f" {print_token(node.matcher_token)}"


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"\t{line}" for line in lines]


def _is_between(place: int, one: int, other: int) -> bool:
    return min(one, other) <= place <= max(one, other)


def _any_between(places: Iterable[int], one: int, other: int) -> bool:
    return any(_is_between(place, one, other) for place in places)


def _trusts_proxies(reading: Reading) -> bool:
    """The global option ``servers`` names proxies whose word Caddy takes."""
    return any(
        segment.tokens[0].text == "servers" and "trusted_proxies" in [token.text for token in segment.tokens]
        for segment in reading.parsed.options
    )


# What a site means: nested tuples that are equal exactly when Caddy would do the same.

Meaning = tuple[Any, ...]


def _meaning(site: SiteNode, upstreams: Mapping[int, str]) -> Meaning | None:
    """What Caddy does for a site; ``None`` for one that is not Caddy's."""
    keys = sorted(address.key for address in site.addresses if not address.socket)
    if not keys:
        return None
    directives = tuple(tuple(token.text for token in segment.tokens) for segment in site.directives)
    return (tuple(keys), directives, tuple(_routes(site.routes, upstreams)))


def _routes(nodes: Sequence[RouteNode], upstreams: Mapping[int, str]) -> Iterator[Meaning]:
    for node in nodes:
        matcher = repr(node.matcher or None)
        tokens = node.segment.tokens
        if (upstream := upstreams.get(id(tokens[0]))) is not None:
            yield ("proxy", upstream, matcher)
        elif node.directive == "reverse_proxy":
            words = [token.text for token in tokens[1:]]
            if words[1:] in _WRITTEN:
                yield ("proxy", words[0], matcher)
            else:
                yield (node.directive, matcher, False, tuple(words), ())
        else:
            yield from _nested(node, matcher, tuple(_routes(node.children, upstreams)))


def _nested(node: RouteNode, matcher: str, children: tuple[Meaning, ...]) -> Iterator[Meaning]:
    if node.directive == "route" and matcher == "None":
        # A route around everything changes nothing.
        yield from children
    elif node.directive == "route" and len(children) == 1 and children[0][0] == "proxy" and children[0][2] == "None":
        yield ("proxy", children[0][1], matcher)
    else:
        # What is inside these was opened; of others the words are all that is known.
        opened = node.directive in ("handle", "handle_path", "route", "invoke")
        words = () if opened else tuple(token.text for token in node.segment.tokens[1:])
        yield (node.directive, matcher, node.group is not None, words, children)


def _proxied(meaning: Any) -> Iterator[str]:
    """The upstreams of all proxies in *meaning*."""
    if isinstance(meaning, tuple):
        if len(meaning) == 3 and meaning[0] == "proxy":
            yield meaning[1]
        else:
            for part in meaning:
                yield from _proxied(part)
