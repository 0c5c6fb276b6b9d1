"""The live page: files of the package, with what a browser must know to do nothing else with them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_LIVE = Path(__file__).with_name("live")

FILES: Final[dict[str, tuple[bytes, str]]] = {
    "/": ((_LIVE / "index.html").read_bytes(), "text/html; charset=utf-8"),
    "/page.css": ((_LIVE / "page.css").read_bytes(), "text/css; charset=utf-8"),
    "/page.js": ((_LIVE / "page.js").read_bytes(), "text/javascript; charset=utf-8"),
    "/icon.svg": ((_LIVE / "icon.svg").read_bytes(), "image/svg+xml"),
}
"""Content and media type, by path: as they were when this was imported, as the code is. They hold nothing of the
daemon's."""

HEADERS: Final = {
    # Nothing from elsewhere, nothing inline, no frame around it.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
