"""Errors, and the line that would have let an app have what it was denied."""

from __future__ import annotations

import time

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


def test_where_no_line_would_help_none_is_named() -> None:
    text = (
        'Traceback …\n  File "/srv/a.py", line 5, in app\n    os.symlink("/srv/x", "media/x")\n'
        "PermissionError: [Errno 13] Permission denied: '/srv/x' -> 'media/x'\n"
    )
    assert hint(text) == "(in a sandbox links can be made in TMPDIR only)"


CALLED = "Traceback …\n  File \"/srv/a.py\", line 5, in app\n    {}\nPermissionError: [Errno 13] Permission denied\n"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("PermissionError: [Errno 13] Permission denied: '/etc/passwd'", "`read /etc/passwd` or `write /etc/passwd`"),
        ("PermissionError: [Errno 13] Permission denied: '/etc/not there'", "`write /etc`"),
        ("PermissionError: [Errno 13] Connect call failed ('127.0.0.1', 5432)", "`connect 5432`"),
        ('connection to server at "127.0.0.1", port 5432 failed: Permission denied', "`connect 5432`"),
        ("redis.ConnectionError: Error 13 connecting to localhost:6379. Permission denied.", "`connect 6379`"),
        ("[Errno 13] error while attempting to bind on address ('::1', 80, 0, 0): permission denied", "`listen 80`"),
        (CALLED.format("sock.connect(sa)"), "`connect PORT`"),
        (CALLED.format("server.bind(address)\n    ^^^^^^^^^^^^^^^^^^^^"), "`listen PORT`"),
        ("OSError: [Errno 97] Address family not supported by protocol", "`unix any`"),
        (CALLED.format("os.setpriority(0, 7, 5)"), ""),
        ("", ""),
    ],
)
def test_the_line_that_would_allow_it_is_named(text: str, lines: str) -> None:
    assert hint(text) == (f"(outside of the sandbox: {lines} in the block of sandbox would allow it)" if lines else "")


@pytest.mark.parametrize("piece", ["PermissionError: [Errno 13] ", "[Errno 13]", ".connect(", ".bind("])
def test_a_text_that_an_app_makes_up_for_it_takes_no_time(piece: str) -> None:
    begun = time.process_time()
    assert hint(piece * (400_000 // len(piece))) == ""
    assert time.process_time() - begun < 10, "it was more than twenty"
