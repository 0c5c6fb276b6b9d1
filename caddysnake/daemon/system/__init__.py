"""This process, its children, and the machine.

``processes``  pidfds, orphans, signals
``cgroups``    where a worker has its limit of memory with all that it starts
``tempdirs``   the temporary folders of workers
``notify``     the words of a service manager; ``service``: talks to it
``state``      what is carried over an upgrade
``log``        the log process and our records
"""
