"""Code that changes on disk.

``renewal``  what becomes of changed code
``watcher``  who wants to know of it; ``scout``: the thread that sees it
``trees``    what a watched folder holds, as far as it is looked at
"""
