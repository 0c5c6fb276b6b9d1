"""A relay process: ``python -m caddysnake.relay.main '{"channel": 7}'``, started by the daemon.

``channel`` is the descriptor of its end of the channel. One that stands by for another is given ``control`` instead, a
socket over which the channel comes when it is needed. Nothing of an app is ever imported here.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import signal
import socket
import sys
import time
from collections.abc import Callable

from ..channel.configuring import await_configuration, redirect
from ..channel.endpoint import ChannelClosed, ChannelError, Endpoint
from ..channel.records import say
from ..channel.settings import unseal_relay
from ..channel.throttle import Throttle
from ..libraries import load
from ..matchers.router import Router
from ..placeholders.keys import UnsafeValue
from .server import RelayServer

_PR_SET_DUMPABLE = 4
_REFUSED_MAX, _REFUSED_CHARACTERS = 1024, 256


def main(options: str) -> int:
    """Run the relay that ``options`` (JSON) describe to its end; the exit status: 0 drained, 1 never ready."""
    _enter_process()
    channel = _channel(json.loads(options))
    if channel is None:
        return 0
    endpoint = Endpoint(channel)
    try:
        settings, page = await_configuration(endpoint, unseal_relay, redirect)
        router = Router(settings.listeners, _complainer())
    except (ChannelClosed, ChannelError, TimeoutError, ValueError) as exc:
        print(f"caddysnake: relay without settings: {exc}", file=sys.stderr)
        return 1
    # What is here now stays; what a request leaves behind is gone when it ends, so collecting can wait.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(RelayServer(settings, endpoint, page, router, runner.get_loop()).run())


def _channel(options: dict[str, int]) -> socket.socket | None:
    """Its end of the channel, when it is needed; None: it is not."""
    if "channel" in options:
        return socket.socket(fileno=options["channel"])
    with contextlib.suppress(ImportError):
        load("uvloop")
    with socket.socket(fileno=options["control"]) as control:
        try:
            _, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        except OSError:
            return None
    return socket.socket(fileno=descriptors[0]) if descriptors else None


def _enter_process() -> None:
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):  # a terminal's; the daemon says when it is over
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _complainer() -> Callable[[UnsafeValue], None]:
    refusals = Throttle(_REFUSED_MAX)

    def complain(unsafe: UnsafeValue) -> None:
        if refusals.is_due((unsafe.name, unsafe.value[:_REFUSED_CHARACTERS]), time.monotonic()):
            say("warn", "404: not a safe name for an app", value=ascii(str(unsafe))[1:-1])

    return complain


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        loop: asyncio.AbstractEventLoop = load("uvloop").new_event_loop()
    except ImportError:
        return asyncio.new_event_loop()
    return loop


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
