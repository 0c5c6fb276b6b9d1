"""Unmasking of what clients send (RFC 6455 section 5.3).

Arithmetic on one large integer does it at some 400 MB/s. The C function of the websockets library, where there is one
for this interpreter, is a hundred times faster; its extension module is loaded by itself, since importing the package
around it would stop the loop for 50 ms.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from typing import Any

from ... import libraries

_MODULE = "websockets.speedups"
_from_bytes = int.from_bytes


def plain_unmask(data: bytes, mask: bytes) -> bytes:
    """``data`` with the four bytes of ``mask`` taken off."""
    size = len(data)
    stream = mask * ((size >> 2) + 1)
    return (_from_bytes(data, "little") ^ _from_bytes(stream[:size], "little")).to_bytes(size, "little")


def _folder() -> str | None:
    """Where the websockets package lies, found without importing it."""
    private: Any = sys.modules.get(libraries.PRIVATE)
    if private is not None:
        return os.path.join(private.__path__[0], "websockets")
    spec = importlib.util.find_spec("websockets")
    return spec.submodule_search_locations[0] if spec is not None and spec.submodule_search_locations else None


def _fast() -> Any:
    folder = _folder()
    if folder is None:
        return None
    path = os.path.join(folder, "speedups" + EXTENSION_SUFFIXES[0])
    if not os.path.exists(path):
        return None
    try:
        loader = ExtensionFileLoader(_MODULE, path)
        spec = importlib.util.spec_from_file_location(_MODULE, path, loader=loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
        return module.apply_mask
    except (ImportError, AttributeError):
        return None


unmask = _fast() or plain_unmask
