"""Trouble on purpose: what must never come out does not, and what is left goes on."""
