"""The first messages of a channel, received before there is a loop or an app: ``Write`` and ``Configure``."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from . import records
from .endpoint import ChannelError, Endpoint
from .messages import PROTOCOL_VERSION, Configure, Message, Write
from .vitals import Page

_TIMEOUT_S = 60.0
_Settings = TypeVar("_Settings")


class OutputPipes(NamedTuple):
    """Descriptors of pipes that somebody reads, the worker's own, close-on-exec."""

    stdout: int
    stderr: int
    records: int
    """Not blocking."""


def await_configuration(
    endpoint: Endpoint, unseal: Callable[[int], _Settings], use: Callable[[OutputPipes], object]
) -> tuple[_Settings, Page]:
    """Wait for the settings, which ``unseal`` reads from their descriptor, and the vital-signs page.

    ``use`` is called first with where to write, if the daemon says so.

    Raises ``ChannelClosed``, ``ChannelError``, ``TimeoutError`` (nothing came), ``ValueError`` (no settings, no page).
    """
    message, descriptors = _next(endpoint)
    if isinstance(message, Write):
        use(OutputPipes(*descriptors))
        message, descriptors = _next(endpoint)
    try:
        if not isinstance(message, Configure):
            raise ChannelError(f"{type(message).__name__} before Configure")
        if message.version != PROTOCOL_VERSION:
            raise ChannelError(f"channel version {message.version} instead of {PROTOCOL_VERSION}")
        return unseal(descriptors[0]), Page(descriptors[1])
    finally:
        for fd in descriptors:
            os.close(fd)


def redirect(outlets: OutputPipes) -> None:
    """Make ``outlets`` the standard output, the standard error and the records of this whole process."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.dup2(outlets.stdout, 1)
    os.dup2(outlets.stderr, 2)
    os.close(outlets.stdout)
    os.close(outlets.stderr)
    records.use(outlets.records)


def _next(endpoint: Endpoint) -> tuple[Message, list[int]]:
    poller = select.poll()
    poller.register(endpoint.fileno(), select.POLLIN)
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        poller.poll(max(0.0, deadline - time.monotonic()) * 1000)
        received = endpoint.receive()
        if received is not None:
            return received
        if time.monotonic() >= deadline:
            raise TimeoutError("nothing came over the channel")
