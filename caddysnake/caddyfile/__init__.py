"""The Caddyfile language, as Caddy reads it: text to tokens to blocks to routes. Knows nothing about Python apps.

================  ==============================================================
``errors``        what the author of a file gets to see: file, line, token, hint
``tokens``        words and where they stood; ``lexer``: ``{$NAME}`` in the raw text, and characters to tokens
``replacing``     placeholders in a text; ``importing``: what ``import`` puts in; ``shorthands``: ``{host}`` written out
``parser``        tokens to site blocks, segments, options, named routes
``dispenser``     the cursor a directive holds
``addresses``     site addresses, sockets among them; ``hosts``: hosts, ports, numbers as Go takes them apart
``matchers``      ``*``, ``/path``, ``@name`` to matcher sets
``ordering``      which directive goes before which
``structure``     a site's segments to the ordered tree of its routes
``formatter``     the canonical layout (``fmt``); never changes the tokens
================  ==============================================================

The real ``caddy adapt`` is the judge: where a rule looks odd, it is Caddy's.
"""
