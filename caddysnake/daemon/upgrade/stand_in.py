"""Who serves while the daemon's next image loads: a fork of the last one, with all that it knows.

Importing a new version takes a moment, in which connections would wait to be accepted, and those that a worker has
given back, or a relay has asked for, would not get another. The fork goes on with just that: its event loop stands
still, so that timers and tasks never come to their turn, nothing is started, ended or reloaded, and what it cannot
answer waits. Asked for it, it tells what has become of the state, with the connections that have come, and that is its
end.
"""

from __future__ import annotations

import array
import asyncio
import logging
import os
import select
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ... import files
from ..system.sealed import seal, unseal
from ..system.state import DaemonSnapshot, StateError

if TYPE_CHECKING:
    from ..supervisor.running import Running

log = logging.getLogger("caddysnake.daemon")

_LONGEST_S = 120.0
"""An image that has not asked after so long will not."""
_TURN_S = 0.01
_ANSWER_S = 10.0
_BATCH = 200  # SCM_MAX_FD is 253
_ASK = b"state"
_LAST = b"last"


class StandIn:
    """Made before the fork and run in it, over its copy of ``running``. ``state()``: what the next image is told."""

    def __init__(self, control: socket.socket, running: Running, state: Callable[[], DaemonSnapshot]) -> None:
        self._loop = asyncio.get_running_loop()
        self._control = control
        self._running = running
        self._state = state
        self._calls = dict(running.sources())
        self._known = set(running.connections)
        """Connections that the next image has."""

    def run(self) -> None:
        """Until the next image asks, or has ended."""
        # After a fork no loop counts as running. Who sets a timer to look again later must not fail for that.
        asyncio._set_running_loop(self._loop)
        try:
            self._serve()
        except Exception:
            log.exception("stand-in failed")

    def _serve(self) -> None:
        epoll = self._watching()
        until = time.monotonic() + _LONGEST_S
        while time.monotonic() < until:
            for fd, _ in epoll.poll(_TURN_S):
                if fd == self._control.fileno():
                    self._answer()
                    return
                if not self._call(fd):
                    # The next image has it open, too: it would be told of for ever, and cannot be taken out any more.
                    del self._calls[fd]
                    epoll.close()
                    epoll = self._watching()
                    break
            self._running.serve_waiting()

    def _watching(self) -> select.epoll:
        self._calls = {fd: call for fd, call in self._calls.items() if _is_open(fd)}
        epoll = select.epoll()
        for fd in (self._control.fileno(), *self._calls):
            epoll.register(fd, select.EPOLLIN)
        return epoll

    def _call(self, fd: int) -> bool:
        """Whether it is to be watched any more."""
        try:
            self._calls[fd]()
        except Exception:
            log.exception("stand-in cannot serve a descriptor")
            return False
        return _is_open(fd)

    def _answer(self) -> None:
        if self._control.recv(64) != _ASK:
            return  # the next image has ended
        arrived = [each for each in self._running.connections if each not in self._known]
        state = self._state()
        state.arrived = [connection.fd for connection in arrived]
        for start in range(0, len(arrived), _BATCH):
            socket.send_fds(self._control, [b"more"], state.arrived[start : start + _BATCH])
        socket.send_fds(self._control, [_LAST], [seal(state)])


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def take_over(control: socket.socket, before: DaemonSnapshot) -> DaemonSnapshot:
    """Ask the stand-in for the state, ``before`` when it began; close what is left. Raises ``StateError``."""
    control.settimeout(_ANSWER_S)
    received: list[int] = []
    try:
        control.send(_ASK)
        text = b""
        while text != _LAST:
            text, ancillary, flags, _ = control.recvmsg(
                64, socket.CMSG_SPACE(_BATCH * array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
            )
            for _, _, data in ancillary:
                numbers = array.array("i")
                numbers.frombytes(data)
                received.extend(numbers)
            if not text or flags & socket.MSG_CTRUNC:
                raise StateError("the stand-in has ended, or descriptors are lost")
        with files.closing(received.pop()) as state_fd:
            state = unseal(state_fd)
        if len(received) != len(state.arrived):
            raise StateError(f"the stand-in told of {len(state.arrived)} connections and gave {len(received)}")
    except (OSError, StateError, IndexError) as exc:
        for fd in received:
            os.close(fd)
        raise exc if isinstance(exc, StateError) else StateError(f"the stand-in does not answer: {exc}") from None
    _renumber(state, dict(zip(state.arrived, received, strict=True)))
    for fd in before.descriptors() - state.descriptors():
        os.close(fd)
    return state


def _renumber(state: DaemonSnapshot, numbers: dict[int, int]) -> None:
    """Connections that have come have other numbers here."""
    for connection in state.connections:
        connection.fd = numbers.get(connection.fd, connection.fd)
    for app in state.all_apps():
        app.waiting = [numbers.get(fd, fd) for fd in app.waiting]
