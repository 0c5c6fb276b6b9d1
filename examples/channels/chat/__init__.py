"""A Django project with Channels: pages over HTTP, rooms over WebSocket."""
