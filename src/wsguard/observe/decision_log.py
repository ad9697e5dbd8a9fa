"""
The decision log: one line a refusal, one at a session's open, one at its close; text or JSON, on stdout.

A stranger's text stands in it only as an escaped value, cut to `LONGEST_VALUE` characters. No secrets: paths without
query, no cookies, no subprotocols. A refusal names the setting that would allow it, once per value and minute.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
import time
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
# The same of a whole line, with what stands between its values.
_PLAIN_LINE = re.compile(r"[A-Za-z0-9_./:@~+,;*%\[\] =-]+", re.ASCII)
_PLAIN_TYPES = frozenset({str, int, float, type(None)})
_MILLISECONDS = tuple(f".{number:03d}Z" for number in range(1000))
_LOGGER = "wsguard.decisions"


class Line:
    """One event: its *name* and its *values*. As text it is one line, whatever formatter the app has chosen."""

    __slots__ = ("name", "values")

    def __init__(self, name: str, values: dict[str, Value]) -> None:
        self.name = name
        self.values = values

    def __str__(self) -> str:
        """Write name and values, a stranger's text escaped."""
        texts = [value if type(value) is str else _plain(value) for value in self.values.values()]
        # One look at all of them together: in most lines nothing needs to be escaped.
        if "" in texts or not _PLAIN.fullmatch("".join(texts)):
            texts = [_written(value) for value in self.values.values()]
        return " ".join([self.name, *map("=".join, zip(self.values, texts, strict=True))])


class DecisionLog:
    """
    Writes events with fixed names. *clock* gives seconds that only grow, *hints* bounds the remembered hints.

    `always` stands in every line: the process, where there are several.
    """

    def __init__(self, logger: logging.Logger, clock: Callable[[], float], hints: int) -> None:
        self._logger = logger
        self._clock = clock
        self._hints: OrderedDict[str, float] = OrderedDict()
        self._hints_bound = hints
        self._unfinished = 0
        self.always: dict[str, Value] = {}

    def event(self, name: str, **values: Value) -> None:
        """Write one line: the event's *name* and its *values*."""
        self.tell(name, values)

    def tell(self, name: str, values: Mapping[str, Value]) -> None:
        """Do as `event`, which comes here, for the lines that every socket writes: a mapping is handed on as it is."""
        self._write(logging.INFO, name, values)

    def refused(self, reason: Reason, *, status: int, detail: str, setting: str, **where: Value) -> None:
        """Write the line of a refusal; *setting* would allow it."""
        values = {"status": status, "reason": reason.code, **where, "detail": detail or None}
        self._write(logging.WARNING, "handshake.refused", {**values, "hint": self._hint(setting)})

    def _write(self, level: int, name: str, values: Mapping[str, Value]) -> None:
        if self.always:
            values = {**values, **self.always}
        logger = self._logger
        handlers = logger.handlers
        # Where nobody but us listens, the line goes out without logging's own record of it: a third of its cost.
        if len(handlers) == 1 and type(handlers[0]) is _OwnHandler and not logger.propagate and not logger.filters:
            handlers[0].tell(name, values, time.time())
        else:
            logger.log(level, _line(name, values))

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


class _OwnHandler(logging.Handler):
    """
    Writes to what stdout is at that moment. What other handlers get as a record, this one also takes as a line.

    A line that cannot be written costs no handshake: it is lost, and stderr says so once.
    """

    def __init__(self, log_format: LogFormat) -> None:
        super().__init__()
        self._lost = False
        self._as_json = log_format == "json"
        self._second = 0
        self._prefix = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Write what came through logging."""
        message = cast("object", record.msg)
        self.write(message if isinstance(message, Line) else Line(record.getMessage(), {}), record.created)

    def tell(self, name: str, values: Mapping[str, Value], created: float) -> None:
        """Write an event as one line; *created* is its time in Unix seconds."""
        text = None if self._as_json else _plain_line(name, values)
        if text is None:
            self.write(_line(name, values), created)
        else:
            self._put(f"{self._time(created)} {text}\n")

    def write(self, line: Line, created: float) -> None:
        """Write one line; *created* is its time in Unix seconds."""
        when = self._time(created)
        members = {"time": when, "event": line.name, **line.values} if self._as_json else None
        self._put(f"{when} {line}\n" if members is None else json.dumps(members) + "\n")

    def _put(self, text: str) -> None:
        try:
            stdout = sys.stdout
            stdout.write(text)
            stdout.flush()
            self._lost = False
        except (OSError, ValueError, AttributeError) as error:  # a full disk, a closed stdout, none at all
            self._tell_lost(error)

    def _tell_lost(self, error: Exception) -> None:
        if not self._lost:
            self._lost = True
            with contextlib.suppress(OSError, ValueError, AttributeError):
                print(f"wsguard: the decision log cannot be written: {error!r}", file=sys.stderr)  # noqa: T201 - faults

    def _time(self, created: float) -> str:
        second, milliseconds = divmod(int(created * 1000), 1000)
        if second != self._second:
            self._second = second
            self._prefix = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return self._prefix + _MILLISECONDS[milliseconds]


def decision_logger(log_format: LogFormat) -> logging.Logger:
    """Return the logger behind a DecisionLog, writing to stdout in *log_format*."""
    logger = logging.getLogger(_LOGGER)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    logger.addHandler(_OwnHandler(log_format))
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger


def guard_logger() -> logging.Logger:
    """Return the logger of a guard inside an app: the app's own handlers if it has set any, else text on stdout."""
    logger = logging.getLogger(_LOGGER)
    return logger if logger.hasHandlers() else decision_logger("text")


def _line(name: str, values: Mapping[str, Value]) -> Line:
    told: dict[str, Value] = {
        key: _cut(value) if type(value) is str and len(value) > LONGEST_VALUE else value
        for key, value in values.items()
        if value is not None
    }
    return Line(name, told)


def _plain_line(name: str, values: Mapping[str, Value]) -> str | None:
    """Return the text of an event as `Line` writes it, or None where something in it must be escaped or cut."""
    if not _PLAIN_TYPES.issuperset(map(type, values.values())):
        return None
    parts = [f"{key}={value}" for key, value in values.items() if value is not None]
    text = " ".join([name, *parts])
    if len(text) > LONGEST_VALUE and any(len(part) > LONGEST_VALUE for part in parts):
        return None
    # One look at all of them together: a value that is empty or holds a blank or a "=" shows in their number.
    if text.count(" ") != len(parts) or text.count("=") != len(parts) or "= " in text or text[-1] == "=":
        return None
    return text if _PLAIN_LINE.fullmatch(text) else None


def _cut(value: str) -> str:
    return value[: LONGEST_VALUE - 1] + "…"


def _plain(value: Value) -> str:
    # What is no text: numbers as JSON writes them. A list needs its quotes, so it never passes for plain.
    return repr(value) if type(value) in (int, float) else json.dumps(value) if value is not None else '"'


def _written(value: Value) -> str:
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) else json.dumps(value)
    return json.dumps(value)
