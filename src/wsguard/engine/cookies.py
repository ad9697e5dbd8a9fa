"""
Cookies as they were sent: exact bytes, never stripped but of the one blank after ";", never decoded (B-CARRY-01).

A reader that trims or decodes names takes ``=__Host-s``, ``%5F_Host-s`` or a no-break space before the name for the
cookie itself, and so takes what any subdomain can set for what only the host can.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import Refusal
from wsguard.vocabulary.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsguard.vocabulary.fields import Fields
    from wsguard.vocabulary.handshake import Handshake

_NAME = re.compile(r"[!#$%&'+.^_`|~0-9A-Za-z-]+\*?", re.ASCII)  # a token (RFC 6265 §4.1.1), and one "*" at the end


class RepeatedCookie(Exception):
    """Two cookies of one name were sent: nobody can say which one the app set (B-CARRY-02)."""


@dataclass(frozen=True, slots=True)
class CookieNames:
    """
    The cookies that one authenticator reads: exact names, and beginnings of names (``username-*``).

    Raises ConfigurationError for a name that no cookie has.
    """

    exact: frozenset[bytes]
    beginnings: tuple[bytes, ...]

    @classmethod
    def read(cls, key: str, names: Sequence[str]) -> CookieNames:
        """Read what stands under the configuration's *key*."""
        if isinstance(names, str):
            raise ConfigurationError(key, repr(names), f'a list: ["{names}"]')
        for name in names:
            if not _NAME.fullmatch(name):
                raise ConfigurationError(key, repr(name), 'a cookie\'s name, or one with "*" at its end')
        patterns = [name.encode("ascii") for name in names]
        return cls(
            frozenset(name for name in patterns if not name.endswith(b"*")),
            tuple(name[:-1] for name in patterns if name.endswith(b"*")),
        )

    def found(self, fields: Fields) -> list[tuple[bytes, bytes]]:
        """Return (name, value) of the cookies that are meant, in the order sent. Raises RepeatedCookie."""
        found: dict[bytes, bytes] = {}
        for field in fields.values(b"cookie"):
            for pair in field.split(b";"):
                name, separator, value = pair.removeprefix(b" ").partition(b"=")
                if not separator or not (name in self.exact or name.startswith(self.beginnings)):
                    continue
                if name in found:
                    raise RepeatedCookie
                found[name] = value
        return list(found.items())


def only_cookie(handshake: Handshake, name: str) -> str | Refusal | None:
    """
    Return the value of the cookie *name*, for an authenticator of your own; None where none was sent.

    Where two of that name were sent it is a Refusal (400 ``credential.repeated``), to be returned as it is: a sibling
    domain may have set one of them, and nobody can say which (RFC 6265 §8.6). Raises ConfigurationError for a name that
    no cookie has.
    """
    try:
        found = CookieNames.read("cookie", [name]).found(handshake.fields)
    except RepeatedCookie:
        return Refusal(reasons.CREDENTIAL_REPEATED, name)
    return found[0][1].decode("latin-1") if found else None
