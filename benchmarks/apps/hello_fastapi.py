"""A JSON answer by FastAPI, with a model, as most of its apps have."""

from __future__ import annotations

from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI(openapi_url=None)


class Greeting(BaseModel):
    message: str
    number: int


@app.get("/")
async def hello(number: int = 7) -> Greeting:
    return Greeting(message="Hello, World!", number=number)
