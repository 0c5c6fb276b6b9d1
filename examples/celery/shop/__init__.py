"""A shop: who orders is answered at once, and the order is carried out by Celery."""

from shop.celery import queue

__all__ = ["queue"]
