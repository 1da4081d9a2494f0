"""The life of one stream (thread, slot, counters), and the registry of all."""
