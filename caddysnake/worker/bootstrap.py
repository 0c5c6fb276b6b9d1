"""The first code that runs in the app's interpreter: ``python bootstrap.py '{"channel": 3, …}'``, and with ``gate``
in the place of ``channel``, and a command behind, before that command is executed.

Loads our folders under the private name ``_caddysnake``: the app may have a package called ``caddysnake`` (the Go
plugin's), and must not see ours. Nothing of ours is added to ``sys.path``.
"""

import sys

# Run as a script, our folder is first on the path: a module of ours would shadow one of the standard library's or
# the app's. This must precede every other import.
if sys.path and sys.path[0] == __file__.rpartition("/")[0]:
    del sys.path[0]

import importlib.util
import json
import types


def _load_ourselves() -> None:
    root = __file__.rsplit("/", 2)[0]
    spec = importlib.util.spec_from_file_location(
        "_caddysnake", root + "/__init__.py", submodule_search_locations=[root]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["_caddysnake"] = package
    spec.loader.exec_module(package)


def _main() -> int:
    options = json.loads(sys.argv[1])
    command = sys.argv[2:]
    sys.argv[:] = ["caddysnake"]
    _load_ourselves()
    if "gate" in options:
        from _caddysnake.worker import execute  # type: ignore[import-not-found]

        execute.main(options, command)
    # multiprocessing re-runs the main module's file in its children; an empty one has no file to run.
    sys.modules["__main__"] = types.ModuleType("__main__")
    from _caddysnake.worker import fork_server

    status: int = fork_server.main(options)
    return status


if __name__ == "__main__":
    sys.exit(_main())
