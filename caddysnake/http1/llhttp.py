"""The one place that imports httptools (llhttp)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from httptools import (
        HttpParserCallbackError,
        HttpParserError,
        HttpParserUpgrade,
        HttpRequestParser,
        HttpResponseParser,
    )
else:
    from ..libraries import load

    _httptools = load("httptools")
    HttpParserCallbackError = _httptools.HttpParserCallbackError
    HttpParserError = _httptools.HttpParserError
    HttpParserUpgrade = _httptools.HttpParserUpgrade
    HttpRequestParser = _httptools.HttpRequestParser
    HttpResponseParser = _httptools.HttpResponseParser

__all__ = ["HttpParserCallbackError", "HttpParserError", "HttpParserUpgrade", "HttpRequestParser", "HttpResponseParser"]
