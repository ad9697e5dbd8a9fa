"""
Reading a token before a word of it is believed: one compact JWS (RFC 7515 §7.1) with unambiguous JSON.

Other readers have taken the JSON serialisation without signatures for a valid token, the last of two members of one
name, or a million dots to pieces (B-TOKEN-05, B-TOKEN-10). Here the size is looked at first, the form is exact, and
what two readers could understand in two ways is refused.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from typing import Any, cast

import msgspec

from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import Refusal

JSONObject = dict[str, Any]

_PARTS = 3
_MOST_BRACKETS = 1_000
_API_KEY = "wsg_"
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)
_BRINGS_A_KEY = ("jwk", "jku", "x5u", "x5c")


@dataclass(frozen=True, slots=True, repr=False)
class UnverifiedToken:
    """
    A token that has the form of one; nothing in it is proven.

    *signing_input* and *signature* are the bytes of RFC 7515 §5.2; its repr shows nothing.
    """

    header: JSONObject
    claims: JSONObject
    signing_input: bytes
    signature: bytes

    @property
    def kid(self) -> str | None:
        """How the header names the key, if it does."""
        return cast("str | None", self.header.get("kid"))


def read_compact(token: str, longest: int) -> UnverifiedToken | Refusal:
    """Read *token*, at most *longest* characters. The header may demand nothing and bring no key of its own."""
    if len(token) > longest:
        return Refusal(reasons.TOKEN_SIZE, f"{len(token)} bytes", setting="limits: token_bytes")
    parts = token.split(".", _PARTS)
    if len(parts) != _PARTS:
        is_key = token.startswith(_API_KEY)
        return Refusal(reasons.TOKEN_MALFORMED, "an API key: its header is another" if is_key else "not three parts")
    try:
        header_bytes, payload, signature = map(decode_base64url, parts)
        header, claims = read_object(header_bytes), read_object(payload)
    except ValueError as error:
        return Refusal(reasons.TOKEN_MALFORMED, str(error))
    signing_input = token.rpartition(".")[0].encode("ascii")
    return _refused_header(header) or UnverifiedToken(header, claims, signing_input, signature)


def _refused_header(header: JSONObject) -> Refusal | None:
    # RFC 7797: b64 changes what is signed, and must be understood by everybody who reads the token.
    for name in ("crit", "b64"):
        if name in header:
            return Refusal(reasons.TOKEN_CRIT, name)
    for name in _BRINGS_A_KEY:
        if name in header:
            return Refusal(reasons.TOKEN_KEY, f"the header brings {name}")
    if "enc" in header or "zip" in header:
        return Refusal(reasons.TOKEN_MALFORMED, "encrypted or compressed")
    if "kid" in header and not isinstance(header["kid"], str):
        return Refusal(reasons.TOKEN_MALFORMED, "kid is no text")
    return None


def decode_base64url(text: str) -> bytes:
    """Decode base64url without padding, in its one spelling (RFC 7515 §2). Raises ValueError for anything else."""
    if not _BASE64URL.fullmatch(text) or len(text) % 4 == 1:
        raise ValueError("no unpadded base64url")
    decoded = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    # Bits that are left over must be zero (RFC 4648 §3.5), or one token has several spellings.
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != text.encode("ascii"):
        raise ValueError("no unpadded base64url")
    return decoded


def read_object(data: bytes) -> JSONObject:
    """
    Read a JSON object that has one meaning. Raises ValueError without quoting any of it.

    Refused: what is no UTF-8 (RFC 8259 §8.1), two members of one name at any depth, NaN and Infinity, numbers out of
    range, lone surrogates, endless nesting.
    """
    if data.count(b"[") + data.count(b"{") > _MOST_BRACKETS:
        raise ValueError("no JSON")  # how deep a reader can go differs from one Python to the next
    try:
        msgspec.json.decode(data)  # the stricter reader, but for members of one name
        value = cast("object", json.loads(data.decode("utf-8"), object_pairs_hook=_unambiguous))
    except (ValueError, RecursionError) as error:
        raise ValueError("two JSON members of one name" if isinstance(error, _TwiceError) else "no JSON") from None
    if not isinstance(value, dict):
        raise ValueError("no JSON object")  # noqa: TRY004 - one error for whatever is wrong with the bytes
    return cast("JSONObject", value)


class _TwiceError(ValueError):
    """Two members of one name."""


def _unambiguous(members: list[tuple[str, Any]]) -> JSONObject:
    found = dict(members)
    if len(found) < len(members):
        raise _TwiceError
    return found
