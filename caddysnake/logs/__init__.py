"""The log: what a record is, how it is written, and the process that gathers and writes all of them.

``records``     a record, its level, and text that a terminal may be shown
``formats``     records as JSON lines in Caddy's field names, or in console style
``lines``       bytes to lines of text: partial ones, long ones, junk
``tracebacks``  lines that belong together, and how often which come
``repeats``     the same thing over and over
``access``      a request that a worker has answered, as Caddy logs it
``caddy``       a line of Caddy's own log
``orders``      what the daemon tells the log process
``sources``     one process's output: descriptors, and what has been read of them
``sink``        where everything goes: a thread that may be held up for ever
``ring``        what was written last, and who reads it
``main``        the log process

Everything that is read here may come from a hostile app.
"""
