"""An app: the generations of its workers, and what waits for them.

``app``         one app
``queue``       connections that wait for a worker
``waiting``     those who ask whether there is one
``pool``        one generation of its workers
``spec``        what a pool runs; what makes two specs the same app
``builds``      which code that is
``restarting``  when a worker is replaced; how soon one that failed is tried again
``counters``    what is counted
``autoreload``  code that changes on disk
"""
