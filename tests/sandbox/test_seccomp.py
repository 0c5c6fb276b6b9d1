"""The program that refuses system calls: as data, under an emulator of the kernel's machine, and in the kernel."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from caddysnake.sandbox import seccomp, syscalls
from caddysnake.sandbox.seccomp import ALLOW, ARCHS, ERROR, KILL, X32, Instruction
from caddysnake.sandbox.syscalls import MACHINES, Call, Comparison, Refusal
from caddysnake.sandbox.walls import Walls
from caddysnake.sandbox.watching import WATCHED

STRICTEST = Walls(connect=(443,), has_unix=False)
LISTED = [*syscalls.CALLS, *syscalls.NO_UNIX, *syscalls.NO_LISTEN, *syscalls.NO_DETOURS]
NUMBERS = {call.name: call.numbers for call in LISTED} | {name: each.numbers for name, each in WATCHED.items()}

HEADERS = {
    "x86_64": [Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), Path("/usr/include/asm/unistd_64.h")],
    "aarch64": [Path("/usr/include/asm-generic/unistd.h")],
}


def run(program: list[Instruction], number: int, arch: int, *arguments: int) -> int:
    """What the kernel's machine would return (Documentation/userspace-api/seccomp_filter.rst)."""
    words = {0: number & 0xFFFFFFFF, 4: arch}
    for place, value in enumerate((*arguments, 0, 0, 0, 0, 0, 0)[:6]):
        words[16 + 8 * place], words[20 + 8 * place] = value & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF
    held = at = 0
    for _ in range(len(program)):  # it only ever goes forwards
        step = program[at]
        at += 1
        if step.code == seccomp.LD:
            held = words[step.value]
        elif step.code == seccomp.AND:
            held &= step.value
        elif step.code == seccomp.JMP:
            at += step.value
        elif step.code == seccomp.RET:
            return step.value
        else:
            is_true = {
                seccomp.JEQ: held == step.value,
                seccomp.JGE: held >= step.value,
                seccomp.JGT: held > step.value,
            }[step.code]
            at += step.jump_true if is_true else step.jump_false
    raise AssertionError("it does not end")


def fitting(test: Comparison) -> tuple[int, int]:
    """Values of half an argument for which ``test`` is true, and for which it is false."""
    inside = test.values[0]
    outside = next(value for value in (1, 2, 4, 1 << 17, 1 << 29, 99) if value & test.mask not in test.values)
    return (outside, inside) if test.inverted else (inside, outside)


def called(refusal: Refusal, but: Comparison | None = None) -> list[int]:
    """Arguments that ``refusal`` is about; with ``but``, all of its tests are true except that."""
    found = [0] * 6
    for test in refusal.tests:
        true, false = fitting(test)
        found[test.argument] |= (false if test is but else true) << (32 if test.high else 0)
    return found


def each_refusal() -> Iterator[tuple[str, Call, Refusal]]:
    for machine in MACHINES:
        for call in LISTED:
            if call.numbers[MACHINES.index(machine)] >= 0:
                for refusal in call.refusals:
                    yield machine, call, refusal


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_are_those_of_the_kernels_headers(machine: str) -> None:
    path = next((path for path in HEADERS[machine] if path.exists()), None)
    if path is None:
        pytest.skip("no headers of the kernel here")
    known = {
        name: int(number)
        for name, number in re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)$", path.read_text(), re.M)
    }
    newest = max(known.values())
    for name, numbers in NUMBERS.items():
        number = numbers[MACHINES.index(machine)]
        if name in known:
            assert number == known[name], name
        else:  # none of this machine's, or younger than the headers
            assert number == -1 or number > newest, name
    assert len(known) > 200


def test_every_entry_refuses_what_it_is_about_and_nothing_else() -> None:
    whole = {machine: seccomp.program(STRICTEST.calls(), machine) for machine in MACHINES}
    for machine, call, refusal in each_refusal():
        number, arch, name = call.numbers[MACHINES.index(machine)], ARCHS[machine], (machine, call.name)
        program = seccomp.program([call], machine)
        assert run(program, number, arch, *called(refusal)) == ERROR | refusal.error, name
        assert run(program, number + 1, arch, *called(refusal)) == ALLOW, name
        assert run(whole[machine], number, arch, *called(refusal)) & 0xFFFF0000 == ERROR, name
        if len(call.refusals) == 1:
            for test in refusal.tests:
                assert run(program, number, arch, *called(refusal, but=test)) == ALLOW, (name, test)


CLONE_FS, NEWUSER, SIGCHLD = 0x200, 0x10000000, 17
CLONE_OF_THREADS = 0x3D0F00
FASTOPEN, NONBLOCK = 0x20000000, 0o4000
HIGH = 1 << 32


@pytest.mark.parametrize(
    ("name", "arguments", "wanted"),
    [
        ("unshare", (CLONE_FS,), 0),
        ("unshare", (CLONE_FS | NEWUSER,), errno.EPERM),
        ("unshare", (0x80,), errno.EPERM),
        ("clone", (CLONE_OF_THREADS,), 0),
        ("clone", (SIGCHLD,), 0),
        ("clone", (NEWUSER | SIGCHLD,), errno.EPERM),
        ("clone3", (), errno.ENOSYS),
        ("prlimit64", (0, 7, 4096), 0),
        ("prlimit64", (77, 7, 0), 0),
        ("prlimit64", (77, 7, 4096), errno.EPERM),
        ("prlimit64", (77, 7, HIGH), errno.EPERM),
        ("sched_setaffinity", (HIGH,), 0),
        ("setpriority", (0, 0), 0),
        ("setpriority", (0, 77), errno.EPERM),
        ("setpriority", (2, 0), errno.EPERM),
        ("ioprio_set", (1, 0), 0),
        ("ioprio_set", (3, 0), errno.EPERM),
        ("socket", (2, 1 | NONBLOCK, 6), 0),
        ("socket", (10, 2, 17), 0),
        ("socket", (2, 1, 262), errno.EPROTONOSUPPORT),
        ("socket", (10, 1, 256), errno.EPROTONOSUPPORT),
        ("socket", (2, 5, 0), errno.EPROTONOSUPPORT),
        ("socket", (2, 6, 33), errno.EPROTONOSUPPORT),
        ("socket", (16, 3, 0), 0),
        ("socket", (16, 3, 4), errno.EPROTONOSUPPORT),
        ("socket", (40, 1, 0), errno.EAFNOSUPPORT),
        ("socket", (38, 5, 0), errno.EAFNOSUPPORT),
        ("ioctl", (0, 0x5412), errno.EPERM),
        ("ioctl", (0, 0x5401), 0),
    ],
)
@pytest.mark.parametrize("machine", MACHINES)
def test_arguments_decide(machine: str, name: str, arguments: tuple[int, ...], wanted: int) -> None:
    program = seccomp.program(Walls().calls(), machine)
    found = run(program, NUMBERS[name][MACHINES.index(machine)], ARCHS[machine], *arguments)
    assert found == (ERROR | wanted if wanted else ALLOW)


@pytest.mark.parametrize("machine", MACHINES)
def test_what_a_block_of_sandbox_says_decides_too(machine: str) -> None:
    place, arch = MACHINES.index(machine), ARCHS[machine]
    loose = seccomp.program(Walls(listen=None).calls(), machine)
    strict = seccomp.program(STRICTEST.calls(), machine)
    for name, arguments in [
        ("socket", (1, 1, 0)),
        ("socketpair", (1, 2, 0)),
        ("listen", (3, 5)),
        ("sendto", (3, 0, 0, FASTOPEN)),
        ("sendmsg", (3, 0, FASTOPEN)),
        ("sendmmsg", (3, 0, 1, FASTOPEN)),
    ]:
        assert run(loose, NUMBERS[name][place], arch, *arguments) == ALLOW, name
        assert run(strict, NUMBERS[name][place], arch, *arguments) & 0xFFFF0000 == ERROR, name
    assert run(strict, NUMBERS["socketpair"][place], arch, 1, 1, 0) == ALLOW
    assert run(strict, NUMBERS["sendmsg"][place], arch, 3, 0, 0x4000) == ALLOW


def test_who_calls_by_the_numbers_of_another_machine_is_killed() -> None:
    for machine, other in (MACHINES, MACHINES[::-1]):
        program = seccomp.program(Walls().calls(), machine)
        assert run(program, 0, ARCHS[other]) == KILL
        assert run(program, 0, 0x40000003) == KILL  # i386
    assert run(seccomp.program(Walls().calls(), "x86_64"), X32 | 0, ARCHS["x86_64"]) == KILL


@pytest.mark.parametrize("machine", MACHINES)
def test_no_path_through_it_is_long(machine: str) -> None:
    program = seccomp.program(STRICTEST.calls(), machine)
    assert len(program) < 4096  # BPF_MAXINSNS
    assert all(max(step.jump_true, step.jump_false) < 256 for step in program)
    for number in chain(range(500), [10_000]):
        run(program, number, ARCHS[machine])


IN_THE_KERNEL = """
import ctypes, errno, os, socket, sys, threading
sys.path.insert(0, sys.argv[1])
from caddysnake.sandbox import seccomp, walls
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
machine = seccomp.machine()
seccomp.install(seccomp.program(walls.Walls(has_unix=False).calls(), machine), machine)
libc = ctypes.CDLL(None, use_errno=True)
def told(act):
    try:
        act()
    except OSError as exc:
        return errno.errorcode[exc.errno]
    return "done"
def unshared(flags):
    if libc.unshare(flags):
        raise OSError(ctypes.get_errno(), "")
thread = threading.Thread(target=lambda: None)
thread.start(); thread.join()
if os.fork() == 0:
    os._exit(0)
os.wait()
socket.socketpair()
socket.getaddrinfo("localhost", 80)
print(told(lambda: socket.socket(socket.AF_UNIX)), told(lambda: unshared(0x200)), told(lambda: unshared(0x10000000)),
      told(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)), told(lambda: os.sched_setaffinity(1, [0])))
"""


def test_the_kernel_takes_it_and_threads_forks_and_names_go_on() -> None:
    if seccomp.machine() is None:
        pytest.skip(f"the numbers of {os.uname().machine} are not known")
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", IN_THE_KERNEL, str(root)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["EAFNOSUPPORT", "done", "EPERM", "EPROTONOSUPPORT", "EPERM"], done.stderr
