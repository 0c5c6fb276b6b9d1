"""Paths and queries of request targets, taken apart as Go's net/url and Caddy do.

Raw bytes are what came over the wire; text is bytes decoded from UTF-8 with what is not UTF-8 kept as lone surrogates
(``surrogateescape``), so that nothing is lost on the way to a file name or back to the wire.
"""

from __future__ import annotations

import posixpath
import re

_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_SURROGATE = re.compile("[\udc80-\udcff]")

_UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~"
# What Go leaves alone when it escapes a path, and what it takes for escaped already.
_PATH_KEPT = _UNRESERVED + b"$&+,/:;=@"
_PATH_VALID = _PATH_KEPT + b"!'()*[]%"
_PATH_ESCAPED = [chr(byte) if byte in _PATH_KEPT else f"%{byte:02X}" for byte in range(256)]
_FORM_ESCAPED = [chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in range(256)]
_FORM_ESCAPED[0x20] = "+"

_NO_MERGE = "\udcff"
"""Stands between two slashes that must not become one. It is what a byte becomes that no UTF-8 has."""

Pairs = dict[str, list[str]]


def text(raw: bytes) -> str:
    """*raw* as text."""
    return raw.decode("utf-8", "surrogateescape")


def unescape(raw: bytes) -> bytes:
    """*raw* with its percent-escapes decoded. What only looks like one stays; Caddy would have refused it."""
    if b"%" not in raw:
        return raw
    return _ESCAPE.sub(lambda match: bytes((int(match[1], 16),)), raw)


def escaped_path(raw: bytes) -> str:
    """The path as Go writes it: *raw* when that is a possible spelling, else the decoded path escaped anew."""
    if raw.translate(None, _PATH_VALID) or _BAD_ESCAPE.search(raw):
        return escape_path(unescape(raw))
    return raw.decode("ascii")


def escape_path(decoded: bytes) -> str:
    """A decoded path, escaped."""
    return "".join([_PATH_ESCAPED[byte] for byte in decoded])


def escape_form(value: str) -> str:
    """*value* as a form would send it: a space is ``+``, a slash ``%2F``."""
    return "".join([_FORM_ESCAPED[byte] for byte in value.encode("utf-8", "surrogateescape")])


def clean(path: str, *, merge_slashes: bool = True) -> str:
    """*path* without ``.``, ``..`` and, unless told otherwise, doubled slashes. A slash at the end stays, and an empty
    path becomes ``.``.

    Matching looks at this, so that no odd spelling slips past a matcher; what is forwarded stays as it came.
    """
    if not merge_slashes:
        while "//" in path:
            path = path.replace("//", f"/{_NO_MERGE}/")
        return clean(path).replace(_NO_MERGE, "")
    if path[:1] == "/" and "/." not in path and "//" not in path:
        return path
    cleaned = posixpath.normpath(path)
    if cleaned.startswith("//"):  # which means something to POSIX, and so to posixpath
        cleaned = cleaned[1:]
    if path[-1:] == "/" and cleaned != "/":
        cleaned += "/"
    return cleaned


def lower(path: str) -> str:
    """*path* in lower case, character by character as Go does it: its length in characters never changes."""
    if path.isascii():
        return path.lower()
    # U+0130 is the only character whose lower case Python writes as two. What is not UTF-8 is U+FFFD to Go.
    return "".join(["i" if char == "\u0130" else char.lower() for char in _SURROGATE.sub("\ufffd", path)])


def split(path: str) -> tuple[str, str]:
    """Folder and file: up to and including the last slash, and what follows it."""
    at = path.rfind("/") + 1
    return path[:at], path[at:]


def extension(path: str) -> str:
    """From the last dot of the last element on; empty when it has none."""
    name = path[path.rfind("/") + 1 :]
    at = name.rfind(".")
    return name[at:] if at >= 0 else ""


def base(path: str) -> str:
    """The last element that is not empty; ``/`` when there is none, ``.`` of an empty path."""
    if not path:
        return "."
    stripped = path.rstrip("/")
    return stripped[stripped.rfind("/") + 1 :] if stripped else "/"


def part(path: str, index: int) -> str:
    """The element *index* of *path*, counted from 0 after a leading slash; empty when there are not so many."""
    parts = path.removeprefix("/").split("/")
    return parts[index] if index < len(parts) else ""


def pairs(query: bytes) -> tuple[Pairs, bool]:
    """Names of *query* with their values, and whether all of it could be read: pairs stand between ``&``."""
    found: Pairs = {}
    whole = True
    for pair in query.split(b"&"):
        if not pair:
            continue
        if b";" in pair or _BAD_ESCAPE.search(pair):
            whole = False
            continue
        name, _, value = pair.partition(b"=")
        found.setdefault(_form_value(name), []).append(_form_value(value))
    return found, whole


def _form_value(raw: bytes) -> str:
    return text(unescape(raw.replace(b"+", b" ")))


def canonical(raw: bytes) -> bytes:
    """The escaped path *raw* with a slash in front and no ``.`` or ``..``, however those are escaped.

    Where that changes nothing but the slash, it is spelled as before; else all that can be is decoded.
    """
    decoded = unescape(raw)
    cleaned = clean(escape_path(decoded if decoded[:1] == b"/" else b"/" + decoded), merge_slashes=False).encode(
        "ascii"
    )
    spelled = raw if raw[:1] == b"/" else b"/" + raw
    return spelled if unescape(spelled) == unescape(cleaned) else cleaned


def strip_prefix(path: str, prefix: str) -> str | None:
    """What of the escaped and cleaned *path* follows *prefix*; ``None`` when it does not begin so.

    Compared without regard to case, decoded character by decoded character, but where *prefix* holds an escape itself.
    What is beyond ASCII must be escaped in *prefix* to be found, as it is in *path*.
    """
    at = 0
    for wanted in prefix.encode("utf-8", "surrogateescape"):
        if at >= len(path):
            return None
        if path[at] == "%" and wanted != 0x25 and at + 3 <= len(path):
            found, at = int(path[at + 1 : at + 3], 16), at + 3
        else:
            found, at = ord(path[at]), at + 1
        if wanted >= 0x80 or chr(found).lower() != chr(wanted).lower():
            return None
    return path[at:]
