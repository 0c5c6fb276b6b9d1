"""Prints the sites of a Caddyfile as text, for tests to compare with what is written down."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from caddysnake.caddyfile.addresses import specificity
from caddysnake.caddyfile.structure import RouteNode, StructuredSite
from caddysnake.caddyfile.tokens import Token


def most_specific_first(sites: Sequence[StructuredSite]) -> list[StructuredSite]:
    """*sites*, which share a listener, in the order in which Caddy tries them."""
    return sorted(sites, key=lambda site: specificity(site.addresses))


def outline(sites: Sequence[StructuredSite]) -> str:
    """One line for each site and each of its directives, in the order in which they are tried."""
    lines: list[str] = []
    for site in most_specific_first(sites):
        lines.append(", ".join(address.key for address in site.addresses))
        lines += (f"\t{' '.join(_words(segment.tokens))}" for segment in site.directives)
        lines += _routes(site.routes, "\t")
    return "".join(f"{line}\n" for line in lines)


def _routes(routes: Sequence[RouteNode], indent: str) -> Iterator[str]:
    names: dict[str, str] = {}
    for node in routes:
        line = indent
        if node.group is not None:
            line += f"[{names.setdefault(node.group, f'only one, {len(names) + 1}')}] "
        if node.matcher is not None:
            line += f"{json.dumps(node.matcher, ensure_ascii=False)} -> "
        line += node.directive
        if node.strip_prefix is not None:
            line += f" without {node.strip_prefix!r}"
        if node.children or node.directive in ("handle", "handle_path", "route"):
            yield line
            yield from _routes(node.children, indent + "\t")
        else:
            yield " ".join([line, *_words(node.segment.tokens[1:])])


def _words(tokens: Sequence[Token]) -> list[str]:
    return [json.dumps(token.text, ensure_ascii=False) if token.quote else token.text for token in tokens]
