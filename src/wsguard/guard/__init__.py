"""Between the endpoints and the mounts: the `Guard`, one policy table with what it needs of the world."""

from wsguard.guard.guard import Admission, Guard

__all__ = ["Admission", "Guard"]
