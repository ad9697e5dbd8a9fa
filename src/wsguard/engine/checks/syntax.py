"""
Refuse what is HTTP but no WebSocket handshake (RFC 6455 §4.2.1), and fields that two readers could read differently.

Every mount runs this, also behind servers that let much through: nothing here trusts that a parser has looked before.
What a mount hides (over HTTP/2 there is no Key, Upgrade or Connection, RFC 8441 §5) is not asked for.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import PASSED, Refusal

if TYPE_CHECKING:
    from wsguard.engine.policy import Context
    from wsguard.vocabulary.decision import Verdict
    from wsguard.vocabulary.fields import Fields
    from wsguard.vocabulary.handshake import Handshake
    from wsguard.vocabulary.reasons import Reason

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_TOKEN_BYTES = b"!#$%&'*+.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-"
_NO_CONTROL = bytes([9, *range(0x20, 0x7F), *range(0x80, 0x100)])
_KEY = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")

# A field of this list that stands twice means two things to two readers. Origin is judged by its own check.
_SINGLETONS = (
    b"host",
    b"content-length",
    b"content-type",
    b"transfer-encoding",
    b"authorization",
    b"upgrade",
    b"sec-websocket-key",
    b"sec-websocket-version",
)
# Fields that a check reads are ASCII; others may hold obs-text (RFC 9110 §5.5), as cookies of old apps do.
_ASCII_ONLY = (b"host", b"origin", b"upgrade", b"connection", b"transfer-encoding", b"content-length")

# RFC 6455 §9.1: extension-list, with quoted-string values that hold tokens. No nested repetition: linear time.
_PARAMETER = (
    rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:[ \t]*=[ \t]*(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+|\"[!#$%&'*+.^_`|~0-9A-Za-z-]*\"))?"
)
_EXTENSION_PART = re.compile(rb"[ \t]*" + _PARAMETER + rb"[ \t]*")


class SyntaxCheck:
    """RFC 9110 and 9112 for every request, RFC 6455 §4.2.1 for handshakes."""

    name: ClassVar[str] = "syntax"

    def check(self, handshake: Handshake, context: Context) -> Verdict:
        """Return the first fault in the order: method, bounds, fields, then what makes a handshake."""
        return (
            _check_method(handshake)
            or _check_fields(handshake, context)
            or (_check_upgrade(handshake) if context.is_handshake else None)
            or PASSED
        )


def _refuse(reason: Reason, detail: str = "") -> Refusal:
    return Refusal(reason, detail)


def _check_method(handshake: Handshake) -> Refusal | None:
    if handshake.method is None:
        return None
    if handshake.is_handshake and handshake.method != ("CONNECT" if handshake.http_version == "2" else "GET"):
        return Refusal(reasons.SYNTAX_METHOD, handshake.method, headers=(("Allow", "GET"),))
    if not handshake.is_handshake and handshake.method in {"CONNECT", "TRACE"}:
        return Refusal(reasons.SYNTAX_METHOD, handshake.method, headers=(("Allow", "GET, HEAD, POST, OPTIONS"),))
    return None


def _check_fields(handshake: Handshake, context: Context) -> Refusal | None:
    fields, limits = handshake.fields, context.limits
    if len(fields) > limits.fields:
        return _refuse(reasons.SYNTAX_TOO_MANY_FIELDS, str(len(fields)))
    # All at once first: what is wrong is looked for only where something is.
    all_names, all_values = fields.joined_names, fields.joined_values
    between = max(len(fields) - 1, 0)
    size = len(handshake.target) + len(all_names) - between + len(all_values) + 4 * len(fields)
    if size > limits.head:
        return _refuse(reasons.SYNTAX_HEAD_TOO_LARGE, str(size))
    are_tokens = b"" not in fields and all_names.translate(None, _TOKEN_BYTES) == b"\n" * between
    if not are_tokens or all_values.translate(None, _NO_CONTROL):
        refusal = _find_bad_byte(fields)
        if refusal is not None:
            return refusal
    if not all_values.isascii():
        for name in fields.names:
            judged = name in _ASCII_ONLY or name.startswith(b"sec-")
            if judged and not all(value.isascii() for value in fields.values(name)):
                return _refuse(reasons.SYNTAX_FIELD_VALUE, name.decode("ascii"))
    if fields.has_repeated:
        for name in _SINGLETONS:
            if len(fields.values(name)) > 1:
                return _refuse(reasons.SYNTAX_REPEATED_FIELD, name.decode("ascii"))
    if b"host" not in fields and not (handshake.http_version == "1.0" and not context.is_handshake):
        return _refuse(reasons.SYNTAX_HOST)
    return None


def _find_bad_byte(fields: Fields) -> Refusal | None:
    for name, value in fields:
        if not _TOKEN.fullmatch(name):
            return _refuse(reasons.SYNTAX_FIELD_NAME)
        if _CONTROL.search(value):
            return _refuse(reasons.SYNTAX_FIELD_VALUE, name.decode("ascii"))
    return None


def _check_upgrade(handshake: Handshake) -> Refusal | None:
    if handshake.http_version == "1.0":
        return _refuse(reasons.SYNTAX_HTTP_VERSION, "HTTP/1.0")
    if _has_body(handshake):
        return _refuse(reasons.SYNTAX_BODY)
    if handshake.http_version == "1.1":
        refusal = _check_http1_upgrade(handshake)
        if refusal is not None:
            return refusal
    if handshake.fields.first(b"sec-websocket-version") != b"13" and not _hidden(handshake, b"sec-websocket-version"):
        return Refusal(reasons.SYNTAX_VERSION, headers=(("Sec-WebSocket-Version", "13"),))
    for value in handshake.fields.values(b"sec-websocket-extensions"):
        if not _is_extension_list(value):
            return _refuse(reasons.SYNTAX_EXTENSIONS)
    return None


def _has_body(handshake: Handshake) -> bool:
    fields = handshake.fields
    return b"transfer-encoding" in fields or fields.first(b"content-length") not in (None, b"0")


def _check_http1_upgrade(handshake: Handshake) -> Refusal | None:
    fields = handshake.fields
    # bytes.lower() folds ASCII only: U+212A KELVIN SIGN never becomes the k of websocket (B-HEAD-06).
    if (fields.first(b"upgrade") or b"").lower() != b"websocket" and not _hidden(handshake, b"upgrade"):
        return _refuse(reasons.SYNTAX_UPGRADE)
    if not _asks_for_upgrade(b",".join(fields.values(b"connection"))) and not _hidden(handshake, b"connection"):
        return _refuse(reasons.SYNTAX_CONNECTION)
    if not _KEY.fullmatch(fields.first(b"sec-websocket-key") or b"") and not _hidden(handshake, b"sec-websocket-key"):
        return _refuse(reasons.SYNTAX_KEY)
    return None


@lru_cache(256)  # browsers write the same two or three
def _asks_for_upgrade(connection: bytes) -> bool:
    members = sorted(member.strip(b" \t").lower() for member in connection.split(b","))
    return [member for member in members if member] in ([b"upgrade"], [b"keep-alive", b"upgrade"])


def _hidden(handshake: Handshake, name: bytes) -> bool:
    """Tell whether *name* is missing only because the mount's protocol keeps it; what is there is judged."""
    return name in handshake.hidden and name not in handshake.fields


@lru_cache(256)
def _is_extension_list(value: bytes) -> bool:
    return all(_EXTENSION_PART.fullmatch(part) for extension in value.split(b",") for part in extension.split(b";"))
