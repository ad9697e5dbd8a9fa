"""
The app's own session cookie, looked up by a function of the app: ``async def lookup(cookies) -> Identity | None``.

For apps that are Python and stand behind the same guard. The cookie is ambient: browsers attach it by themselves.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

from wsguard.engine.cookies import CookieNames, RepeatedCookie
from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import Refusal
from wsguard.vocabulary.errors import ConfigurationError
from wsguard.vocabulary.identity import Identity
from wsguard.vocabulary.secret import Secret

if TYPE_CHECKING:
    from wsguard.engine.policy import Context
    from wsguard.engine.ports import Carriage
    from wsguard.engine.seen_credentials import SeenCredentials
    from wsguard.vocabulary.handshake import Handshake

Lookup = Callable[[Mapping[str, str]], "Awaitable[Identity | None] | Identity | None"]


@dataclass(frozen=True)
class SessionLookup:
    """
    A hook that says whose session cookie it is.

    *lookup* gets the *cookies* that are named here (exact names, or with one ``*`` at the end) as they were sent, and
    returns the Identity, or None where it knows nobody. It may be async; one that is not holds the whole loop up.
    *recheck*: seconds between two looks at a live socket's session, 0 for none.

    Raises ConfigurationError where no cookie is named.
    """

    lookup: Lookup
    cookies: Sequence[str]
    recheck: float = 60
    cookie_names: CookieNames = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Read the names once."""
        object.__setattr__(self, "cookie_names", CookieNames.read("session_lookup.cookies", self.cookies))
        if not callable(self.lookup):
            raise ConfigurationError("session_lookup", repr(self.lookup), "a function: lookup(cookies) -> Identity")
        if not self.cookies:
            raise ConfigurationError("session_lookup.cookies", "none", 'the app\'s cookies, like ["sessionid"]')
        if self.recheck != 0 and not 1 <= self.recheck <= 86400:  # noqa: PLR2004 - a day
            raise ConfigurationError("session_lookup.recheck", repr(self.recheck), "0, or 1 to 86400 seconds")


class SessionLookupAuthenticator:
    """Finds the cookies, and asks the hook. *seen* names a cookie, and says how old it is."""

    name: str = "session_lookup"
    carriage: Carriage = "ambient"

    def __init__(self, options: SessionLookup, seen: SeenCredentials) -> None:
        self._options = options
        self._seen = seen

    async def authenticate(self, handshake: Handshake, context: Context) -> Identity | Refusal | None:
        """Say who it is; None where no cookie of these names was sent."""
        try:
            cookies = self._options.cookie_names.found(handshake.fields)
        except RepeatedCookie:
            return Refusal(reasons.CREDENTIAL_REPEATED, self.name)
        if not cookies:
            return None
        if self._options.recheck:
            held = [(name, Secret(value)) for name, value in cookies]
            context.recheck = LookedUpAgain(self, held, self._options.recheck)
        return await self.look_up(cookies, context.now)

    async def look_up(self, cookies: Sequence[tuple[bytes, bytes]], now: float) -> Identity | Refusal:
        """Ask the hook about *cookies*; *now* is Unix seconds. Whatever the hook raises passes through."""
        texts = {name.decode("ascii"): value.decode("latin-1") for name, value in cookies}
        answer = self._options.lookup(texts)
        found = cast("object", await answer if inspect.isawaitable(answer) else answer)
        if found is None:
            return Refusal(reasons.CREDENTIAL_REFUSED, self.name)
        if not isinstance(found, Identity):
            return Refusal(reasons.POLICY_BAD_VERDICT, f"{self.name} answered {type(found).__name__}")
        digest = await self._seen.digest(list(cookies), now)
        return replace(
            found,
            credential_id=found.credential_id or digest.hex()[:32],
            issued_at=self._seen.when(digest, now) if found.issued_at is None else found.issued_at,
        )


@dataclass(frozen=True, slots=True)
class LookedUpAgain:
    """How a live socket's session is looked up again. It holds the cookie, in this process, while the socket lives."""

    authenticator: SessionLookupAuthenticator = field(repr=False)
    cookies: Sequence[tuple[bytes, Secret]] = field(repr=False)
    interval: float

    async def again(self, now: float) -> Identity | Refusal:
        """Look now."""
        return await self.authenticator.look_up([(name, value.reveal()) for name, value in self.cookies], now)
