"""A rule of a sandbox is of a file: one that takes its place is closed, and that is noticed."""

from __future__ import annotations

import os

from caddysnake.config.plan.fence import identities
from caddysnake.daemon.workers.forking.interpreter import UNSEEN, replaced
from caddysnake.sandbox.walls import Grant, Walls


def test_a_file_of_the_systems_that_was_replaced_is_noticed_and_a_folder_of_an_apps_is_not() -> None:
    walls = Walls((Grant("/etc/hosts", "read"), Grant("/etc/passwd", "read"), Grant("/srv/gone", "read")))
    sight = UNSEEN._replace(walls=walls, identities=identities(walls))
    assert replaced(sight) == []
    assert replaced(UNSEEN) == []
    hosts, passwd, _ = sight.identities
    assert hosts == (os.stat("/etc/hosts").st_dev, os.stat("/etc/hosts").st_ino)
    assert replaced(sight._replace(identities=((1, 1), passwd, (1, 1)))) == ["/etc/hosts"]
