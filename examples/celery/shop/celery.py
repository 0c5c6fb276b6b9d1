"""The queue: what Django's settings say of it, and the tasks of all apps."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
queue = Celery("shop")
queue.config_from_object("django.conf:settings", namespace="CELERY")
queue.autodiscover_tasks()
