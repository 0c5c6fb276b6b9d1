"""A state in a sealed file in memory, whose descriptor the next image of the daemon inherits."""

from __future__ import annotations

import os

from pydantic import ValidationError

from ...channel.messages import PROTOCOL_VERSION
from ...channel.settings import sealed
from .snapshots import Snapshot
from .state import STATE_VERSION, DaemonSnapshot, StateError

_LIMIT = 256 * 1024 * 1024


def seal(state: DaemonSnapshot) -> int:
    """A sealed memfd that holds ``state``; the descriptor is the caller's. Raises ``OSError``."""
    return sealed("caddysnake-state", state.model_dump_json().encode())


class _Versions(Snapshot):
    """What every state says, of whatever version."""

    version: int
    protocol: int
    release: str = "?"


def unseal(fd: int) -> DaemonSnapshot:
    """The state in ``fd``, which stays the caller's. Raises ``StateError``."""
    try:
        size = os.fstat(fd).st_size
        if size > _LIMIT:
            raise StateError(f"a state of {size} bytes")
        raw = os.pread(fd, size, 0)
        versions = _Versions.model_validate_json(raw)
        if versions.version != STATE_VERSION:
            raise StateError(
                f"version {versions.release} leaves a state of form {versions.version}, "
                f"and form {STATE_VERSION} is known here"
            )
        if versions.protocol != PROTOCOL_VERSION:
            raise StateError(
                f"the workers of version {versions.release} speak version {versions.protocol} of the channel, "
                f"and version {PROTOCOL_VERSION} is spoken here"
            )
        return DaemonSnapshot.model_validate_json(raw)
    except OSError as exc:
        raise StateError(f"there is no state to be read: {exc.strerror}") from None
    except ValidationError as exc:
        raise malformed(exc) from None


def malformed(error: ValidationError) -> StateError:
    """What to raise instead of ``error``, which shows values: secrets are among them."""
    first = error.errors(include_input=False)[0]
    where = ".".join(map(str, first["loc"])) or "it"
    return StateError(f"the state is not what it should be: {where}: {first['msg']}")
