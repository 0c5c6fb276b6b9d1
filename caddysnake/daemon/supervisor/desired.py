"""From the plan to what the daemon runs: each app's settings, fork server and place.

Pure but for the environment given, and for a look at where the names of folders and interpreters lead.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Literal, NamedTuple

from ...caddyfile.errors import CaddyfileError
from ...channel.settings import RelaySettings
from ...config.check.check import check_app
from ...config.check.on_demand import key_of_host
from ...config.check.tenancy import NoSuchApp, before_requests, tenant
from ...config.language.models import Autoreload, GlobalOptions
from ...config.plan import accounts
from ...config.plan.accounts import Account, AccountError
from ...config.plan.environment import worker_environ
from ...config.plan.fence import Fence, closed_places, common_fence, fence_of, tops, unwalled
from ...config.plan.isolation import Residents, Shared, residents, shared
from ...config.plan.plan import AppSpec, Plan, resolve_app
from ...config.plan.routing import app_template
from ...config.plan.search import located
from ...matchers.table import Table
from ...placeholders.keys import UnsafeValue
from ..apps import recycling
from ..apps.spec import SLOW_START_S, UNKNOWN, Identity, PoolSpec, StartFailed
from ..commands.spec import Commands
from ..commands.store import store_of
from ..commands.surroundings import STORE_CELERY_URL, STORE_URL
from ..relays.affinity_settings import affinity_of
from ..relays.launcher import KEY as RELAY_KEY
from ..sockets.addresses import Address
from ..sockets.refusals import NO_SUCH_APP, Refusal, of_failure
from ..system.log.records import Style, printable
from ..tenants.tenant import TemplateSpec
from ..workers.child.launcher import ForkServerKey
from ..workers.forking.ahead import for_interpreter
from ..workers.forking.interpreter import runs_the_same, slow_start_s
from .resolving import address_of, limits_of, warmup_of

_RELAY_START_S = 60.0
_PLACEHOLDER = re.compile(r"\{[^{}]*\}")


class ListenerSpec(NamedTuple):
    """A listener: direct to the workers of ``app``, or, when that is None, to the relays."""

    address: Address
    app: str | None
    reason: str = ""
    """Why, for people."""
    serves: tuple[str, ...] = ()
    """Everything behind it, by name, in the order in which it is tried."""


class Desired(NamedTuple):
    """What to run. Apps and templates have the numbers by which relays name them."""

    apps: dict[int, PoolSpec]
    bindings: tuple[ListenerSpec, ...]
    relay: PoolSpec
    grace_s: float
    trusted_proxies: tuple[str, ...] = ()
    templates: Mapping[int, TemplateSpec] = MappingProxyType({})
    max_queue: Mapping[int, int] = MappingProxyType({})
    autoreload: Mapping[int, Autoreload] = MappingProxyType({})
    """Those that are started afresh when their code changes."""
    development: frozenset[int] = frozenset()
    """Those whose clients may be told everything, such as tracebacks."""
    log: Style = Style()
    max_spawners: int | None = None
    """Besides those of static apps."""
    shared: tuple[Shared, ...] = ()
    """Apps that one user runs, and so are not kept apart."""
    unwalled: frozenset[str] = frozenset()
    """Apps, and templates, in no sandbox."""
    with_cpu_limit: tuple[str, ...] = ()
    with_memory_limit: tuple[str, ...] = ()
    """The names of those that have one."""
    memory_budget: int | None = None
    """Bytes that all workers together may have."""
    start_policy: Literal["each", "all"] = "each"
    """Whether one app that does not come up fails the start."""
    again: Mapping[int, Callable[[], PoolSpec]] = MappingProxyType({})
    """What each app comes to by now, looked at anew, in a thread."""
    amiss: Mapping[str, str] = MappingProxyType({})
    """Templates of which no app can be started as things are, and why."""
    is_patient: bool = False
    """Somebody is at work on the code: it goes on when no app comes up."""

    def again_of(self, name: str) -> Callable[[], PoolSpec]:
        """Return the one of ``again`` that is of the app of that name."""
        return self.again[next(number for number, spec in self.apps.items() if spec.name == name)]


def compose(
    plan: Plan,
    environ: Mapping[str, str],
    tables: Sequence[Table],
    base_dir: str,
    development: bool = False,
    unready: Mapping[int, Sequence[CaddyfileError]] = MappingProxyType({}),
) -> Desired:
    """What runs when ``plan`` is carried out in a daemon whose environment is ``environ``.

    The plan must have no problems. ``tables``: each listener's routes. ``unready``: what keeps single apps of it from
    being started. Raises ``AccountError`` when the user of another has gone since it was checked.
    """
    apps: dict[int, PoolSpec] = {}
    templates: dict[int, TemplateSpec] = {}
    again: dict[int, Callable[[], PoolSpec]] = {}
    autoreload = {
        number: _with_env_files(found, spec)
        for number, spec in enumerate(plan.apps)
        if (found := spec.block.autoreload) is not None
    }
    telling = frozenset(range(len(plan.apps)) if development else autoreload)
    composer = _Composer(environ, base_dir, telling, residents(plan), closed_places(plan, environ))
    for number, spec in enumerate(plan.apps):
        if spec.dynamic:
            templates[number] = composer.template(number, spec, number in unready)
        else:
            again[number] = partial(composer.again, number, spec)
            apps[number] = composer.app(number, spec, unready.get(number, ()))
    bindings = tuple(
        ListenerSpec(
            address_of(listener),
            plan.apps[listener.app].name if listener.kind == "direct" else None,
            listener.reason,
            tuple(plan.apps[number].name for number in listener.apps),
        )
        for listener in plan.listeners
    )
    return Desired(
        apps,
        bindings,
        _relay(plan, tables, bool(telling)),
        plan.grace_period_s,
        plan.options.trusted_proxies,
        templates,
        {number: spec.block.max_queue for number, spec in enumerate(plan.apps)},
        autoreload,
        telling,
        log=_style(plan.options),
        max_spawners=plan.options.max_spawners,
        shared=tuple(shared(plan)),
        unwalled=frozenset(unwalled(plan)),
        with_cpu_limit=tuple(app.name for app in plan.apps if "cpu" in (limits_of(app.block.limits) or {})),
        with_memory_limit=tuple(app.name for app in plan.apps if "memory" in (limits_of(app.block.limits) or {})),
        memory_budget=plan.options.memory_budget,
        start_policy=plan.options.start_policy,
        again=again,
        amiss={spec.name: _told(unready[n]) for n, spec in enumerate(plan.apps) if spec.dynamic and n in unready},
    )


def _with_env_files(options: Autoreload, spec: AppSpec) -> Autoreload:
    """``options``, and the env files too: they lie in the working directory, or are refused."""
    named = (os.path.relpath(each, spec.working_dir) if os.path.isabs(each) else each for each in spec.block.env_files)
    patterns = (_PLACEHOLDER.sub("*", os.path.normpath(each)) for each in named)
    return options.model_copy(update={"watch": (*options.watch, *patterns)})


class _Composer(NamedTuple):
    """What becomes of the apps of one plan. They are told by their numbers in it."""

    environ: Mapping[str, str]
    base_dir: str
    telling: frozenset[int]
    """Those whose clients may be told everything."""
    housed: Residents
    closed: tuple[str, ...]

    def again(self, number: int, spec: AppSpec) -> PoolSpec:
        """What a static app comes to by now: env files are read, an interpreter and a user are looked up again."""
        found = resolve_app(spec.block, spec, self.base_dir)
        errors = list(check_app(found))
        if not errors and (account := accounts.resolve(found.block.user, found.block.group)) is not None:
            self.housed.add(account.uid, found.name)
        return self.app(number, found, errors)

    def app(self, number: int, spec: AppSpec, errors: Sequence[CaddyfileError]) -> PoolSpec:
        """What runs a static app, or says why nothing can."""
        account = None if errors else accounts.resolve(spec.block.user, spec.block.group)
        found = self._pool(number, spec, account)._replace(cannot=_told(errors))
        return _fenced(found, fence_of(spec, self.closed, isolated=found.isolated))

    def template(self, number: int, spec: AppSpec, is_amiss: bool) -> TemplateSpec:
        """What resolves requests to apps of a template; ``is_amiss``: none can be started as things are."""
        template = app_template(number, spec.block, self.environ)
        warm, common = self._warm(number, spec), common_fence(spec, self.closed, self.environ, self.base_dir)

        def resolve(key: str) -> PoolSpec | Refusal:
            try:
                values = template.resolve(key)
                found = tenant(spec, _tenant_name(spec, key), values, self.environ, self.base_dir)
                account = accounts.resolve(
                    found.block.user,
                    found.block.group,
                    user_by_request="user" in values,
                    group_by_request="group" in values,
                )
            except (UnsafeValue, NoSuchApp, AccountError) as exc:
                if is_amiss and (errors := list(check_app(spec))):
                    return of_failure(StartFailed(spec.name, "setup-failed", _told(errors)))
                return NO_SUCH_APP._replace(text=str(exc))
            if account is not None and "user" in values:
                self.housed.add(account.uid, found.name)
            pool = self._pool(number, found, account, is_tenant=True)
            loose = tops(spec, values, self.environ, self.base_dir)
            fence = fence_of(found, self.closed, isolated=pool.isolated, loose=loose)
            return _fenced(pool, fence, common if warm is not None and runs_the_same(pool.key, warm) else fence)

        block = spec.block
        identity = Identity((spec.module, spec.variable, spec.working_dir), (block.user, block.group))
        bounds = (block.max_dynamic_apps, block.max_queue, block.idle_timeout_s)
        shared = None if warm is None else warm._replace(fence=common)
        schedules = Commands.of(block, spec.grace_period_s).schedules
        code = hashlib.sha256(f"{spec.working_dir}\0{spec.module}:{spec.variable}".encode()).hexdigest()
        keeps = f"apps-{code[:16]}.json" if schedules else ""
        of_host = partial(key_of_host, template)
        return TemplateSpec(spec.name, resolve, *bounds, identity, shared, of_host, schedules, keeps)

    def _warm(self, number: int, spec: AppSpec) -> ForkServerKey | None:
        """Where the tenants of ``spec`` will be forked from, if that is the same place for all."""
        known = before_requests(spec, self.environ)
        if known is None:
            return None
        try:
            account = accounts.resolve(known.block.user, known.block.group)
        except AccountError:
            return None
        return self._pool(number, known, account, is_tenant=True).key

    def _pool(self, number: int, spec: AppSpec, account: Account | None, is_tenant: bool = False) -> PoolSpec:
        own = worker_environ(spec, self.environ, account)
        block = spec.block
        if (cache := block.cache) is not None and cache.url is not None:
            own |= dict.fromkeys((STORE_URL, STORE_CELERY_URL, *cache.env), cache.url)
        settings = block.settings._replace(
            app=spec.name,
            interface=block.interface,
            module=spec.module,
            variable=spec.variable,
            working_dir=spec.working_dir,
            environ=own,
            loop=spec.loop,
            development=number in self.telling,
            websocket_keep_s=block.websocket_drain.keep_s or 0.0,
            websocket_ping_interval_s=block.websocket_ping.interval_s or 0.0,
            websocket_ping_timeout_s=block.websocket_ping.timeout_s,
            limits=limits_of(block.limits),
            max_waiting=block.max_queue,
            root_path=spec.root_path,
            access_log={"credentials": block.log.log_credentials} if block.log is not None else None,
            store=list(cache.env) if cache is not None and cache.url is None else None,
            shares_process=block.workers_runtime == "thread",
            has_affinity=block.affinity is not None,
        )
        key = ForkServerKey(
            python=spec.python,
            interface=block.interface,
            preload=block.preload,
            # A preload may be a module of the app's own. Apps without preloads share a fork server whatever their
            # folder, and so do the tenants of a template: what they share cannot be in one's folder.
            path=(spec.working_dir,) if block.preload and not is_tenant else (),
            environ=tuple(sorted(for_interpreter(own).items())),
            account=account,
        )
        isolated = account is not None and self.housed.is_alone(account.uid, spec.name)
        limits = recycling.RestartLimits(
            block.max_requests, block.max_requests_jitter, block.max_lifetime_s, block.max_memory_bytes
        )
        return PoolSpec(
            spec.name,
            settings,
            spec.workers,
            key,
            block.start_timeout_s,
            spec.grace_period_s,
            isolated,
            limits,
            slow_start_s(self.environ, SLOW_START_S),
            (os.path.realpath(spec.working_dir), located(spec.python), os.path.realpath(spec.python)),
            most=spec.workers_most,
            scale_down_after_s=block.scale_down_after_s,
            strategy=spec.strategy,
            warmup=warmup_of(spec),
            canary=block.canary,
            keep_s=block.keep_previous_s,
            commands=Commands.of(block, spec.grace_period_s, store_of(spec.name, cache, self.environ)),
            is_tenant=is_tenant,
        )


def _fenced(pool: PoolSpec, own: Fence | None, shared: Fence | None = None) -> PoolSpec:
    """``pool`` in its sandbox. ``shared``: what it has in common with others that come from one fork server."""
    if own is None or own.is_rehearsed:
        return pool._replace(rehearsal=own)
    if shared is not None:
        shared = shared._replace(walls=own.walls)
    return pool._replace(fence=own, key=pool.key._replace(fence=own if shared is None else shared))


def _told(errors: Sequence[CaddyfileError]) -> str:
    return "\n".join(map(str, errors))


def _style(options: GlobalOptions) -> Style:
    level = options.log.level or ("debug" if options.debug else None)
    return Style(level or "info", options.log.format or "auto", is_quiet=level is None)


def _relay(plan: Plan, tables: Sequence[Table], development: bool) -> PoolSpec:
    settings = RelaySettings(listeners=list(tables), development=development)
    settings = settings._replace(**affinity_of(plan))
    return PoolSpec("relay", settings, plan.options.relays, RELAY_KEY, _RELAY_START_S, plan.grace_period_s)


def _tenant_name(spec: AppSpec, key: str) -> str:
    """What a tenant is called: what its requests have in common, and the template, less a folder that varies."""
    module = f"{spec.module}:{spec.variable}"
    folder, _, number = spec.name.rpartition(module)
    return f"{printable(key)} {module if '{' in folder else folder + module}{number}"


def successors(running: Mapping[str, Identity], wanted: Mapping[str, Identity]) -> dict[str, str]:
    """Names of ``wanted``, each with the name of ``running`` that it continues; what is in neither is new, or gone.
    Names depend on what else is in the file (``main:app``, ``blog/main:app``): an app is the same when the same code
    runs for the same user, to whom alone its connections go, as a worker may have kept a copy. One that has had no
    worker is followed by its namesake, whoever that runs as.
    """
    found: dict[str, str] = {}
    left = dict(running)

    def claim(name: str, former: str | None) -> None:
        if former is not None:
            found[name] = former
            del left[former]

    for name, identity in wanted.items():
        claim(name, name if left.get(name) == identity else None)
    for name, identity in wanted.items():
        if name not in found:
            claim(name, next((former for former, other in left.items() if other == identity), None))
    for name, identity in wanted.items():
        if name not in found:
            claim(name, name if name in left and _same_user(left[name], identity) else None)
    return found


def _same_user(former: Identity, later: Identity) -> bool:
    return former.user == later.user or UNKNOWN in (former.user, later.user)
