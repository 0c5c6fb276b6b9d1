"""Routes as plain data: what the daemon tells the relay, as JSON, about one listener.

``config.plan.routing`` writes it, ``router`` reads it. No placeholders are left in it but those of requests.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from ..caddyfile.errors import Hinted


class MatcherError(Hinted):
    """A matcher that cannot be used."""


class RouteTable(TypedDict, total=False):
    """One route: a matcher and what it leads to."""

    match: dict[str, Any]
    """A matcher set; without one every request matches."""
    group: str
    """Of the routes that share one, only the first that matches is taken."""
    strip: str
    """What is taken off the path."""
    app: int
    """The app's number in the plan."""
    routes: list[RouteTable]
    foreign: bool
    """It leads to directives of Caddy's: what it matches is not ours."""


class SiteTable(TypedDict, total=False):
    """One site."""

    match: list[dict[str, Any]]
    """Matcher sets, any of which lets a request in; none means every request."""
    ports: list[int]
    """Where another site has the same host: the ports that tell them apart."""
    routes: list[RouteTable]


class Table(TypedDict):
    """What a listener's requests lead to."""

    sites: list[SiteTable]
    """The most specific first."""
    templates: dict[str, list[list[str]]]
    """For each app of which requests decide something, by its number: name, use and text of its fields."""
    variables: dict[str, str]
    """What ``vars`` matchers may look at."""
    health: NotRequired[dict[str, list[int]]]
    """Paths that health checks ask for, whatever their host, and the numbers of the apps that have them."""
