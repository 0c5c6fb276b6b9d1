"""Whether a module can be found, told from files alone.

Asking the interpreter would be exact, but would run it, and a venv's Python and its ``.pth`` files are the tenant's
code. So this looks where Python would look, and where it cannot know (an import hook, an unusual build) it says "maybe"
rather than "no".
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Final, NamedTuple

from ... import files
from .accounts import Account

OLDEST_PYTHON: Final = (3, 10)
"""The oldest Python that can run an app: the guest code's own minimum."""

_CUSTOMIZE: Final = ("sitecustomize.", "usercustomize.")
_EXTENSIONS: Final = (".so", ".pyd")
_SYSTEM_LIBRARIES: Final = ("/etc/ld.so.cache", "/lib", "/usr/lib", "/usr/local/lib")
"""Of these each installation changes one: ldconfig(8) writes the first anew, where there is one."""
_NAMES_MAX: Final = 20_000
"""So many names of a folder are looked at."""
_NAMED_MAX: Final = 1000
"""Among so many is looked for what may have been meant."""
_ADDED_MAX: Final = 500
"""So many folders may be added by ``.pth`` files."""
# Import hooks of these do not bring in modules of the user's.
_HARMLESS_PTH: Final = frozenset({"distutils-precedence.pth", "_virtualenv.pth", "a1_coverage.pth", "pywin32.pth"})


class Verdict(Enum):
    """What the files say about a module."""

    FOUND = "found"
    MISSING = "missing"
    UNKNOWN = "unknown"


class Installation(NamedTuple):
    """What is on disk of one Python."""

    version: tuple[int, ...]
    """``()`` when no file tells it."""
    folders: tuple[str, ...]
    """Where its modules are: the standard library and ``site-packages``."""
    complete: bool
    """No module can come from anywhere else."""


def installation(python: str) -> Installation:
    """What the files say of the interpreter at *python*."""
    if python == sys.executable:
        own = [folder for folder in sys.path if folder and os.path.isdir(folder)]
        _, hooks = _path_files(own)
        return Installation(sys.version_info[:3], tuple(own), complete=not hooks)
    root = os.path.dirname(os.path.dirname(python))
    settings = _pyvenv(root)
    if settings is None:
        return _base_installation(python, with_packages=True)
    version = _numbers(settings.get("version") or settings.get("version_info") or "")
    site = list(_libraries(root, version, "site-packages"))
    # The standard library comes from the base; its own site-packages only if the venv says so.
    shared = settings.get("include-system-site-packages", "").lower() == "true"
    base = _base_installation(_base_python(settings, version), with_packages=shared)
    added, hooks = _path_files(site)
    complete = base.complete and bool(site) and not hooks
    return Installation(version, (*base.folders, *site, *added), complete)


def located(python: str) -> str:
    """*python* with the links on the way to its root followed: it finds its modules through the name it is called by,
    and goes on with those that it has found when a link leads elsewhere. What it is a link to itself stays unsaid: a
    venv's is known by its own name.
    """
    folder, name = os.path.split(python)
    root, below = os.path.split(folder)
    return os.path.join(os.path.realpath(root), below, name)


def fingerprint(python: str) -> str:
    """A word that is another when the interpreter at *python* would start as another one than before.

    That is: where it leads, its program and shared library, its ``pyvenv.cfg``, its standard library, what is read from
    ``site-packages`` at a start (``.pth`` files, ``sitecustomize``; other packages are read when imported), and whether
    anything was installed where the system has its libraries.
    """
    root = os.path.dirname(os.path.dirname(located(python)))
    settings = _pyvenv(root)
    version = _numbers((settings or {}).get("version") or (settings or {}).get("version_info") or "")
    real = os.path.realpath(python)
    roots = {root, os.path.dirname(os.path.dirname(real))}
    if settings is not None:
        base = os.path.realpath(_base_python(settings, version))
        roots.add(os.path.dirname(os.path.dirname(base)))
    looked_at = [real, os.path.join(root, "pyvenv.cfg"), *_SYSTEM_LIBRARIES]
    for each in sorted(roots):
        library = os.path.join(each, "lib")
        looked_at += [os.path.join(library, name) for name in _names(library) if name.startswith("libpython3")]
        for folder in _libraries(each, version, ""):
            looked_at += [os.path.join(folder, "os.py"), os.path.join(folder, "lib-dynload")]
            for packages in (os.path.join(folder, "site-packages"), os.path.join(each, "lib/python3/dist-packages")):
                names = _names(packages)
                looked_at += [os.path.join(packages, name) for name in names if name.endswith(".pth")]
                looked_at += [os.path.join(packages, name) for name in names if name.startswith(_CUSTOMIZE)]
    seen = [(path, _state(path)) for path in dict.fromkeys(looked_at)]
    return hashlib.sha256(repr(seen).encode()).hexdigest()[:24]


def is_script(python: str) -> bool:
    """Whether *python* is a script (a shim, a wrapper) that starts an interpreter which no file names."""
    try:
        return any(line.startswith("#!") for line in _lines(python)[:1])
    except OSError:
        return False


def _state(path: str) -> tuple[int, ...]:
    """What tells a file from one that has taken its place."""
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _base_python(settings: Mapping[str, str], version: tuple[int, ...]) -> str:
    name = "python" + ".".join(map(str, version[:2])) if len(version) >= 2 else "python3"
    return settings.get("base-executable") or os.path.join(settings.get("home", ""), name)


def _base_installation(python: str, *, with_packages: bool) -> Installation:
    real = os.path.realpath(python)
    version = _numbers(os.path.basename(real))
    root = os.path.dirname(os.path.dirname(real))
    library = list(_libraries(root, version, ""))
    if len(library) != 1 or not os.path.exists(os.path.join(library[0], "os.py")):
        return Installation(version, (), complete=False)
    if not version:
        version = _numbers(os.path.basename(library[0]))
    short = ".".join(map(str, version[:2]))
    packages = [
        os.path.join(library[0], "site-packages"),
        # Debian and its descendants.
        os.path.join(root, "local", "lib", f"python{short}", "dist-packages"),
        os.path.join(root, "lib", "python3", "dist-packages"),
    ]
    found = [folder for folder in packages if with_packages and os.path.isdir(folder)]
    added, hooks = _path_files(found)
    standard = (library[0], os.path.join(library[0], "lib-dynload"))
    return Installation(version, (*standard, *found, *added), complete=not hooks)


def _libraries(root: str, version: tuple[int, ...], below: str) -> Iterator[str]:
    """The ``lib/pythonX.Y`` folders of *root*: of *version*, or all where that is not known."""
    library = os.path.join(root, "lib")
    wanted = "python" + ".".join(map(str, version[:2])) if len(version) >= 2 else None
    for name in _names(library):
        if (name == wanted) if wanted else re.fullmatch(r"python3\.[0-9]+", name):
            folder = os.path.join(library, name, below) if below else os.path.join(library, name)
            if os.path.isdir(folder):
                yield folder


def _pyvenv(root: str) -> dict[str, str] | None:
    """The settings of the venv at *root*; ``None`` when it is none."""
    try:
        pairs = [line.partition("=") for line in _lines(os.path.join(root, "pyvenv.cfg"))]
    except OSError:
        return None
    return {name.strip().lower(): value.strip() for name, equals, value in pairs if equals and "\0" not in value}


def _lines(path: str) -> list[str]:
    """The lines at the beginning of a file, which may be a tenant's. Raises ``OSError`` as ``files.open_regular``."""
    return files.read(path, 65536).decode(errors="replace").splitlines()


def _path_files(folders: list[str]) -> tuple[list[str], bool]:
    """The folders that ``.pth`` files add, and whether any of them installs an import hook."""
    added: list[str] = []
    hooks = False
    for folder in folders:
        names, is_whole = _read_names(folder)
        hooks = hooks or not is_whole
        for name in names:
            if not name.endswith(".pth") or name in _HARMLESS_PTH:
                continue
            try:
                lines = _lines(os.path.join(folder, name))
            except OSError:
                hooks = True  # for all that we know
                continue
            for line in lines:
                if len(added) >= _ADDED_MAX:
                    return added, True
                if line.startswith(("import ", "import\t")):
                    hooks = True
                elif line.strip() and not line.startswith("#"):
                    path = os.path.join(folder, line.strip())
                    added += [path] if path not in added and os.path.exists(path) else []
    return added, hooks


def find_module(name: str, folders: tuple[str, ...]) -> Verdict:
    """Whether *name*, dotted, is in *folders*, which are tried in order as Python does.

    The first part decides: a folder whose ``__init__.py`` is there, or a file, is the module; folders without one are
    parts of a namespace package, of which all count. What is in an archive (zipimport) is not looked into.
    """
    first, *rest = name.split(".")
    portions: list[str] = []
    is_packed = False
    for folder in folders:
        is_packed = is_packed or _is_packed(folder)
        package = os.path.join(folder, first)
        if os.path.isfile(os.path.join(package, "__init__.py")):
            portions, is_packed = [package], False
            break
        is_module = _is_module(folder, first)
        if is_module is None:
            return Verdict.UNKNOWN
        if is_module:
            # Modules may put others below themselves into sys.modules, as os does with os.path.
            return Verdict.UNKNOWN if rest else Verdict.FOUND
        if os.path.isdir(package):
            portions.append(package)
    if is_packed:
        return Verdict.UNKNOWN
    if not portions:
        return Verdict.MISSING
    if not rest:
        return Verdict.FOUND
    return find_module(".".join(rest), tuple(portions))


def _is_packed(folder: str) -> bool:
    """Whether it is an archive, or in one."""
    try:
        return stat.S_ISREG(os.stat(folder).st_mode)
    except NotADirectoryError:
        return True
    except (OSError, ValueError):
        return False


def _is_module(folder: str, name: str) -> bool | None:
    """None: there is too much in the folder to tell."""
    if os.path.isfile(os.path.join(folder, f"{name}.py")) or os.path.isfile(os.path.join(folder, f"{name}.pyc")):
        return True
    names, is_whole = _read_names(folder)
    if any(entry.startswith(f"{name}.") and entry.endswith(_EXTENSIONS) for entry in names if name in entry):
        return True
    return False if is_whole else None


def names_near(folder: str) -> list[str]:
    """Names in *folder*, for finding what may have been meant."""
    return _names(folder)[:_NAMED_MAX]


def modules_in(folder: str) -> list[str]:
    """The names of the modules and packages in *folder*."""
    names = names_near(folder)
    found = [name.removesuffix(".py") for name in names if name.endswith(".py") and not name.startswith("_")]
    found += [name for name in names if os.path.isfile(os.path.join(folder, name, "__init__.py"))]
    return sorted(found)


def is_standard(name: str) -> bool:
    """Whether the top of *name* is in the standard library of some Python (this one's list)."""
    return name.partition(".")[0] in sys.stdlib_module_names


def _names(folder: str) -> list[str]:
    return _read_names(folder)[0]


def _read_names(folder: str) -> tuple[list[str], bool]:
    """The names in a folder, which may be a tenant's, and whether those are all."""
    try:
        return files.names(folder, _NAMES_MAX)
    except (FileNotFoundError, NotADirectoryError):
        return [], True
    except (OSError, ValueError):
        return [], False  # not for us to look into


def _numbers(text: str) -> tuple[int, ...]:
    match = re.search(r"[0-9]+(?:\.[0-9]+)+", text)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


ROOT_HINT = "give the app a user of its own, or make these files root's, and writable for nobody else"


def foreign_hand(python: str) -> str | None:
    """Why root must not execute *python*, unless it runs us: who can change that is root; ``None``: it may."""
    if python == sys.executable:
        return None
    folder = os.path.dirname(python)
    root = os.path.dirname(folder)
    folders = [folder, os.path.dirname(os.path.realpath(python)), *installation(python).folders]
    if os.path.exists(os.path.join(root, "pyvenv.cfg")):
        folders += [root, os.path.join(root, "pyvenv.cfg")]
    for path in (python, *folders):
        found = files.first_hand(path, is_folder=path in folders)
        if found is not None:
            return str(found)
    return None


def misleads(path: str, descriptor: int, account: Account | None) -> str | None:
    """Why what *path* led to must not be handed to an app of *account*; ``None`` when it may. *descriptor* need not be
    open for reading.

    It is that user's own, or it may read it anyway, or nobody but root could have chosen where *path* leads. Else a
    link might have made root read what the user may not.
    """
    if account is None or account.uid == 0 or os.fstat(descriptor).st_uid == account.uid:
        return None
    real = files.name_of(descriptor)
    if real is not None and account.closed_from(real) is None:
        return None
    found = files.first_hand(path)
    return None if found is None else f"may not be read by user {account.name}, and could lead anywhere: {found}"
