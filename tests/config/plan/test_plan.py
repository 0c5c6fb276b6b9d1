"""A configuration with every question answered."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from caddysnake.config.language.adapt import load
from caddysnake.config.language.values import SocketAddress
from caddysnake.config.plan.environment import worker_environ
from caddysnake.config.plan.plan import AppSpec, Plan, plan


def planned(source: str, base: Path | str = "/srv", *, cores: int = 3, own_sockets: bool = False) -> Plan:
    config = load(source.encode(), "Caddyfile", {})
    return plan(config, cores=cores, base_dir=str(base), socket_dir="/run/test", own_sockets=own_sockets)


def app(block: str, base: Path | str = "/srv") -> AppSpec:
    """The app of a block, given by its lines."""
    lines = "".join(f"\t\t{line}\n" for line in block.splitlines())
    (found,) = planned(f"unix//run/x.sock {{\n\tpython {{\n{lines}\t}}\n}}\n", base).apps
    return found


def test_paths_are_relative_to_the_base_directory() -> None:
    found = app("module_wsgi main:app\nworking_dir apps/shop\nvenv apps/shop/.venv")
    assert found.working_dir == "/srv/apps/shop"
    assert found.venv == "/srv/apps/shop/.venv"
    assert found.python == "/srv/apps/shop/.venv/bin/python3"


def test_what_caddy_takes_off_every_path_is_the_apps_root_path() -> None:
    site = (
        "&(shared) {\n\tpython shared:app\n}\n"
        "http://a.example {\n"
        "\thandle_path /one/* {\n\t\thandle_path /two/* {\n\t\t\tpython nested:app\n\t\t}\n\t\tpython one:app\n\t}\n"
        "\thandle_path /three/* {\n\t\tinvoke shared\n\t}\n\thandle /four/* {\n\t\tinvoke shared\n\t}\n"
        "\tpython plain:app\n}\n"
    )
    found = {spec.module: spec.root_path for spec in planned(site, own_sockets=True).apps}
    assert found == {"nested": "/one/two", "one": "/one", "shared": "", "plain": ""}


def test_on_a_socket_of_ours_the_relay_takes_the_prefix_off_and_says_so() -> None:
    (found,) = planned("unix//run/x.sock {\n\thandle_path /one/* {\n\t\tpython one:app\n\t}\n}\n").apps
    assert found.root_path == ""


def test_without_a_working_dir_it_is_the_base_directory() -> None:
    assert app("module_wsgi main:app").working_dir == "/srv"


def test_without_a_venv_our_own_python_runs_the_app() -> None:
    found = app("module_wsgi main:app")
    assert (found.python, found.venv) == (sys.executable, None)


def test_a_venv_may_have_its_python_under_either_name(tmp_path: Path) -> None:
    (tmp_path / "v" / "bin").mkdir(parents=True)
    (tmp_path / "v" / "bin" / "python").touch()
    assert app("module_wsgi main:app\nvenv v", tmp_path).python == str(tmp_path / "v/bin/python")


def test_python_path_goes_before_the_venv() -> None:
    assert app("module_wsgi main:app\nvenv v\npython_path bin/python3.13").python == "/srv/bin/python3.13"


def test_a_python_path_without_a_slash_is_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "python9"
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert app("module_wsgi main:app\npython_path python9").python == str(program)


def test_workers_are_one_for_each_core() -> None:
    assert app("module_asgi main:app").workers == 3
    assert app("module_asgi main:app\nworkers auto").workers == 3
    assert app("module_asgi main:app\nworkers 7").workers == 7


def test_the_simple_form_has_one_worker() -> None:
    (found,) = planned("unix//run/x.sock {\n\tpython main:app\n}\n").apps
    assert (found.block.interface, found.workers) == ("wsgi", 1)


def test_a_dynamic_app_has_one_worker() -> None:
    found = app("module_asgi {labels.2}:app")
    assert (found.dynamic, found.workers) == (True, 1)


def test_the_runtime_decides_the_loop() -> None:
    assert app("module_asgi main:app").loop == "uvloop"
    assert app("module_asgi main:app\nruntime native").loop == "asyncio"


def test_the_global_grace_period_is_the_default() -> None:
    found = planned(
        "{\n\tgrace_period 20s\n}\nunix//run/x.sock {\n\tpython a:b\n}\n"
        "unix//run/y.sock {\n\tpython {\n\t\tmodule_wsgi c:d\n\t\tgrace_period 40s\n\t}\n}\n"
    )
    assert [spec.grace_period_s for spec in found.apps] == [20.0, 40.0]
    assert found.grace_period_s == 40.0


def test_env_files_come_first_and_the_later_wins(tmp_path: Path) -> None:
    (tmp_path / "one.env").write_text("A=1\nB=1\nC=1\n")
    (tmp_path / "two.env").write_text("B=2\nC=2\n")
    found = app("module_wsgi main:app\nenv_var C 3\nenv_file one.env\nenv_file two.env", tmp_path)
    assert found.environ == {"A": "1", "B": "2", "C": "3"}


def test_escaped_braces_are_literal() -> None:
    assert app('module_wsgi main:app\nenv_var SHAPE `\\{"a":1\\}`').environ == {"SHAPE": '{"a":1}'}


def test_a_bad_line_of_an_env_file_is_a_problem_with_both_places(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\nnonsense\n")
    config = load(b"unix//run/x.sock {\n\tpython {\n\t\tmodule_wsgi a:b\n\t\tenv_file .env\n\t}\n}\n", "Caddyfile", {})
    (problem,) = plan(config, cores=1, base_dir=str(tmp_path)).apps[0].problems
    assert (problem.file, problem.line) == (str(tmp_path / ".env"), 2)
    assert "Caddyfile:4" in str(problem)


def test_a_missing_env_file_is_a_problem_at_its_line(tmp_path: Path) -> None:
    config = load(b"unix//run/x.sock {\n\tpython {\n\t\tmodule_wsgi a:b\n\t\tenv_file .env\n\t}\n}\n", "Caddyfile", {})
    (problem,) = plan(config, cores=1, base_dir=str(tmp_path)).apps[0].problems
    assert (problem.file, problem.line) == ("Caddyfile", 4)


def test_names_are_told_apart() -> None:
    sites = "".join(
        f"unix//run/{number}.sock {{\n\tpython {{\n\t\tmodule_wsgi {module}\n\t\t{folder}\n\t}}\n}}\n"
        for number, (module, folder) in enumerate(
            [
                ("main:app", "working_dir /srv/blog"),
                ("main:app", "working_dir /srv/shop/"),
                ("main:app", ""),
                ("main:app", ""),
                ("other:app", "working_dir /srv/blog"),
            ]
        )
    )
    names = [spec.name for spec in planned(sites).apps]
    assert names == ["blog/main:app", "shop/main:app", "main:app", "main:app#2", "other:app"]


def test_two_specs_are_equal_wherever_they_were_written() -> None:
    one = planned("unix//run/x.sock {\n\tpython a:b\n}\n")
    other = planned("# a comment\n\nunix//run/x.sock {\n\n\tpython a:b\n}\n")
    assert one == other
    assert one.apps[0].position != other.apps[0].position


def test_a_listener_is_resolved() -> None:
    (found,) = planned("{\n\tsocket_group caddy\n}\nunix/x.sock|0600|deploy {\n\tpython a:b\n}\n").listeners
    assert found.socket == SocketAddress("unix", "/srv/x.sock", mode=0o600, owner="deploy", group="caddy")
    assert (found.kind, found.app, found.own) == ("direct", 0, False)
    assert str(found) == "unix//srv/x.sock"


def test_tcp_listeners_have_host_and_port() -> None:
    (found,) = planned("tcp/[::1]:9000 {\n\tpython a:b\n}\n").listeners
    assert (found.socket, str(found)) == (SocketAddress("tcp", host="::1", port=9000), "tcp/[::1]:9000")


def test_an_inherited_socket_is_known_by_its_number() -> None:
    (found,) = planned("fd/3 {\n\tpython a:b\n}\n").listeners
    assert (found.socket.network, found.socket.fd) == ("fd", 3)


def test_a_site_of_caddys_gets_a_socket_in_our_folder() -> None:
    (found,) = planned("example.com {\n\tpython a:b\n}\n").listeners
    assert found.own
    assert found.path.startswith("/run/test/example.com-a-b-")


def test_bind_is_caddys_where_caddy_reads_the_file_too() -> None:
    source = ":80 {\n\tbind unix//run/x.sock\n\tpython a:b\n}\n"
    assert [str(listener) for listener in planned(source).listeners] == ["unix//run/x.sock"]
    (own,) = planned(source, own_sockets=True).listeners
    assert own.own


def test_the_name_of_an_own_socket_stays_when_other_blocks_come_and_go() -> None:
    block = "example.com {\n\tpython /admin/* a:b\n\tpython a:b\n}\n"
    before = {listener.path for listener in planned(block).listeners}
    after = {listener.path for listener in planned("other.example {\n\tpython c:d\n}\n" + block).listeners}
    assert len(before) == 2
    assert before < after


def test_equal_blocks_have_sockets_of_their_own() -> None:
    paths = [listener.path for listener in planned("example.com {\n\tpython a:b\n\tpython a:b\n}\n").listeners]
    assert len(set(paths)) == 2


def test_an_own_socket_in_a_deep_folder_is_a_problem() -> None:
    config = load(b"example.com {\n\tpython a:b\n}\n", "Caddyfile", {})
    (problem,) = plan(config, cores=1, socket_dir="/" + "x" * 100).problems
    assert "107" in problem.message


def test_a_worker_inherits_what_says_where_it_runs() -> None:
    daemon = {
        "PATH": "/bin",
        "LC_ALL": "C.UTF-8",
        "https_proxy": "http://proxy",
        "NO_PROXY": "localhost",
        "SECRET": "x",
        "NOTIFY_SOCKET": "/run/notify",
        "CADDYSNAKE_DEBUG": "1",
        "LD_PRELOAD": "x.so",
    }
    assert worker_environ(app("module_wsgi a:b\nenv_var PATH /opt/bin"), daemon) == {
        "PATH": "/opt/bin",
        "LC_ALL": "C.UTF-8",
        "https_proxy": "http://proxy",
        "NO_PROXY": "localhost",
    }


def test_pass_env_hands_on_more_but_not_what_is_the_daemons_alone() -> None:
    daemon = {"DB_URL": "x", "DB_KEY": "y", "OTHER": "z", "NOTIFY_SOCKET": "n", "LD_PRELOAD": "x", "LISTEN_FDS": "1"}
    assert worker_environ(app("module_wsgi a:b\npass_env DB_*"), daemon) == {"DB_URL": "x", "DB_KEY": "y"}
    assert worker_environ(app("module_wsgi a:b\npass_env *"), daemon) == {"DB_URL": "x", "DB_KEY": "y", "OTHER": "z"}
