"""Compares what we make of a Caddyfile with what a stock Caddy makes of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from hypothesis import HealthCheck, settings

from caddysnake.caddyfile.errors import CaddyfileError
from caddysnake.caddyfile.parser import parse
from caddysnake.caddyfile.structure import build_sites

from .caddies import adapt
from .caddyshape import Shape, Unrendered, caddy_shape, our_shape

_wanted = os.environ.get("CADDYSNAKE_FUZZ_EXAMPLES")


def _fuzz(examples: int) -> settings:
    return settings(
        max_examples=int(_wanted or examples),
        # By default each run is the same one; who asks for more also gets others.
        derandomize=_wanted is None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )


fuzz = _fuzz(120)
"""For tests that start a Caddy for each example. CADDYSNAKE_FUZZ_EXAMPLES says how many there are."""

fuzz_in_process = _fuzz(500)
"""For those that do not."""


# Caddy takes a named route that invokes itself; a request to it then never ends.
_MORE_CAREFUL = ("invokes itself",)


def our_answer(file: Path, environ: Mapping[str, str]) -> Shape | str:
    """The shape of *file*, or what is wrong with it.

    Raises:
        Unrendered: it is accepted, but has a directive whose JSON is not known here.
    """
    try:
        parsed = parse(file.read_bytes(), str(file), environ)
    except CaddyfileError as error:
        return str(error)
    sites, errors = build_sites(parsed)
    return str(errors[0]) if errors else our_shape(sites)


def assert_same_as_caddy(file: Path, environ: dict[str, str]) -> None:
    """Both accept *file* and understand the same, or both refuse it.

    What cannot be rendered passes: it is accepted as far as the language goes, and the rest is the directive's.
    """
    try:
        ours = our_answer(file, environ)
    except Unrendered:
        return
    if any(str(ours).endswith(excuse) for excuse in _MORE_CAREFUL):
        return
    answer = adapt(file, environ)
    if answer.config is None:
        assert isinstance(ours, str), f"Caddy refuses this: {answer.error}\nours: {ours}"
    else:
        assert ours == caddy_shape(answer.config)
