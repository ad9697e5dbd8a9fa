"""What an identity must hold for a route: all of the scopes and all of the groups that ``require`` names (RULES §7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import Refusal
from wsguard.vocabulary.errors import ConfigurationError, nearest_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wsguard.vocabulary.identity import Identity

_NAMES = ("scopes", "groups")


@dataclass(frozen=True, slots=True)
class Requirement:
    """Scopes and groups, all of which an identity must hold."""

    scopes: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()

    @classmethod
    def read(cls, written: Mapping[str, Sequence[str]] | None) -> Requirement:
        """Read ``{"scopes": ["chat"], "groups": ["staff"]}``. Raises ConfigurationError for anything else."""
        values: dict[str, frozenset[str]] = {}
        for name, entries in (written or {}).items():
            if name not in _NAMES:
                raise ConfigurationError("require", repr(name), "scopes or groups", nearest_name(name, _NAMES))
            if isinstance(entries, str) or not entries:
                raise ConfigurationError(f"require.{name}", repr(entries), 'a list of names like ["chat"]')
            values[name] = frozenset(entries)
        return cls(**values)

    def refusal(self, identity: Identity) -> Refusal | None:
        """Return why *identity* may not, or None where it may (RFC 6750 §3.1: ``insufficient_scope``)."""
        missing = self.scopes - identity.scopes
        if missing:
            challenge = f'Bearer error="insufficient_scope", scope="{" ".join(sorted(self.scopes))}"'
            return Refusal(
                reasons.AUTHORIZATION_SCOPE, " ".join(sorted(missing)), headers=(("WWW-Authenticate", challenge),)
            )
        missing = self.groups - identity.groups
        return Refusal(reasons.AUTHORIZATION_GROUP, " ".join(sorted(missing))) if missing else None
