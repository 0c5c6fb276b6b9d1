"""The admin API: what the daemon tells, and does, for its operator. HTTP on a unix socket.

``attending``    opens its listener, and tells commands where that is; brings the server up beside the apps
``access``       who may call: Host, Origin, the user at the other end. Pure.
``models``       every request and answer
``errors``       what can go wrong, with stable codes
``survey``       from the running daemon to the models; reads, changes nothing
``background``   what of it is about processes and schedules
``metrics``      from the models to Prometheus
``actions``      what changes something: load, stop, reload, evict, dump
``profiling``    asks workers for a profile and puts together what they say; ``flames``: its forms. Pure.
``journal``      the log, as it was written last and as it goes on
``history``      the last quarter of an hour, for the live page
``endpoints``    the table of endpoints: method, path, handler, models
``description``  the OpenAPI description, from that table
``executing``    one-off commands
``page``         a page for browsers, whose files are in ``live``
``server``       who is admitted, which endpoint it is, errors
``streaming``    an answer that comes line by line
``hosting``      serves connections that the daemon accepted, so many at a time; ``connection``: one of them
``request``      what handlers see of a request, and which of them it is for. Pure.
``asked``        where Caddy asks whether a host is served (on_demand_ask)
"""
