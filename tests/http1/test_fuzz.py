"""A bounded, repeatable run of the fuzzer; a longer one is a command away (``fuzz``)."""

from __future__ import annotations

from http1 import fuzz


def test_a_few_thousand_inputs_find_nothing() -> None:
    assert fuzz.run(seconds=60, seed=9112, rounds=3000) > 500
