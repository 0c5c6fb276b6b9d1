"""What a developer is shown in the place of an answer: the traceback, in the form that the request asks for."""

from __future__ import annotations

import json
from collections.abc import Iterable

from .answers import CODE_HEADER
from .phrases import PHRASES

BUILD_TYPE = "application/vnd.caddysnake.build"
"""A request that accepts nothing else asks which build of the code answers."""

_NO_SNIFF = (b"x-content-type-options", b"nosniff")
_NO_STORE = (b"cache-control", b"no-store")
_STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}"
    "h1{font-size:1.4rem}p{overflow-wrap:anywhere}"
    "pre{background:#8881;border-radius:.4rem;padding:1rem;overflow:auto;font-size:.85rem}"
)
_SCRIPT = """
let build = %s;
async function look() {
  try {
    const answer = await fetch(location.href, {headers: {accept: %s}, cache: "no-store"});
    if (answer.ok && answer.headers.get("content-type") === %s && await answer.text() !== build) location.reload();
  } catch {}
  setTimeout(look, 1000);
}
setTimeout(look, 1000);
"""


def traceback_page(
    status: int, code: str, title: str, trace: str, method: str = "GET", accept: bytes = b"", build: str = ""
) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and content: a page, or JSON or text for those who ``accept`` it and no page.

    The page is loaded again once another ``build`` than the one that has failed answers; empty: once any does.
    """
    if b"text/html" not in accept and b"json" in accept:
        kind = b"application/json"
        said = {"status": status, "code": code, "error": title, "traceback": trace}
        body = json.dumps(said, ensure_ascii=False) + "\n"
    elif b"text/html" not in accept and b"text/plain" in accept:
        kind, body = b"text/plain; charset=utf-8", f"{trace}\n"
    else:
        kind, body = b"text/html; charset=utf-8", _page(status, title, trace, method, build)
    headers = [(b"content-type", kind), _NO_SNIFF, _NO_STORE, (CODE_HEADER, code.encode())]
    return headers, body.encode("utf-8", "backslashreplace")


def accepted(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """What ``Accept`` says in ``headers``, whose names are in lower case."""
    return b",".join(value for name, value in headers if name == b"accept")


def _page(status: int, title: str, trace: str, method: str, build: str) -> str:
    heading = f"{status} {PHRASES.get(status, '')}"
    script, note = "", ""
    if method == "GET":  # nothing else can be asked for again
        kind = json.dumps(BUILD_TYPE)
        script = f"<script type=module>{_SCRIPT % (json.dumps(build), kind, kind)}</script>"
        note = "<p>This page reloads itself when the code has changed.</p>"
    return (
        '<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content="width=device-width">'
        f"<title>{_escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{heading}</h1><p>{_escape(title)}</p><pre>{_escape(trace)}</pre>{note}{script}</body></html>\n"
    )


def _escape(text: str) -> str:
    # html.escape would do; importing html brings its table of 2,231 entities along.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
