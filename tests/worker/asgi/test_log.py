"""What is said about a request that dies: one record with what it was, and a page for the developer."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.daemon import eventually
from support.rawhttp import RawClient
from support.worker import running, settings

HERE = Path(__file__).parent


def said(capfd: pytest.CaptureFixture[str], *paths: str, development: bool = False) -> tuple[list[bytes], str]:
    """The contents of the answers to ``paths``, and what the worker wrote meanwhile."""
    with running(settings("asgi_apps:app", "asgi", HERE, development=development)) as worker:
        with RawClient(worker.connect()) as client:
            contents = [client.get(path).body for path in paths]
        worker.drop_duplicates()
    return contents, capfd.readouterr().err


def test_an_exception_is_logged_once_with_method_path_app_and_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    (content,), written = said(capfd, "/raise?secret=1")
    assert content == b"Internal Server Error\n"
    assert written.count("ValueError: the app's own mistake") == 1
    record = next(line for line in written.splitlines() if "raised an exception" in line)
    assert "app=asgi_apps:app" in record
    assert "method=GET" in record
    assert "path=/raise" in record
    assert "secret" not in written
    assert 'asgi_apps.py", line' in written


def test_an_app_that_does_not_answer_is_logged(capfd: pytest.CaptureFixture[str]) -> None:
    _, written = said(capfd, "/nothing", "/no_end")
    assert written.count("the app returned without a response") == 1
    assert written.count("the app returned before its response was complete") == 1


def test_a_client_that_leaves_is_nothing_to_log(capfd: pytest.CaptureFixture[str]) -> None:
    with running(settings("asgi_apps:app", "asgi", HERE)) as worker:
        with RawClient(worker.connect()) as leaving:
            leaving.send(b"GET /until_gone HTTP/1.1\r\nHost: a\r\n\r\n")
            leaving.head()
        with RawClient(worker.connect()) as client:
            client.get("/gone")
            with RawClient(worker.connect()) as leaving:
                leaving.send(b"GET /told_then_returns HTTP/1.1\r\nHost: a\r\n\r\n")
            eventually(lambda: b"http.disconnect" in client.get("/notes").body)
        worker.drop_duplicates()
    assert capfd.readouterr().err == ""


def test_a_developer_sees_the_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    (content,), _ = said(capfd, "/raise", development=True)
    assert b"ValueError: the app&#x27;s own mistake" in content or b"ValueError: the app's own mistake" in content
    assert b"asgi_apps.py" in content
    assert b"asgi_cycle.py" not in content
