"""Relay processes, and the links that they ask for.

``launcher``     starts the processes
``relays``       keeps them up, as an app of their own
``link_broker``  answers what they ask; ``affinity``: what they are told of clients that stay with their workers
"""
