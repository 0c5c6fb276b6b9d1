"""New workers for live dynamic apps: one after the other when the template has changed, or one by its name.

Where new builds are tried, the next begins meanwhile, as long as not too many are on trial at a time.
"""

from __future__ import annotations

import asyncio

from ..apps.judging import chosen
from ..apps.spec import PoolSpec, StartFailed
from ..apps.trial import Trial
from ..commands.release import Tell
from ..sockets.refusals import Refusal
from ..system.log.fields import FieldLog
from ..system.tasks import cancelled
from .tenant import Tenant, TenantTable

log = FieldLog("caddysnake.tenants")

_TRIALS_OF, _TRIALS_LEAST = 8, 8
"""Of so many live apps one may be on trial at a time, with workers of both builds; so many in any case."""


class TenantRenewals:
    """Gives live apps of one template new workers; each serves on meanwhile."""

    def __init__(self, table: TenantTable) -> None:
        self._table = table
        self._task: asyncio.Task[None] | None = None
        self._canary: bool | None = None

    def want_all(self, changed_only: bool, canary: bool | None = None) -> None:
        """Renew all that are live. ``changed_only``: those that run what they should keep their workers. ``canary``:
        whether new builds are tried; None: as their blocks say.
        """
        self._canary = canary
        for tenant, _ in self._table.live():
            tenant.renewal = bool(tenant.renewal) or not changed_only
        if self._task is not None:
            self._task.cancel()
        self._task = self._table.tasks.begin(self._renew_due())

    def go_on(self) -> None:
        """Renew what is due, if anything is."""
        if any(tenant.renewal is not None for tenant, _ in self._table.live()):
            self._task = self._table.tasks.begin(self._renew_due())

    async def hold(self) -> None:
        """Renew nothing until ``go_on``. What is being renewed is as it was."""
        await cancelled(self._task)

    async def _renew_due(self) -> None:
        while True:
            tenant = next((tenant for tenant, _ in self._table.live() if tenant.renewal is not None), None)
            if tenant is None:
                return
            trials = [app.deploys.trial.result for _, app in self._table.live() if app.deploys.trial is not None]
            if len(trials) >= max(_TRIALS_LEAST, len(self._table.live()) // _TRIALS_OF):
                await asyncio.wait(trials, return_when=asyncio.FIRST_COMPLETED)
                continue
            await self._renew(tenant)
            tenant.renewal = None  # not before: whoever cancels this wants it done again

    async def _renew(self, tenant: Tenant) -> None:
        app = tenant.app
        if app is None:
            return
        resolved = await self._table.resolve(tenant.key)
        if tenant.app is not app or (resolved == app.spec and not tenant.renewal):
            return
        if isinstance(resolved, Refusal):
            self._table.complain(tenant.key, resolved)
            self._table.drain(tenant)
            return
        try:
            canary = chosen(resolved.canary, self._canary)
            await app.renew(resolved, releases=tenant.key not in self._table.released, canary=canary)
        except StartFailed as exc:
            if not app.is_stopping:
                what = "new code does not start; the old code keeps serving"
                log.error(what, app=app.name, code=exc.code, error=str(exc))
            return
        self._released(tenant.key, resolved)

    async def reload(
        self, key: str, tell: Tell | None = None, canary: bool | None = None
    ) -> tuple[float, Trial | None]:
        """Give the live app of ``key`` new workers; the seconds that took, and the trial of those, if they are tried.
        ``tell`` hears its release commands.

        Raises ``StartFailed``, and the old ones serve on; ``KeyError`` when there is no such live app: the next request
        starts it with what is there then, and whatever failed is forgiven.
        """
        self._table.policy.forgive(key)
        tenant = self._table.get(key)
        if tenant is None or tenant.app is None:
            raise KeyError(key)
        app = tenant.app
        resolved = await self._table.resolve(key)
        if isinstance(resolved, Refusal):
            app.builds.was_refused(resolved.code, resolved.text)
            raise StartFailed(app.name, resolved.code, resolved.text)
        self._table.launchers.outdate(resolved.key)
        took = await app.renew(resolved, tell=tell, releases=True, canary=chosen(resolved.canary, canary))
        self._released(key, resolved)
        return took, app.deploys.trial

    def _released(self, key: str, spec: PoolSpec) -> None:
        if spec.commands.release:
            self._table.released.add(key)
