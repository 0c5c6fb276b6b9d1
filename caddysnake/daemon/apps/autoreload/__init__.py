"""Code that changes on disk.

``renewal``  what becomes of changed code
``watcher``  sees it
"""
