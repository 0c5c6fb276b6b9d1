"""An older kernel: what a newer one answers is refused by seccomp(2), for a process and all that it starts."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

_GET_INFO = 0xC040FF0B
_SO_PEERPIDFD = 77
_NUMBERS = {"x86_64": (16, 55), "aarch64": (29, 209)}  # ioctl, getsockopt

_LOAD, _IS, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


def become_older() -> None:
    """From now on there is neither PIDFD_GET_INFO (Linux 6.13) nor SO_PEERPIDFD (6.5)."""
    ioctl, getsockopt = _NUMBERS[platform.machine()]
    steps = [
        (_LOAD, 0, 0, 0),  # the number
        (_IS, 0, 3, ioctl),
        (_LOAD, 0, 0, 24),  # its second argument
        (_IS, 0, 5, _GET_INFO),
        (_RETURN, 0, 0, _ERRNO | errno.ENOTTY),
        (_IS, 0, 3, getsockopt),
        (_LOAD, 0, 0, 32),  # its third
        (_IS, 0, 1, _SO_PEERPIDFD),
        (_RETURN, 0, 0, _ERRNO | errno.ENOPROTOOPT),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    for words in ((38, 1, 0, 0, 0), (22, 2, ctypes.addressof(program), 0, 0)):  # PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP
        if libc.prctl(*map(ctypes.c_ulong, words)):
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    become_older()
    os.execvp(sys.argv[1], sys.argv[1:])
