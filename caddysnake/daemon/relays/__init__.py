"""Relay processes, and the links that they ask for.

``launcher``     starts the processes
``relays``       keeps them up, as an app of their own
``link_broker``  answers what they ask
``affinity_settings``  what they are told of clients that stay with their workers, and the cookie's name by default
"""
