"""Brings what Caddy adapted, and what we understood, into one form that can be compared.

A shape is ``{listener: [site, …]}``; a site is its matcher sets and its steps; a step is one handler with its
matcher set and group. Routes that Caddy folded into one are unfolded, and groups are counted anew, since only which
steps share one has a meaning.

Our side is the tree of routes; for a handful of Caddy's directives this renders what Caddy's JSON would say. That is
all the tests need, and is no part of the product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from caddysnake.caddyfile.addresses import Address, host_matchers
from caddysnake.caddyfile.dispenser import Dispenser
from caddysnake.caddyfile.parser import Segment
from caddysnake.caddyfile.structure import RouteNode, StructuredSite
from support.outline import most_specific_first

Shape = dict[str, list[dict[str, Any]]]
Step = dict[str, Any]


class Unrendered(Exception):
    """A directive that this module cannot render."""


# Caddy's side


def caddy_shape(config: dict[str, Any]) -> Shape:
    """The shape of an adapted configuration."""
    shape: Shape = {}
    for server in config.get("apps", {}).get("http", {}).get("servers", {}).values():
        routes = server.get("routes") or []
        sites = [_caddy_site(route) for route in routes] if _wrapped(routes) else [_site(None, _caddy_steps(routes))]
        for listener in server["listen"]:
            shape[listener] = _not_empty(sites)
    return shape


def _wrapped(routes: Sequence[dict[str, Any]]) -> bool:
    """Each route is a site of its own, as opposed to the routes of the only site."""
    return bool(routes) and all(route.get("terminal") for route in routes)


def _caddy_site(route: dict[str, Any]) -> dict[str, Any]:
    steps: list[Step] = []
    for handler in route.get("handle", ()):
        assert handler["handler"] == "subroute"
        steps += _caddy_steps(handler.get("routes") or ())
    return _site(route.get("match"), steps)


def _site(match: list[Any] | None, steps: list[Step]) -> dict[str, Any]:
    return {"match": match or None, "steps": _regrouped(steps)}


def _not_empty(sites: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the sites that match everything and do nothing: Caddy does not always mention them."""
    return [site for site in sites if site["match"] or site["steps"]]


def _caddy_steps(routes: Sequence[dict[str, Any]]) -> list[Step]:
    steps: list[Step] = []
    for route in routes:
        for handler in route.get("handle", ()):
            inner = dict(handler)
            if inner["handler"] == "subroute":
                inner["routes"] = _caddy_steps(inner.get("routes") or ())
            inner.pop("hide", None)  # the path of the Caddyfile
            steps.append({"match": route.get("match"), "group": route.get("group"), "do": inner})
    return steps


def _regrouped(steps: list[Step], names: dict[str, str] | None = None) -> list[Step]:
    names = {} if names is None else names
    for step in steps:
        if step["group"] is not None:
            step["group"] = names.setdefault(step["group"], f"g{len(names)}")
        _regrouped(step["do"].get("routes", []), names)
    return steps


# Our side


def our_shape(sites: Sequence[StructuredSite]) -> Shape:
    """The shape of the *sites* of one file."""
    on_listener: dict[str, list[tuple[StructuredSite, list[Address]]]] = {}
    for site in sites:
        for listener, addresses in _listeners(site).items():
            on_listener.setdefault(listener, []).append((site, addresses))
    shape: Shape = {}
    for listener, pairs in on_listener.items():
        ordered = most_specific_first([replace(site, addresses=tuple(addresses)) for site, addresses in pairs])
        shape[listener] = _not_empty([_site(host_matchers(site.addresses), render(site.routes)) for site in ordered])
    return shape


def _listeners(site: StructuredSite) -> dict[str, list[Address]]:
    binds = [word.text for line in site.directives if line.name == "bind" for word in line.tokens[1:]] or [""]
    listeners: dict[str, list[Address]] = {}
    for address in site.addresses:
        for bind in binds:
            if address.socket or "/" in bind:
                listener = address.socket or bind
            else:
                host = bind if bind.startswith("[") else bind.partition(":")[0]
                listener = f"{host}:{int(address.effective_port)}"
            listeners.setdefault(listener, []).append(address)
    return listeners


def render(routes: Sequence[RouteNode]) -> list[Step]:
    """The steps that Caddy would make of *routes*.

    Raises:
        Unrendered: a directive is not among those known here.
    """
    steps: list[Step] = []
    for node in routes:
        matcher = None if node.matcher is None else [node.matcher]
        if node.directive == "handle_path":
            handler: dict[str, Any] = {"handler": "rewrite"}
            if node.strip_prefix:
                handler["strip_path_prefix"] = node.strip_prefix
            inner = [{"match": None, "group": None, "do": handler}, *render(node.children)]
            handlers = [{"handler": "subroute", "routes": inner}]
        elif node.directive in ("handle", "route"):
            handlers = [{"handler": "subroute", "routes": render(node.children)}]
        else:
            renderer = _RENDERERS.get(node.directive)
            if renderer is None:
                raise Unrendered(node.directive)
            handlers = renderer(_line(node.segment))
        steps += [{"match": matcher, "group": node.group, "do": handler} for handler in handlers]
    return steps


def _line(segment: Segment) -> Dispenser:
    line = segment.dispenser()
    line.next()
    return line


def _number(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def _respond(line: Dispenser) -> list[dict[str, Any]]:
    handler: dict[str, Any] = {"handler": "static_response"}
    match line.remaining_args():
        case [code] if code.isdigit() and len(code) == 3:
            handler["status_code"] = int(code)
        case [body]:
            handler["body"] = body
        case [body, code]:
            handler["body"] = body
            handler["status_code"] = _number(code)
        case _:
            raise Unrendered("respond")
    if not handler.get("body", True):
        del handler["body"]
    return [handler]


def _one(line: Dispenser) -> str:
    (value,) = line.remaining_args()
    return value


def _header(line: Dispenser) -> list[dict[str, Any]]:
    match line.remaining_args():
        case [field, value]:
            return [{"handler": "headers", "response": {"set": {field.title(): [value]}}}]
    raise Unrendered("header")


def _vars(line: Dispenser) -> list[dict[str, Any]]:
    name, value = line.remaining_args()
    return [{"handler": "vars", name: _number(value)}]


def _root(line: Dispenser) -> list[dict[str, Any]]:
    return [{"handler": "vars", "root": _one(line)}]


def _rewrite(line: Dispenser) -> list[dict[str, Any]]:
    return [{"handler": "rewrite", "uri": _one(line)}]


def _method(line: Dispenser) -> list[dict[str, Any]]:
    return [{"handler": "rewrite", "method": _one(line)}]


def _uri(line: Dispenser) -> list[dict[str, Any]]:
    match line.remaining_args():
        case ["strip_prefix", prefix]:
            return [{"handler": "rewrite", "strip_path_prefix": prefix}]
    raise Unrendered("uri")


def _redir(line: Dispenser) -> list[dict[str, Any]]:
    return [{"handler": "static_response", "status_code": 302, "headers": {"Location": [_one(line)]}}]


def _file_server(line: Dispenser) -> list[dict[str, Any]]:
    handler: dict[str, Any] = {"handler": "file_server"}
    nesting = line.nesting()
    while line.next_block(nesting):
        if line.val() != "index":
            raise Unrendered("file_server")
        handler["index_names"] = line.remaining_args()
    return [handler]


def _reverse_proxy(line: Dispenser) -> list[dict[str, Any]]:
    upstreams = line.remaining_args()
    nesting = line.nesting()
    while line.next_block(nesting):
        if line.val() != "to":
            raise Unrendered("reverse_proxy")
        upstreams += line.remaining_args()
    handler: dict[str, Any] = {"handler": "reverse_proxy"}
    if upstreams:
        handler["upstreams"] = [{"dial": upstream} for upstream in upstreams]
    return [handler]


def _encode(line: Dispenser) -> list[dict[str, Any]]:
    formats = line.remaining_args()
    return [{"handler": "encode", "encodings": {name: {} for name in formats}, "prefer": formats}]


def _invoke(line: Dispenser) -> list[dict[str, Any]]:
    return [{"handler": "invoke", "name": _one(line)}]


def _fixed(handler: dict[str, Any]) -> Callable[[Dispenser], list[dict[str, Any]]]:
    return lambda _line: [dict(handler)]


_RENDERERS: dict[str, Callable[[Dispenser], list[dict[str, Any]]]] = {
    "abort": _fixed({"handler": "static_response", "abort": True}),
    "encode": _encode,
    "file_server": _file_server,
    "header": _header,
    "invoke": _invoke,
    "log_skip": _fixed({"handler": "vars", "log_skip": True}),
    "method": _method,
    "metrics": _fixed({"handler": "metrics"}),
    "redir": _redir,
    "respond": _respond,
    "reverse_proxy": _reverse_proxy,
    "rewrite": _rewrite,
    "root": _root,
    "templates": _fixed({"handler": "templates"}),
    "uri": _uri,
    "vars": _vars,
}
