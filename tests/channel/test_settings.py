"""What a worker must know, in a sealed memfd."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caddysnake.channel.settings import Settings, seal, unseal

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
EXAMPLE = Settings("blog", "wsgi", "site.app", "make_app()", "/srv/blog", {"SECRET": "ü$ \n"}, max_body_bytes=7)


@pytest.fixture
def fd() -> Iterator[int]:
    fd = seal(EXAMPLE)
    yield fd
    os.close(fd)


def test_settings_survive_the_journey(fd: int) -> None:
    assert unseal(fd) == EXAMPLE


@given(st.dictionaries(TEXT, TEXT, max_size=5), TEXT, st.none() | st.integers(0, 2**60), st.floats(0, 1e9))
def test_any_environment_survives_the_journey(
    environ: dict[str, str], directory: str, limit: int | None, timeout: float
) -> None:
    settings = EXAMPLE._replace(environ=environ, working_dir=directory, max_body_bytes=limit, head_timeout_s=timeout)
    fd = seal(settings)
    try:
        assert unseal(fd) == settings
    finally:
        os.close(fd)


def test_bytes_of_a_path_that_are_no_text_survive_the_journey() -> None:
    """A directory's name need not be UTF-8; Python keeps its bytes as lone surrogates."""
    settings = EXAMPLE._replace(working_dir=os.fsdecode(b"/srv/\xff"))
    fd = seal(settings)
    try:
        assert os.fsencode(unseal(fd).working_dir) == b"/srv/\xff"
    finally:
        os.close(fd)


def test_nobody_can_write_to_them_any_more(fd: int) -> None:
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"{}", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 100_000)
    with pytest.raises(PermissionError):
        mmap.mmap(fd, 10)


def test_reading_them_does_not_move_the_file(fd: int) -> None:
    before = os.lseek(fd, 0, os.SEEK_CUR)
    unseal(fd)
    assert unseal(fd) == EXAMPLE
    assert os.lseek(fd, 0, os.SEEK_CUR) == before


def test_the_descriptor_is_close_on_exec(fd: int) -> None:
    assert not os.get_inheritable(fd)


def memfd(payload: bytes) -> int:
    fd = os.memfd_create("test", os.MFD_CLOEXEC)
    os.write(fd, payload)
    return fd


def test_a_setting_of_a_newer_daemon_is_ignored() -> None:
    fd = memfd(json.dumps({**EXAMPLE._asdict(), "brought_by_a_later_version": [1]}).encode())
    try:
        assert unseal(fd) == EXAMPLE
    finally:
        os.close(fd)


def test_a_setting_that_an_older_daemon_does_not_send_has_its_default() -> None:
    raw = EXAMPLE._asdict()
    del raw["websocket_ping_timeout_s"]
    fd = memfd(json.dumps(raw).encode())
    try:
        assert unseal(fd) == EXAMPLE
    finally:
        os.close(fd)


@pytest.mark.parametrize("payload", [b"", b"{", b"null", b"[]", b"7", b"{}", b'{"app": "x"}', b"\xff\xfe"])
def test_what_is_no_settings_is_refused(payload: bytes) -> None:
    fd = memfd(payload)
    try:
        with pytest.raises(ValueError):  # noqa: PT011
            unseal(fd)
    finally:
        os.close(fd)


def test_settings_of_absurd_size_are_refused() -> None:
    fd = os.memfd_create("test", os.MFD_CLOEXEC)
    os.ftruncate(fd, 1 << 40)
    try:
        with pytest.raises(ValueError, match="bytes"):
            unseal(fd)
    finally:
        os.close(fd)
