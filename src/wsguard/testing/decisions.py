"""What the guard wrote in its decision log about one handshake: why, and what would allow it."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Generator

_LOGGER = logging.getLogger("wsguard.decisions")
REFUSED = "handshake.refused"
REFUSED_BY_APP = "handshake.refused_by_app"
OPENED = "session.opened"
_ANSWERS = frozenset({REFUSED, REFUSED_BY_APP, OPENED})
_MOST_HINTS = 1024


class DecisionLine:
    """One line: the event's *name*, its *values*, and its *text* as the log has it."""

    def __init__(self, name: str, values: dict[str, Any], text: str) -> None:
        self.name = name
        self.values = values
        self.text = text

    def value(self, key: str) -> str | None:
        """Return one value as text, or None where the line has none."""
        found = self.values.get(key)
        return None if found is None else str(found)


class _Hints:
    """A hint is logged once a minute and value; a suite asks the same again and again."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str | None, str | None], str] = OrderedDict()

    def of(self, line: DecisionLine) -> str | None:
        key, hint = (line.value("reason"), line.value("detail")), line.value("hint")
        if hint is None:
            return self._known.get(key)
        self._known[key] = hint
        if len(self._known) > _MOST_HINTS:
            self._known.popitem(last=False)
        return hint


_hints = _Hints()


class DecisionCapture(logging.Handler):
    """Keeps the lines that answer a handshake while it is attached."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._lines: list[DecisionLine] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line of a handshake's answer."""
        name, values = getattr(record.msg, "name", None), getattr(record.msg, "values", None)
        if name in _ANSWERS and isinstance(values, dict):
            self._lines.append(DecisionLine(str(name), cast("dict[str, Any]", values), record.getMessage()))

    def line(self, request_id: str | None, peer: str) -> DecisionLine | None:
        """Return the line of the request id, or of the peer, or the only one that there is."""
        for line in self._lines:
            if request_id is not None and line.value("request_id") == request_id:
                return line
        for line in self._lines:
            if line.value("peer") == peer:
                return line
        return self._lines[0] if len(self._lines) == 1 else None


def hint_of(line: DecisionLine | None) -> str | None:
    """Return what the log says would allow it, also where it said so a moment ago and not again."""
    return None if line is None else _hints.of(line)


_lock = threading.Lock()
_attached = 0
_level = logging.NOTSET
_disabled = False


@contextmanager
def captured_decisions() -> Generator[DecisionCapture]:
    """Listen to the decision log, whatever the project's logging configuration made of it."""
    capture = DecisionCapture()
    _attach(capture)
    try:
        yield capture
    finally:
        _detach(capture)


def _attach(capture: DecisionCapture) -> None:
    global _attached, _level, _disabled  # noqa: PLW0603 - the logger is one for the whole process
    with _lock:
        if not _attached:
            _level, _disabled = _LOGGER.level, _LOGGER.disabled
            _LOGGER.disabled = False
            if _LOGGER.getEffectiveLevel() > logging.INFO:
                _LOGGER.setLevel(logging.INFO)
        _attached += 1
        _LOGGER.addHandler(capture)


def _detach(capture: DecisionCapture) -> None:
    global _attached  # noqa: PLW0603 - see _attach
    with _lock:
        _LOGGER.removeHandler(capture)
        _attached -= 1
        if not _attached:
            _LOGGER.setLevel(_level)
            _LOGGER.disabled = _disabled
