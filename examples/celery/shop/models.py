from django.db import models


class Order(models.Model):
    state = models.CharField(max_length=80, default="taken")


class Beat(models.Model):
    at = models.DateTimeField(auto_now_add=True)
