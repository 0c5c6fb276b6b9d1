"""The small grammars inside arguments: durations, sizes, counts, ``module:variable``, socket addresses.

Each function takes the text of one token and returns a plain value, or raises :class:`InvalidValue`, which says what
is wrong and what would be right but not where: the caller knows the token. Durations leave here as seconds, sizes as
bytes; nothing further in knows that "30s" was ever written.
"""

from __future__ import annotations

import ipaddress
import math
import re
from decimal import Decimal
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from ...caddyfile.errors import Hinted
from ...caddyfile.hosts import split_host_port, split_port

MAX_UNIX_PATH_BYTES: Final = 107
"""``sun_path`` holds 108 bytes on Linux, the last one a NUL (unix(7))."""

DEFAULT_SOCKET_MODE: Final = 0o660

_MAX_WORKERS: Final = 1024

_NANOSECONDS: Final = {
    "ns": 1,
    "us": 10**3,
    "\u00b5s": 10**3,  # the micro sign
    "\u03bcs": 10**3,  # the Greek letter mu
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 86400 * 10**9,
}
_DURATION_PART = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?P<unit>ns|us|\u00b5s|\u03bcs|ms|s|m|h|d)")
_MAX_NANOSECONDS: Final = 2**63 - 1
_ENDLESS: Final = frozenset({"-1", "forever", "none", "inf", "indefinite"})

_SIZE = re.compile(r"(?P<number>[0-9.,]*)\s*(?P<unit>.*)", re.DOTALL)
_BYTES: Final = {
    "": 1,
    "b": 1,
    **{f"{letter}{end}": 1000**power for power, letter in enumerate("kmgtpe", 1) for end in ("", "b")},
    **{f"{letter}{end}": 1024**power for power, letter in enumerate("kmgtpe", 1) for end in ("i", "ib")},
}

_LEAST_MEMORY_BYTES: Final = 1_000_000

_PERCENT = re.compile(r"([0-9]{1,6}(?:\.([0-9]{1,3}))?)%")

_VARIABLE = re.compile(r"(?P<path>[^\W\d]\w*(?:\.[^\W\d]\w*)*)(?P<call>\(\))?")
_MODULE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")

_PLACEHOLDER = re.compile(r"(?<!\\)\{([^{}]*)(?<!\\)\}")


class InvalidValue(Hinted):
    """A value that cannot be read."""


class ModuleVariable(NamedTuple):
    """``variable`` is an attribute path, or a factory call: ``app``, ``site.app``, ``make_app()``."""

    module: str
    variable: str

    def __str__(self) -> str:
        return f"{self.module}:{self.variable}"


class SocketAddress(NamedTuple):
    """Where something listens, as Caddy writes network addresses.

    ``unix``: ``path``, with ``mode``, ``owner`` and ``group`` (``None``: the daemon's default). ``tcp``, ``tcp4`` and
    ``tcp6``: ``host`` (empty: every interface) and ``port`` (``None`` where the text had none). ``fd``: ``fd``.
    """

    network: str
    path: str = ""
    host: str = ""
    port: int | None = None
    fd: int | None = None
    mode: int | None = None
    owner: str | None = None
    group: str | None = None

    @property
    def name(self) -> str:
        """The address alone, without mode and owner: what makes two listeners the same."""
        if self.network == "unix":
            return f"unix/{self.path}"
        if self.network == "fd":
            return f"fd/{self.fd}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.network}/{host}" + ("" if self.port is None else f":{self.port}")

    def __str__(self) -> str:
        text = self.name
        if self.mode is not None or self.owner is not None or self.group is not None:
            text += "|" + ("" if self.mode is None else f"{self.mode:04o}")
        if self.owner is not None or self.group is not None:
            text += f"|{self.owner or ''}" + ("" if self.group is None else f":{self.group}")
        return text


def duration(text: str) -> float:
    """Seconds of ``1h30m``, ``500ms`` or ``1d``; may be negative. Go's ``time.ParseDuration``, and Caddy's days."""
    hint = "write a number with a unit, such as 500ms, 30s, 1h30m or 1d"
    sign, rest = (-1, text[1:]) if text[:1] == "-" else (1, text.removeprefix("+"))
    if rest == "0":
        return 0.0
    nanoseconds = 0
    position = 0
    while match := _DURATION_PART.match(rest, position):
        nanoseconds += int(Decimal(match["number"].rstrip(".")) * _NANOSECONDS[match["unit"]])
        position = match.end()
        if nanoseconds > _MAX_NANOSECONDS:
            raise InvalidValue(f"duration {text!r} is too long", "the longest is about 292 years")
    if not rest or position != len(rest):
        raise InvalidValue(f"{text!r} is not a duration", hint)
    return sign * nanoseconds / 10**9


def positive_duration(text: str) -> float:
    """Seconds, more than none."""
    seconds = duration(text)
    if seconds <= 0:
        raise InvalidValue(f"duration {text!r} must be longer than nothing", "write one such as 30s")
    return seconds


def duration_or_endless(text: str) -> float | None:
    """Seconds, or ``None`` for ``forever``, ``none``, ``inf``, ``indefinite`` or ``-1``."""
    return None if text.lower() in _ENDLESS else positive_duration(text)


def duration_or_off(text: str) -> float | None:
    """Seconds, or ``None`` for ``off``."""
    return None if text == "off" else positive_duration(text)


def size(text: str) -> int:
    """Bytes of a size such as ``10MB`` (decimal), ``1GiB`` (binary) or a bare number of bytes.

    The grammar is that of go-humanize, which Caddy uses: units in any case, commas between digits ignored, fractions
    allowed and cut down to whole bytes.
    """
    hint = "write a number of bytes, or one with a unit: 10MB (decimal), 10MiB (binary)"
    match = _SIZE.fullmatch(text)
    assert match is not None
    number, unit = match["number"].replace(",", ""), match["unit"].strip().lower()
    try:
        count = float(number)
    except ValueError:
        raise InvalidValue(f"{text!r} is not a size", hint) from None
    if unit not in _BYTES:
        raise InvalidValue(f"{match['unit'].strip()!r} is not a unit of size", hint)
    total = count * _BYTES[unit]
    if not math.isfinite(total) or total >= 2**64:
        raise InvalidValue(f"size {text!r} is too large", hint)
    return int(total)


def memory_size(text: str) -> int:
    """Bytes of memory that a Python could run in. A bare number that is too small for that lacks its unit."""
    total = positive_size(text)
    if total < _LEAST_MEMORY_BYTES:
        number = text.strip() if text.strip().isdecimal() else None
        hint = f"say the unit: {number}MB" if number else "write 1MB or more"
        raise InvalidValue(f"{total} bytes are too few for a process", hint)
    return total


def positive_size(text: str) -> int:
    """Bytes, at least one."""
    total = size(text)
    if total < 1:
        raise InvalidValue(f"size {text!r} must be at least one byte")
    return total


def percent(text: str, least: float, most: float, places: int = 0) -> float:
    """``50%``: a number of hundredths from *least* to *most*, with up to so many decimal *places*."""
    found = _PERCENT.fullmatch(text)
    if found is None or len(found[2] or "") > places or not least <= float(found[1]) <= most:
        raise InvalidValue(f"{text!r} is no share", f"write a percentage from {least:g}% to {most:g}%")
    return float(found[1])


def on_off(text: str) -> bool:
    """``on`` or ``off``."""
    return choice(text, ("on", "off")) == "on"


def choice(text: str, allowed: tuple[str, ...]) -> str:
    """*text* when it is one of *allowed*."""
    if text not in allowed:
        raise InvalidValue(f"{text!r} is not one of {', '.join(allowed)}", f"write {' or '.join(allowed)}")
    return text


def like(text: str, pattern: re.Pattern[str], what: str, hint: str) -> str:
    """*text* when it is *what*, as *pattern* knows it."""
    if not pattern.fullmatch(text):
        raise InvalidValue(f"{text!r} is not {what}", hint)
    return text


def count(text: str, least: int = 1, most: int = 2**31 - 1) -> int:
    """A whole number from *least* to *most*."""
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise InvalidValue(f"{text!r} is not a whole number", f"write a number from {least} on")
    number = int(text)
    if number < least:
        raise InvalidValue(f"{number} is too few", f"write {least} or more")
    if number > most:
        raise InvalidValue(f"{number} is too many", f"write {most} or fewer")
    return number


def workers(text: str) -> int | None:
    """A number of workers, or ``None`` for ``auto``, which 0 means too: one for each core."""
    if text == "auto":
        return None
    return count(text, least=0, most=_MAX_WORKERS) or None


def store_url(text: str) -> str:
    """The address of a Valkey or Redis."""
    hint = "write one such as redis://host:6379/0 or unix:///run/valkey.sock"
    parts = urlsplit(text)
    try:
        is_good = parts.port is None or parts.port > 0
    except ValueError:
        is_good = False
    if parts.scheme in ("redis", "rediss", "valkey", "valkeys") and parts.hostname and is_good:
        return text
    if parts.scheme == "unix" and parts.path.startswith("/") and not parts.netloc:
        return text
    raise InvalidValue(f"{text!r} is not the address of a Valkey or Redis", hint)


def module_variable(text: str) -> ModuleVariable:
    """``module:variable``. Parts that hold placeholders are not looked at here."""
    hint = "write module:variable, such as main:app, pkg.wsgi:site.app or main:make_app()"
    if placeholders(text):
        module, colon, variable = _split_outside_braces(text)
    else:
        module, colon, variable = text.partition(":")
    if not colon:
        raise InvalidValue(f"{text!r} names a module but no variable in it", hint)
    if not module or not variable:
        raise InvalidValue(f"{text!r} is not module:variable", hint)
    if not placeholders(module) and not _MODULE.fullmatch(module):
        if "/" in module:
            dotted = module.removesuffix(".py").strip("./").replace("/", ".")
            raise InvalidValue(f"{module!r} is a path, not a module", f"write {dotted}:{variable}")
        raise InvalidValue(f"{module!r} is not the name of a module", hint)
    if not placeholders(variable) and not _VARIABLE.fullmatch(variable):
        if "(" in variable:
            hint = "a factory is called without arguments: main:make_app()"
        raise InvalidValue(f"{variable!r} is not a variable, an attribute path or a factory call", hint)
    return ModuleVariable(module, variable)


def _split_outside_braces(text: str) -> tuple[str, str, str]:
    depth = 0
    for position, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if char == ":" and depth == 0:
            return text[:position], ":", text[position + 1 :]
    return text, "", ""


def module_name(text: str) -> str:
    """A dotted module name."""
    return like(text, _MODULE, "the name of a module", "write a dotted one, such as django or app.settings")


def placeholders(text: str) -> tuple[str, ...]:
    """The names of the placeholders in *text*, in order, without their braces. ``\\{`` and ``\\}`` are literal."""
    return tuple(_PLACEHOLDER.findall(text))


def unescaped(text: str) -> str:
    """*text* without the backslashes that kept braces literal."""
    return text.replace("\\{", "{").replace("\\}", "}")


def socket_address(text: str) -> SocketAddress:
    """A socket in Caddy's network notation.

    ``unix//run/x.sock`` (absolute), ``unix/x.sock`` (relative), either with ``|0660`` for the mode and, an extension of
    ours, another ``|owner:group``; ``tcp/127.0.0.1:9000``, ``127.0.0.1:9000``, ``:9000``; ``fd/3`` for an inherited
    descriptor. A host without a port is accepted, with ``port`` None: it means something to Caddy, but opens nothing.
    """
    network, slash, rest = text.partition("/")
    if not slash:
        network, rest = "tcp", text
    match network:
        case "unix":
            return _unix_address(text, rest)
        case "tcp" | "tcp4" | "tcp6":
            return _tcp_address(text, network, rest)
        case "fd":
            if not re.fullmatch(r"[0-9]{1,9}", rest):
                raise InvalidValue(f"{text!r} is not a descriptor", "write its number, such as fd/3")
            return SocketAddress("fd", fd=int(rest))
        case _:
            hint = "write unix//run/app.sock, tcp/127.0.0.1:9000 or fd/3"
            raise InvalidValue(f"network {network!r} of {text!r} cannot be listened on here", hint)


def _unix_address(text: str, rest: str) -> SocketAddress:
    path, bar, permissions = rest.partition("|")
    mode_text, second_bar, owners = permissions.partition("|")
    if not path:
        raise InvalidValue(f"{text!r} has no path", "write unix//run/app.sock")
    if path.startswith("@"):
        why = "which has no owner or mode: anyone on this machine could connect"
        raise InvalidValue(f"{text!r} is an abstract socket, {why}", "write a path, such as unix//run/app.sock")
    if path.endswith("/"):
        raise InvalidValue(f"{text!r} is a folder, not a socket", f"write unix/{path}app.sock")
    if "\0" in path:
        raise InvalidValue(f"{text!r} holds a NUL character")
    check_unix_path(path)
    mode = socket_mode(mode_text) if mode_text or (bar and not second_bar) else None
    owner, colon, group = owners.partition(":")
    if second_bar and not (owner or group):
        raise InvalidValue(f"{text!r} names no owner after its second |", "write |0660|owner:group or |0660|:group")
    if colon and not group:
        raise InvalidValue(f"{text!r} names no group after the colon", "write |0660|owner:group or |0660|:group")
    return SocketAddress("unix", path=path, mode=mode, owner=owner or None, group=group or None)


def check_unix_path(path: str) -> None:
    """Raise ``InvalidValue`` when *path* does not fit into a socket address."""
    length = len(path.encode("utf-8", "surrogateescape"))
    if length > MAX_UNIX_PATH_BYTES:
        message = f"socket path {path!r} has {length} bytes, and the kernel takes at most {MAX_UNIX_PATH_BYTES}"
        raise InvalidValue(message, "use a shorter folder, such as /run/caddysnake")


def socket_mode(text: str) -> int:
    """Permission bits in octal. The owner must be able to write: that is the right to connect (unix(7))."""
    if not re.fullmatch(r"0*[0-7]{1,3}", text):
        raise InvalidValue(f"{text!r} is not a file mode", "write it in octal, such as 0660")
    mode = int(text, 8)
    if not mode & 0o200:
        raise InvalidValue(f"with mode {mode:04o} not even the owner may connect", "write 0660, 0600 or 0666")
    return mode


def _tcp_address(text: str, network: str, rest: str) -> SocketAddress:
    host, port = split_host_port(rest) or (split_port(rest)[0], None)
    if not host and port is None:
        raise InvalidValue("an address may not be empty", "write one such as unix//run/app.sock or tcp/127.0.0.1:9000")
    if "/" in host or "|" in (port or ""):
        raise InvalidValue(f"{text!r} is not an address", "write tcp/127.0.0.1:9000; only unix sockets have a mode")
    if port is None:
        return SocketAddress(network, host=_host(text, host))
    if re.fullmatch(r"[0-9]+-[0-9]+", port):
        raise InvalidValue(f"{text!r} is a range of ports", "write one port")
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise InvalidValue(f"{port!r} is not a port", "write a number from 1 to 65535")
    return SocketAddress(network, host=_host(text, host), port=int(port))


def _host(text: str, host: str) -> str:
    if ":" in host:
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError:
            raise InvalidValue(f"{host!r} in {text!r} is not an IP address") from None
    return host
