"""An app: the generations of its workers, and what waits for them.

``app``         one app, by its generations; ``takeover``: the decisions, without I/O
``stop_first``  the old build ends before the new one starts
``deploys``     builds beside the one that serves: that which is tried, and the one before, which is kept
``trial``       the new beside the old, until it is judged: ``judging``
``scaled``      as many workers as it takes; ``scaling``: the decisions, without I/O
``dispatcher``  its connections
``queue``       connections that wait for a worker, and those who ask whether there is one
``owner``       the app, as those see it who change its generations
``pool``        one generation of its workers; ``generation``: the decisions, without I/O; ``telling``: what is logged;
                ``warming``: those who answer their warm-up
``source``      where workers come from; ``home``: whom a generation answers to
``upkeep``      those that hang, or have served long enough (max_requests, max_lifetime, max_memory)
``metrics``     what apps count themselves
``folder``      its private folder; ``surroundings``: what its commands find around them
``audit``       one that is watched for what it would miss in a sandbox
``spec``        what a pool runs; what makes two specs the same app
``beginning``   the first start, until it is up
``builds``      which code that is
``recycling``   when a healthy worker is replaced: max_requests, max_lifetime, max_memory
``counters``    what is counted
``autoreload``  code that changes on disk
"""
