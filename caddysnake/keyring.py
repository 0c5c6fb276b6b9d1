"""A session keyring of its own for each process, or thread, that runs an app (keyctl_join_session_keyring(3)).

Keys in a session keyring are for whoever has it, whatever the user: an app would have those of the shell, or service,
that the daemon was started from, and those of its neighbours.

Guest code: Python 3.10, standard library only.
"""

from __future__ import annotations

import ctypes
import os

_JOIN_SESSION_KEYRING = 1
_NUMBERS = {
    **dict.fromkeys(("aarch64", "riscv64", "loongarch64"), 219),
    **dict.fromkeys(("x86_64", "amd64"), 250),
    **dict.fromkeys(("ppc64le", "ppc64"), 271),
    **dict.fromkeys(("i386", "i686"), 288),
    **dict.fromkeys(("armv6l", "armv7l"), 311),
    "s390x": 280,
}
"""Of keyctl(2), for which the C library has no function, by machine."""


def join_own() -> bool:
    """Give the calling thread a new and empty session keyring, which threads and processes that it starts share.

    False when there is none: the kernel has no keyrings, does not let this process use them (as containers have it), or
    the user has used up his share of keys (``/proc/sys/kernel/keys/maxkeys``).
    """
    is_narrow = ctypes.sizeof(ctypes.c_void_p) == 4
    machine = os.uname().machine
    if is_narrow:  # perhaps a 64-bit kernel's
        machine = {"x86_64": "i686", "aarch64": "armv7l"}.get(machine, machine)
    number = _NUMBERS.get(machine)
    if number is None:
        return False
    return int(ctypes.CDLL(None).syscall(ctypes.c_long(number), ctypes.c_long(_JOIN_SESSION_KEYRING), None)) >= 0
