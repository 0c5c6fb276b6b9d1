"""A relay process: ``python -m caddysnake.relay.main '{"channel": 7}'``, started by the daemon.

``channel`` is the descriptor of its end of the channel. Nothing of an app is ever imported here.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import logging
import os
import select
import signal
import socket
import sys
import time

from ..channel.endpoint import ChannelClosed, ChannelError, Endpoint
from ..channel.messages import PROTOCOL_VERSION, Configure
from ..channel.settings import RelaySettings, unseal_relay
from ..channel.vitals import Page
from ..libraries import load
from ..placeholders.keys import UnsafeValue
from .router import Router
from .server import RelayServer

log = logging.getLogger("caddysnake.relay")

_CONFIGURE_TIMEOUT_S = 60.0
_PR_SET_DUMPABLE = 4
_UNSAFE_LOG_S = 60.0
_UNSAFE_MAX = 1024


def main(options: str) -> int:
    """Run the relay that ``options`` (JSON) describe to its end; the exit status: 0 drained, 1 never ready."""
    _enter_process()
    endpoint = Endpoint(socket.socket(fileno=json.loads(options)["channel"]))
    try:
        settings, page = _configure(endpoint)
        router = Router(settings.listeners, UnsafeValues().complain)
    except (ChannelClosed, ChannelError, TimeoutError, ValueError) as exc:
        print(f"caddysnake: relay without settings: {exc}", file=sys.stderr)
        return 1
    # What is here now stays; what a request leaves behind is gone when it ends, so collecting can wait.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(RelayServer(settings, endpoint, page, router).run())


def _enter_process() -> None:
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):  # a terminal's; the daemon says when it is over
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    logging.basicConfig(level=logging.INFO, format="relay: %(message)s", stream=sys.stderr)


def _configure(endpoint: Endpoint) -> tuple[RelaySettings, Page]:
    poller = select.poll()
    poller.register(endpoint.fileno(), select.POLLIN)
    poller.poll(_CONFIGURE_TIMEOUT_S * 1000)
    received = endpoint.receive()
    if received is None:
        raise TimeoutError("nothing came over the channel")
    message, descriptors = received
    try:
        if not isinstance(message, Configure):
            raise ChannelError(f"{type(message).__name__} before Configure")
        if message.version != PROTOCOL_VERSION:
            raise ChannelError(f"channel version {message.version} instead of {PROTOCOL_VERSION}")
        return unseal_relay(descriptors[0]), Page(descriptors[1])
    finally:
        for fd in descriptors:
            os.close(fd)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        loop: asyncio.AbstractEventLoop = load("uvloop").new_event_loop()
    except ImportError:
        return asyncio.new_event_loop()
    return loop


class UnsafeValues:
    """Values of requests that must not be used: each is worth one line in the log a minute."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], float] = {}

    def complain(self, unsafe: UnsafeValue) -> None:
        now = time.monotonic()
        key = (unsafe.name, unsafe.value[:80])
        if now - self._told.get(key, -_UNSAFE_LOG_S) < _UNSAFE_LOG_S:
            return
        if len(self._told) >= _UNSAFE_MAX:
            oldest = next(iter(self._told))
            if now - self._told[oldest] < _UNSAFE_LOG_S:
                return  # somebody is trying values out: that is told by now
        self._told.pop(key, None)
        self._told[key] = now
        if len(self._told) > _UNSAFE_MAX:
            del self._told[next(iter(self._told))]
        log.warning("404: %s", ascii(str(unsafe)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
