"""From a template of apps, and the values that a request gives it, to one app. Looks at the file system.

What is found to be missing is no such app; what is there and wrong is told by the worker that tries to load it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace

from ...placeholders import template
from ..language.models import EnvVar, ProcessLine, PythonApp, ReleaseLine, ScheduleLine
from ..language.values import ModuleVariable
from ..plan.fence import tops
from ..plan.places import start_folder
from ..plan.plan import AppSpec, Plan, resolve_app
from ..plan.routing import fields, settled_fields
from ..plan.search import Verdict, find_module, installation, is_standard
from .check import check_app


class NoSuchApp(Exception):
    """There is no app of this key. The text is for the log."""


def settle_plan(plan: Plan, environ: Mapping[str, str], base_dir: str | None = None) -> Plan:
    """*plan* with the placeholders of its static apps replaced: those that no request decides, such as ``{env.X}``."""
    base = base_dir or start_folder(os.environ)
    apps = []
    for spec in plan.apps:
        if spec.block.placeholders and not spec.dynamic:
            block = _filled(spec.block, settled_fields(spec.block, environ))
            spec = resolve_app(block, spec, base)  # noqa: PLW2901
        apps.append(spec)
    return replace(plan, apps=tuple(apps))


def tenant(spec: AppSpec, name: str, values: Mapping[str, str], environ: Mapping[str, str], base_dir: str) -> AppSpec:
    """The app that *values* (by the names of the template's fields) make of *spec*. Raises ``NoSuchApp``: its
    directory, its virtual environment or its module is not there.
    """
    block = _filled(spec.block, {**settled_fields(spec.block, environ), **values})
    found = resolve_app(block, spec, base_dir, name, tops(spec, values, environ, base_dir))
    # First what tells strangers from tenants, without looking for what they may have meant.
    for folder in (found.working_dir, found.venv):
        if folder is not None and not os.path.isdir(folder):
            raise NoSuchApp(f"there is no directory {folder}")
    if "module" in values and is_standard(found.module):
        raise NoSuchApp(f"{found.module} is a module of Python's own")
    error = next(check_app(found), None)
    if error is not None:
        raise NoSuchApp(error.message)
    # Not what any interpreter could import, only what is the tenant's: `os:system` is no app of anybody's.
    own = [found.working_dir]
    if found.venv is not None:
        own += [folder for folder in installation(found.python).folders if folder.startswith(found.venv + os.sep)]
    if find_module(found.module, tuple(own)) is not Verdict.FOUND:
        raise NoSuchApp(f"no module named {found.module} in {found.working_dir}")
    return found


def before_requests(spec: AppSpec, environ: Mapping[str, str]) -> AppSpec | None:
    """*spec*, a template, with the variables that no request decides; None when requests decide what runs it, or as
    whom."""
    decided = {
        field.name
        for field, _ in fields(spec.block)
        if not template.compile(template.settle(field.text, environ)).is_static
    }
    values = settled_fields(spec.block, environ)
    if decided & {"venv", "user", "group"} or "{" in f"{spec.block.venv}{spec.block.user}{spec.block.group}":
        return None
    own = {
        pair.name: values.get(f"env_var[{n}]", pair.value)
        for n, pair in enumerate(spec.block.env_vars)
        if f"env_var[{n}]" not in decided
    }
    return replace(spec, environ=own)


def _filled(block: PythonApp, values: Mapping[str, str]) -> PythonApp:
    """*block* with the fields in *values* (named as in ``routing.fields``) replaced, and no placeholders left."""
    names = ("working_dir", "venv", "user", "group")
    update: dict[str, object] = {name: values[name] for name in names if name in values}
    update["module"] = ModuleVariable(
        values.get("module", block.module.module), values.get("variable", block.module.variable)
    )
    update["env_files"] = _numbered("env_file", block.env_files, values)
    update["env_vars"] = _variables("env_var", block.env_vars, values)
    if (box := block.sandbox) is not None:
        paths = {"read": _numbered("read", box.read, values), "write": _numbered("write", box.write, values)}
        update["sandbox"] = box.model_copy(update=paths)
    for kind, field in (("release", "releases"), ("process", "processes"), ("schedule", "schedules")):
        written = enumerate(getattr(block, field))
        update[field] = tuple(_with_values(f"{kind}[{n}]", each, values) for n, each in written)
    update["placeholders"] = ()
    return block.model_copy(update=update)


def _numbered(name: str, texts: Iterable[str], values: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(values.get(f"{name}[{n}]", text) for n, text in enumerate(texts))


def _variables(name: str, pairs: Iterable[EnvVar], values: Mapping[str, str]) -> tuple[EnvVar, ...]:
    return tuple(pair._replace(value=values.get(f"{name}[{n}]", pair.value)) for n, pair in enumerate(pairs))


def _with_values(name: str, each: ReleaseLine | ProcessLine | ScheduleLine, values: Mapping[str, str]) -> object:
    words = _numbered(f"{name}.command", each.command, values)
    if isinstance(each, ScheduleLine):
        return each if words == each.command else replace(each, command=words)
    update: dict[str, object] = {"command": words}
    if isinstance(each, ProcessLine):
        update["env_vars"] = _variables(f"{name}.env_var", each.env_vars, values)
    return each.model_copy(update=update)
