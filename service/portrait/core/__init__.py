"""Pixels and masks: segment a frame, compose the result. No asyncio, no network."""
