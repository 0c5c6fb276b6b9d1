"""The commands that only look, as a person calls them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.daemon import as_text

from caddysnake import __version__
from caddysnake.cli.main import COMMANDS

PATIENCE_S = 60


def caddysnake(folder: Path, *words: str, stdin: bytes = b"", **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command in *folder*."""
    done = subprocess.run(
        [sys.executable, "-m", "caddysnake", *words],
        cwd=folder,
        input=stdin,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environ},
    )
    result = subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
    assert "Traceback" not in result.stderr, result.stderr
    return result


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a Caddyfile and its app."""
    (tmp_path / "main.py").write_text("app = None\n")
    (tmp_path / "Caddyfile").write_text("unix/app.sock {\n\tpython main:app\n}\n")
    return tmp_path


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",), ("help",)])
def test_the_help_names_every_command(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = caddysnake(tmp_path, *words)
    assert done.returncode == 0
    for name in COMMANDS:
        assert f"  {name} " in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_of_its_own(tmp_path: Path, name: str) -> None:
    done = caddysnake(tmp_path, name, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: caddysnake {name}")
    assert max(map(len, done.stdout.splitlines())) <= 120


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("vlidate",), 'unknown command "vlidate" (did you mean "validate"?)'),
        (("start",), '(did you mean "run"?)'),
        (("restart",), '(did you mean "reload"?)'),
        (("validate", "etc/Caddyfile"), "unrecognized arguments: etc/Caddyfile: write --config etc/Caddyfile"),
        (("--nope",), "unknown option --nope"),
        (("validate", "--nope"), "unrecognized arguments: --nope"),
        (("validate", "--config"), "expected one argument"),
        (("serve", "--listen", "9595", "blog:app"), "--listen 9595: write HOST:PORT"),
        (("serve", "--listen", "::1:9595", "blog:app"), "--listen ::1:9595: write HOST:PORT"),
    ],
)
def test_a_wrong_word_is_one_line_and_status_1(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    done = caddysnake(tmp_path, *words)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("word", ["version", "--version", "-v"])
def test_the_version_is_printed(tmp_path: Path, word: str) -> None:
    assert caddysnake(tmp_path, word).stdout.startswith(f"{__version__} (CPython 3.")


def test_the_environment_is_printed(tmp_path: Path) -> None:
    done = caddysnake(tmp_path, "environ", MARK="here")
    assert "\nMARK=here\n" in done.stdout
    assert f"caddysnake.Version={__version__}\n" in done.stdout


def test_output_that_nobody_reads_is_no_error(folder: Path) -> None:
    (folder / "big").write_text(":80 {\n" + "\theader X-Name a-value-of-some-length\n" * 20000 + "}\n")
    command = f"{sys.executable} -m caddysnake fmt big | head -1"
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, timeout=PATIENCE_S, check=False)
    assert done.stdout == b":80 {\n"
    assert done.stderr == b""


@pytest.mark.parametrize("words", [("adapt",), ("fmt",), ("--help",)])
def test_output_that_finds_no_room_is_one_line(folder: Path, words: tuple[str, ...]) -> None:
    for unbuffered in ("", "1"):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [sys.executable, "-m", "caddysnake", *words],
                cwd=folder,
                stdout=full,
                stderr=subprocess.PIPE,
                timeout=PATIENCE_S,
                check=False,
                env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            )
        assert done.returncode == 1
        assert done.stderr == b"Error: cannot write the output: No space left on device\n"


# validate and adapt


def test_a_valid_file_is_said_to_be(folder: Path) -> None:
    done = caddysnake(folder, "validate")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Valid configuration\n", "")


def test_the_file_may_be_named_or_piped(folder: Path) -> None:
    (folder / "Caddyfile").rename(folder / "other")
    assert caddysnake(folder, "validate", "--config", "other", "--adapter", "caddyfile").returncode == 0
    assert caddysnake(folder, "validate", "-c", "-", stdin=(folder / "other").read_bytes()).returncode == 0


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    done = caddysnake(tmp_path, "validate")
    assert done.returncode == 1
    assert done.stderr == f"Error: there is no Caddyfile in {tmp_path}; name one with --config FILE\n"
    assert "cannot read nothing: No such file" in caddysnake(tmp_path, "validate", "-c", "nothing").stderr
    assert "Is a directory" in caddysnake(tmp_path, "validate", "-c", ".").stderr


def test_a_line_of_a_megabyte_is_not_shown(folder: Path) -> None:
    (folder / "Caddyfile").write_bytes(b"\xff" + b"x" * 1_000_000)
    assert len(caddysnake(folder, "validate").stderr) < 200


def test_every_error_is_shown_with_its_line(folder: Path) -> None:
    (folder / "Caddyfile").write_text("unix/x.sock {\n\tpython {\n\t\tworker 2\n\t\tmodule_wsgi main\n\t}\n}\n")
    done = caddysnake(folder, "validate")
    assert done.returncode == 1
    assert done.stderr == (
        'Error: Caddyfile:3: unknown subdirective of python "worker" (write workers COUNT)\n'
        "    3 | worker 2\n"
        "        ^\n"
        "Error: Caddyfile:4: module_wsgi: 'main' names a module but no variable in it "
        "(write module:variable, such as main:app, pkg.wsgi:site.app or main:make_app())\n"
        "    4 | module_wsgi main\n"
        "                    ^\n"
    )


def test_errors_on_disk_are_found_without_running_anything(folder: Path) -> None:
    (folder / "main.py").write_text("raise SystemExit('was run')\n")
    text = "unix/run/x.sock {\n\tpython {\n\t\tmodule_wsgi mian:app\n\t\tenv_file .env\n\t}\n}\n"
    (folder / "Caddyfile").write_text(text)
    done = caddysnake(folder, "validate")
    assert done.returncode == 1
    assert [line.split(":")[2] for line in done.stderr.splitlines() if line.startswith("Error")] == ["1", "3", "4"]
    assert "was run" not in done.stderr


def test_routes_are_checked_with_everything_else(folder: Path) -> None:
    (folder / "Caddyfile").write_text("""
unix/x.sock {
	@old path_regexp [
	python @old main:app
	python {
		module_wsgi main:app
		env_var TENANT {http.request.hots}
		env_file .env
	}
}
""")
    done = caddysnake(folder, "validate")
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    assert len(errors) == 2, errors
    assert "http.request.hots" in done.stderr
    run = caddysnake(folder, "run")
    assert run.returncode == 1
    assert [line for line in as_text(run.stderr).splitlines() if line.startswith("Error")] == errors


def test_a_file_is_checked_as_caddy_and_we_would_share_it(folder: Path) -> None:
    text = "example.com {\n\tbind unix//run/x\n\tpython {\n\t\tmodule_wsgi main:app\n\t\tenv_var A {re.x.1}\n\t}\n}\n"
    (folder / "Caddyfile").write_text(text)
    done = caddysnake(folder, "validate")
    assert done.returncode == 1
    assert "no regular expression of this socket's sites captures" in done.stderr
    done = caddysnake(folder, "validate", "--caddy")
    assert done.returncode == 1
    assert "what Caddy's regular expression captured" in done.stderr
    text = "example.com {\n\tbind unix//run/x\n\tpython /a main:app\n\tpython main:app\n}\n"
    (folder / "Caddyfile").write_text(text)
    assert caddysnake(folder, "validate").returncode == 0
    assert caddysnake(folder, "validate", "--caddy").returncode == 0


def test_a_file_that_is_not_utf8_is_named_with_its_line(folder: Path) -> None:
    (folder / "Caddyfile").write_bytes(b"# fine\n# caf\xe9\n")
    done = caddysnake(folder, "adapt")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: Caddyfile:2: the file is not UTF-8")


def test_an_include_loop_is_named(folder: Path) -> None:
    (folder / "Caddyfile").write_text("import other\n")
    (folder / "other").write_text("import Caddyfile\n")
    done = caddysnake(folder, "adapt")
    assert done.returncode == 1
    assert "import cycle" in done.stderr


def test_a_terminal_gets_no_control_characters(folder: Path) -> None:
    (folder / "Caddyfile").write_text("unix/x.sock {\n\tpython {\n\t\t\x1b[31mworker 2\n\t}\n}\n")
    done = caddysnake(folder, "validate")
    assert done.returncode == 1
    assert "\x1b" not in done.stderr


def test_variables_are_not_shown_with_an_error(folder: Path) -> None:
    (folder / "Caddyfile").write_text('unix/x.sock {\n\tpython {\n\t\tenv_vra KEY "{$SECRET}"\n\t}\n}\n')
    done = caddysnake(folder, "validate", SECRET="hunter2")
    assert '    3 | env_vra KEY "{$SECRET}"\n' in done.stderr
    assert "hunter2" not in done.stderr


def test_adapt_prints_json(folder: Path) -> None:
    plain, pretty = caddysnake(folder, "adapt"), caddysnake(folder, "adapt", "--pretty")
    assert plain.returncode == pretty.returncode == 0
    assert json.loads(plain.stdout) == json.loads(pretty.stdout)
    assert json.loads(plain.stdout)["listeners"][0]["kind"] == "direct"
    assert plain.stdout.count("\n") == 1
    assert pretty.stdout.startswith('{\n\t"sites": [\n')


def test_warnings_go_to_standard_error(folder: Path) -> None:
    text = "unix/x.sock {\n\tpython {\n\t\tmodule_wsgi main:app\n\t\tlifespan on\n\t}\n}\n"
    (folder / "Caddyfile").write_text(text)
    done = caddysnake(folder, "adapt")
    assert done.returncode == 0
    assert done.stderr == "Warning: Caddyfile:4: lifespan means nothing to a WSGI app\n"


# caddyfile


def test_caddyfile_prints_caddys_half(folder: Path) -> None:
    (folder / "Caddyfile").write_text("# mine\nexample.com {\n\tpython main:app\n}\n")
    done = caddysnake(folder, "caddyfile", "--socket-dir", "/run/here")
    assert done.returncode == 0
    assert done.stdout.startswith("# mine\nexample.com {\n\treverse_proxy unix//run/here/example.com-main-app-")


def test_caddyfile_fails_as_the_others_do(folder: Path) -> None:
    (folder / "Caddyfile").write_text("example.com {\n\tpython\n}\n")
    done = caddysnake(folder, "caddyfile")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Caddyfile:2: python names no app" in done.stderr


# fmt

LOOSE = ":80 {\n  respond   ok\n}\n"
TIDY = ":80 {\n\trespond ok\n}\n"


def test_fmt_prints_and_fails_on_a_loose_file(folder: Path) -> None:
    (folder / "Caddyfile").write_text(LOOSE)
    done = caddysnake(folder, "fmt")
    assert (done.returncode, done.stdout) == (1, TIDY)
    assert done.stderr.startswith("Error: Caddyfile:2: the file is not formatted")
    assert (folder / "Caddyfile").read_text() == LOOSE


def test_fmt_succeeds_on_a_tidy_file(folder: Path) -> None:
    (folder / "other").write_text(TIDY)
    done = caddysnake(folder, "fmt", "other")
    assert (done.returncode, done.stdout, done.stderr) == (0, TIDY, "")


def test_fmt_overwrites_in_place(folder: Path) -> None:
    (folder / "real").write_text(LOOSE)
    (folder / "real").chmod(0o640)
    (folder / "link").symlink_to("real")
    done = caddysnake(folder, "fmt", "--overwrite", "link")
    assert (done.returncode, done.stdout) == (0, "")
    assert (folder / "real").read_text() == TIDY
    assert (folder / "real").stat().st_mode & 0o777 == 0o640
    assert (folder / "link").is_symlink()


def test_fmt_reads_standard_input_and_then_always_succeeds(folder: Path) -> None:
    done = caddysnake(folder, "fmt", "-", stdin=LOOSE.encode())
    assert (done.returncode, done.stdout, done.stderr) == (0, TIDY, "")


def test_fmt_shows_what_would_change(folder: Path) -> None:
    (folder / "Caddyfile").write_text(LOOSE)
    done = caddysnake(folder, "fmt", "--diff")
    assert (done.returncode, done.stdout) == (1, "  :80 {\n-   respond   ok\n+ \trespond ok\n  }\n")


def test_fmt_says_what_it_cannot_do(folder: Path) -> None:
    assert "--overwrite needs a file" in caddysnake(folder, "fmt", "-", "--overwrite").stderr
    (folder / "Caddyfile").write_bytes(b"\xff")
    done = caddysnake(folder, "fmt")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: Caddyfile:1: the file is not UTF-8 (save it as UTF-8)\n"
