"""`module_asgi chat.asgi:application`: Django answers HTTP, Channels the WebSockets."""

from __future__ import annotations

import os

from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.core.asgi import get_asgi_application
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chat.settings")

# First, since it sets Django up: consumers may import models.
pages = get_asgi_application()

from .consumers import Echo, Room  # noqa: E402

sockets = URLRouter([path("ws/echo", Echo.as_asgi()), path("ws/rooms/<slug:room>", Room.as_asgi())])

application = ProtocolTypeRouter({"http": pages, "websocket": AllowedHostsOriginValidator(sockets)})
