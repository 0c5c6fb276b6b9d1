"""Whose X-Forwarded headers are believed: whoever connects is Caddy, unless it may be an app, or comes over TCP."""

from __future__ import annotations

import logging
import socket
from collections.abc import Collection, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from ..system.kinship import peer_uid
from .listener import Listener

log = logging.getLogger("caddysnake.daemon")


class Trust:
    """Decides of each connection whether its headers are believed. ``users``: those that run apps, as of now."""

    def __init__(self, users: Collection[int]) -> None:
        self._users = users
        self._proxies: list[IPv4Network | IPv6Network] = []
        self.disbelieved: set[int] = set()
        """Users of whom that has been told."""

    def set_proxies(self, networks: Iterable[str]) -> None:
        """Believe over TCP who connects from one of ``networks``."""
        self._proxies = [ip_network(text, strict=False) for text in networks]

    def believes(self, listener: Listener, fd: int) -> bool:
        """Return whether the headers of the connection ``fd``, just accepted by ``listener``, are believed."""
        is_local = listener.is_local
        if not (self._users if is_local else self._proxies):
            return is_local
        sock = listener.socket_of(fd)
        try:
            return self._is_trusted_user(sock) if is_local else self._is_trusted_proxy(sock)
        finally:
            sock.detach()

    def _is_trusted_user(self, sock: socket.socket) -> bool:
        """Whoever connects over a unix socket is Caddy, unless it is a user who runs apps: that may be an app."""
        uid = peer_uid(sock)
        if uid not in self._users:
            return True
        if uid not in self.disbelieved:
            self.disbelieved.add(uid)
            fields = {"uid": uid, "hint": "if this is Caddy, let no app run as its user"}
            log.warning("a user who runs apps connects to a listener: its X-Forwarded headers are not believed",
                        extra={"fields": fields})  # fmt: skip
        return False

    def _is_trusted_proxy(self, sock: socket.socket) -> bool:
        try:
            peer = ip_address(sock.getpeername()[0].partition("%")[0])
        except (OSError, ValueError):
            return False
        peer = getattr(peer, "ipv4_mapped", None) or peer  # ::ffff:10.0.0.1, on a listener for both families
        return any(peer in network for network in self._proxies)
