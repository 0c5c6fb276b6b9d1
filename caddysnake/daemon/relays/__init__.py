"""Relay processes, and the links that they ask for.

``relays``       the processes
``link_broker``  answers what they ask
"""
