"""Durations and sizes are written with their unit (``"30s"``, ``"16MiB"``), never as bare numbers."""

from __future__ import annotations

import re

# The same as in the JSON schema; anchored there, because a schema's pattern is searched for.
DURATION_PATTERN = r"^([0-9]{1,9}(\.[0-9]{1,3})?)(ms|s|m|h|d)$"
SIZE_PATTERN = r"^([0-9]{1,12})(B|KiB|MiB|GiB)$"
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|s|m|h|d)", re.ASCII)
_SIZE = re.compile(r"([0-9]{1,12})(B|KiB|MiB|GiB)", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def parse_duration(text: str) -> float:
    """Return the seconds of ``"500ms"``, ``"30s"``, ``"5m"``, ``"2h"`` or ``"1d"``. Raises ValueError."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError('a duration with its unit: "500ms", "30s", "5m", "2h"')
    return float(match[1]) * _SECONDS[match[2]]


def parse_size(text: str) -> int:
    """Return the bytes of ``"512B"``, ``"64KiB"``, ``"16MiB"`` or ``"1GiB"``. Raises ValueError."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError('a size with its unit: "64KiB", "16MiB"')
    return int(match[1]) * _BYTES[match[2]]


def write_size(count: int) -> str:
    """Write *count* bytes in the largest unit that is exact."""
    for unit in ("GiB", "MiB", "KiB"):
        if count and count % _BYTES[unit] == 0:
            return f"{count // _BYTES[unit]}{unit}"
    return f"{count}B"


def write_duration(seconds: float) -> str:
    """Write *seconds* as a duration."""
    if seconds != int(seconds):
        return f"{round(seconds * 1000)}ms"
    return f"{int(seconds)}s"
