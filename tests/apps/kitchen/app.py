"""Nothing but an entry point."""
