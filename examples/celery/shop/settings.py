"""Settings of the example. A project of your own takes SECRET_KEY from an `env_file` and names its hosts."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

SECRET_KEY = os.environ.get("SECRET_KEY", "django-insecure-only-good-for-this-example")
# Caddy forwards only the hosts that its site addresses name, and nothing else can reach the app's socket.
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
INSTALLED_APPS = ["django.contrib.sessions", "shop"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("DATABASE", BASE_DIR / "shop.sqlite3"),
        "OPTIONS": {"timeout": 20},  # workers and the queue write to one file
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True

CELERY_BROKER_URL = os.environ.get("BROKER_URL", "redis://localhost/0")
CELERY_WORKER_CONCURRENCY = 1
CELERY_BEAT_SCHEDULE = {"count": {"task": "shop.tasks.count", "schedule": 1.0}}
