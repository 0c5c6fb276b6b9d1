"""A daemon that is there is found by every command, wherever it stands, whatever environment it has; and goes on well
when the folder that it was started in does not.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import PATIENCE_S, Process, eventually, get, python_site
from support.tenants import ALICE, BOB, give, needs_root, public_folder, public_python

pytestmark = pytest.mark.system

APP = """
def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"NAME"]
"""
COMMAND = [sys.executable, "-m", "caddysnake"]
EVERY = [["status"], ["reload"], ["upgrade"], ["stop"]]


def site(where: str = "", options: str = "") -> str:
    return options + python_site("unix/a.sock", "module_wsgi main:wsgi", "workers 1", *([where] if where else []))


def app(name: str) -> str:
    """Sources of one second are told from each other by their size alone: a name has a length of its own."""
    return APP.replace("NAME", name)


def release(folder: Path, name: str) -> Path:
    made = folder / name
    made.mkdir()
    (made / "main.py").write_text(app(name))
    return made


@contextlib.contextmanager
def started(folder: Path, cwd: Path, *words: str, **environ: str) -> Iterator[Process]:
    """``caddysnake run`` in ``cwd``; its log is in ``folder``."""
    process = Process([*COMMAND, "run", *words], folder, "daemon", environ, cwd=cwd)
    try:
        process.wait_for_log(" ready in ")
        yield process
    finally:
        process.close()


def call(cwd: Path | str, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A command in ``cwd``, with no ``XDG_RUNTIME_DIR`` but one that is given."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("XDG_RUNTIME_DIR", "PWD")}
    return subprocess.run(
        [*COMMAND, *words],
        cwd=cwd,
        env={**inherited, **environ},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def says(socket: Path) -> str:
    status, body = get("/", path=socket)
    assert status == 200, body
    return body.decode()


def point(link: Path, where: str) -> None:
    coming = link.with_name("coming")
    coming.symlink_to(where)
    os.replace(coming, link)


# -- the folder that the daemon was started in -------------------------------------------------------------------------


def test_its_start_folder_may_be_removed_and_every_command_works(tmp_path: Path) -> None:
    home = release(tmp_path, "home")
    (tmp_path / "Caddyfile").write_text(
        f"unix/{tmp_path}/a.sock {{\n\tpython main:wsgi\n}}\n".replace(
            "python main:wsgi", f"python {{\n\t\tmodule_wsgi main:wsgi\n\t\tworking_dir {home}\n\t\tworkers 1\n\t}}"
        )
    )
    start = tmp_path / "start"
    start.mkdir()
    with started(tmp_path, start, "--config", f"{tmp_path}/Caddyfile") as process:
        start.rmdir()
        (home / "main.py").write_text(app("second"))
        process.popen.send_signal(signal.SIGHUP)
        process.wait_for_log('"reloaded"')
        assert says(tmp_path / "a.sock") == "second"
        for words in EVERY:
            done = call("/", *words, "--config", f"{tmp_path}/Caddyfile")
            assert done.returncode == 0, done.stderr
        assert process.wait() == 0
        assert "Traceback" not in process.log


def test_a_file_that_went_with_the_start_folder_is_named_and_what_runs_goes_on(tmp_path: Path) -> None:
    start, home = tmp_path / "start", release(tmp_path, "home")
    start.mkdir()
    text = site(f"working_dir {home}").replace("unix/a.sock", f"unix/{tmp_path}/a.sock")
    (start / "Caddyfile").write_text(text)
    with started(tmp_path, start) as process:
        (start / "Caddyfile").unlink()
        start.rmdir()
        done = call("/", "reload", "--config", f"{start}/Caddyfile")
        assert done.returncode == 1
        assert f"cannot read {start}/Caddyfile" in done.stderr
        process.popen.send_signal(signal.SIGHUP)
        process.wait_for_log(f"cannot read {start}/Caddyfile")
        assert "Traceback" not in process.log
        assert says(tmp_path / "a.sock") == "home"
        start.mkdir()
        (start / "Caddyfile").write_text(text)
        assert call(start, "reload").returncode == 0
        assert call("/", "stop", "--config", f"{start}/Caddyfile").returncode == 0


def test_relative_paths_begin_in_the_start_folder_as_it_is_now_also_after_an_upgrade(tmp_path: Path) -> None:
    """One that is put in its place, as a deploy does that moves folders."""
    start = release(tmp_path, "start")
    text = site().replace("unix/a.sock", f"unix/{tmp_path}/a.sock")
    (start / "Caddyfile").write_text(text)
    with started(tmp_path, start) as process:
        start.rename(tmp_path / "before")
        (release(tmp_path, "start") / "main.py").write_text(app("second"))
        (start / "Caddyfile").write_text(text)
        assert call(start, "reload").returncode == 0
        assert says(tmp_path / "a.sock") == "second"
        assert call(start, "upgrade").returncode == 0
        (start / "main.py").write_text(app("the third"))
        assert call(start, "reload").returncode == 0
        assert says(tmp_path / "a.sock") == "the third"
        assert process.popen.poll() is None


@pytest.mark.parametrize("words", EVERY)
def test_a_command_in_a_removed_folder_says_so_or_needs_none(tmp_path: Path, words: list[str]) -> None:
    gone = "import os, sys\nos.mkdir(sys.argv[1]); os.chdir(sys.argv[1]); os.rmdir(sys.argv[1])\n"
    gone += "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
    caddysnake = ["-m", "caddysnake"]
    for more, expected in (
        (["--config", "Caddyfile"], "name the file by its absolute path"),
        (["--config", f"{tmp_path}/Caddyfile"], f"no daemon answers for {tmp_path}/Caddyfile"),
    ):
        if words == ["reload"]:
            (tmp_path / "Caddyfile").write_text(site())
        done = subprocess.run(
            [sys.executable, "-c", gone, f"{tmp_path}/gone", *caddysnake, *words, *more],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert expected in done.stderr or "cannot read Caddyfile" in done.stderr


# -- a link that leads elsewhere ---------------------------------------------------------------------------------------


def test_who_was_started_in_a_link_reads_what_is_behind_it_now(tmp_path: Path) -> None:
    socket = tmp_path / "a.sock"
    for name in ("one", "other"):
        text = site().replace("unix/a.sock", f"unix/{socket}")
        (release(tmp_path, name) / "Caddyfile").write_text(text)
    current = tmp_path / "current"
    current.symlink_to("one")
    with started(tmp_path, current, PWD=str(current)) as process:
        assert says(socket) == "one"
        point(current, "other")
        done = call(current, "reload", PWD=str(current))
        assert done.returncode == 0, done.stderr
        assert says(socket) == "other"
        point(current, "one")
        assert call(current, "upgrade", PWD=str(current)).returncode == 0
        process.popen.send_signal(signal.SIGHUP)
        process.wait_for_log('"reloaded"', 2)
        assert says(socket) == "one"


@pytest.mark.parametrize("options", ["", "{{\n\tadmin unix/{}/admin.sock\n}}\n"])
def test_a_reload_of_another_file_than_the_daemons_is_never_taken_for_one_of_its_own(
    tmp_path: Path, options: str
) -> None:
    """Nobody said by which name the folder was entered: it is the release's own."""
    socket = tmp_path / "a.sock"
    for name in ("one", "other"):
        text = site(options=options.format(tmp_path)).replace("unix/a.sock", f"unix/{socket}")
        (release(tmp_path, name) / "Caddyfile").write_text(text)
    current = tmp_path / "current"
    current.symlink_to("one")
    with started(tmp_path, current, PWD="/"):
        point(current, "other")
        done = call(current, "reload")
        assert done.returncode == 1
        assert f"{tmp_path}/one/Caddyfile" in done.stderr
        assert f"{tmp_path}/other/Caddyfile" in done.stderr
        if options:
            done = call(current, "reload", "--config", "Caddyfile")
            assert done.returncode == 1
            assert f"would begin in {tmp_path}/one" in done.stderr
            file = current / "Caddyfile"
            file.write_text(file.read_text().replace("workers 1", f"workers 1\n\t\tworking_dir {current}"))
            done = call(current, "reload", "--config", "Caddyfile")
            assert done.returncode == 0, done.stderr
            assert says(socket) == "other"


# -- one daemon, many ways to it ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", ["", "/nonexistent", "another"])
@pytest.mark.parametrize("options", ["", "{\n\tadmin unix/here.sock\n}\n", "{\n\tadmin off\n}\n"])
def test_it_is_found_from_anywhere_by_any_name_of_its_file(tmp_path: Path, runtime: str, options: str) -> None:
    home = release(tmp_path, "home")
    (home / "Caddyfile").write_text(site(options=options))
    (tmp_path / "link.caddyfile").symlink_to(home / "Caddyfile")
    (tmp_path / "folder").symlink_to("home")
    environ = {"XDG_RUNTIME_DIR": str(tmp_path / runtime) if runtime == "another" else runtime} if runtime else {}
    if runtime == "another":
        (tmp_path / "another").mkdir()
    more = ["--admin", f"unix/{tmp_path}/given.sock"] if "off" in options else []
    with started(tmp_path, home, *more) as process:
        for cwd, words in (
            (home, []),
            (tmp_path / "folder", []),
            ("/", ["--config", f"{home}/Caddyfile"]),
            (tmp_path, ["--config", "link.caddyfile"]),
            (tmp_path, ["--config", "folder/../home/Caddyfile"]),
        ):
            for command in ("status", "upgrade") if cwd == home else ("status",):
                done = call(cwd, command, *words, **environ)
                assert done.returncode == 0, (cwd, words, done.stderr)
        done = call(tmp_path, "reload", "--config", "link.caddyfile", **environ)
        assert done.returncode == 0, done.stderr
        assert call("/", "stop", "--config", f"{tmp_path}/link.caddyfile", **environ).returncode == 0
        assert process.wait() == 0


def test_a_file_that_nobody_runs_is_told_with_what_is_run(tmp_path: Path) -> None:
    home = release(tmp_path, "home")
    (home / "Caddyfile").write_text(site())
    (tmp_path / "Caddyfile").write_text(site("working_dir home"))
    with started(tmp_path, home):
        done = call(tmp_path, "status")
        assert done.returncode == 1
        assert f"no daemon answers for {tmp_path}/Caddyfile" in done.stderr
        assert f"{home}/Caddyfile" in done.stderr


@needs_root
def test_root_finds_another_users_daemon_and_other_users_are_told_whom_to_ask() -> None:
    with public_python() as public, public_folder() as folder:
        home = release(folder, "home")
        (home / "Caddyfile").write_text(site(f"python_path {public.python}"))
        give(home, ALICE, 0o755)
        (folder / "run").mkdir(0o700)
        give(folder / "run", ALICE)
        python = [public.python, "-m", "caddysnake"]
        environ = {"PYTHONPATH": public.site, "XDG_RUNTIME_DIR": f"{folder}/run"}
        process = Process([*python, "run"], folder, "daemon", environ, cwd=home, user=ALICE)
        try:
            process.wait_for_log(" ready in ")
            assert call(home, "reload").returncode == 0
            assert call("/", "status", "--config", f"{home}/Caddyfile").returncode == 0
            as_bob = subprocess.run(
                [*python, "status"],
                cwd=home,
                env={"PYTHONPATH": public.site},
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
                user=BOB,
                group=BOB,
                extra_groups=[],
            )
            assert as_bob.returncode == 1
            assert f"the daemon of {home}/Caddyfile is at unix/{folder}/run/" in as_bob.stderr
            assert "call as user" in as_bob.stderr
            assert call(home, "stop").returncode == 0
            assert process.wait() == 0
        finally:
            process.close()


@needs_root
def test_root_sends_no_file_to_the_daemon_of_a_user_who_could_not_read_it() -> None:
    """Anybody can announce that he runs a file."""
    with public_python() as public, public_folder() as folder:
        code = (
            "import socket, sys\n"
            "sys.path[:0] = [sys.argv[1]]\n"
            "from caddysnake.config.plan.rendezvous import ANNOUNCED, name_for\n"
            "path = sys.argv[2] + '/' + name_for(sys.argv[3])\n"
            "here = socket.socket(socket.AF_UNIX); here.bind(path); here.listen()\n"
            "said = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
            "said.bind(b'\\0' + (ANNOUNCED + path).encode())\n"
            "print('there', flush=True)\n"
            "here.settimeout(60)\n"
            "while True:\n"
            "    got = here.accept()[0].recv(1000)\n"
            "    if got: print(got, flush=True)\n"
        )
        give(folder, ALICE)
        secret = folder / "secret"
        secret.mkdir(0o700)
        (secret / "Caddyfile").write_text(site())
        liar = subprocess.Popen(
            [public.python, "-c", code, public.site, str(folder), f"{secret}/Caddyfile"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            user=ALICE,
            group=ALICE,
            extra_groups=[],
        )
        try:
            assert liar.stdout is not None
            assert liar.stdout.readline() == b"there\n"
            done = call("/", "reload", "--config", f"{secret}/Caddyfile")
            assert done.returncode == 1
            assert "no daemon answers for" in done.stderr
        finally:
            liar.kill()
            said, _ = liar.communicate(timeout=PATIENCE_S)
        assert said == b""


def test_it_is_announced_for_as_long_as_it_is_there(tmp_path: Path) -> None:
    home = release(tmp_path, "home")
    (home / "Caddyfile").write_text(site())
    with started(tmp_path, home) as process:
        (path,) = Path(process.runtime_dir).glob("caddysnake/admin/*.sock")
        assert f"@caddysnake:{path}\n" in Path("/proc/net/unix").read_text()
        assert call(home, "stop").returncode == 0
        eventually(lambda: str(path) not in Path("/proc/net/unix").read_text(), "the end of the announcement")
