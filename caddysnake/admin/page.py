"""The live page: files of the package, with what a browser must know to do nothing else with them."""

from __future__ import annotations

from importlib import resources
from typing import Final, NamedTuple


class File(NamedTuple):
    """A file of the page."""

    name: str
    media_type: str


FILES: Final[dict[str, File]] = {
    "/": File("index.html", "text/html; charset=utf-8"),
    "/page.css": File("page.css", "text/css; charset=utf-8"),
    "/page.js": File("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": File("icon.svg", "image/svg+xml"),
}
"""By path. They hold nothing of the daemon's."""

HEADERS: Final = {
    # Nothing from elsewhere, nothing inline, no frame around it.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


def read(file: File) -> bytes:
    """The content of ``file``, from the package. Raises ``OSError``."""
    return (resources.files(__package__) / "live" / file.name).read_bytes()
