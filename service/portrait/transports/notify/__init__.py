"""Telling other programs who has come and left: a webhook, and an MQTT broker."""
