"""Request matchers, with the exact meaning that Caddy gives them.

``matcher``    a matcher set in the form of Caddy's JSON, compiled to a predicate over a request
``settling``   takes out of a set what no request can change
``paths``      path patterns: exact, prefix, suffix, globs, escapes
``fields``     header, query, method, protocol, variables; ``places``: hosts and IP addresses
``patterns``   regular expressions, run by RE2, and what they capture
``table``      routes as plain data, on their way to the relay; ``router``: walks them; ``target``: where they lead

Pure: nothing here opens a socket or knows a configuration.
"""
