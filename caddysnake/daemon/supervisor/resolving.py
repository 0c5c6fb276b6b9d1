"""From what a block says to what runs: one value each."""

from __future__ import annotations

from ...config.language.models import Limits
from ...config.plan.plan import AppSpec, PlannedListener
from ..sockets.addresses import Address, FdAddress, TcpAddress, UnixAddress
from ..workers.warmup import WarmUp


def warmup_of(spec: AppSpec) -> WarmUp | None:
    """What each worker answers before it is ready."""
    asked = spec.block.warmup
    if asked is None:
        return None
    return WarmUp(asked.paths, asked.host or spec.host or "localhost", asked.timeout_s, asked.expect)


def limits_of(limits: Limits | None) -> dict[str, int] | None:
    """What a worker's process may use, by the names of ``worker.process.limits``; None: what the daemon may."""
    if limits is None:
        return None
    given = {
        "memory": limits.memory_bytes,
        "open_files": limits.open_files,
        "processes": limits.processes,
        "file_size": limits.file_size_bytes,
        "niceness": limits.niceness,
        "cpu": limits.cpu_percent,
    }
    return {name: value for name, value in given.items() if value is not None}


def address_of(listener: PlannedListener) -> Address:
    """Where a listener listens."""
    socket = listener.socket
    if socket.network == "unix":
        assert socket.mode is not None  # of a plan
        return UnixAddress(socket.path, socket.mode, socket.owner, socket.group)
    return TcpAddress(socket.host, socket.port or 0) if socket.fd is None else FdAddress(socket.fd)
