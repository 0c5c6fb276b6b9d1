"""What cookies are signed with, and since when the daemon counts: both outlive its upgrade, the key its end too."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
from functools import lru_cache
from typing import Final

log = logging.getLogger("caddysnake")

KEY_BYTES: Final = 32
_FILE: Final = "affinity.key"


def state_folder(environ: dict[str, str]) -> str:
    """The folder of what the daemon keeps for longer than it runs: systemd's, /var/lib/caddysnake, the user's."""
    given = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return given
    if os.geteuid() == 0:
        return "/var/lib/caddysnake"
    home = environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(home, "caddysnake")


@lru_cache(maxsize=1)
def affinity_key() -> str:
    """The key, in hexadecimal: read, or made, once. Where it cannot be kept it holds until this process ends."""
    folder = state_folder(dict(os.environ))
    path = os.path.join(folder, _FILE)
    try:
        os.makedirs(folder, mode=0o711, exist_ok=True)
        return _read(path) or _made(path)
    except OSError as exc:
        what = "affinity: the key of its cookies cannot be kept, so clients get new workers after a restart"
        log.warning(what, extra={"fields": {"path": path, "error": exc.strerror}})
        return secrets.token_hex(KEY_BYTES)


def _read(path: str) -> str:
    """What is there, if it is a key and nobody else's; empty: there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        info = os.fstat(fd)
        content = os.read(fd, KEY_BYTES + 1)
    finally:
        os.close(fd)
    is_ours = info.st_uid == os.geteuid() and not info.st_mode & 0o077
    return content.hex() if is_ours and len(content) == KEY_BYTES else ""


def _made(path: str) -> str:
    draft = f"{path}.{os.getpid()}"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        content = secrets.token_bytes(KEY_BYTES)
        os.write(fd, content)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(draft, path)
    return content.hex()


def bell_name() -> str:
    """The abstract socket (unix(7)) on which this process is asked for stores; the same after an upgrade in place."""
    return f"\0caddysnake-store-{os.getpid()}-{epoch():x}"


def epoch() -> int:
    """A number that is this process's alone, and stays over an upgrade in place, which executes another program in it:
    when it began, in ticks of this boot of the machine (proc_pid_stat(5)).
    """
    with open("/proc/self/stat", "rb") as file:
        began = int(file.read().rpartition(b")")[2].split()[19])
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            boot = file.read()
    except OSError:
        boot = b""
    return int.from_bytes(hashlib.sha256(boot).digest()[:4], "big") << 40 | began & (1 << 40) - 1
