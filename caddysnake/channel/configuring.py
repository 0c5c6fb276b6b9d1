"""The first message of a channel, received: ``Configure``, before there is a loop or an app. For worker and relay."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import TypeVar

from .endpoint import ChannelError, Endpoint
from .messages import PROTOCOL_VERSION, Configure
from .vitals import Page

_TIMEOUT_S = 60.0
_Settings = TypeVar("_Settings")


def await_configuration(endpoint: Endpoint, unseal: Callable[[int], _Settings]) -> tuple[_Settings, Page]:
    """Wait for the settings, which ``unseal`` reads from their descriptor, and the vital-signs page.

    Raises ``ChannelClosed``, ``ChannelError``, ``TimeoutError`` (nothing came), ``ValueError`` (no settings, no page).
    """
    poller = select.poll()
    poller.register(endpoint.fileno(), select.POLLIN)
    poller.poll(_TIMEOUT_S * 1000)
    received = endpoint.receive()
    if received is None:
        raise TimeoutError("nothing came over the channel")
    message, descriptors = received
    try:
        if not isinstance(message, Configure):
            raise ChannelError(f"{type(message).__name__} before Configure")
        if message.version != PROTOCOL_VERSION:
            raise ChannelError(f"channel version {message.version} instead of {PROTOCOL_VERSION}")
        return unseal(descriptors[0]), Page(descriptors[1])
    finally:
        for fd in descriptors:
            os.close(fd)
