"""What runs in the daemon's own process: it supervises workers, owns the listeners, and never runs an app's code.

``main``         signals, the order of starting and stopping, reloads; ``serving``: what runs, changed as a whole
``composition``  from the plan to what is to run; ``configuration``: a Caddyfile as the daemon is given it
``apps``         one app, its queue; ``pools``: one generation of its workers; ``builds``: which code that is
``workers``      one worker; ``lifecycle``: its states; ``hangs``, ``backoff``, ``recycling``: when it is ended, or back
``balancer``     which worker gets the next connection; ``connections``: those we hold a duplicate of
``estates``      the dynamic apps of one template; ``tenants``: which of them live; ``directory``: found by name
``starts``       how many start at a time
``spawners``     where processes are forked; ``hosts``: where they are threads; ``environment``, ``scratch``: with what
``cgroups``      where a worker has its limit of memory with all that it starts
``relays``       relay processes; ``desk``: answers what they ask; ``refusals``: what is told in the place of an app
``listeners``    sockets that are ours; ``openings``, ``passed``: those of a service manager; ``farewell``: given up
``logger``       the log process; ``logs``: our records; ``ledger``: what is counted; ``complaints``: what is told once
``autoreload``   what becomes of changed code; ``watching``: sees it
``upgrade``      becomes another version: ``carrying``, ``carried``, ``inheritance``, ``succession``, ``standin``
``service``      talks to a service manager, by ``notify``
``attendant``    the seam for the admin API; ``companion``: for what runs beside the apps, such as ``caddy``
``on_demand``    whether a host is served here, for Caddy's on-demand TLS
``processes``    pidfds, orphans, signals; ``allowance``: how much a peer may say; ``standstill``: when nothing runs
"""
