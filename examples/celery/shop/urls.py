from django.http import JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import path

from shop.models import Beat, Order
from shop.tasks import carry_out


def take(request, seconds):
    order = Order.objects.create()
    carry_out.delay(order.pk, seconds)
    return JsonResponse({"order": order.pk})


def look(request, order):
    return JsonResponse({"order": order, "state": get_object_or_404(Order, pk=order).state})


def hello(request):
    return JsonResponse({"beats": Beat.objects.count()})


urlpatterns = [path("", hello), path("order/<int:seconds>", take), path("orders/<int:order>", look)]
