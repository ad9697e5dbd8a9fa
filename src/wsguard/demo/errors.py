"""The one error of the demo."""

from wsguard.vocabulary.errors import WSGuardError


class DemoError(WSGuardError):
    """The demo cannot start or go on; the text says what to do about it."""
