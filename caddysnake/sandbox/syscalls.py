"""Which system calls an app in a sandbox is refused, as data.

A list of what is refused, not of what is let through: what libraries call changes with each of their releases. On it is
what reaches other processes of the same user, what Landlock does not see, and what apps have no use for and kernels had
faults in.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

MACHINES = ("x86_64", "aarch64")
"""Whose numbers are known, in the order of ``Call``."""

WHOLE = 0xFFFFFFFF


class Comparison(NamedTuple):
    """Half an argument: true when, under ``mask``, it is one of ``values``; or none of them, if ``inverted``."""

    argument: int
    values: tuple[int, ...]
    inverted: bool = False
    mask: int = WHOLE
    high: bool = False
    """The upper 32 bits of it."""


class Refusal(NamedTuple):
    """A call is refused with ``error`` when all ``tests`` are true."""

    error: int
    tests: tuple[Comparison, ...] = ()


class Call(NamedTuple):
    """A system call: its numbers, -1 where a machine has none, and when it is refused."""

    name: str
    numbers: tuple[int, int]
    refusals: tuple[Refusal, ...]


def _unless(argument: int, value: int) -> Refusal:
    return Refusal(errno.EPERM, (Comparison(argument, (value,), inverted=True),))


_NEVER = (Refusal(errno.EPERM),)
_OF_OTHERS = (_unless(0, 0),)
"""But of the calling thread, which is 0."""

_NEW_NAMESPACES = 0x7E02_0000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET. CLONE_FS, which threads of a thread host need, is
not among them."""
_NEW_TIME = 0x80

_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16
_KINDS = 0xF
_STREAM, _DGRAM, _RAW = 1, 2, 3
_PROTOCOLS = (0, 1, 6, 17, 58)
"""Whatever is usual, ICMP, TCP, UDP, ICMPv6. Landlock's rules for ports are of TCP alone: SCTP, SMC, DCCP and MPTCP
would pass by them."""
_IS_INTERNET = Comparison(0, (_INET, _INET6))
_SOCKETS = (
    Refusal(errno.EAFNOSUPPORT, (Comparison(0, (_UNIX, _INET, _INET6, _NETLINK), inverted=True),)),
    # getaddrinfo(3) asks by NETLINK_ROUTE, which is 0, which addresses there are.
    Refusal(errno.EPROTONOSUPPORT, (Comparison(0, (_NETLINK,)), Comparison(2, (0,), inverted=True))),
    Refusal(errno.EPROTONOSUPPORT, (_IS_INTERNET, Comparison(1, (_STREAM, _DGRAM, _RAW), inverted=True, mask=_KINDS))),
    Refusal(errno.EPROTONOSUPPORT, (_IS_INTERNET, Comparison(2, _PROTOCOLS, inverted=True))),
)
_FASTOPEN = 0x2000_0000
_TCP, _TCP_ULP = 6, 31
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C

CALLS: tuple[Call, ...] = (
    # Other processes: their memory, descriptors, limits, scheduling.
    Call("ptrace", (101, 117), _NEVER),
    Call("process_vm_readv", (310, 270), _NEVER),
    Call("process_vm_writev", (311, 271), _NEVER),
    Call("process_madvise", (440, 440), _NEVER),
    Call("process_mrelease", (448, 448), _NEVER),
    Call("pidfd_getfd", (438, 438), _NEVER),
    Call("kcmp", (312, 272), _NEVER),
    Call("perf_event_open", (298, 241), _NEVER),
    Call("migrate_pages", (256, 238), _OF_OTHERS),
    Call("move_pages", (279, 239), _OF_OTHERS),
    Call("sched_setaffinity", (203, 122), _OF_OTHERS),
    Call("sched_setscheduler", (144, 119), _OF_OTHERS),
    Call("sched_setparam", (142, 118), _OF_OTHERS),
    Call("sched_setattr", (314, 274), _OF_OTHERS),
    Call(
        "prlimit64",
        (302, 261),
        # Limits may be read: the second argument points at new ones, if there are any.
        tuple(
            Refusal(errno.EPERM, (Comparison(0, (0,), inverted=True), Comparison(2, (0,), inverted=True, high=high)))
            for high in (False, True)
        ),
    ),
    Call("setpriority", (141, 140), (_unless(0, 0), _unless(1, 0))),
    Call("ioprio_set", (251, 30), (_unless(0, 1), _unless(1, 0))),
    # What is shared by user, not by file.
    Call("add_key", (248, 217), _NEVER),
    Call("request_key", (249, 218), _NEVER),
    Call("keyctl", (250, 219), _NEVER),
    Call("shmget", (29, 194), _NEVER),
    Call("shmat", (30, 196), _NEVER),
    Call("shmctl", (31, 195), _NEVER),
    Call("shmdt", (67, 197), _NEVER),
    Call("semget", (64, 190), _NEVER),
    Call("semop", (65, 193), _NEVER),
    Call("semtimedop", (220, 192), _NEVER),
    Call("semctl", (66, 191), _NEVER),
    Call("msgget", (68, 186), _NEVER),
    Call("msgsnd", (69, 189), _NEVER),
    Call("msgrcv", (70, 188), _NEVER),
    Call("msgctl", (71, 187), _NEVER),
    Call("mq_open", (240, 180), _NEVER),
    Call("mq_unlink", (241, 181), _NEVER),
    Call("mq_timedsend", (242, 182), _NEVER),
    Call("mq_timedreceive", (243, 183), _NEVER),
    Call("mq_notify", (244, 184), _NEVER),
    Call("mq_getsetattr", (245, 185), _NEVER),
    # Namespaces and mounts.
    Call("clone", (56, 220), (Refusal(errno.EPERM, (Comparison(0, (0,), inverted=True, mask=_NEW_NAMESPACES),)),)),
    # Its flags are in memory, where nobody can look at them: the C library then asks clone, as on an older kernel.
    Call("clone3", (435, 435), (Refusal(errno.ENOSYS),)),
    Call(
        "unshare",
        (272, 97),
        (Refusal(errno.EPERM, (Comparison(0, (0,), inverted=True, mask=_NEW_NAMESPACES | _NEW_TIME),)),),
    ),
    Call("setns", (308, 268), _NEVER),
    Call("mount", (165, 40), _NEVER),
    Call("umount2", (166, 39), _NEVER),
    Call("pivot_root", (155, 41), _NEVER),
    Call("chroot", (161, 51), _NEVER),
    Call("move_mount", (429, 429), _NEVER),
    Call("open_tree", (428, 428), _NEVER),
    Call("open_tree_attr", (467, 467), _NEVER),
    Call("fsopen", (430, 430), _NEVER),
    Call("fsconfig", (431, 431), _NEVER),
    Call("fsmount", (432, 432), _NEVER),
    Call("fspick", (433, 433), _NEVER),
    Call("mount_setattr", (442, 442), _NEVER),
    Call("statmount", (457, 457), _NEVER),
    Call("listmount", (458, 458), _NEVER),
    Call("open_by_handle_at", (304, 265), _NEVER),
    Call("fanotify_init", (300, 262), _NEVER),
    Call("fanotify_mark", (301, 263), _NEVER),
    Call("quotactl", (179, 60), _NEVER),
    Call("quotactl_fd", (443, 443), _NEVER),
    # The machine.
    Call("bpf", (321, 280), _NEVER),
    Call("userfaultfd", (323, 282), _NEVER),
    Call("io_uring_setup", (425, 425), _NEVER),
    Call("io_uring_enter", (426, 426), _NEVER),
    Call("io_uring_register", (427, 427), _NEVER),
    Call("init_module", (175, 105), _NEVER),
    Call("finit_module", (313, 273), _NEVER),
    Call("delete_module", (176, 106), _NEVER),
    Call("kexec_load", (246, 104), _NEVER),
    Call("kexec_file_load", (320, 294), _NEVER),
    Call("acct", (163, 89), _NEVER),
    Call("swapon", (167, 224), _NEVER),
    Call("swapoff", (168, 225), _NEVER),
    Call("reboot", (169, 142), _NEVER),
    Call("syslog", (103, 116), _NEVER),
    Call("vhangup", (153, 58), _NEVER),
    Call("sethostname", (170, 161), _NEVER),
    Call("setdomainname", (171, 162), _NEVER),
    Call("settimeofday", (164, 170), _NEVER),
    Call("clock_settime", (227, 112), _NEVER),
    Call("iopl", (172, -1), _NEVER),
    Call("ioperm", (173, -1), _NEVER),
    Call("modify_ldt", (154, -1), _NEVER),
    Call("uselib", (134, -1), _NEVER),
    Call("ustat", (136, -1), _NEVER),
    Call("sysfs", (139, -1), _NEVER),
    Call("_sysctl", (156, -1), _NEVER),
    # A terminal's input, typed for whoever reads it next.
    Call("ioctl", (16, 29), (Refusal(errno.EPERM, (Comparison(1, (_TIOCSTI, _TIOCLINUX)),)),)),
    Call("socket", (41, 198), _SOCKETS),
)

NO_UNIX: tuple[Call, ...] = (
    Call("socket", (41, 198), (Refusal(errno.EAFNOSUPPORT, (Comparison(0, (_UNIX,)),)),)),
    # A datagram may be sent from one of a pair to any other socket.
    Call("socketpair", (53, 199), (Refusal(errno.EAFNOSUPPORT, (Comparison(1, (_DGRAM, _RAW), mask=_KINDS),)),)),
)
"""No unix sockets but pairs of streams, which event loops wake themselves with."""

NO_LISTEN: tuple[Call, ...] = (Call("listen", (50, 201), (Refusal(errno.EACCES),)),)
"""A TCP socket that was never bound gets a port of the kernel's choice when it listens, which Landlock does not see."""

NO_DETOURS: tuple[Call, ...] = (
    # A socket of TCP becomes one of SMC by a TCP_ULP of that name.
    Call("setsockopt", (54, 208), (Refusal(errno.ENOENT, (Comparison(1, (_TCP,)), Comparison(2, (_TCP_ULP,)))),)),
    Call("sendto", (44, 206), (Refusal(errno.EOPNOTSUPP, (Comparison(3, (0,), inverted=True, mask=_FASTOPEN),)),)),
    Call("sendmsg", (46, 211), (Refusal(errno.EOPNOTSUPP, (Comparison(2, (0,), inverted=True, mask=_FASTOPEN),)),)),
    Call("sendmmsg", (307, 269), (Refusal(errno.EOPNOTSUPP, (Comparison(3, (0,), inverted=True, mask=_FASTOPEN),)),)),
)
"""What connects, and Landlock does not see it: MSG_FASTOPEN, too."""
