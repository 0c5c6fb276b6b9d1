"""`caddysnake import`: what other servers are started with, as Caddyfiles.

To write the expectations anew: ``python tests/cli/test_import.py``, then read what it wrote.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from caddysnake.cli.importing.launch import CannotImport
from caddysnake.cli.importing.reading import imported
from caddysnake.config.language.adapt import load

FOLDER = Path(__file__).parent / "imported"
CONFIGURATIONS = sorted(path.name for path in FOLDER.iterdir())


def outcome(name: str) -> str:
    """The Caddyfile of one configuration, seen from its folder."""
    before = Path.cwd()
    os.chdir(FOLDER / name)
    try:
        (source,) = (path.name for path in Path().iterdir() if path.name != "Caddyfile")
        return imported([Path(source).read_text().strip()] if source == "command" else [source], {})
    finally:
        os.chdir(before)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_configuration_as_people_have_it_becomes_the_caddyfile_beside_it(name: str) -> None:
    text = outcome(name)
    assert text == (FOLDER / name / "Caddyfile").read_text()
    config = load(text.encode(), "Caddyfile", {"WORKERS": "2"})
    assert config.apps()
    assert not config.warnings


def test_there_are_a_dozen_configurations() -> None:
    assert len(CONFIGURATIONS) >= 12


REFUSED = {
    "gunicorn.conf.py": ("workers = \n", "gunicorn.conf.py:1: invalid syntax (the file must be valid Python"),
    "uwsgi.ini": ("[app]\nworkers = 2\n", "uwsgi.ini: there is no section [uwsgi]"),
    "hypercorn.toml": ("workers = = 2\n", "hypercorn.toml: Invalid value"),
    "Procfile": ("worker: celery worker\n", "no process in it starts one of gunicorn"),
    "Procfile.dev": ("web gunicorn\n", "Procfile.dev:1: 'web gunicorn' is no process"),
    "x.service": ("[Service]\nType=simple\n", "x.service: there is no ExecStart="),
    "y.service": ("[Service]\nExecStart=/usr/bin/node 'x\n", "y.service:2: no closing quotation"),
    "Dockerfile": ("FROM python:3.13\nRUN true\n", "Dockerfile: there is no CMD"),
    "Dockerfile.node": ("FROM node\nCMD node server.js\n", "Dockerfile.node:2: 'node server.js' starts none of"),
    "notes.txt": ("hello\n", "what this is cannot be told"),
    "picture.ini": (b"\xff\xfe\x00", "the file is not UTF-8"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_imported_is_said_in_one_line(name: str, tmp_path: Path) -> None:
    content, message = REFUSED[name]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CannotImport) as caught:
        imported([str(path)], {})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(")"), "what to do stands at its end"


COMMANDS = {
    "gunicorn app:app": ["module_wsgi app:app", "workers 1", "tcp/127.0.0.1:8000", "trusted_proxies 127.0.0.1 ::1"],
    "gunicorn -w2 -b0.0.0.0 pkg.wsgi": ["module_wsgi pkg.wsgi:application", "workers 2", "tcp/0.0.0.0:8000"],
    "gunicorn -b unix:relative.sock --umask 0o27 app:app": ["unix/relative.sock|0640"],
    "gunicorn -b fd://3 app:app": ["fd/3 {"],
    "python3.12 -m gunicorn --config=absent.py app:app": ["absent.py: it cannot be read from here"],
    "/opt/x/bin/python -m uvicorn x:make --factory --uds /run/x.sock": [
        "module_asgi x:make()",
        "venv /opt/x",
        "unix//run/x.sock|0666",
    ],
    "uvicorn x:app --interface wsgi --header X:Y": ["module_wsgi x:app", "# uvicorn header X:Y"],
    "UVICORN_PORT=9 uvicorn x:app --host ::1": ["tcp/[::1]:9"],
    "granian x:app": ["# granian interface rsgi"],
    "hypercorn x:app -b 0.0.0.0:1 -b 0.0.0.0:2": ["tcp/0.0.0.0:1, tcp/0.0.0.0:2"],
    "fastapi run src/main.py --port 80": ["module_asgi src.main:app", "tcp/0.0.0.0:80"],
    "uwsgi --http :9090 --wsgi-file app.py --master -p 4": [
        "module_wsgi app:application",
        "workers 4",
        "tcp/0.0.0.0:9090",
    ],
    "ddtrace-run gunicorn app:app": ["# ddtrace-run: stood in front of the server"],
    "gunicorn --worker-class": ["does not name the app"],
    "gunicorn app:app -w many": ["# gunicorn workers many: not a number"],
    "gunicorn app:app --graceful-timeout 0": ["something must end the wait"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_line_becomes_a_caddyfile(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = imported([command], {})
    for each in COMMANDS[command]:
        assert each in text
    assert text == imported(shlex.split(command), {}).replace(
        f"From {shlex.join(shlex.split(command))}", text.splitlines()[0][2:-1]
    )
    load(text.encode(), "Caddyfile", {})


def test_the_command_prints_it_and_runs_nothing(tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text("open('ran', 'w')\nworkers = 3\n")
    words = [sys.executable, "-m", "caddysnake", "import", "gunicorn", "-b", "unix:/run/x.sock", "x:app"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert "workers 3" in done.stdout
    assert "# open('ran', 'w'): ./gunicorn.conf.py:1: no literal" in done.stdout
    assert not (tmp_path / "ran").exists()
    refused = subprocess.run(
        [*words[:4], "absent"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: cannot read absent: No such file")


if __name__ == "__main__":
    for each in CONFIGURATIONS:
        (FOLDER / each / "Caddyfile").write_text(outcome(each))


SHELL = {
    "env A=1 nohup gunicorn -w $(( 2 * $(nproc) + 1 )) app:app > x.log 2>&1 &": [
        "module_wsgi app:app",
        "workers auto",
        "env_var A 1",
        "# gunicorn workers $(( 2 * $(nproc) + 1 )): nothing is run to count",
    ],
    'cd "$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)/src" && uvicorn x:app --app-dir lib': [
        "working_dir src",
        "env_var PYTHONPATH lib",
    ],
    'case "$1" in web|serve) exec gosu www:data gunicorn -k uvicorn.workers.UvicornWorker --threads 8 x:app ;; esac': [
        "module_asgi x:app",
        "user www",
        "group data",
        "# gunicorn threads: an ASGI app runs on one event loop",
    ],
    "if x; then uvicorn x:app --reload; else A='-w 3 --timeout 9'; gunicorn $A $B -b $C --umask $D y:app; fi": [
        "module_wsgi y:app",
        "workers 3",
        "tcp/{$C:127.0.0.1:8000}",
        "# {$B}: its value is not known here",
        "# gunicorn umask {$D}: not octal digits",
    ],
    "if x; then uvicorn x:app --reload; else gunicorn x:app --max-requests $A; fi": [
        "# uvicorn x:app --reload: only one can listen at this address",
        "# gunicorn max_requests {$A}: the variable's value is not known here",
    ],
    "uv run --no-dev fastapi run -e pkg.main:web --port 9": ["module_asgi pkg.main:web", "tcp/0.0.0.0:9"],
    "uvicorn x:app --lifespan maybe --ws-max-size 0": ["# lifespan maybe: 'maybe' is not one of on, off, auto"],
    "cd /srv/x && . venv/bin/activate; : ${A:=1}; exec uvicorn x:app": ["venv /srv/x/venv", "working_dir /srv/x"],
}


@pytest.mark.parametrize("line", SHELL)
def test_a_shells_line_is_read_without_a_shell(line: str) -> None:
    text = imported([line], {})
    for each in SHELL[line]:
        assert each in text
    load(text.encode(), "Caddyfile", {})


def test_what_stands_in_files_in_other_ways_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text("max_requests, max_requests_jitter = 1000, 50\nuser = group = 'www'\n")
    text = imported([str(tmp_path / "gunicorn.conf.py")], {})
    assert all(f"\t\t{each}\n" in text for each in ("max_requests 1000 50", "user www", "group www"))
    (tmp_path / "uwsgi.ini").write_text("[uwsgi]\nprocesses = %k\nif-env = DEV\nthreads = 9\nendif =\nmodule = x:y\n")
    text = imported([str(tmp_path / "uwsgi.ini")], {})
    assert "threads = 9 (below if-env = DEV)" in text
    assert all(each in text for each in ("module_wsgi x:y", "workers auto", "\t\tthreads 1\n"))
    (tmp_path / "uwsgi.ini").write_text("[uwsgi]\nini = :base\nsocket = @x\n[base]\nprocesses = 3\nmodule = x:y\n")
    text = imported([str(tmp_path / "uwsgi.ini")], {})
    assert all(each in text for each in ("module_wsgi x:y", "workers 3", "unix//run/x.sock {"))
    (tmp_path / "env").write_text("W=4\n")
    unit = f"[Service]\nEnvironmentFile={tmp_path}/env\nExecStart=/x/bin/gunicorn -w $W app:app\n"
    (tmp_path / "a.service").write_text(unit)
    assert "workers 4" in imported([str(tmp_path / "a.service")], {})
    (tmp_path / "Procfile").write_text("web: gunicorn app:app\nbeat: A=1 celery beat\n")
    text = imported([str(tmp_path / "Procfile")], {})
    assert "process beat celery beat {\n\t\t\tenv_var A 1\n\t\t}" in text
    (tmp_path / "Dockerfile").write_text('FROM x\nCMD ["gunicorn", \\\n\n# no more\n "app:app"]\n')
    assert "module_wsgi app:app" in imported([str(tmp_path / "Dockerfile")], {})
    with pytest.raises(CannotImport, match="starts none of gunicorn"):
        imported(["daphne -p 80 x:app"], {})


def test_variables_of_a_unit_mean_what_they_do_in_systemd(tmp_path: Path) -> None:
    """A file outranks the unit, an empty setting takes back, and a doubled sign is one."""
    (tmp_path / "env").write_text("W=4\n")
    unit = (
        "[Service]\nEnvironment=Z=9\nEnvironment=\nEnvironment=W=1 PORT=8080 P=a%%40b\n"
        f"EnvironmentFile=-{tmp_path}/env\nEnvironmentFile=-{tmp_path}/absent\n"
        "ExecStart=/usr/bin/env A=1 /bin/sh -c 'exec uvicorn --port $${PORT} --workers $W app:app'\n"
    )
    (tmp_path / "a.service").write_text(unit)
    text = imported([str(tmp_path / "a.service")], {})
    assert all(f"{each}\n" in text for each in ("workers 4", "tcp/127.0.0.1:8080 {", "env_var A 1", "env_var P a%40b"))
    assert not any(each in text for each in ("env_var W", "env_var Z", "specifiers of systemd"))
    assert f"# EnvironmentFile=-{tmp_path}/absent: it cannot be read from here: of what both set" in text
    (tmp_path / "env").write_text("GUNICORN_CMD_ARGS='-w 3'\n")
    (tmp_path / "a.service").write_text(
        f"[Service]\nUser=%i\nEnvironmentFile={tmp_path}/env\nExecStart=gunicorn app:app\n"
    )
    text = imported([str(tmp_path / "a.service")], {})
    assert all(each in text for each in ("workers 3", "specifiers of systemd")), text


def test_a_list_on_the_command_line_replaces_that_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text("bind = '0.0.0.0:8000'\nworkers = 3\n")
    (tmp_path / "Procfile").write_text("web: gunicorn -b 127.0.0.1:9000 app:app\n")
    text = imported([str(tmp_path / "Procfile")], {})
    assert "tcp/127.0.0.1:9000 {" in text
    assert "8000" not in text
    assert "workers 3" in text
