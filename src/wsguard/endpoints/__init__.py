"""Floor 4: what ``/.wsguard/`` answers, as values: a request in, a response out. Mounts carry the bytes."""
