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
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsguard.vocabulary.reasons import Reason

LogFormat = Literal["text", "json"]
Value = str | int | float | bool | None | list[str]

LONGEST_VALUE = 256
_HINT_SECONDS = 60.0
_PLAIN = re.compile(r"[A-Za-z0-9_./:@~+,;*%\[\]-]+", re.ASCII)
_LOGGER = "wsguard.decisions"


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
        self._logger.info(name, extra={"values": {key: _cut(value) for key, value in values.items()}})

    def refused(self, reason: Reason, *, status: int, detail: str, setting: str, **where: Value) -> None:
        """Write the line of a refusal; *setting* would allow it."""
        self.event(
            "handshake.refused",
            status=status,
            reason=reason.code,
            **where,
            detail=detail or None,
            hint=self._hint(setting),
        )

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


def _cut(value: Value) -> Value:
    if isinstance(value, str) and len(value) > LONGEST_VALUE:
        return value[: LONGEST_VALUE - 1] + "…"
    return value


def _time_of(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _JSONFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        values: dict[str, Value] = record.__dict__["values"]
        present = {key: value for key, value in values.items() if value is not None}
        return json.dumps({"time": _time_of(record), "event": record.msg, **present})


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        values: dict[str, Value] = record.__dict__["values"]
        words = [f"{key}={_written(value)}" for key, value in values.items() if value is not None]
        return " ".join([_time_of(record), str(record.msg), *words])


def _written(value: Value) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if not isinstance(value, str) or _PLAIN.fullmatch(text) else json.dumps(text)
