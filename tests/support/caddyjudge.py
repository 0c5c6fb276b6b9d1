"""Compares what we make of a Caddyfile with what a stock Caddy makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from caddysnake.caddyfile.errors import CaddyfileError
from caddysnake.caddyfile.parser import parse
from caddysnake.caddyfile.structure import build_sites

from .caddybin import adapt, find_caddy
from .caddyshape import Shape, Unrendered, caddy_shape, our_shape

needs_caddy = pytest.mark.skipif(find_caddy() is None, reason="no Caddy to judge by: install the extra `caddy`")


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
    answer = adapt(file, environ)
    if answer.config is None:
        assert isinstance(ours, str), f"Caddy refuses this: {answer.error}\nours: {ours}"
    else:
        assert ours == caddy_shape(answer.config)
