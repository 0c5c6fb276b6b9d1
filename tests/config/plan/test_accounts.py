"""Which names become which users."""

from __future__ import annotations

import os
import pwd

import pytest
from support.tenants import ALICE, BOB, needs_root

from caddysnake.config.plan import accounts
from caddysnake.config.plan.accounts import Account, AccountError, resolve


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    """``alice`` is an ordinary user, ``service`` one of the system's."""
    people = {"alice": (ALICE, "/home/alice"), "service": (990, "/nonexistent"), "nobody": (65534, "/nonexistent")}

    def find(name: str) -> pwd.struct_passwd:
        uid, home = people[name]
        return pwd.struct_passwd((name, "x", uid, uid, "", home, "/bin/sh"))

    monkeypatch.setattr(pwd, "getpwnam", find)
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: [gid, 3, 2])


def test_no_user_and_no_group_is_who_we_are() -> None:
    assert resolve(None, None) is None


@needs_root
def test_a_user_has_its_own_group_and_supplementary_groups(named: None) -> None:
    assert resolve("alice", None) == Account(ALICE, ALICE, (2, 3), "alice", "/home/alice")


@needs_root
def test_a_number_needs_no_name() -> None:
    assert resolve(str(BOB), None) == Account(BOB, BOB, (), str(BOB), "/")


@needs_root
def test_a_group_takes_the_place_of_the_users_own(named: None) -> None:
    found = resolve("alice", str(BOB))
    assert found is not None
    assert (found.uid, found.gid) == (ALICE, BOB)


@pytest.mark.parametrize("name", ["no-such-user", "4294967295", "99999999999999999999"])
def test_a_user_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(AccountError, match=f"there is no user {name}"):
        resolve(name, None)


def test_a_group_that_is_not_there_is_named() -> None:
    with pytest.raises(AccountError, match="there is no group no-such-group"):
        resolve(None, "no-such-group")


@needs_root
@pytest.mark.parametrize("name", ["service", "nobody"])
def test_a_request_cannot_choose_a_user_of_the_systems(named: None, name: str) -> None:
    assert resolve(name, None) is not None
    with pytest.raises(AccountError, match="is not an ordinary one"):
        resolve(name, None, user_by_request=True)
    assert resolve("alice", None, user_by_request=True) is not None


@needs_root
def test_a_request_cannot_choose_a_group_of_the_systems(named: None) -> None:
    with pytest.raises(AccountError, match=r"group 5 .* is not an ordinary one"):
        resolve("alice", "5", group_by_request=True)
    with pytest.raises(AccountError, match=r"user 0 .* is not an ordinary one"):
        resolve("0", None, user_by_request=True)


def test_only_root_may_become_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: ALICE)
    monkeypatch.setattr(os, "getegid", lambda: ALICE)
    with pytest.raises(AccountError, match=f"only root may run an app as user {BOB}"):
        resolve(str(BOB), None)
    assert resolve(str(ALICE), None) is None
    assert accounts.user_id(str(BOB)) == BOB
