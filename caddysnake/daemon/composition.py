"""From the plan to what the daemon runs: each app's settings, spawner and place. Pure but for the environment given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..channel.settings import Settings
from ..config.environment import worker_environ
from ..config.plan import AppSpec, Listener, Plan
from .environment import for_interpreter
from .pools import PoolSpec
from .spawners import SpawnerKey


class UnixAddress(NamedTuple):
    path: str
    mode: int | None
    owner: str | None
    group: str | None


class TcpAddress(NamedTuple):
    host: str
    port: int


class FdAddress(NamedTuple):
    """A listening socket that was inherited: a descriptor's number."""

    fd: int


Address = UnixAddress | TcpAddress | FdAddress


class Binding(NamedTuple):
    """A listener that hands its connections to one app."""

    address: Address
    app: str


class Composition(NamedTuple):
    """What to run."""

    apps: tuple[PoolSpec, ...]
    bindings: tuple[Binding, ...]
    grace_s: float
    trusted_proxies: tuple[str, ...] = ()


def compose(plan: Plan, environ: Mapping[str, str], development: bool = False) -> Composition:
    """What runs when ``plan`` is carried out in a daemon whose environment is ``environ``.

    The plan must have no problems and hold nothing that is not built yet; its listeners are all direct.
    """
    apps = tuple(_pool(spec, environ, development) for spec in plan.apps)
    bindings = tuple(Binding(_address(listener), plan.apps[listener.app].name) for listener in plan.listeners)
    return Composition(apps, bindings, plan.grace_period_s, plan.options.trusted_proxies)


def _pool(spec: AppSpec, environ: Mapping[str, str], development: bool) -> PoolSpec:
    own = worker_environ(spec, environ)
    settings = Settings(
        app=spec.name,
        interface=spec.interface,
        module=spec.module,
        variable=spec.variable,
        working_dir=spec.working_dir,
        environ=own,
        threads=spec.threads,
        loop=spec.loop,
        lifespan=spec.lifespan,
        development=development,
        max_body_bytes=spec.request_body_max_bytes,
    )
    key = SpawnerKey(
        python=spec.python,
        interface=spec.interface,
        preload=spec.preload,
        # A preload may be a module of the app's own. Apps without preloads share a spawner whatever their folder.
        path=(spec.working_dir,) if spec.preload else (),
        environ=tuple(sorted(for_interpreter(own).items())),
    )
    return PoolSpec(spec.name, settings, spec.workers, key, spec.start_timeout_s, spec.grace_period_s)


def _address(listener: Listener) -> Address:
    if listener.network == "unix":
        return UnixAddress(listener.path, listener.mode, listener.owner, listener.group)
    if listener.network == "fd":
        return FdAddress(listener.fd)
    return TcpAddress(listener.host, listener.port)
