"""What a worker's process may use: set by itself before the app is imported, and not to be raised again."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping

_RESOURCES = {
    # Memory that a process has to itself and may write to. Not its address space: what it maps of files, and what
    # its libraries only reserve, costs nobody anything.
    "memory": resource.RLIMIT_DATA,
    "open_files": resource.RLIMIT_NOFILE,
    "processes": resource.RLIMIT_NPROC,
    "file_size": resource.RLIMIT_FSIZE,
}


def apply(limits: Mapping[str, int]) -> None:
    """Set ``limits`` by name, ``niceness`` as in nice(1); what is lower already stays so. Raises ``OSError``."""
    for name, kind in _RESOURCES.items():
        if name in limits:
            _, hard = resource.getrlimit(kind)
            wanted = limits[name] if hard == resource.RLIM_INFINITY else min(limits[name], hard)
            resource.setrlimit(kind, (wanted, wanted))
    if "niceness" in limits:
        os.setpriority(os.PRIO_PROCESS, 0, limits["niceness"])
