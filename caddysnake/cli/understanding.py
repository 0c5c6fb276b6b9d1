"""From a Caddyfile's text to what the daemon runs: for the start, and for every reload after it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..caddyfile.errors import CaddyfileError
from ..config.check.on_demand import HostDirectory
from ..config.check.settled import settle
from ..config.language.adapt import ConfigErrors, load, to_json
from ..config.language.models import Config
from ..config.language.values import InvalidValue, socket_address
from ..config.plan.admin import AdminEndpoint, admin_endpoint
from ..config.plan.places import absolute, default_socket_dir, is_same
from ..config.plan.plan import Plan, plan, usable_cores
from ..config.stock.garbage import without_collection
from ..daemon.supervisor.desired import Desired, compose
from ..daemon.supervisor.document import Asked, CaddyPart, Configuration, Document, Problem, ReloadFailed
from .reading import ReadError, Source, read
from .runtime_dir import RuntimeDirError, make_folder

_SECRET = "(set)"


class RunSetting(NamedTuple):
    """What the command line says, for as long as the daemon runs."""

    base: str
    """Where relative paths begin: absolute, and by the name under which it was entered."""
    folder: Path | None = None
    """Where a supervised Caddy's sockets are; None: there is no such Caddy."""
    socket_dir: str | None = None
    admin: str | None = None
    """An address of the admin API that goes before the file's."""
    adjust: Callable[[Desired], Desired] = lambda composition: composition
    is_patient: bool = False
    """Somebody is at work on the code: to be carried out also when no app comes up."""
    full_duplex: bool = False
    """The supervised Caddy knows ``enable_full_duplex``."""
    is_written: bool = True
    """There is a file, which a reload reads again."""


class Understood(NamedTuple):
    """The file as it is written, and what the daemon makes of it."""

    config: Config
    configuration: Configuration


@without_collection()
def understand(source: Source, setting: RunSetting, is_start: bool = False, goes_on: bool = False) -> Understood:
    """Check all of ``source``. Raises ``ConfigErrors``, ``RuntimeDirError``, ``InvalidValue`` (``--admin``).

    ``is_start``: what keeps single apps from being started is no error, unless it does so with all of them, or the file
    wants all or none. ``goes_on``: nor then, since they may run already.
    """
    part, config, planned = _plan(source, setting)
    has_caddy = setting.folder is not None
    problems: list[CaddyfileError] = []
    try:
        endpoint = admin_endpoint(
            config.options, source.file, os.environ,
            for_caddy=has_caddy, override=setting.admin, base_dir=setting.base,
        )  # fmt: skip
    except CaddyfileError as exc:
        endpoint, problems = AdminEndpoint(None), [exc]
    # A Caddy whose admin API could not be given a socket.
    admin = "" if config.options.admin is not None or part.admin.startswith("unix/") else part.admin
    settled = settle(config, planned, os.environ, base_dir=setting.base, own_sockets=has_caddy, caddys_admin=admin)
    planned, unready = settled.plan, settled.unready
    may_fail = is_start and config.options.start_policy == "each"
    is_any_ready = goes_on or setting.is_patient or len(unready) < len(planned.apps)
    problems += settled.errors if may_fail and is_any_ready else settled.all_errors
    if problems:
        raise ConfigErrors(problems)
    composition = setting.adjust(compose(planned, os.environ, settled.tables, setting.base, unready=unready))
    composition = composition._replace(is_patient=setting.is_patient)
    meaning = to_json(config)
    _take_secrets(meaning)
    asked = None
    if (address := config.options.on_demand_ask) is not None:
        hosts = HostDirectory(config, planned, os.environ, setting.base, own_sockets=has_caddy)
        asked = Asked(socket_address(address), hosts.serves)
    document = Document(source.content, absolute(source.file, setting.base))
    configuration = Configuration(composition, document, meaning, endpoint, config.warnings, asked, part)
    return Understood(config, configuration)


def _plan(source: Source, setting: RunSetting) -> tuple[CaddyPart, Config, Plan]:
    if setting.folder is not None:
        from ..config.stock.caddy_admin import with_admin  # not needed without a Caddy
        from ..config.stock.stock import stock

        folder = str(setting.folder)
        both = stock(
            source.content,
            source.file,
            os.environ,
            base_dir=setting.base,
            socket_dir=folder,
            cores=usable_cores(),
            full_duplex=setting.full_duplex,
        )
        address = f"unix/{folder}/caddy-{os.getpid()}.sock"
        # Both are of Caddy 2.7: the option, and the variable that says where its admin API is by default.
        text, admin = with_admin(
            both.text, source.file, os.environ, both.config.options, address, is_default=setting.full_duplex
        )
        return CaddyPart(text, admin, Document(*source)), both.config, both.plan
    config = load(source.content, source.file, os.environ)
    planned = plan(config, cores=usable_cores(), base_dir=setting.base, socket_dir=setting.socket_dir)
    if setting.socket_dir is None and any(listener.own for listener in planned.listeners):
        make_folder(default_socket_dir())
    return CaddyPart(), config, planned


def _take_secrets(meaning: object) -> None:
    """What a variable is set to may be a password, and the API's reader may be a screen on a wall."""
    if isinstance(meaning, dict):
        for name, value in meaning.items():
            if name == "env_vars" and isinstance(value, dict):
                meaning[name] = dict.fromkeys(value, _SECRET)
            else:
                _take_secrets(value)
    elif isinstance(meaning, list):
        for value in meaning:
            _take_secrets(value)


class FileReader:
    """Reads the configuration again for a daemon that runs ``first``."""

    def __init__(self, first: Understood, setting: RunSetting) -> None:
        self._first = first
        self._setting = setting

    @property
    def base(self) -> str:
        """See ``Reader.base``."""
        return self._setting.base

    def read(self, file: str) -> Document:
        """The text at ``file``, as it is now."""
        document = self._first.configuration.document
        if not self._setting.is_written and file == document.file:
            return document
        try:
            return Document(*read(file))
        except ReadError as exc:
            raise ReloadFailed(str(exc)) from None

    def understand(self, document: Document) -> Configuration:
        """What ``document`` asks for."""
        try:
            again = understand(Source(*document), self._setting)
            self._refuse_two_meanings(again)
        except ConfigErrors as exc:
            problems = tuple(Problem(error.file, error.line, str(error)) for error in exc.errors)
            raise ReloadFailed("\n".join(problem.text for problem in problems), problems=problems) from None
        except (RuntimeDirError, InvalidValue) as exc:
            raise ReloadFailed(str(exc)) from None
        return again.configuration

    def _refuse_two_meanings(self, again: Understood) -> None:
        """Who was started beside the first file, and is given one that lies elsewhere, cannot know where its relative
        paths are meant to begin. Raises ``ReloadFailed`` when there are any.
        """
        base, first = self._setting.base, self._first.configuration.document.file
        file = again.configuration.document.file
        folder = os.path.dirname(file)
        is_beside = os.path.dirname(first) == base and self._setting.is_written
        if not is_beside or is_same(folder, base) or is_same(file, first):
            return
        here, there = (
            plan(
                again.config,
                cores=1,
                base_dir=begin,
                socket_dir=self._setting.socket_dir,
                own_sockets=self._setting.folder is not None,
            )
            for begin in (base, folder)
        )
        if (here.apps, here.listeners) != (there.apps, there.listeners):
            raise ReloadFailed(
                f"relative paths in {file} would begin in {base}, where the daemon was started, and not beside the "
                "file: write them as absolute paths, or restart the daemon where they are meant to begin"
            )
