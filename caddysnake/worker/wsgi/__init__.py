"""The threaded server: leader and followers.

``server``            the shell: threads, channel, life
``driver``            what one thread does with one connection
``in_flight``         one that lets so many requests run at a time
``thread_pool``       the threads, and who of them works
``controller``        the thread that runs no app: drain, time-outs
``websockets``        those that are open, a thread each
``connection``        one connection; ``connection_table``: who owns it
``environ``           what an app is told of a request
``counters``          what is counted
``call``              one call of the app
"""
