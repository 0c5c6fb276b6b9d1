"""Where everybody's output goes.

``process``  the log process, and the pipes it reads
``records``  our own records
"""
