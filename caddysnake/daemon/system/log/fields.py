"""Loggers whose records have fields: ``log.info("app ready", app="blog:app")``."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any


class FieldLog(logging.LoggerAdapter[logging.Logger]):
    """The logger ``name``; what is given by keyword, but for ``exc_info``, is a field of the record."""

    def __init__(self, name: str) -> None:
        super().__init__(logging.getLogger(name))

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """What the logger is called with."""
        return msg, {"exc_info": kwargs.pop("exc_info", None), "extra": {"fields": dict(kwargs)}}
