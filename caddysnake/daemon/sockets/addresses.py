"""Where a listener listens. Pure."""

from __future__ import annotations

from typing import NamedTuple


class UnixAddress(NamedTuple):
    """A unix socket to bind. ``mode``: permission bits; None, also of owner and group: as the system makes it."""

    path: str
    mode: int | None
    owner: str | None
    group: str | None


class TcpAddress(NamedTuple):
    """A TCP socket to bind. ``host``: an IP address or a name; empty: every address of this machine."""

    host: str
    port: int


class FdAddress(NamedTuple):
    """A listening socket that was inherited: a descriptor's number."""

    fd: int


Address = UnixAddress | TcpAddress | FdAddress


def key_of(address: Address) -> object:
    """What makes two addresses the same socket, whatever its mode and owner."""
    if isinstance(address, UnixAddress):
        return address.path
    return address


def address_name(address: Address) -> str:
    """As it is written in a Caddyfile: ``unix//run/x.sock``."""
    if isinstance(address, UnixAddress):
        return f"unix/{address.path}"
    if isinstance(address, FdAddress):
        return f"fd/{address.fd}"
    return f"tcp/[{address.host}]:{address.port}" if ":" in address.host else f"tcp/{address.host}:{address.port}"


def plain_key(key: object) -> list[str | int]:
    """Return ``key``, which ``key_of`` gave, in a form for JSON."""
    if isinstance(key, FdAddress):
        return ["fd", key.fd]
    if isinstance(key, TcpAddress):
        return ["tcp", key.host, key.port]
    return ["unix", str(key)]


def key_from_plain(plain: list[str | int]) -> object:
    """Return the key of which ``plain_key`` made ``plain``."""
    if plain[0] == "tcp":
        return TcpAddress(str(plain[1]), int(plain[2]))
    return FdAddress(int(plain[1])) if plain[0] == "fd" else plain[1]
