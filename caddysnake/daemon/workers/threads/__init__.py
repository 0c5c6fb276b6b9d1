"""Workers that are threads.

``host``  the processes in which they are threads
"""
