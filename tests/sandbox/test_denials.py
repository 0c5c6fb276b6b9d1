"""Errors, and the line that would have let an app have what it was denied."""

from __future__ import annotations

import pytest

from caddysnake.sandbox.denials import denied_path, hint


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("Traceback …\nPermissionError: [Errno 13] Permission denied: '/srv/media/a.png'", "/srv/media/a.png"),
        ('PermissionError: [Errno 13] Permission denied: "/srv/o\'neill"', "/srv/o'neill"),
        ("PermissionError: [Errno 13] Permission denied: b'/srv/x'", "/srv/x"),
        (
            "python3: error while loading shared libraries: /opt/lib/libz.so.1: cannot open shared object file: "
            "Permission denied",
            "/opt/lib/libz.so.1",
        ),
        (
            "PermissionError: [Errno 13] Permission denied: '/first'\n\nDuring handling …\n"
            "PermissionError: [Errno 13] Permission denied: '/last'",
            "/last",
        ),
        ("ImportError: /opt/x.so: cannot open shared object file: Permission denied", "/opt/x.so"),
        ("PermissionError: [Errno 1] Operation not permitted", ""),
        ("FileNotFoundError: [Errno 2] No such file or directory: '/srv/x'", ""),
        ("", ""),
    ],
)
def test_the_last_path_that_was_denied_is_named(text: str, path: str) -> None:
    assert denied_path(text) == path
    assert (f"`read {path}`" in hint(text)) == bool(path)
