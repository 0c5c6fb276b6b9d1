"""Where a guest finds the libraries that are ours, not the app's.

The app's interpreter need not have httptools, and may have another version of it. So in a worker our libraries are
loaded from the daemon's folder (same ABI) or a runtime folder, as children of the private package ``_caddysnake_lib``;
the public names that extension modules leave in ``sys.modules`` are removed, and the app's own import of the same
library gets its own copy. In the daemon, where no folder was named, they are ordinary imports.

Guest code: Python 3.10, standard library only.
"""

from __future__ import annotations

import importlib
import os
import platform
import sys
import types
from importlib.machinery import EXTENSION_SUFFIXES
from typing import Any

PRIVATE = "_caddysnake_lib"


class LibraryMissing(ImportError):
    """No folder holds the library for this interpreter."""


def abi_tag() -> str:
    """The name of this interpreter's ABI, as its extension modules carry it: ``cpython-313-x86_64-linux-gnu``."""
    return EXTENSION_SUFFIXES[0].strip(".").removesuffix(".so")


def use(folders: list[str]) -> None:
    """Load libraries for this interpreter from the first of ``folders``. Raises ``LibraryMissing``, with what to do."""
    extension = os.path.join("httptools", "parser", "parser" + EXTENSION_SUFFIXES[0])
    for folder in folders:
        for candidate in (folder, os.path.join(folder, abi_tag())):
            if os.path.exists(os.path.join(candidate, extension)):
                package = types.ModuleType(PRIVATE)
                package.__path__ = [candidate]
                sys.modules[PRIVATE] = package
                return
    raise LibraryMissing(
        f"no httptools for Python {platform.python_version()} ({sys.executable}, {abi_tag()}). "
        f"Install it once with: caddysnake runtime install --python {sys.executable}"
    )


def load(name: str) -> Any:
    """Import library ``name``: privately after ``use``, else as anyone would. Raises ``ImportError``."""
    if PRIVATE not in sys.modules:
        return importlib.import_module(name)
    kept = {key for key in sys.modules if key.partition(".")[0] == name}
    module = importlib.import_module(f"{PRIVATE}.{name}")
    for key in [key for key in sys.modules if key.partition(".")[0] == name and key not in kept]:
        del sys.modules[key]
    return module
