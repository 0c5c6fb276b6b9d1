"""What an app is called where nobody says it: as other servers look for it."""

from __future__ import annotations

APPS = ("app", "application")
FACTORIES = ("create_app", "make_app", "get_app", "get_application")
"""Called without arguments."""
