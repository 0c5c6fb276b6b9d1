"""A program for the kernel that looks at each system call, and refuses some (seccomp(2)).

It is classic BPF: the machine first, then a tree over the calls' numbers, then tests of arguments. Calls that need no
test the kernel knows after a first look, and does not run the program for (Linux 5.11).
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .syscalls import MACHINES, WHOLE, Call, Comparison, Refusal

LD, JMP, JEQ, JGE, JGT, AND, RET = 0x20, 0x05, 0x15, 0x35, 0x25, 0x54, 0x06
"""Load a word, jump always, jump if the word is equal, not smaller, greater, mask it, return (linux/bpf_common.h)."""

ALLOW, KILL, ERROR, TELL = 0x7FFF0000, 0x80000000, 0x00050000, 0x7FC00000

_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
"""Where they are in ``struct seccomp_data``."""
ARCHS = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""AUDIT_ARCH_…"""
X32 = 0x40000000
"""Added to the numbers of another ABI that x86_64 kernels may have."""

_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER, _SPEC_ALLOW, _NEW_LISTENER = 1, 4, 8
_LEAVES = 3
"""So few calls are tried one after the other."""


class Instruction(NamedTuple):
    """``struct sock_filter``."""

    code: int
    jump_true: int
    jump_false: int
    value: int


Program = list[Instruction]


def machine() -> str | None:
    """This machine, if its numbers are known."""
    name = os.uname().machine
    return name if name in MACHINES and ctypes.sizeof(ctypes.c_void_p) == 8 else None


def program(calls: Iterable[Call], machine: str) -> Program:
    """What refuses ``calls``, and kills a process that calls by another machine's numbers."""
    place = MACHINES.index(machine)
    refusals: dict[int, list[Refusal]] = {}
    for call in calls:
        if call.numbers[place] >= 0:
            refusals.setdefault(call.numbers[place], []).extend(call.refusals)
    head = [
        Instruction(LD, 0, 0, _ARCH),
        Instruction(JEQ, 1, 0, ARCHS[machine]),
        Instruction(RET, 0, 0, KILL),
        Instruction(LD, 0, 0, _NUMBER),
    ]
    if machine == "x86_64":
        head += [Instruction(JGE, 0, 1, X32), Instruction(RET, 0, 0, KILL)]
    return head + _tree(sorted(refusals.items()))


def telling(numbers: Iterable[int], machine: str) -> Program:
    """What tells a listener of the calls with these numbers, and lets all others pass."""
    found = [Instruction(LD, 0, 0, _ARCH), Instruction(JEQ, 1, 0, ARCHS[machine]), Instruction(RET, 0, 0, ALLOW)]
    found.append(Instruction(LD, 0, 0, _NUMBER))
    for number in sorted(numbers):
        found += [Instruction(JEQ, 0, 1, number), Instruction(RET, 0, 0, TELL)]
    return [*found, Instruction(RET, 0, 0, ALLOW)]


def _tree(calls: Sequence[tuple[int, list[Refusal]]]) -> Program:
    if len(calls) <= _LEAVES:
        found: Program = []
        for number, refusals in calls:
            body = _refused(refusals)
            found += [Instruction(JEQ, 1, 0, number), Instruction(JMP, 0, 0, len(body)), *body]
        return [*found, Instruction(RET, 0, 0, ALLOW)]
    middle = len(calls) // 2
    lower, upper = _tree(calls[:middle]), _tree(calls[middle:])
    # A jump on a condition reaches 255 instructions far, one without any.
    pivot = calls[middle][0]
    return [Instruction(JGE, 0, 1, pivot), Instruction(JMP, 0, 0, len(lower)), *lower, *upper]


def _refused(refusals: Iterable[Refusal]) -> Program:
    """The number is a call's; what follows is its end."""
    found: Program = []
    for refusal in refusals:
        answer = [Instruction(RET, 0, 0, ERROR | refusal.error)]
        for test in reversed(refusal.tests):
            answer = _test(test, len(answer)) + answer
        found += answer
    return [*found, Instruction(RET, 0, 0, ALLOW)]


def _test(test: Comparison, beyond: int) -> Program:
    """Goes on with the next instruction when ``test`` is true, else ``beyond`` further ones."""
    found = [Instruction(LD, 0, 0, _ARGUMENTS + 8 * test.argument + 4 * test.high)]
    if test.mask != WHOLE:
        found.append(Instruction(AND, 0, 0, test.mask))
    for number, value in enumerate(test.values):
        left = len(test.values) - number - 1
        hit, miss = (left + beyond, 0) if test.inverted else (left, 0 if left else beyond)
        found.append(Instruction(JEQ, hit, miss, value))
    return found


def install(written: Program, machine: str, *, tells: bool = False) -> int:
    """Have the kernel run it from here on (no new privileges). ``tells``: its listener. Raises ``OSError``."""
    packed = b"".join(struct.pack("=HBBI", *each) for each in written)
    buffer = ctypes.create_string_buffer(packed, len(packed))
    whole = struct.pack("@HP", len(written), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    number = ctypes.c_long(_SECCOMP[machine])
    flags = ctypes.c_uint(_SPEC_ALLOW | (_NEW_LISTENER if tells else 0))
    found = int(libc.syscall(number, ctypes.c_uint(_SET_MODE_FILTER), flags, whole))
    if found < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"seccomp: {os.strerror(code)}")
    return found
