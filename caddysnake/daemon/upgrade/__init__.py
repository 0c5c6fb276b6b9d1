"""Becomes another version of itself, with everything that runs.

``upgrade``   rehearses, then executes the new version; how long it may take
``capture``   puts all that runs into a state; ``restore``: takes it up
``handover``  the descriptors that are inherited
``stand_in``  who accepts in the meantime, and for how long at most
"""
