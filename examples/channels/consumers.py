"""The room: what one visitor says, every visitor hears."""

from itertools import count
from typing import Any

from channels.generic.websocket import AsyncJsonWebsocketConsumer

visitors = count(1)
ROOM = "room"


class Room(AsyncJsonWebsocketConsumer):
    """One visitor, whom Django's session names."""

    async def connect(self) -> None:
        """Tell the visitor its number; from then on it hears what anybody says."""
        number = next(visitors)
        self.name = self.scope["user"].get_username()
        await self.channel_layer.group_add(ROOM, self.channel_name)
        await self.accept()
        await self.send_json({"visitor": number, "name": self.name})

    async def disconnect(self, code: int) -> None:
        """Leave the room."""
        await self.channel_layer.group_discard(ROOM, self.channel_name)

    async def receive_json(self, content: Any, **_kwargs: Any) -> None:
        """Tell everybody."""
        await self.channel_layer.group_send(ROOM, {"type": "said", "name": self.name, "says": str(content)})

    async def said(self, event: dict[str, str]) -> None:
        """Pass on what somebody said."""
        await self.send_json({"name": event["name"], "says": event["says"]})
