"""Who is pinged when, and who is given up."""

from __future__ import annotations

from caddysnake.worker.websocket.keepalive import Due, KeepAlive


def test_a_quiet_client_is_pinged_once() -> None:
    alive = KeepAlive(20.0, 5.0)
    assert alive.look(119.0, 100.0, is_writable=True) is Due.NOTHING
    assert alive.look(121.0, 100.0, is_writable=True) is Due.PING
    assert alive.look(122.0, 100.0, is_writable=True) is Due.NOTHING


def test_one_that_stays_quiet_is_given_up() -> None:
    alive = KeepAlive(20.0, 5.0)
    assert alive.look(121.0, 100.0, is_writable=True) is Due.PING
    assert alive.look(126.0, 100.0, is_writable=True) is Due.NOTHING
    assert alive.look(126.5, 100.0, is_writable=True) is Due.FAIL


def test_whatever_comes_is_an_answer() -> None:
    alive = KeepAlive(20.0, 5.0)
    assert alive.look(121.0, 100.0, is_writable=True) is Due.PING
    assert alive.look(130.0, 124.0, is_writable=True) is Due.NOTHING
    assert alive.look(145.0, 124.0, is_writable=True) is Due.PING


def test_one_that_has_enough_to_read_is_not_pinged() -> None:
    alive = KeepAlive(20.0, 5.0)
    assert alive.look(121.0, 100.0, is_writable=False) is Due.NOTHING
    assert alive.look(122.0, 100.0, is_writable=True) is Due.PING


def test_without_an_interval_nobody_is_pinged() -> None:
    assert KeepAlive(0.0, 5.0).look(1e6, 0.0, is_writable=True) is Due.NOTHING
