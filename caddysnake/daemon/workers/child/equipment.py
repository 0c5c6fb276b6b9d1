"""What a child gets before it runs: its page, its pipes, its settings."""

from __future__ import annotations

import errno
import os
from typing import Any

from .... import files
from ....channel import vitals
from ....channel.messages import PROTOCOL_VERSION, Configure, Write
from ....channel.settings import RelaySettings, Settings, seal
from ...system.log.pipes import OutputPipes
from ...system.log.process import logger
from .peer import Peer


def outlets_for(
    peer: Peer, name: str, fields: dict[str, Any], access: dict[str, Any] | None = None
) -> OutputPipes | None:
    """Pipes for what a process, or thread, writes, put on its channel before anything else. Raises ``OSError``."""
    opened = logger.outlets(name, fields, access=access)
    if opened is not None:
        try:
            if not peer.hand_over(Write(), opened.writers):
                raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))
        except BaseException:
            opened.end()
            raise
        opened.handed()
    return opened


def new_page() -> tuple[vitals.Page, int]:
    """A page of vital signs, and its descriptor; both are the caller's. Raises ``OSError``."""
    page_fd = vitals.create("caddysnake-vitals")
    try:
        return vitals.Page(page_fd), page_fd
    except BaseException:
        os.close(page_fd)
        raise


def configure(peer: Peer, settings: Settings | RelaySettings, page_fd: int) -> None:
    """Put ``Configure`` on the channel. ``page_fd`` stays the caller's. Raises ``OSError``."""
    with files.closing(seal(settings)) as settings_fd:
        if not peer.hand_over(Configure(PROTOCOL_VERSION), [settings_fd, page_fd]):
            raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))


def without(settings: Settings, held: frozenset[str]) -> Settings:
    """``settings`` for a process of whose limits a cgroup holds those that are ``held``."""
    limits = settings.limits
    return settings if limits is None else settings._replace(limits={n: v for n, v in limits.items() if n not in held})
