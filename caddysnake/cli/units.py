"""The files by which systemd runs caddysnake: units, a drop-in, an account. Pure.

What a unit forbids is what neither the daemon nor an ordinary app needs. Left out on purpose:
``MemoryDenyWriteExecute`` (apps that make code at run time, as cffi does, would fail) and ``ProtectProc`` (the daemon
looks at its workers, which are closed to their own user as well).
"""

from __future__ import annotations

from typing import NamedTuple

ACCOUNT = "caddysnake"
CONFIG = "/etc/caddysnake/Caddyfile"
SOCKETS = "/run/caddysnake"
OLDEST = 252
"""The version of systemd that these are for, that of Debian 12; newer ones are told more."""

_RESTART_STEPS_SINCE = 254


class UnitPlace(NamedTuple):
    """What the units name on this machine."""

    program: str
    """How caddysnake is called: words of a command line, as systemd reads them."""
    config: str = CONFIG
    group: str = "caddy"
    """Caddy's: it, and nobody else, may enter the folder of the sockets."""
    systemd: int = OLDEST
    """systemd's version."""


def files(place: UnitPlace, with_users: bool = False) -> dict[str, str]:
    """Every file, by its path. ``with_users``: also the drop-in for apps that have users of their own."""
    found = {
        "/etc/sysusers.d/caddysnake.conf": sysusers(),
        "/etc/systemd/system/caddysnake.service": service(place),
        "/etc/systemd/system/caddysnake.socket": activation(place),
        "/etc/systemd/system/caddysnake@.service": template(place),
    }
    if with_users:
        found["/etc/systemd/system/caddysnake.service.d/users.conf"] = users(place)
    return found


def sysusers() -> str:
    """sysusers.d(5): the account of the daemon and of the apps that have none of their own."""
    return f'u {ACCOUNT} - "Python web apps behind Caddy" /var/lib/caddysnake\n'


def service(place: UnitPlace) -> str:
    """One daemon for all apps of one Caddyfile."""
    return _service(place, ACCOUNT, place.config, "", "Python web apps", "%n")


def template(place: UnitPlace) -> str:
    """One daemon for each instance, as the user of that name."""
    folder = place.config.rpartition("/")[0]
    head = f"""\
# systemctl enable --now caddysnake@blog runs {folder}/blog.caddyfile as the user blog, who must exist,
# with its sockets in {SOCKETS}-blog.
"""
    return head + _service(place, "%i", f"{folder}/%i.caddyfile", "-%i", "%i", "system-caddysnake.slice/%n")


def activation(place: UnitPlace) -> str:
    """A socket that is there before the daemon is, and stays when it goes."""
    return f"""\
# Optional. For a site on unix/{SOCKETS}/apps.sock; name others here, or in a drop-in, one ListenStream= for each.
[Unit]
Description=caddysnake: a socket for Caddy
Before=caddy.service

[Socket]
ListenStream={SOCKETS}/apps.sock
SocketUser={ACCOUNT}
SocketGroup={place.group}
SocketMode=0660
Backlog=65535
RemoveOnStop=yes

[Install]
WantedBy=sockets.target
"""


def users(place: UnitPlace) -> str:
    """The drop-in for blocks with `user`: only root can become somebody else."""
    return f"""\
# For python blocks with `user`: the daemon runs as root, with no more of root's rights than that takes.
# An app without `user` then runs as root too; give each one.
[Service]
User=root
Group=root
ExecStartPre=
ExecStartPre=+{_make_folder(place, "root", SOCKETS)}
# Of its own, since the one below {SOCKETS} may be another user's from before.
ExecStartPre=+/usr/bin/install -d -m 755 {SOCKETS}-root
Environment=RUNTIME_DIRECTORY={SOCKETS}-root
ReadWritePaths=-{SOCKETS}-root
CapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_KILL CAP_CHOWN CAP_FOWNER CAP_DAC_OVERRIDE
CapabilityBoundingSet=CAP_SYS_RESOURCE CAP_SYS_NICE CAP_SYS_PTRACE
"""


def _service(place: UnitPlace, user: str, config: str, instance: str, what: str, cgroup: str) -> str:
    """``instance``: what the names of its folders end in."""
    folder = f"{SOCKETS}{instance}"
    if place.systemd >= _RESTART_STEPS_SINCE:
        restart = "RestartSec=100ms\nRestartSteps=8\nRestartMaxDelaySec=15s"
    else:
        restart = "RestartSec=1s"
    return f"""\
[Unit]
Description=caddysnake: {what} behind Caddy
Wants=network-online.target
After=network-online.target
# At boot the sockets are there before Caddy is; at shutdown Caddy finishes its requests first.
Before=caddy.service
# A start that fails lets go of the sockets, so trying for ever keeps no request waiting.
StartLimitIntervalSec=0

[Service]
Type=notify
User={user}
Group={user}
WorkingDirectory={config.rpartition("/")[0]}
Environment=RUNTIME_DIRECTORY={folder}
# The group of a socket is its folder's. So neither are the apps in Caddy's group, nor is Caddy in theirs.
ExecStartPre=+{_make_folder(place, user, folder)}
ExecStart={place.program} run --config {config} --socket-dir {folder}
ExecReload={place.program} reload --config {config}
Restart=always
{restart}
WatchdogSec=30s
TimeoutAbortSec=5s
# SIGTERM is for the daemon alone: it ends its workers when they have answered what they were asked.
KillMode=mixed
# So that `limits {{ memory }}` and `processes` may count what a worker has started as well, and `cpu` holds.
Delegate=cpu memory pids
# A worker that the kernel kills for want of memory does not take the others along.
OOMPolicy=continue
# What an app may say is bounded for each by itself; one limit for all would let the loudest silence the others.
LogRateLimitIntervalSec=0
# Copies of the listening sockets: who connects while the daemon is started again waits, and is served.
FileDescriptorStoreMax=1024

# What an app may write to: /var/lib/caddysnake{instance}, its TMPDIR, and what a drop-in adds with ReadWritePaths=.
StateDirectory=caddysnake{instance}
ProtectSystem=strict
ReadWritePaths=-{folder}
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
NoNewPrivileges=yes
CapabilityBoundingSet=
RestrictSUIDSGID=yes
ProtectControlGroups=yes
# But for its own, which is delegated. Elsewhere when a drop-in sets Slice=.
ReadWritePaths=-/sys/fs/cgroup/system.slice/{cgroup}
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectKernelLogs=yes
ProtectClock=yes
ProtectHostname=yes
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""


def _make_folder(place: UnitPlace, user: str, folder: str) -> str:
    return f"/usr/bin/install -d -o {user} -g {place.group} -m 2750 {folder}"
