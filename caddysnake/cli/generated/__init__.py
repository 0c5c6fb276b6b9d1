"""Files made of the command line's parsers by ``.ci/generate.py``, so that an installation needs nothing to make them.

``caddysnake.8``      the manual page
``caddysnake.bash``   completion, and so for ``zsh`` and ``fish``
"""
