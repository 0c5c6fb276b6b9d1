"""When an exception only says that the client left."""

from __future__ import annotations

import asyncio

import pytest

from caddysnake.worker.asgi.cycles.cycle import ClientDisconnected, is_about_leaving


class Wrapped(Exception):
    """A framework's own, as Starlette's ClientDisconnect."""


class Group(Exception):
    """Like an ExceptionGroup, which Python 3.10 has not."""

    def __init__(self, *members: BaseException) -> None:
        super().__init__("several")
        self.exceptions = members


def raised_from(cause: BaseException) -> BaseException:
    with pytest.raises(Wrapped) as caught:
        raise Wrapped from cause
    return caught.value


@pytest.mark.parametrize(
    "exc",
    [
        ClientDisconnected(),
        asyncio.CancelledError(),
        raised_from(ClientDisconnected()),
        Group(ValueError(), ClientDisconnected()),
        Group(Group(raised_from(ClientDisconnected()))),
    ],
)
def test_it_is_found_however_it_is_wrapped(exc: BaseException) -> None:
    assert is_about_leaving(exc)


def test_anything_else_is_the_apps_own() -> None:
    assert not is_about_leaving(ValueError())
    assert not is_about_leaving(raised_from(ConnectionError()))
    assert not is_about_leaving(Group(ValueError(), KeyError()))


def test_a_group_that_is_the_context_of_its_member_is_looked_at_once() -> None:
    member = ValueError()
    group = Group(member)
    member.__context__ = group
    assert not is_about_leaving(group)
