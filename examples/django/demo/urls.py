"""Which view answers which path."""

from __future__ import annotations

from django.urls import path

from . import views

urlpatterns = [
    path("", views.index, name="index"),
    path("json", views.show_json, name="json"),
    path("greet", views.greet, name="greet"),
    path("stream", views.stream, name="stream"),
]
