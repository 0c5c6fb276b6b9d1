"""Settings of the example. A project of your own takes SECRET_KEY from an `env_file` and names its hosts."""

from __future__ import annotations

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent

SECRET_KEY = os.environ.get("SECRET_KEY", "django-insecure-only-good-for-this-example")
DEBUG = os.environ.get("DEBUG") == "1"
# Browsers let any page open a WebSocket to any host. Channels compares the Origin they send with this list.
ALLOWED_HOSTS = ["localhost"]

ROOT_URLCONF = "chat.urls"
ASGI_APPLICATION = "chat.asgi.application"
INSTALLED_APPS = ["channels"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [BASE_DIR / "templates"]}]
DATABASES: dict[str, dict[str, str]] = {}
# One process only. With more than one worker: channels_redis, whose layer is shared.
CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
USE_TZ = True
