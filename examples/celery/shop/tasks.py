import os
import time

from celery import shared_task

from shop.models import Beat, Order


@shared_task
def carry_out(order, seconds):
    time.sleep(seconds)
    Order.objects.filter(pk=order).update(state=f"done by {os.getppid()}")


@shared_task
def count():
    Beat.objects.create()
