"""Cameras that the operator declares: connected when they are wanted, and published as named streams."""
