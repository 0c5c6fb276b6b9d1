"""Where everybody's output goes.

``process``  the log process; ``pipes``: what it reads; ``asking``: what went wrong there
``records``  our own records; ``fields``: loggers that give them fields
"""
