"""Where everybody's output goes.

``process``  the log process; ``asking``: what it is asked
``pipes``    what it reads; ``held``: not yet
``records``  our own records; ``fields``: loggers that give them fields
"""
