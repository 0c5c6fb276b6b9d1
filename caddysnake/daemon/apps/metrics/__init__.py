"""What apps count themselves, with prometheus-client, over all their workers: the files of its multiprocess mode.

``files``    one file, read: believed in nothing. Pure.
``merging``  values of many files to series. Pure.
``folder``   all files of an app; what ended processes have left is merged away
``exposition``   series as text for Prometheus; ``remembering``: what comes and goes does not go back. Pure.
``helper``   the process that reads, which becomes each app's user for that
``asking``   the daemon's side of it

From ``folder`` on down nothing imports anything of ours but what stands above it: ``helper`` is a process of its own.
"""
