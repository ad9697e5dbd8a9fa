"""
API keys: long random texts that programs send in a header field of the operator's choice.

A key is ``wsg_`` and 256 random bits in base64url: secret scanners find it by that beginning. What is kept is its
SHA-256, and nothing else of it. A fast hash is right here: bcrypt and its kin slow down the guessing of passwords, and
nobody guesses 256 random bits at any speed; a slow hash would only let strangers spend our time.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from wsguard.engine.forwarding import is_managed
from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import Refusal
from wsguard.vocabulary.errors import ConfigurationError
from wsguard.vocabulary.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wsguard.engine.policy import Context
    from wsguard.engine.ports import Carriage, Randomness
    from wsguard.vocabulary.handshake import Handshake

ISSUER = "api_key"
"""The issuer of every identity that a key gives: the key file has no name that the world would know."""
PREFIX = "wsg_"
_KEY_BYTES = 32
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
# Set by browsers or by the protocol, or where another kind of credential stands: nobody puts an API key there.
_TAKEN = frozenset(
    [
        "authorization",
        "connection",
        "content-length",
        "cookie",
        "host",
        "origin",
        "referer",
        "te",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    ]
)
_TAKEN_PREFIXES = ("sec-", "proxy-")


@dataclass(frozen=True)
class APIKeys:
    """
    API keys: their hashes stand in *file*, which ``wsguard keys`` writes; a program sends its key in *header*.

    Raises ConfigurationError for a header that is none, or that browsers, proxies or the protocol set.
    """

    file: str | Path
    header: str = "X-API-Key"

    def __post_init__(self) -> None:
        """Refuse a field that cannot hold one."""
        name = self.header.lower()
        taken = name in _TAKEN or name.startswith(_TAKEN_PREFIXES) or is_managed(name.encode())
        if not _FIELD_NAME.fullmatch(name) or taken:
            raise ConfigurationError(
                "api_keys.header", repr(self.header), "a field of the client's own, like X-API-Key"
            )

    @property
    def field_name(self) -> bytes:
        """The header's name as `Fields` has it."""
        return self.header.lower().encode("ascii")


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One key as it is kept: *hash* is its SHA-256; *added* and *expires* (None: never) are Unix seconds."""

    name: str
    hash: bytes = field(repr=False)
    scopes: frozenset[str] = frozenset()
    added: float = 0
    expires: float | None = None

    def covers(self, other: KeyEntry) -> bool:
        """Tell whether this is the same key as *other*, and allows at least as much for at least as long."""
        same = self.name == other.name and hmac.compare_digest(self.hash, other.hash)
        return same and other.scopes <= self.scopes and _lasts(self.expires, other.expires)


class KeyTable:
    """The keys that count at one time. Names and hashes are each there once; whoever reads the file sees to that."""

    def __init__(self, entries: Iterable[KeyEntry] = ()) -> None:
        self.entries = tuple(entries)
        self._by_hash = {entry.hash: entry for entry in self.entries}
        self._by_name = {entry.name: entry for entry in self.entries}

    def find(self, sent: bytes) -> KeyEntry | None:
        """
        Return the entry of the key *sent*, if there is one.

        It is looked up by its hash, whose bytes nobody can steer toward those of an entry; so what the time of the
        look-up tells is worth nothing. What decides is compared in constant time (B-CARRY-06).
        """
        digest = key_hash(sent)
        entry = self._by_hash.get(digest)
        return entry if entry is not None and hmac.compare_digest(entry.hash, digest) else None

    def withdrawn(self, newer: KeyTable) -> frozenset[str]:
        """Return the names whose key *newer* does not have any more, or not with all that it allowed."""
        return frozenset(entry.name for entry in self.entries if not newer.covers(entry))

    def holds(self, identity: Identity) -> bool:
        """Tell whether *identity*, which a key gave some time ago, is what that key would give now."""
        entry = self._by_name.get(identity.credential_id or "")
        return (
            entry is not None
            and identity.issuer == ISSUER
            and identity.issued_at == entry.added
            and identity.scopes <= entry.scopes
            and _lasts(entry.expires, identity.expires_at)
        )

    def covers(self, entry: KeyEntry) -> bool:
        """Tell whether *entry* is here too, with at least what it allows."""
        mine = self._by_name.get(entry.name)
        return mine is not None and mine.covers(entry)


class KeySource(Protocol):
    """Where the keys are kept; it may have to look first."""

    async def current(self) -> KeyTable | None:
        """Return the keys that count now, or None where nobody can say; that refuses (503)."""
        ...


class APIKeyAuthenticator:
    """Reads the key in the header that *options* name; *keys* knows the hashes."""

    name = "api_key"
    carriage: Carriage = "explicit"
    in_header = True

    def __init__(self, keys: KeySource, options: APIKeys) -> None:
        self._keys = keys
        self.field_name = options.field_name

    async def authenticate(self, handshake: Handshake, context: Context) -> Identity | Refusal | None:
        """Say whose key stands in the header; None where the header is absent."""
        values = handshake.fields.values(self.field_name)
        if not values:
            return None
        if len(values) > 1:
            return Refusal(reasons.CREDENTIAL_REPEATED, self.name)
        table = await self._keys.current()
        if table is None:
            return Refusal(reasons.CREDENTIAL_UNAVAILABLE, f"{self.name}: the key file cannot be used")
        entry = table.find(values[0])
        if entry is None:
            return Refusal(reasons.API_KEY_UNKNOWN)
        if entry.expires is not None and entry.expires <= context.now:
            return Refusal(reasons.API_KEY_EXPIRED, entry.name)
        return Identity(
            subject=entry.name,
            issuer=ISSUER,
            method=self.name,
            scopes=entry.scopes,
            credential_id=entry.name,
            expires_at=entry.expires,
            issued_at=entry.added,
        )


def new_key(randomness: Randomness) -> str:
    """Return a new key, which is to be shown once and kept nowhere."""
    return PREFIX + base64.urlsafe_b64encode(randomness(_KEY_BYTES)).rstrip(b"=").decode("ascii")


def key_hash(key: bytes) -> bytes:
    """Return what is kept of *key*: the SHA-256 of all its bytes, ``wsg_`` included."""
    return hashlib.sha256(key).digest()


def _lasts(end: float | None, other: float | None) -> bool:
    """Tell whether what ends at *end* (None: never) lasts at least till *other*."""
    return end is None or (other is not None and other <= end)
