"""What the daemon says to an interpreter that is to become a command, on the socket that it waits on."""

from __future__ import annotations

GO = b"g"
"""Execute it."""
GO_GROUPED = b"m"
"""The same; its cgroup limits its memory."""
