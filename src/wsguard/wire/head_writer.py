"""Heads of ours, words to bytes. A writer raises for a control byte rather than splice it in (B-HEAD-10)."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_TARGET = re.compile(rb"[\x21-\x7e]+")


def write_request_head(method: str, target: bytes, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Write an HTTP/1.1 request head. Raises ValueError for anything that is no token, target or field value."""
    name = method.encode("ascii")
    if not _TOKEN.fullmatch(name) or not _TARGET.fullmatch(target):
        raise ValueError("a request line that cannot be written")
    return b"%b %b HTTP/1.1\r\n%b\r\n" % (name, target, _write_fields(fields))


def write_response_head(status: int, fields: Iterable[tuple[bytes, bytes]], phrase: bytes | None = None) -> bytes:
    """Write an HTTP/1.1 response head; the reason phrase is the standard's unless one is given."""
    words = _standard_phrase(status) if phrase is None else phrase
    if _BAD_VALUE.search(words):
        raise ValueError("a reason phrase that cannot be written")
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, words, _write_fields(fields))


def _standard_phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b""


def _write_fields(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    lines: list[bytes] = []
    for name, value in fields:
        if not _TOKEN.fullmatch(name) or _BAD_VALUE.search(value):
            raise ValueError(f"a field that cannot be written: {name!r}")
        lines.append(b"%b: %b\r\n" % (name, value))
    return b"".join(lines)
