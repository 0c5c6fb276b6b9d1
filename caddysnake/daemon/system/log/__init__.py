"""Where everybody's output goes.

``process``  the log process; ``pipes``: what it reads
``records``  our own records
"""
