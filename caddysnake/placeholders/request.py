"""A request as matchers and placeholders see it.

It wraps the head that ``http1`` parsed and copies nothing; what is asked for is worked out once and kept. Of who asked
and how, it believes what Caddy says in ``X-Forwarded-*`` and ``Via``, and only when the connection is Caddy's.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar, overload

from ..caddyfile import hosts
from . import uris

HTTP_1_0 = "HTTP/1.0"
HTTP_1_1 = "HTTP/1.1"
_VIA = {"1.0": HTTP_1_0, "1.1": HTTP_1_1, "2.0": "HTTP/2.0", "3.0": "HTTP/3.0"}
# Go's server takes them out of the fields, so for Caddy they are never there.
_NOT_FIELDS = frozenset({b"host", b"transfer-encoding"})


ROUTING_UNITS = 100_000
"""What looking for one request's app may cost, in units of about a tenth of a microsecond."""


class RoutingLimit(Exception):
    """Looking for a request's app would take more work than a stranger may cause."""


class Head(Protocol):
    """What is needed of a parsed head; ``http1.request.RequestHead`` is one."""

    @property
    def method(self) -> str:
        """As sent."""
    @property
    def target(self) -> bytes:
        """The request target, as sent."""
    @property
    def path(self) -> bytes:
        """Percent-encoded, without the query."""
    @property
    def query(self) -> bytes:
        """Without the question mark."""
    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        """Names in lower case, and values."""
    @property
    def version(self) -> str:
        """``1.0`` or ``1.1``."""
    @property
    def host(self) -> bytes | None:
        """The value of the Host field."""


Value = TypeVar("Value")


class _once(Generic[Value]):
    """A property that is worked out when it is first asked for. Unlike functools' it takes no lock."""

    def __init__(self, work_out: Callable[[Any], Value]) -> None:
        self._work_out = work_out
        self._name = work_out.__name__
        self.__doc__ = work_out.__doc__

    @overload
    def __get__(self, request: None, owner: type) -> _once[Value]: ...
    @overload
    def __get__(self, request: object, owner: type) -> Value: ...
    def __get__(self, request: object | None, owner: type) -> _once[Value] | Value:
        if request is None:
            return self
        value = request.__dict__[self._name] = self._work_out(request)
        return value


class Request:
    """One request. ``head``: names of fields in lower case, values without outer white space. ``peer``: the address at
    the other end, empty for a unix socket, whose ``X-Forwarded-*`` are true if it ``is_trusted``. ``variables``: by
    name, without Caddy's own.
    """

    def __init__(
        self, head: Head, *, peer: str = "", is_trusted: bool = False, variables: dict[str, str] | None = None
    ) -> None:
        self.head = head
        self.peer = peer
        self.is_trusted = is_trusted
        self.variables = variables if variables is not None else {}
        self.raw_path = head.path
        """The path that is left: percent-encoded, after what ``strip`` took away."""
        self.prefix = b""
        """What ``strip`` took away, percent-encoded."""
        self.captures: dict[str, str] = {}
        """What regular expressions that matched have captured, by the placeholder's name."""
        self._units = ROUTING_UNITS

    def spend(self, units: int) -> None:
        """Charge for work of which the request decides how much it is. Raises ``RoutingLimit`` when it is too much."""
        self._units -= units
        if self._units < 0:
            raise RoutingLimit("the request is too long for what looks at it to find its app")

    # The target

    @_once
    def path(self) -> str:
        """The path, decoded; neither ``..`` nor doubled slashes are resolved."""
        return uris.text(uris.unescape(self.raw_path))

    @_once
    def escaped_path(self) -> str:
        """The path as Go writes it: escaped where it must be."""
        return uris.escaped_path(self.raw_path)

    @_once
    def clean_path(self) -> str:
        """The decoded path with ``.``, ``..`` and doubled slashes resolved."""
        return uris.clean(self.path)

    @_once
    def lower_path(self) -> str:
        """``path`` in lower case."""
        return uris.lower(self.path)

    @_once
    def clean_lower_path(self) -> str:
        """``clean_path`` in lower case."""
        return uris.clean(self.lower_path)

    @_once
    def query(self) -> str:
        """As sent."""
        return uris.text(self.head.query)

    @property
    def marked_query(self) -> str:
        """The question mark and the query; empty when there is no question mark."""
        return f"?{self.query}" if b"?" in self.head.target else ""

    @_once
    def pairs(self) -> uris.Pairs:
        """The pairs of the query, decoded; what cannot be read is left out."""
        return self._parsed_query[0]

    @property
    def is_query_whole(self) -> bool:
        """Every pair of the query could be read."""
        return self._parsed_query[1]

    @_once
    def _parsed_query(self) -> tuple[uris.Pairs, bool]:
        self.spend(len(self.head.query) * 5)
        return uris.pairs(self.head.query)

    def strip(self, prefix: str) -> None:
        """Take *prefix* off the path, as ``handle_path`` does: the rest has a slash in front, and is cleaned."""
        prefix = "/" + prefix.removeprefix("/")
        whole = uris.clean(self.escaped_path, merge_slashes="//" not in prefix)
        rest = uris.strip_prefix(whole, prefix)
        if rest is not None:
            self.prefix += whole[: len(whole) - len(rest)].encode("ascii")
        self.raw_path = whole.encode("ascii") if rest is None else uris.canonical(rest.encode("ascii"))
        for name in ("path", "escaped_path", "clean_path", "lower_path", "clean_lower_path"):
            self.__dict__.pop(name, None)

    # The host

    @_once
    def hostport(self) -> str:
        """The Host field as sent; empty when there is none."""
        return uris.text(self.head.host or b"")

    @_once
    def host(self) -> str:
        """Without the port, in the case in which it came. An IPv6 address without a port keeps its brackets."""
        return hosts.without_port(self.hostport)

    @_once
    def bare_host(self) -> str:
        """In lower case, without port and brackets: what host matchers look at."""
        split = hosts.split_host_port(self.hostport)
        host = self.hostport.removeprefix("[").removesuffix("]") if split is None else split[0]
        return host.lower()

    @property
    def port(self) -> str:
        """The port in the Host field; empty when there is none."""
        split = hosts.split_host_port(self.hostport)
        return "" if split is None else split[1]

    # The fields

    def values(self, name: bytes) -> list[str]:
        """The values of the field *name*, which is in lower case."""
        if name in _NOT_FIELDS:
            return []
        self.spend(len(self.head.headers) >> 2)
        return [uris.text(value) for field, value in self.head.headers if field == name]

    def values_with_host(self, name: bytes) -> list[str]:
        """As ``values``, but for ``host`` too: what header matchers look at."""
        if name == b"host":
            return [self.hostport] if self.hostport else []
        return self.values(name)

    @_once
    def cookies(self) -> list[tuple[str, str]]:
        """Names and values, without those that Go leaves out."""
        lines = self.values(b"cookie")
        self.spend(sum(map(len, lines)))
        return [pair for line in lines for pair in _cookies(line)]

    # Who asked, and how

    def _last(self, name: bytes) -> str:
        """The last value of a field that Caddy writes; empty unless it can be believed."""
        values = self.values(name) if self.is_trusted else []
        return values[-1] if values else ""

    @_once
    def remote_host(self) -> str:
        """The address of Caddy's peer, which Caddy appends to ``X-Forwarded-For``."""
        forwarded = self._last(b"x-forwarded-for")
        return forwarded.rpartition(",")[2].strip(" \t") if forwarded else self.peer

    @_once
    def client_ip(self) -> str:
        """The address of the client: the first in ``X-Forwarded-For``, which holds more than Caddy's peer only when
        Caddy trusts that peer."""
        if self.is_trusted:
            for element in ",".join(self.values(b"x-forwarded-for")).split(","):
                # As Caddy reads what proxies before it have written: some add a port, some a zone.
                parsed = hosts.parse_address(hosts.without_port(element).strip().partition("%")[0])
                if parsed is not None:
                    return hosts.address_text(parsed[0])
        return self.remote_host

    @property
    def scheme(self) -> str:
        """``https`` or ``http``: what the browser speaks with Caddy."""
        proto = self._last(b"x-forwarded-proto").rpartition(",")[2].strip(" \t")
        return "https" if proto.lower() == "https" else "http"

    @_once
    def protocol(self) -> str:
        """What the browser speaks with Caddy, such as ``HTTP/2.0``: from the line that Caddy adds to ``Via``."""
        version, _, name = self._last(b"via").partition(" ")
        if name == "Caddy" and version in _VIA:
            return _VIA[version]
        return HTTP_1_0 if self.head.version == "1.0" else HTTP_1_1

    @_once
    def uuid(self) -> str:
        """A random UUID, the same whenever it is asked for."""
        return str(uuid.uuid4())


_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


def _cookies(line: str) -> list[tuple[str, str]]:
    """The cookies of one Cookie field, as Go's net/http reads them: what is malformed is left out."""
    found = []
    for piece in line.split(";"):
        name, _, value = piece.strip(" \t").partition("=")
        name = name.strip(" \t")
        if len(value) > 1 and value[0] == value[-1] == '"':
            value = value[1:-1]
        if name and _TOKEN.issuperset(name) and all(" " <= char <= "~" and char not in '";\\' for char in value):
            found.append((name, value))
    return found
