"""A page with a form, JSON, a POST behind Django's CSRF check, and a response that streams."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from django import forms
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods


class GreetForm(forms.Form):
    name = forms.CharField(label="Your name", max_length=100)


class StreamForm(forms.Form):
    lines = forms.IntegerField(min_value=0, max_value=100, required=False)
    pause = forms.FloatField(min_value=0, max_value=5, required=False)


@require_GET
def index(request: HttpRequest) -> HttpResponse:
    return render(request, "index.html", {"form": GreetForm()})


@require_GET
def show_json(request: HttpRequest) -> JsonResponse:
    """What the app knows about the request: behind a proxy these are the things that go wrong."""
    return JsonResponse(
        {
            "framework": "django",
            "url": request.build_absolute_uri(),
            "scheme": request.scheme,
            "client": request.META.get("REMOTE_ADDR"),
            "page": reverse("index"),
            "pid": os.getpid(),
        }
    )


@require_http_methods(["GET", "POST"])
def greet(request: HttpRequest) -> HttpResponse:
    """GET shows the form; POST wants its CSRF token back, as every Django form does."""
    form = GreetForm(request.POST if request.method == "POST" else None)
    if request.method == "GET":
        return render(request, "index.html", {"form": form})
    if not form.is_valid():
        return render(request, "index.html", {"form": form}, status=400)
    return render(request, "greeting.html", form.cleaned_data)


@require_GET
def stream(request: HttpRequest) -> HttpResponse:
    """`lines` lines, `pause` seconds apart; each is sent as soon as it is made."""
    form = StreamForm(request.GET)
    if not form.is_valid():
        return JsonResponse(form.errors, status=400)
    lines = 5 if form.cleaned_data["lines"] is None else form.cleaned_data["lines"]
    pause = 0.2 if form.cleaned_data["pause"] is None else form.cleaned_data["pause"]

    def body() -> Iterator[str]:
        for number in range(1, lines + 1):
            yield f"line {number} of {lines}\n"
            if number < lines:
                time.sleep(pause)

    return StreamingHttpResponse(body(), content_type="text/plain; charset=utf-8")
