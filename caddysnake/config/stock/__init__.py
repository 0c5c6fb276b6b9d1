"""The same file for a stock Caddy.

``stock``        every ``python`` directive becomes a ``reverse_proxy``
``expansion``    snippets and imports, written out where they hold one
``sourcetext``   parts of the file as they were written; ``printing``: tokens as text
``garbage``      a large file is read while Python's collector rests
``caddy_admin``  where its admin API listens
"""
