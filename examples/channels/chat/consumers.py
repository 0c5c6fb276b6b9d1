"""What answers a WebSocket: an echo, and a room of people who talk."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

from channels.generic.websocket import AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer

NAME_MISSING = 4000
"""A close code of this app's own: 4000 to 4999 are free for that (RFC 6455 section 7.4.2)."""


class Echo(AsyncWebsocketConsumer):
    """Each message goes back as it came, text or bytes."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=text_data, bytes_data=bytes_data)


class Room(AsyncJsonWebsocketConsumer):
    """What one says is heard by all who are in the room, the speaker among them."""

    name = ""
    group = ""

    async def connect(self) -> None:
        await self.accept()
        names = parse_qs(self.scope["query_string"].decode()).get("name")
        if not names:
            await self.close(NAME_MISSING, "a name is needed")
            return
        self.name = names[0]
        self.group = f"room.{self.scope['url_route']['kwargs']['room']}"
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.tell("comes in")

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None, **_: Any) -> None:
        if text_data:
            await self.tell(text_data)

    async def disconnect(self, code: int) -> None:
        if self.group:
            await self.channel_layer.group_discard(self.group, self.channel_name)
            await self.tell("leaves")

    async def tell(self, text: str) -> None:
        await self.channel_layer.group_send(self.group, {"type": "room.told", "name": self.name, "text": text})

    async def room_told(self, event: dict[str, str]) -> None:
        """Channels calls this in each consumer of the group: the method for the type `room.told`."""
        await self.send_json({"name": event["name"], "text": event["text"]})
