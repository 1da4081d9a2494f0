"""Behaviour, proved on real parts."""
