"""Streams under supervision: queries, watchdog, recovery, the durable store and the host."""
