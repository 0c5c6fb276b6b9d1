"""The one page. Paths of WebSockets are in asgi.py."""

from __future__ import annotations

from django.urls import path
from django.views.generic import TemplateView

urlpatterns = [path("", TemplateView.as_view(template_name="room.html"))]
