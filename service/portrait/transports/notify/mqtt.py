"""Mqtt: publishes the presence of named streams at an MQTT broker, and announces them to Home Assistant.

A stream has three retained topics below PREFIX/NAME: `presence` (ON or OFF), `attributes` (JSON) and `availability`
(online or offline); each worker has PREFIX/worker-N/availability, which the broker sets to offline when the worker is
lost. Discovery: https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery, a binary sensor of class occupancy.
"""

import asyncio
import hashlib
import json
import logging
import re
import ssl
from asyncio import timeout
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from portrait import __version__
from portrait.errors import BadSettings
from portrait.logs import log_event
from portrait.sessions.presence_feed import Listener, PresenceEvent, PresenceFeed
from portrait.transports.notify.config import Broker

try:
    import aiomqtt
except ImportError:  # the extra `mqtt` is not installed
    aiomqtt = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds to the second attempt to connect, and the longest between two: each wait is twice the one before."""

BROKER_SECONDS = 10.0
"""How long the broker may take to answer."""

LAST_WORD_SECONDS = 1.0

KEEP_ALIVE = 30
"""Seconds of silence after which the broker is asked whether it is there."""

MOST_BYTES = 4096
"""Bytes of a packet from the broker, which has acknowledgements alone to send."""

MESSAGE = 3
"""The type of a packet that carries a message: PUBLISH (MQTT 3.1.1 section 2.2.1)."""

MOST_STREAMS = 256
"""Names that are announced, at most: clients that publish choose them, and each stays at the broker."""

ONLINE, OFFLINE = "online", "offline"


class Mqtt:
    """Publishes the events of a feed; `run` is its whole life.

    Raises:
        BadSettings: the client library is not installed.
    """

    def __init__(self, broker: Broker, feed: PresenceFeed, worker: int) -> None:
        if aiomqtt is None:
            raise BadSettings("PORTRAIT_MQTT: aiomqtt is not installed; run pip install 'portrait-server[mqtt]'")
        self._broker, self._feed = broker, feed
        self._status = f"{broker.topic}/worker-{worker}/availability"
        self._known: dict[str, PresenceEvent] = {}
        """The newest event of every stream seen so far, by its name in topics: published again after a reconnection."""
        self._listener: Listener | None = None
        self._failing = self._telling = False

    @property
    def idle(self) -> bool:
        """Whether everything has been published, or cannot be."""
        return self._failing or self._listener is None or (self._listener.empty and not self._telling)

    async def run(self) -> None:
        """Publish events until cancelled; connect again, after longer and longer waits, while the broker is away."""
        wait = FIRST_WAIT
        with self._feed.listen("mqtt") as self._listener:
            while True:
                try:
                    async with self._client() as client:
                        self._note(None)
                        wait = FIRST_WAIT
                        await self._serve(client, self._listener)
                except (aiomqtt.MqttError, OSError, ValueError) as error:
                    self._note(type(error).__name__ if isinstance(error, OSError) else str(error))
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT)

    def _client(self) -> "aiomqtt.Client":
        broker = self._broker
        client = aiomqtt.Client(
            broker.host,
            broker.port,
            username=broker.user,
            password=broker.password,
            tls_context=ssl.create_default_context() if broker.encrypted else None,
            will=aiomqtt.Will(self._status, OFFLINE, qos=1, retain=True),
            keepalive=KEEP_ALIVE,
            timeout=BROKER_SECONDS,
        )
        _limit_packets(client)
        return client

    async def _serve(self, client: "aiomqtt.Client", listener: Listener) -> None:
        """Publish until the connection is lost, which raises MqttError."""
        await self._publish(client, self._status, ONLINE)
        for name, event in self._known.items():
            await self._tell(client, name, event, announce=True)
        parts = [
            asyncio.create_task(self._pump(client, listener), name="mqtt-write"),
            asyncio.create_task(_read(client), name="mqtt-read"),
        ]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                part.result()
            raise aiomqtt.MqttError("the broker has closed the connection")
        except asyncio.CancelledError:
            with suppress(aiomqtt.MqttError, TimeoutError):
                async with timeout(LAST_WORD_SECONDS):
                    await self._publish(client, self._status, OFFLINE)
            raise
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    async def _pump(self, client: "aiomqtt.Client", listener: Listener) -> None:
        while (event := await listener.get()) is not None:
            await self._take(client, event, listener)

    async def _take(self, client: "aiomqtt.Client", event: PresenceEvent, listener: Listener) -> None:
        """Publish an event; those of streams without a name are nothing to a broker."""
        if event.stream is None:
            return
        name = topic_name(event.stream)
        fresh = name not in self._known
        if fresh and len(self._known) >= MOST_STREAMS:
            listener.count("dropped")
            return
        self._telling = True
        self._known[name] = event  # before it is published: if that fails, it is once there is a connection again
        await self._tell(client, name, event, announce=fresh)
        self._telling = False
        listener.count("sent")

    async def _tell(self, client: "aiomqtt.Client", name: str, event: PresenceEvent, *, announce: bool) -> None:
        topic, discovery = f"{self._broker.topic}/{name}", self._broker.discovery
        if announce and discovery:
            document = announcement(event.stream or name, topic, self._status)
            await self._publish(
                client, f"{discovery}/binary_sensor/{document['unique_id']}/config", json.dumps(document)
            )
        await self._publish(client, f"{topic}/attributes", json.dumps(event.document()))
        await self._publish(client, f"{topic}/presence", "ON" if event.presence.present else "OFF")
        await self._publish(client, f"{topic}/availability", OFFLINE if event.ended else ONLINE)

    async def _publish(self, client: "aiomqtt.Client", topic: str, payload: str) -> None:
        await client.publish(topic, payload, qos=1, retain=True)

    def _note(self, problem: str | None) -> None:
        """Log when the broker is lost, and when it is back."""
        if problem is not None and not self._failing:
            log_event(logger, logging.WARNING, "mqtt fails", reason=problem)
        elif problem is None and self._failing:
            log_event(logger, logging.INFO, "mqtt works again")
        self._failing = problem is not None


async def _read(client: "aiomqtt.Client") -> None:
    """Read what the broker sends, which is nothing but that it is there; ends with the connection."""
    async for _ in client.messages:
        pass


def _limit_packets(client: "aiomqtt.Client") -> None:
    """Let the connection fail at a message, or at a packet of more than MOST_BYTES, before it is read.

    Nothing is subscribed to. A broker that sends all the same could hold the event loop up, and paho keeps up to 256 MB
    of one packet.
    """
    internals: Any = client
    paho = internals._client
    receive = paho._sock_recv

    def limited(size: int) -> bytes:
        if size > MOST_BYTES:
            raise ConnectionError(f"got a packet of {size} bytes, expected at most {MOST_BYTES}")
        data: bytes = receive(size)
        begins = paho._in_packet["command"] == 0
        if begins and data and data[0] >> 4 == MESSAGE:
            raise ConnectionError("got a message, expected none: nothing is subscribed to")
        return data

    paho._sock_recv = limited


def topic_name(stream: str) -> str:
    """A stream's name as topics and Home Assistant take it: letters, digits, `_` and `-`; different for each stream."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", stream)[:64]
    return plain if plain == stream else f"{plain}_{hashlib.sha256(stream.encode()).hexdigest()[:8]}"


def announcement(stream: str, topic: str, status: str) -> Mapping[str, Any]:
    """What Home Assistant is told of a stream, whose topics begin with `topic`; `status` is its worker's topic."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", topic)
    return {
        "name": "Presence",
        "unique_id": name,
        "object_id": name,  # for Home Assistant before 2026.4
        "default_entity_id": f"binary_sensor.{name}",
        "device_class": "occupancy",
        "state_topic": f"{topic}/presence",
        "json_attributes_topic": f"{topic}/attributes",
        "availability_mode": "all",
        "availability": [{"topic": f"{topic}/availability"}, {"topic": status}],
        "device": {"identifiers": [name], "name": stream, "manufacturer": "portrait", "sw_version": __version__},
        "origin": {"name": "portrait", "sw": __version__},
    }
