"""Floor 1: bytes to words and back. Pure functions and small state machines; nothing here reads or writes a socket."""
