"""A request to the admin API, as its handlers see it, and which of them it is for. Pure."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs, quote, unquote

from ..http1.heads import RequestHead
from .connection import Answer, HttpConnection
from .errors import ApiError

__all__ = ["Answer", "Handler", "Request", "Routes"]


class Request:
    """``connection`` has its body, and takes an answer that goes on."""

    def __init__(self, head: RequestHead, connection: HttpConnection) -> None:
        self.connection = connection
        self.method = head.method
        self.target = head.target.decode("ascii", "backslashreplace")
        self.path = unquote(head.path.decode("ascii"))
        self.raw_path = "/".join(quote(unquote(part), safe="") for part in head.path.decode("ascii").split("/"))
        """Each character that may be percent-encoded is: of two that mean the same, both are."""
        self.queries = parse_qs(head.query.decode("utf-8", "replace"), keep_blank_values=True)
        self.query = {name: values[0] for name, values in self.queries.items()}
        self.headers = {name.decode(): value.decode("latin-1") for name, value in reversed(head.headers)}
        """By their names in lower case; of those that are repeated, the first."""
        self.found: dict[str, str] = {}
        """What stands in its path for the names of an endpoint's."""
        self.caller = "?"
        """For the log."""

    @property
    def content_type(self) -> str:
        """The media type of its body, without parameters."""
        said = self.headers.get("content-type") or "application/octet-stream"
        return said.partition(";")[0].strip().lower()


Handler = Callable[[Request], Awaitable[Answer]]


class Routes:
    """Handlers by method and path, in the order in which they are tried. A ``{key}`` of a path may hold slashes; GET
    answers HEAD."""

    def __init__(self) -> None:
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = []

    def add(self, method: str, path: str, handler: Handler) -> None:
        """``path`` is as OpenAPI writes it."""
        pattern = path.replace(".", r"\.").replace("{key}", "(?P<key>.+)")
        self._routes.append((method, re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", pattern)), handler))

    def find(self, request: Request) -> Handler:
        """The handler of ``request``, which is told what stands for names. Raises ``ApiError``."""
        allowed: set[str] = set()
        for method, pattern, handler in self._routes:
            if match := pattern.fullmatch(request.raw_path):
                methods = {"GET", "HEAD"} if method == "GET" else {method}
                if request.method in methods:
                    request.found = {name: unquote(text) for name, text in match.groupdict().items()}
                    return handler
                allowed |= methods
        if not allowed:
            raise ApiError("not-found", f"there is no {request.path[:200]}", "GET /openapi.json lists all")
        names = ", ".join(sorted(allowed))
        error = ApiError("method-not-allowed", f"{request.path[:200]} knows no {request.method}", f"allowed: {names}")
        error.headers["Allow"] = names
        raise error
