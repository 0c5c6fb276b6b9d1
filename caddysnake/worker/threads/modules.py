"""Takes an app out of the interpreter again: its modules, and what the standard library remembers of its files."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from types import ModuleType


def enter(root: str) -> None:
    """Let modules be imported from ``root``, before any other place."""
    sys.path.insert(0, root)
    importlib.invalidate_caches()


def forget(root: str) -> None:
    """Forget all modules that were loaded from ``root``, so that importing them again reads their files again."""
    while root in sys.path:
        sys.path.remove(root)
    for name in modules_of(root):
        sys.modules.pop(name, None)
    for path in [path for path in sys.path_importer_cache if _is_inside(path, root)]:
        sys.path_importer_cache.pop(path, None)
    linecache = sys.modules.get("linecache")
    if linecache is not None:
        for path in [path for path in linecache.cache if _is_inside(path, root)]:
            linecache.cache.pop(path, None)
    importlib.invalidate_caches()
    gc.collect()  # a module and its functions hold each other


def modules_of(root: str) -> list[str]:
    """Names of the modules that were loaded from ``root``, but not from libraries that happen to lie below it."""
    others = [entry for entry in (*sys.path, sys.prefix, sys.exec_prefix) if entry != root and _is_inside(entry, root)]
    return [
        name
        for name, module in list(sys.modules.items())
        if any(
            _is_inside(place, root) and not any(_is_inside(place, other) for other in others)
            for place in _places(module)
        )
    ]


def _places(module: ModuleType) -> list[str]:
    file = getattr(module, "__file__", None)
    if isinstance(file, str):
        return [file]
    try:  # a namespace package has no file
        return [place for place in getattr(module, "__path__", ()) if isinstance(place, str)]
    except Exception:  # foreign objects may stand in sys.modules
        return []


def _is_inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
