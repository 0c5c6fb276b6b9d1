"""What one request may cost before anything of ours or the app's has looked at it."""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    """Sizes are bytes as they came over the wire; None means no limit. ``channel.settings`` says a process's."""

    max_head_bytes: int = 1_114_112
    """Request line and header section together. Debian's Caddy lets 1 MiB and its own additions through."""
    max_target_bytes: int = 65_536
    max_header_count: int = 256
    max_body_bytes: int | None = None


CHUNK_OVERHEAD_BYTES = 16 * 1024
"""Chunk sizes, extensions and trailers that a body may bring beyond ``CHUNK_OVERHEAD_RATIO`` times its content. One
extension could otherwise go on for ever without ever reaching the app, nor any limit on the body."""

CHUNK_OVERHEAD_RATIO = 8
"""A body of one-byte chunks costs five bytes of framing for each of its own."""
