"""Becomes another version of itself, with everything that runs.

``upgrade``   rehearses, then executes the new version
``restore``   takes up what was carried; also what carries it
``specs``     what was wanted, carried
``handover``  the descriptors that are inherited
``stand_in``  who accepts in the meantime
"""
