"""Placeholders such as ``{http.request.host}``, with the exact meaning that Caddy gives them.

``template``  text with placeholders, compiled once and expanded per request
``names``     the table: which name means what, which cannot be known here and why
``request``   a request as placeholders and matchers see it
``keys``      the values that decide which app a request is for, and which of them are safe
``uris``      paths and queries: escapes, cleaning, pairs

Pure: nothing here opens a socket or knows a configuration.
"""
