"""
The decision log: one line a refusal, one at a session's open, one at its close; text or JSON, on stdout.

A stranger's text stands in it only as an escaped value, cut to `LONGEST_VALUE` characters. No secrets: paths without
query, no cookies, no subprotocols. A refusal names the setting that would allow it, once per value and minute.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections import OrderedDict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from wsguard.vocabulary.reasons import Reason

LogFormat = Literal["text", "json"]
Value = str | int | float | bool | None | list[str]

LONGEST_VALUE = 256
_HINT_SECONDS = 60.0
_PLAIN = re.compile(r"[A-Za-z0-9_./:@~+,;*%\[\]-]+", re.ASCII)
_LOGGER = "wsguard.decisions"


class Line:
    """One event: its *name* and its *values*. As text it is one line, whatever formatter the app has chosen."""

    __slots__ = ("name", "values")

    def __init__(self, name: str, values: dict[str, Value]) -> None:
        self.name = name
        self.values = values

    def __str__(self) -> str:
        """Write name and values, a stranger's text escaped."""
        return " ".join([self.name, *(f"{key}={_written(value)}" for key, value in self.values.items())])


class DecisionLog:
    """Writes events with fixed names. *clock* gives seconds that only grow, *hints* bounds the remembered hints."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float], hints: int) -> None:
        self._logger = logger
        self._clock = clock
        self._hints: OrderedDict[str, float] = OrderedDict()
        self._hints_bound = hints
        self._unfinished = 0

    def event(self, name: str, **values: Value) -> None:
        """Write one line: the event's *name* and its *values*."""
        self._write(logging.INFO, name, values)

    def refused(self, reason: Reason, *, status: int, detail: str, setting: str, **where: Value) -> None:
        """Write the line of a refusal; *setting* would allow it."""
        values = {"status": status, "reason": reason.code, **where, "detail": detail or None}
        self._write(logging.WARNING, "handshake.refused", {**values, "hint": self._hint(setting)})

    def _write(self, level: int, name: str, values: Mapping[str, Value]) -> None:
        self._logger.log(level, Line(name, {key: _cut(value) for key, value in values.items() if value is not None}))

    def hint(self, name: str, text: str, **where: Value) -> None:
        """Write an event that tells the operator what to change, once per *text* and minute."""
        hint = self._hint(text)
        if hint is not None:
            self.event(name, **where, hint=hint)

    def unfinished(self) -> None:
        """Count a connection that ended before its head was whole; `tell_unfinished` tells the number."""
        self._unfinished += 1

    def tell_unfinished(self) -> None:
        """Write how many connections ended before a whole head since the last call, if any did."""
        if self._unfinished:
            self.event("connections.unfinished", count=self._unfinished)
            self._unfinished = 0

    def _hint(self, setting: str) -> str | None:
        if not setting:
            return None
        now = self._clock()
        told = self._hints.get(setting)
        if told is not None and now - told < _HINT_SECONDS:
            return None
        self._hints[setting] = now
        self._hints.move_to_end(setting)
        if len(self._hints) > self._hints_bound:
            self._hints.popitem(last=False)
        return setting


def decision_logger(log_format: LogFormat) -> logging.Logger:
    """Return the logger behind a DecisionLog, writing to stdout in *log_format*."""
    logger = logging.getLogger(_LOGGER)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_JSONFormatter() if log_format == "json" else _TextFormatter())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger


def guard_logger() -> logging.Logger:
    """Return the logger of a guard inside an app: the app's own handlers if it has set any, else text on stdout."""
    logger = logging.getLogger(_LOGGER)
    return logger if logger.hasHandlers() else decision_logger("text")


def _cut(value: Value) -> Value:
    if isinstance(value, str) and len(value) > LONGEST_VALUE:
        return value[: LONGEST_VALUE - 1] + "…"
    return value


def _time_of(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _JSONFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = _line_of(record)
        return json.dumps({"time": _time_of(record), "event": line.name, **line.values})


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{_time_of(record)} {_line_of(record)}"


def _line_of(record: logging.LogRecord) -> Line:
    message = cast("object", record.msg)
    return message if isinstance(message, Line) else Line(record.getMessage(), {})


def _written(value: Value) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if not isinstance(value, str) or _PLAIN.fullmatch(text) else json.dumps(text)
