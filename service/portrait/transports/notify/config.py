"""NotifyConfig: where events of presence are sent, as the operator's settings say."""

import base64
import binascii
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from portrait.errors import BadSettings
from portrait.settings import Settings

LEAST_SECRET = 16
"""Characters of a secret that signs, or bytes where it is written in base64."""

ENCODED = "whsec_"
"""Begins a secret that is written in base64 (Standard Webhooks)."""

MQTT_PORT, MQTTS_PORT = 1883, 8883


@dataclass(frozen=True, slots=True)
class Broker:
    """Where an MQTT broker is, and how it is spoken to."""

    host: str
    port: int
    encrypted: bool
    user: str | None
    password: str | None
    topic: str
    """What every topic of the service begins with."""
    discovery: str
    """Home Assistant's discovery prefix; empty: nothing is announced."""


@dataclass(frozen=True, slots=True)
class NotifyConfig:
    """What the operator decides about events; by default none is sent anywhere."""

    webhook: str = ""
    secret: bytes = b""
    broker: Broker | None = None

    @classmethod
    def of(cls, settings: Settings) -> "NotifyConfig":
        """Take from the service's settings what concerns events.

        Raises:
            BadSettings: an address or a secret that cannot be used. It is not repeated: it may hold credentials.
        """
        webhook, secret = settings.webhook.get_secret_value(), settings.webhook_secret.get_secret_value()
        if webhook and not secret:
            raise BadSettings(
                "PORTRAIT_WEBHOOK_SECRET: got nothing, expected the secret that signs for PORTRAIT_WEBHOOK"
            )
        address = settings.mqtt.get_secret_value()
        broker = _read_broker(address, settings.mqtt_topic, settings.mqtt_discovery) if address else None
        return cls(webhook, _read_secret(secret) if webhook else b"", broker)


def _read_secret(text: str) -> bytes:
    expected = f"expected at least {LEAST_SECRET} characters, or {ENCODED} and base64"
    key = text.encode()
    if text.startswith(ENCODED):
        try:
            key = base64.b64decode(text.removeprefix(ENCODED), validate=True)
        except binascii.Error:
            raise BadSettings(f"PORTRAIT_WEBHOOK_SECRET: got {ENCODED} and no base64, {expected}") from None
    if len(key) < LEAST_SECRET:
        raise BadSettings(f"PORTRAIT_WEBHOOK_SECRET: got {len(key)} bytes, {expected}")
    return key


def _read_broker(address: str, topic: str, discovery: str) -> Broker:
    parts = urlsplit(address)
    encrypted = parts.scheme == "mqtts"
    user = None if parts.username is None else unquote(parts.username)
    password = None if parts.password is None else unquote(parts.password)
    port = parts.port or (MQTTS_PORT if encrypted else MQTT_PORT)
    return Broker(parts.hostname or "", port, encrypted, user, password, topic, discovery)
