"""Which hosts are served: those that a site names, and those whose dynamic app is on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from caddysnake.config.check.on_demand import HostDirectory
from caddysnake.config.check.settled import settle
from caddysnake.config.language.adapt import load
from caddysnake.config.plan.plan import plan


def directory(text: str, base: Path, *, own_sockets: bool = False) -> HostDirectory:
    environ = {"TENANTS": str(base)}
    config = load(text.encode(), "Caddyfile", environ)
    planned = plan(config, cores=1, base_dir=str(base), own_sockets=own_sockets)
    settled = settle(config, planned, environ, own_sockets=own_sockets)
    return HostDirectory(config, settled.plan, environ, str(base), own_sockets=own_sockets)


@pytest.fixture
def tenants(tmp_path: Path) -> Path:
    for name in ("ann", "bob"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "main.py").write_text("raise SystemExit('this must never run')")
    (tmp_path / "empty").mkdir()
    (tmp_path / "main.py").write_text("")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "main.py").write_text("")
    return tmp_path


TENANTS = """
*.example.com {
    tls {
        on_demand
    }
    python {
        module_asgi "main:app"
        working_dir "{env.TENANTS}/{labels.2}/"
    }
}
www.example.com {
    python main:app
}
"""
SOCKET = """
unix//run/x.sock {
    python {
        module_asgi "main:app"
        working_dir "{env.TENANTS}/{labels.2}/"
    }
}
"""


@pytest.mark.parametrize("own_sockets", [True, False])
def test_a_host_whose_tenant_is_there_is_served_and_no_other(tenants: Path, own_sockets: bool) -> None:
    hosts = directory(TENANTS, tenants, own_sockets=own_sockets)
    served = ["ann.example.com", "BOB.Example.com", "ann.example.com.", "www.example.com"]
    assert [host for host in served if not hosts.serves(host)] == []
    strangers = [
        "eve.example.com",  # no folder
        "empty.example.com",  # a folder without the module
        "ann.example.org",
        "example.com",
        "x.ann.example.com",
        "ann.example.com:443",
    ]
    assert [host for host in strangers if hosts.serves(host)] == []


def test_a_socket_that_takes_every_host_serves_those_whose_labels_lead_to_a_tenant(tenants: Path) -> None:
    hosts = directory(SOCKET, tenants)
    assert hosts.serves("ann.example.com")
    assert hosts.serves("bob.example.org")
    assert not hosts.serves("example.com")
    assert not hosts.serves("eve.example.com")


@pytest.mark.parametrize(
    "host",
    ["", ".", "..", "...example.com", "../..example.com", ".hidden.example.com", "a/b.example.com",
     "%2e%2e.example.com",
     "ann\0.example.com", "ann .example.com", "-ann.example.com", "ann..example.com", "x" * 64 + ".example.com",
     "a." * 127 + "example.com", "[::1]", "ünn.example.com", "ann.example.com\r\nHost: x", "*.example.com"],
)  # fmt: skip
def test_what_is_no_host_name_is_not_served(tenants: Path, host: str) -> None:
    assert not directory(SOCKET, tenants).serves(host)


def test_an_app_that_any_host_reaches_vouches_for_none(tenants: Path) -> None:
    """Else whoever points a name at this server could have certificates made without end."""
    assert not directory(":443 {\n python main:app\n}", tenants).serves("ann.example.com")
    assert not directory("*.example.com {\n python main:app\n}", tenants).serves("ann.example.com")


def test_tenants_behind_a_matcher_are_served_where_it_lets_them(tenants: Path) -> None:
    text = """
    unix//run/x.sock {
        @known host *.example.com
        python @known {
            module_asgi "main:app"
            working_dir "{env.TENANTS}/{labels.2}/"
        }
    }
    """
    assert directory(text, tenants).serves("ann.example.com")
    assert not directory(text, tenants).serves("ann.example.org")


def test_a_tenant_that_comes_later_is_served_then(tenants: Path) -> None:
    hosts = directory(SOCKET, tenants)
    assert not hosts.serves("new.example.com")
    (tenants / "new").mkdir()
    (tenants / "new" / "main.py").write_text("")
    assert hosts.serves("new.example.com")
