"""Ways in and out: each is two pure functions (wire to Frame, result to wire) and one loop."""
