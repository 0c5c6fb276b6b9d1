"""The admin API: what the daemon tells, and does, for its operator. An HTTP server of aiohttp on a unix socket.

::

    attending.py   opens its listener, and brings the server up beside the apps       (imports no aiohttp)
    announcing.py  tells commands where that is
    access.py      who may call: Host, Origin, the user at the other end. Pure.
    models.py      every request and answer
    errors.py      what can go wrong, with stable codes
    survey.py      from the running daemon to the models; reads, changes nothing
    actions.py     what changes something: load, stop, reload, evict, dump
    endpoints.py   the table of endpoints: method, path, handler, models
    description.py the OpenAPI description, from that table
    server.py      aiohttp: connections, routing, errors
    hosting.py     an aiohttp application on connections that the daemon accepted
    asked.py       where Caddy asks whether a host is served (on_demand_ask); asking.py: aiohttp for it
"""
