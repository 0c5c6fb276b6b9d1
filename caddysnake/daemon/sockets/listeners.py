"""The listeners that are open for apps, by what makes their addresses the same, and whose their connections are."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from ...channel.messages import TAKE_LISTENER_SHIFT, TAKE_TRUSTED
from ..system import mishaps
from ..system.kinship import peer_uid
from ..system.log.fields import FieldLog
from ..system.state import ListenerSnapshot, StateError
from .addresses import Address, UnixAddress, key_from_plain, key_of, plain_key
from .connections import BoundListener, Connection, Connections, ListenerOwner
from .listener import Listener, restore
from .opener import ListenerOpener
from .socket_file import ListenError, regive

log = FieldLog("caddysnake.daemon")


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
            what = "a user who runs apps connects to a listener: its X-Forwarded headers are not believed"
            log.warning(what, uid=uid, hint="if this is Caddy, let no app run as its user")
        return False

    def _is_trusted_proxy(self, sock: socket.socket) -> bool:
        try:
            peer = ip_address(sock.getpeername()[0].partition("%")[0])
        except (OSError, ValueError):
            return False
        peer = getattr(peer, "ipv4_mapped", None) or peer  # ::ffff:10.0.0.1, on a listener for both families
        return any(peer in network for network in self._proxies)


_SOCKETS_A_SWEEP = 20

Opened = dict[object, BoundListener]
"""Listeners that are open and nobody's yet, by the keys of their addresses."""


class Listeners:
    """Opened by ``open``, and somebody's from ``bind`` on."""

    def __init__(self, opener: ListenerOpener, connections: Connections, trust: Trust) -> None:
        self._opener = opener
        self._connections = connections
        self._trust = trust
        self._loop = asyncio.get_running_loop()
        self._bound: Opened = {}
        self.numbers = 0
        """How many numbers have been given."""
        self._looked_at = 0
        self._given: dict[object, UnixAddress] = {}
        """Which mode and owner the files of those that are bound have got."""
        self._former: list[tuple[Listener, UnixAddress]] = []
        """What to give them again, should those be given up that were opened last."""

    def __len__(self) -> int:
        return len(self._bound)

    def open(self, addresses: Iterable[Address]) -> Opened:
        """Open those that are not open yet; ``bind`` or ``give_up`` next. Raises ``ListenError``, and none is then.

        Files of those that are open get the mode and owner that their address has now.
        """
        opened: Opened = {}
        self._former = []
        try:
            for address in addresses:
                key = key_of(address)
                if key in self._bound:
                    self._renew_if_lost(self._bound[key].listener, address)
                    self._give(self._bound[key].listener, address)
                elif key not in opened:
                    self.numbers += 1
                    opened[key] = BoundListener(self._opener.open(address), self.numbers - 1)
        except BaseException:
            self.give_up(opened)
            raise
        self._opener.tell_rest()
        return opened

    def give_up(self, opened: Opened) -> None:
        """Close those of ``opened`` that are nobody's yet."""
        for key, bound in opened.items():
            if self._bound.get(key) is not bound:
                self._opener.give_up(bound.listener)
        given, self._former = self._former, []  # what is given back is noted there anew
        for listener, former in given:
            with contextlib.suppress(ListenError):
                self._give(listener, former)
        self._former = []

    def _give(self, listener: Listener, address: Address) -> None:
        """Raises ``ListenError``."""
        if not isinstance(address, UnixAddress) or self._given.get(address.path) == address:
            return
        former = regive(address.path, listener.sock, address.mode, address.owner, address.group)
        if former is not None:
            self._former.append((listener, self._given.get(address.path, former)))
            self._given[address.path] = address

    def find(self, address: Address, opened: Opened) -> BoundListener:
        """Return the listener at ``address``, one of ``opened`` or of those that are bound."""
        key = key_of(address)
        return opened.get(key) or self._bound[key]

    def bind(self, owners: Mapping[Address, ListenerOwner], opened: Opened) -> None:
        """Let connections at each address go to its owner, and close the listeners at other addresses."""
        wanted = {key_of(address): owner for address, owner in owners.items()}
        self._former = []
        self._given = {address.path: address for address in owners if isinstance(address, UnixAddress)}
        for key in [key for key in self._bound if key not in wanted]:
            bound = self._bound.pop(key)
            bound.app = None
            self._connections.shares.leave(bound)
            self._opener.give_up(bound.listener)
        for key, owner in wanted.items():
            if key not in self._bound:
                bound = self._bound[key] = opened[key]
                self._accept(bound)
                self._opener.keep(bound.listener)
            self._bound[key].app = owner

    def keys_of(self, owner: ListenerOwner) -> list[object]:
        """Return the keys of the addresses that are bound to ``owner``."""
        return [key for key, bound in self._bound.items() if bound.app is owner]

    def _accept(self, bound: BoundListener) -> None:
        shares = self._connections.shares
        shares.enter(bound)
        bound.listener.has_room = lambda: shares.has_room(bound)
        bound.listener.accept_descriptors(self._loop, self._acceptor(bound), lambda: self._hand_over(bound))

    @staticmethod
    def _hand_over(bound: BoundListener) -> None:
        gathered, bound.gathering = bound.gathering, None
        for hand_over in gathered or ():
            mishaps.or_else(lambda: None)(hand_over)()

    def _acceptor(self, bound: BoundListener) -> Callable[[int], None]:
        listener = bound.listener
        number = bound.number << TAKE_LISTENER_SHIFT
        believes, adopt = self._trust.believes, self._connections.adopt

        def accepted(fd: int) -> None:
            if bound.gathering is None:
                bound.gathering = []
            flags = TAKE_TRUSTED if believes(listener, fd) else 0
            assert bound.app is not None
            connection = Connection(fd, flags | number, bound.app, bound)
            adopt(connection)
            bound.app.place(connection)

        return accepted

    # -- looking after them -----------------------------------------------------------------------------------

    def _renew_if_lost(self, listener: Listener, address: Address) -> None:
        """Raises ``ListenError``."""
        if isinstance(address, UnixAddress) and listener.is_lost:
            self._opener.renew(listener, address.mode, address.owner, address.group)

    def sweep(self, addresses: Sequence[Address]) -> None:
        """Look at a few: somebody may have removed the file of one, or emptied its folder."""
        for _ in range(min(_SOCKETS_A_SWEEP, len(addresses))):
            self._looked_at = (self._looked_at + 1) % len(addresses)
            address = addresses[self._looked_at]
            bound = self._bound.get(key_of(address))
            if bound is not None:
                with contextlib.suppress(ListenError):  # it is told, and tried again
                    self._renew_if_lost(bound.listener, address)

    def trouble_of(self, address: Address) -> str:
        """Return why nobody can connect there; empty when they can, as far as is known."""
        bound = self._bound.get(key_of(address))
        return "" if bound is None else bound.listener.trouble

    def sources(self) -> list[tuple[int, Callable[[], None]]]:
        """Return descriptors, each with what to call when there is something to accept."""
        return [source for bound in self._bound.values() for source in bound.listener.sources()]

    def leave(self) -> None:
        """Accept no more in this process; see ``ListenerOpener.leave``."""
        for bound in self._bound.values():
            self._opener.leave(bound.listener)

    def close(self) -> None:
        """Give all of them up."""
        for bound in self._bound.values():
            self._opener.give_up(bound.listener)

    # -- going on in another image of the daemon --------------------------------------------------------------

    def snapshot(self, number_of: Callable[[ListenerOwner | None], int]) -> list[ListenerSnapshot]:
        """Return all that whoever goes on with them must know; ``number_of`` their owners."""
        found = []
        for key, bound in self._bound.items():
            saved = bound.listener.snapshot(bound.number, plain_key(key), number_of(bound.app))
            saved.origin = self._opener.origin(bound.listener)
            found.append(saved)
        return found

    def adopt(self, saved: Iterable[ListenerSnapshot]) -> None:
        """Have ``open`` find listeners of another image of the daemon, of which nothing else goes on."""
        for each in saved:
            self._opener.adopt(key_from_plain(each.key), self._resume(each))

    def restore(self, saved: Iterable[ListenerSnapshot], numbers: int) -> None:
        """Go on with those of another image of the daemon, which are nobody's until ``restore_owners``."""
        self.numbers = numbers
        for each in saved:
            self._bound[key_from_plain(each.key)] = BoundListener(self._resume(each), each.number)

    def _resume(self, saved: ListenerSnapshot) -> Listener:
        listener = restore(saved)
        self._opener.restore(listener, saved.origin)
        return listener

    def restore_owners(self, saved: Iterable[ListenerSnapshot], owner_of: Callable[[int], ListenerOwner]) -> None:
        """Accept on each again, for whom ``owner_of`` its number has. Raises ``StateError``."""
        for each, bound in zip(saved, self._bound.values(), strict=True):
            try:
                bound.app = owner_of(each.app)
            except KeyError:
                raise StateError(f"nobody serves {each.name}") from None
            self._accept(bound)

    def by_number(self) -> dict[int, BoundListener]:
        """Return them by the numbers that relays know."""
        return {bound.number: bound for bound in self._bound.values()}
