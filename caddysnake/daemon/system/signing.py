"""What cookies are signed with, and since when the daemon counts: both outlive its upgrade, the key its end too."""

from __future__ import annotations

import hashlib
import os
import secrets
from functools import lru_cache
from typing import Final

from . import state_files
from .kinship import stat_of
from .log.fields import FieldLog

log = FieldLog("caddysnake")

KEY_BYTES: Final = 32
_FILE: Final = "affinity.key"


@lru_cache(maxsize=1)
def affinity_key() -> str:
    """The key, in hexadecimal: read, or made, once. Where it cannot be kept it holds until this process ends."""
    try:
        content = state_files.read(_FILE)
        if len(content) != KEY_BYTES:
            content = secrets.token_bytes(KEY_BYTES)
            state_files.write(_FILE, content)
        return content.hex()
    except OSError as exc:
        what = "affinity: the key of its cookies cannot be kept, so clients get new workers after a restart"
        log.warning(what, path=exc.filename, error=exc.strerror)
        return secrets.token_hex(KEY_BYTES)


def bell_name() -> str:
    """The abstract socket (unix(7)) on which this process is asked for stores; the same after an upgrade in place."""
    return f"\0caddysnake-store-{os.getpid()}-{epoch():x}"


def epoch() -> int:
    """A number that is this process's alone, and stays over an upgrade in place, which executes another program in it:
    when it began, in ticks of this boot of the machine (proc_pid_stat(5)).
    """
    began = int(stat_of(os.getpid())[19])
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            boot = file.read()
    except OSError:
        boot = b""
    return int.from_bytes(hashlib.sha256(boot).digest()[:4], "big") << 40 | began & (1 << 40) - 1
