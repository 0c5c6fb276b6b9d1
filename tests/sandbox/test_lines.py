"""From what was asked for to the lines of a block."""

from __future__ import annotations

from pathlib import Path

import pytest

from caddysnake.sandbox.lines import missing
from caddysnake.sandbox.walls import Grant, Walls
from caddysnake.sandbox.watching import Wanted

WALLS = Walls((Grant("/srv/blog", "read"), Grant("/srv/media", "write"), Grant("/dev/null", "use"),
               Grant("/dev/shm", "share")), connect=(443,), has_unix=False)  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "lines"),
    [
        ([("read", "/srv/blog/a"), ("read", "/srv/media/b"), ("write", "/srv/media/b")], []),
        ([("write", "/srv/blog/a")], ["write /srv/blog/a"]),
        ([("write", "/dev/null"), ("read", "/dev/null"), ("write", "/dev/shm/sem.x"), ("write", "/dev/shm")], []),
        ([("read", "/dev/shm")], ["read /dev/shm"]),
        ([("read", "/opt/a"), ("read", "/opt/b")], ["read /opt/a", "read /opt/b"]),
        ([("read", "/opt/x/a"), ("read", "/opt/x/b"), ("read", "/opt/x/c")], ["read /opt/x"]),
        ([("read", "/opt/a"), ("write", "/opt/a")], ["write /opt/a"]),
        ([("write", "/proc/7/oom_score_adj"), ("read", "/dev/ptmx")], []),
        ([("read", "/opt/my data/a #1")], ['read "/opt/my data/a #1"']),
        ([("read", "/opt/x\n\tunix any"), ("read", '/opt/"x"/{$HOME}')], ["read /opt"]),
        ([("connect", "443")], []),
        ([("connect", "5432"), ("connect", "80")], ["connect 80 443 5432"]),
        ([("listen", "8000"), ("listen", "0")], ["listen 8000"]),
        ([("unix", ""), ("unix", "/run/db.sock")], ["unix any"]),
    ],
)
def test_only_what_the_walls_lack_is_named(wanted: list[tuple[str, str]], lines: list[str]) -> None:
    assert missing([Wanted(*each) for each in wanted], WALLS) == lines


def test_what_is_not_restricted_needs_no_line(tmp_path: Path) -> None:
    free = Walls(connect=None, listen=None)
    assert missing([Wanted("connect", "80"), Wanted("listen", "80"), Wanted("unix", "")], free) == []
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").touch()
    assert missing([Wanted("read", str(tmp_path / "a")), Wanted("read", str(tmp_path / "a/b"))], free) == [
        f"read {tmp_path}/a"
    ]
