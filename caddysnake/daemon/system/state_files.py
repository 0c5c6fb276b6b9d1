"""Small files that the daemon keeps for longer than it runs, in its state folder: nobody else reads or writes them."""

from __future__ import annotations

import contextlib
import os
from typing import Final

_MAX: Final = 32 * 1024 * 1024


def state_folder() -> str:
    """The folder: systemd's, /var/lib/caddysnake, the user's."""
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return given
    if os.geteuid() == 0:
        return "/var/lib/caddysnake"
    home = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(home, "caddysnake")


def read(name: str) -> bytes:
    """What the file ``name`` holds, if it is ours alone; empty: there is none. Raises ``OSError``."""
    try:
        fd = os.open(os.path.join(state_folder(), name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    with open(fd, "rb") as file:
        info = os.fstat(fd)
        is_ours = info.st_uid == os.geteuid() and not info.st_mode & 0o077
        return file.read(_MAX) if is_ours else b""


def write(name: str, content: bytes) -> None:
    """Have the file ``name`` hold ``content``: at once, and over a crash of the machine. Raises ``OSError``."""
    folder = state_folder()
    os.makedirs(folder, mode=0o711, exist_ok=True)
    path = os.path.join(folder, name)
    draft = f"{path}.{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(draft)  # of one that was killed as it wrote
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.rename(draft, path)
