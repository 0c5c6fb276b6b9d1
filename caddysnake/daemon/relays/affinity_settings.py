"""What relays are told of blocks whose clients stay with their workers."""

from __future__ import annotations

import hashlib
from typing import Any

from ...config.plan.plan import AppSpec, Plan
from ..system.signing import affinity_key, epoch


def affinity_of(plan: Plan) -> dict[str, Any]:
    """The settings of relays that are about affinity; none where no block has it."""
    tied = {str(number): _said(spec) for number, spec in enumerate(plan.apps) if spec.block.affinity is not None}
    return {"affinity": tied, "affinity_key": affinity_key(), "affinity_epoch": epoch()} if tied else {}


def _said(spec: AppSpec) -> list[str]:
    said = spec.block.affinity
    assert said is not None
    default = f"caddysnake-{hashlib.sha256(spec.name.encode()).hexdigest()[:8]}"
    return [said.kind, said.name or default, spec.name]
