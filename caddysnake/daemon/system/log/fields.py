"""Loggers whose records have fields: ``log.info("app ready", app="blog:app")``."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any


class FieldLog(logging.LoggerAdapter[logging.Logger]):
    """The logger ``name``. Keywords, but for ``exc_info``, are fields of its records; ``from_`` is called ``from``."""

    def __init__(self, name: str) -> None:
        super().__init__(logging.getLogger(name))

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """What the logger is called with."""
        return msg, {
            "exc_info": kwargs.pop("exc_info", None),
            "extra": {"fields": {name.removesuffix("_"): value for name, value in kwargs.items()}},
        }
