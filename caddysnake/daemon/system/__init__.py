"""This process, its children, and the machine.

``processes``  pidfds, orphans, signals
``kinship``    whose child a process is, and who is at the other end of a connection
``memory``     how much there is for more
``cgroups``    where a worker has its limit of memory with all that it starts
``tempdirs``   the private folders of apps
``service``    sd_notify: READY, STATUS, WATCHDOG; ``notify``: the socket that it goes over
``state``      what is carried over an upgrade; ``snapshots``: parts of it; ``sealed``: the descriptor that it is in;
               ``as_json``: what JSON has no form for, in one
``backoff``    how soon what failed is tried again
``state_files``  files that outlive the daemon; ``signing``: the key of its cookies is one
``tasks``      tasks that are kept until they end
``timings``    how long the daemon waits for workers, fork servers and lookups; others have it where they wait
``mishaps``    errors of our own
``log``        the log process and our records
"""
