"""Processes the daemon answers for: prctl, pidfds, orphans, limits. Linux only."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from ... import keyring
from .kinship import exists, parent_on, stat_of
from .log.fields import FieldLog

log = FieldLog("caddysnake.daemon")

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PIDFD_SIGNAL_PROCESS_GROUP = 1 << 2  # linux/pidfd.h, since Linux 6.9
_CPUCLOCK_SCHED = 2
_libc = ctypes.CDLL(None, use_errno=True)

_is_told = False

_Started = TypeVar("_Started")


def become_supervisor() -> tuple[int, int]:
    """Prepare this process: undumpable, heir of orphans. Returns the soft limit of open files before and now."""
    undumpable()
    # A worker whose fork server died becomes our child, so that somebody can reap it.
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft, hard


def undumpable() -> None:
    """Close this process's memory and /proc files to others of the same user (prctl(2), PR_SET_DUMPABLE)."""
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def die_with_parent() -> None:
    """To be run in a child before it executes its program: SIGTERM when the thread that started it ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


def without_new_privileges(start: Callable[[], _Started]) -> _Started:
    """What ``start()`` returns, or raises. Processes that it starts never gain privileges: no set-user-ID program, no
    file capability (PR_SET_NO_NEW_PRIVS). Nor do they have the keys that this process was started with.

    Both are a thread's and are inherited from the one that forks, so a thread of its own does it: the daemon may
    have to start a Caddy that needs its capability for low ports.
    """
    outcome: list[_Started] = []
    problems: list[BaseException] = []

    def run() -> None:
        try:
            if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            keyring.join_own()
            outcome.append(start())
        except BaseException as exc:
            problems.append(exc)

    thread = threading.Thread(target=run, name="starts a process")
    try:
        thread.start()
    except RuntimeError:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
    thread.join()
    if problems:
        raise problems[0]
    return outcome[0]


class InheritedChild:
    """A child that was started before this process executed the program that it now runs."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def wait(self) -> int:
        """Wait for its end; its exit status, negative the signal; 0 when somebody else has reaped it."""
        if self._code is None:
            try:
                self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            except ChildProcessError:
                self._code = 0  # as ``subprocess`` has it
        return self._code

    def send_signal(self, sig: int) -> None:
        """Nothing happens when it has ended, or was reaped."""
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


Process = subprocess.Popen[bytes] | InheritedChild
"""A child of this process."""


def open_child_of(parent: int, pid: int) -> int:
    """A pidfd for ``pid``. Raises ``OSError``, ``ProcessLookupError`` when it is not a child of ``parent``.

    The pid is another process's claim, or the negative number of the error that kept it from having one. The descriptor
    pins the process first; its parent is looked at afterwards. ``kinship.Unknown``: that cannot be looked at here.
    """
    if pid <= 0:
        raise OSError(-pid, os.strerror(-pid))
    fd = os.pidfd_open(pid)
    try:
        if parent_on(fd, pid) != parent:
            raise ProcessLookupError(f"process {pid} is not a child of {parent}")
    except BaseException:
        os.close(fd)
        raise
    return fd


def kill_group(pidfd: int, pid: int) -> None:
    """SIGKILL to the process of ``pidfd``, which was ``pid``, and to the process group that it leads.

    Its parent may have reaped it unasked, and its number may be another's by now, a child of ours among them: the
    descriptor is what is signalled, and the number only where the kernel cannot signal a group by one.
    """
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL, None, _PIDFD_SIGNAL_PROCESS_GROUP)
    except (ProcessLookupError, PermissionError):
        pass  # a child that has not yet called setsid leads no group
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            return
        _kill_group_by_number(pidfd, pid)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def _kill_group_by_number(pidfd: int, pid: int) -> None:
    """For Linux before 6.9."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if number_of(pidfd) == pid:
            os.killpg(pid, signal.SIGKILL)


def number_of(pidfd: int) -> int:
    """The pid of the process of ``pidfd``; -1 once it was reaped, and its number is free (pidfd_open(2))."""
    try:
        with open(f"/proc/self/fdinfo/{pidfd}", "rb") as file:
            found = re.search(rb"^Pid:\s*(-?\d+)$", file.read(), re.MULTILINE)
    except OSError:
        return -1
    return int(found[1]) if found else -1


def reap(pidfd: int) -> int | None:
    """The wait status of our own child of ``pidfd``, which has ended; None when it is not ours, or was reaped."""
    try:
        ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except (ChildProcessError, OSError):
        return None
    if ended is None:
        return None
    if ended.si_code == os.CLD_EXITED:
        return ended.si_status << 8
    return ended.si_status | (0x80 if ended.si_code == os.CLD_DUMPED else 0)


def is_stopped(pid: int) -> bool:
    """Whether ``pid`` was stopped, by SIGSTOP or the like (proc_pid_stat(5))."""
    try:
        return stat_of(pid)[0] == b"T"
    except (OSError, IndexError):
        return False


def describe_exit(status: int) -> str:
    """``exit status 3``, ``signal SIGSEGV``: what a wait status means."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return f"signal {signal.Signals(number).name}"
        except ValueError:
            return f"signal {number}"
    return f"exit status {os.waitstatus_to_exitcode(status)}"


def reap_strays(known: set[int]) -> None:
    """Reap inherited children that nobody waits for: what an app left behind when its worker died."""
    while True:
        try:
            seen = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if seen is None or seen.si_pid in known:
            return
        os.waitpid(seen.si_pid, os.WNOHANG)


def resident_bytes(pid: int) -> int:
    """What the process has in memory, including what it shares; 0 when it is gone, or ``/proc`` hides it."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        _tell_hidden(pid)
        return 0


def _tell_hidden(pid: int) -> None:
    """Say once that memory cannot be read here, if that is why it was not."""
    global _is_told
    if not _is_told and exists(pid):
        _is_told = True
        hint = "let this user see its processes in /proc: mount it with gid=, or take ProtectProc= away"
        what = "/proc hides our processes: max_memory does nothing, and status knows no memory"
        log.warning(what, hint=hint)


def run_delay_s(pid: int) -> float:
    """For how long the process's first thread has been ready to run, and others ran; 0 where nobody tells."""
    try:
        with open(f"/proc/{pid}/schedstat", "rb") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def cpu_seconds(pid: int) -> float:
    """Processor time that the process has used, in user and kernel mode; 0 when it is reaped. The kernel's clock of the
    process (clock_getcpuclockid(3)), which ``/proc`` cannot hide.
    """
    try:
        return time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED)
    except OSError:
        return 0.0
