"""HTTP/1.1 rules over httptools, shared by both servers and the relay. No I/O in here.

``request``   bytes to ``RequestHead`` and body; the grammar, in one place; ``request_line``, ``chunked``: its parts
``heads``     what a head is; ``memory``: what is remembered of bytes that come again
``speedups``  plain heads, read by the extension; ``answers``: answers of our own
``traceback_page``  what a developer is shown in the place of an answer
``forwarded`` X-Forwarded-*: read, and of a peer that is not believed replaced
``response``  status, headers and content to bytes; framing, and what an app may not do; ``encoding``: its lines
``fields``    names and values: tokens, hosts, lists
``phrases``   reason phrases
``limits``    what one request may cost
``errors``    ``ProtocolError`` (the peer's fault), ``ResponseError`` (the app's)
``llhttp``    the one import of httptools

Guest code: Python 3.10.
"""
