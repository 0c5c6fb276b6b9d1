"""A whole ``python`` directive: its lines, what must be there, and what does not go together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import ValidationError

from ...caddyfile.dispenser import Dispenser
from ...caddyfile.errors import CaddyfileError
from ...caddyfile.tokens import Token
from . import commands, deploying, values  # noqa: F401 (commands, deploying: register their subdirectives)
from .directives import SUBDIRECTIVES, AppDraft
from .models import UNSAID, Interface, PythonApp
from .registry import lines, position_of
from .values import InvalidValue


def read_app(tokens: Sequence[Token]) -> tuple[PythonApp | None, list[CaddyfileError], list[CaddyfileError]]:
    """The app of a ``python`` directive (without its matcher), None where something is wrong; errors; warnings."""
    draft = AppDraft(position_of(tokens[0]))
    errors: list[CaddyfileError] = []
    dispenser = Dispenser(tokens)
    dispenser.next()
    simple = dispenser.remaining_args()
    if len(simple) > 1:
        hint = "write python module:variable, or a block"
        errors.append(dispenser.error(f"python takes one argument, got {len(simple)}", hint))
    block = lines(dispenser)
    if simple and block:
        hint = "write the module inside the block, as module_wsgi or module_asgi"
        errors.append(draft.position.error("python takes either an argument or a block, not both", hint))
    elif len(simple) == 1:
        _read_simple(dispenser, simple[0], draft, errors)
    for line in block:
        try:
            SUBDIRECTIVES.apply(line, draft, draft.where)
        except CaddyfileError as exc:
            errors.append(exc)
    if not simple:
        errors += _interface_errors(draft, complete=not errors)
    if errors:
        return None, errors, draft.warnings
    errors += _combination_errors(draft)
    if errors:
        return None, errors, draft.warnings
    return _build(draft), errors, draft.warnings


def _read_simple(dispenser: Dispenser, text: str, draft: AppDraft, errors: list[CaddyfileError]) -> None:
    try:
        module = values.module_variable(draft.template(text))
    except InvalidValue as exc:
        errors.append(dispenser.error(f"python: {exc}", exc.hint))
        return
    draft.fields.update(interface="wsgi", module=module, simple=True)


def _interface_errors(draft: AppDraft, *, complete: bool) -> list[CaddyfileError]:
    both = [draft.where[name] for name in ("module_wsgi", "module_asgi") if name in draft.where]
    if len(both) == 2:
        hint = "an app is one or the other; take one of them away"
        return [max(both, key=lambda place: place.line).error("both module_wsgi and module_asgi are given", hint)]
    # A line that could not be read may well have been the module's.
    if not both and complete:
        hint = "write module_wsgi module:variable or module_asgi module:variable, such as module_asgi main:app"
        return [draft.position.error("python names no app", hint)]
    return []


def _combination_errors(draft: AppDraft) -> Iterator[CaddyfileError]:
    """Subdirectives that do not go together."""
    fields, where = draft.fields, draft.where
    interface: Interface = fields["interface"]
    runtime = fields.get("runtime")
    if interface == "wsgi" and runtime in ("native", "uvloop"):
        yield where["runtime"].error(f"runtime {runtime} is for ASGI apps", "take it away, or write sync")
    elif interface == "asgi" and runtime == "sync":
        yield where["runtime"].error("runtime sync is for WSGI apps", "write uvloop or native")
    if interface == "asgi" and "threads" in where:
        hint = "take it away: an ASGI app runs on one event loop in each worker"
        yield where["threads"].error("threads is for WSGI apps", hint)
    if interface == "wsgi" and "lifespan" in where:
        draft.warnings.append(where["lifespan"].error("lifespan means nothing to a WSGI app"))
    if interface == "wsgi" and "sendfile" in where:
        hint = "take it away: wsgi.file_wrapper always sends files so"
        yield where["sendfile"].error("sendfile is for ASGI apps", hint)
    if fields.get("workers_runtime") == "thread" and draft.settings.get("app_metrics"):
        hint = "take it away, or write workers_runtime process: threads of a process count in one place for all apps"
        yield where["app_metrics"].error("app_metrics is for workers that are processes", hint)
    cache, sandbox = fields.get("cache"), fields.get("sandbox")
    if cache is not None and cache.url is None and sandbox is not None and sandbox.mode == "on":
        hint = "name one elsewhere, which the walls let it reach over TCP: cache redis://127.0.0.1:6379/0"
        yield where["cache"].error("a store of its own is not offered to an app in a sandbox", hint)


def _build(draft: AppDraft) -> PythonApp:
    try:
        return PythonApp(
            **draft.fields,
            settings=UNSAID._replace(**draft.settings),
            placeholders=tuple(dict.fromkeys(draft.placeholders)),
            where=draft.where,
            position=draft.position,
        )
    except ValidationError as exc:  # the functions above let something through that the model refuses
        raise AssertionError(str(exc)) from exc
