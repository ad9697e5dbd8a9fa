"""Between the endpoints and the mounts: the `Guard`, one policy table with what it needs of the world."""

from wsguard.guard.guard import Guard

__all__ = ["Guard"]
