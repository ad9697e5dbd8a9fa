"""
The keys of configured issuers, and the tokens that they verify.

A key belongs to its issuer: no other issuer's token is verified with it, whatever ``kid`` it names. Where the keys
stand is configured or told by the issuer itself over https; nothing in a token leads to a call but the fact that its
key is not known, and that at most once in half a minute (B-TOKEN-06, B-TOKEN-07).
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, cast

from wsguard.engine.tokens.early import EarlyTokens
from wsguard.engine.tokens.jwk import SHORTEST_SECRET, KeySet, VerificationKey
from wsguard.engine.tokens.jws import read_compact, read_object
from wsguard.engine.tokens.jwt import JWT, identify, judge_header
from wsguard.identity.outbound import Destination
from wsguard.identity.watched_file import WatchedFile
from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import Refusal
from wsguard.vocabulary.errors import ConfigurationError, ConfigurationErrors, OutboundError, OutboundRefused

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wsguard.engine.ports import Clock
    from wsguard.engine.tokens.jws import UnverifiedToken
    from wsguard.identity.outbound import Outbound
    from wsguard.observe.decision_log import DecisionLog
    from wsguard.vocabulary.bounds import Limits
    from wsguard.vocabulary.identity import Identity

_OK = 200
_FIRST_RETRY = 1.0
_READABLE_BY_ALL = 0o004


class IssuerTokens:
    """
    Verifies the tokens of *issuers* (a `TokenVerifier`).

    Keys at a URL are fetched when the first token comes; an issuer that is down stops nothing but its own tokens, which
    are refused (503) until it is back. Files are read at once and again within seconds of a change.

    Raises ConfigurationErrors for an issuer that stands twice, two secrets, a file that cannot be used, a URL that
    cannot be called.
    """

    def __init__(
        self, issuers: Iterable[JWT], *, outbound: Outbound, limits: Limits, clock: Clock, log: DecisionLog
    ) -> None:
        self._limits = limits
        self._outbound = outbound
        self._clock = clock
        self._log = log
        self._early = EarlyTokens(limits.cookies_seen)
        self._issuers: dict[str, IssuerKeys] = {}
        errors: list[ConfigurationError] = []
        for jwt in issuers:
            if jwt.issuer in self._issuers:
                errors.append(ConfigurationError(jwt.key(), "a second one", "one table for each issuer"))
                continue
            try:
                self._issuers[jwt.issuer] = self._opened(jwt)
            except ConfigurationError as error:
                errors.append(error)
        with_secret = [keys.jwt for keys in self._issuers.values() if keys.jwt.is_symmetric]
        errors += [
            ConfigurationError(jwt.key("secret_file"), "a second one", "one issuer with a secret")
            for jwt in with_secret[1:]
        ]
        if errors:
            raise ConfigurationErrors(errors)
        self._nameless = next((one.issuer for one in with_secret if "iss" in one.missing_claims), None)

    @property
    def notices(self) -> list[str]:
        """Return what the log says at start: claims that may be missing, secrets that everybody can read."""
        return [notice for keys in self._issuers.values() for notice in (*keys.jwt.notices, *keys.notices)]

    async def verify(self, token: str, now: float) -> Identity | Refusal:
        """Say whose *token* it is at *now* (Unix seconds), or why it is refused."""
        read = read_compact(token, self._limits.token_bytes)
        if isinstance(read, Refusal):
            return read
        issuer = cast("object", read.claims.get("iss", self._nameless))
        keys = self._issuers.get(issuer) if isinstance(issuer, str) else None
        if keys is None:
            return Refusal(reasons.TOKEN_ISSUER, issuer if isinstance(issuer, str) else "none")
        refusal = judge_header(read, keys.jwt)
        if refusal is not None:
            return refusal
        key = await keys.find(read)
        if isinstance(key, Refusal):
            return key
        if not key.verifies(read):
            return Refusal(reasons.TOKEN_SIGNATURE, keys.jwt.issuer)
        return identify(read, keys.jwt, now, self._early)

    def stop(self) -> None:
        """End the fetches that are under way. A token afterwards begins a new one."""
        for keys in self._issuers.values():
            if isinstance(keys, FetchedKeys):
                keys.stop()

    def _opened(self, jwt: JWT) -> IssuerKeys:
        if jwt.is_symmetric or jwt.jwks_path is not None:
            return KeysInFile(jwt, limits=self._limits, clock=self._clock, log=self._log)
        return FetchedKeys(jwt, outbound=self._outbound, limits=self._limits, clock=self._clock, log=self._log)


class IssuerKeys(ABC):
    """The keys of one issuer: the last good set counts, up to its age."""

    def __init__(self, jwt: JWT, *, limits: Limits, clock: Clock, log: DecisionLog) -> None:
        self.jwt = jwt
        self._limits = limits
        self._clock = clock
        self._log = log
        self._why = ""

    @property
    def notices(self) -> list[str]:
        """Return what the log says of them at start."""
        return []

    async def find(self, token: UnverifiedToken) -> VerificationKey | Refusal:
        """Return the key that *token* names; 503 where it cannot be said whether there is one."""
        await self._freshen()
        found = self._known(token)
        if found is None and await self._look_again():
            found = self._known(token)
        if found is not None:
            return found
        if self._why or self._usable is None:
            return Refusal(reasons.TOKEN_UNAVAILABLE, f"{self.jwt.issuer}: {self._why or 'no keys yet'}")
        return Refusal(reasons.TOKEN_KEY, token.kid or "no kid")

    @property
    @abstractmethod
    def _usable(self) -> KeySet | None:
        """The last good set, None where there is none or it is too old."""

    @abstractmethod
    async def _freshen(self) -> None:
        """Get a set where there is none or it is too old."""

    @abstractmethod
    async def _look_again(self) -> bool:
        """Look for a newer set because a key is missing; tell whether that was possible."""

    def _known(self, token: UnverifiedToken) -> VerificationKey | Refusal | None:
        usable = self._usable
        # A secret has no name: whatever kid the app writes, there is one.
        kid = None if self.jwt.is_symmetric else token.kid
        return None if usable is None else usable.find(kid, cast("str", token.header["alg"]))

    def _succeeded(self, keys: KeySet) -> None:
        if self._why:
            self._log.event("issuer.recovered", issuer=self.jwt.issuer)
        self._why = ""
        if keys.ignored:
            text = f"{self.jwt.issuer}: {'; '.join(keys.ignored)}; tokens signed with them are refused"
            self._log.hint("issuer.keys_ignored", text, issuer=self.jwt.issuer)

    def _failed(self, why: str) -> None:
        """Note *why* there is no newer set; the log hears of it unless it knows."""
        if why != self._why:
            meanwhile = "its tokens are refused" if self._usable is None else "the last good keys count"
            text = f"{self.jwt.issuer}: {why}; {meanwhile} meanwhile"
            self._log.hint("issuer.failed", text, issuer=self.jwt.issuer)
        self._why = why


class KeysInFile(IssuerKeys):
    """The keys of ``jwks = "file:…"``, or the secret of ``secret_file``. Raises ConfigurationError at construction."""

    def __init__(self, jwt: JWT, *, limits: Limits, clock: Clock, log: DecisionLog) -> None:
        super().__init__(jwt, limits=limits, clock=clock, log=log)
        if jwt.secret_file is not None:
            path, understand, name = jwt.secret_file, KeySet.of_secret, "secret_file"
            expected = f"a file with a secret of at least {SHORTEST_SECRET} bytes"
        else:
            path, understand, name = jwt.jwks_path or "", KeySet.read, "jwks"
            expected = "a file with a JWK set (RFC 7517) that holds a public key"
        try:
            self._file = WatchedFile(
                path, understand, longest=limits.issuer_bytes, patience=limits.issuer_timeout, clock=clock
            )
        except OSError as error:
            raise ConfigurationError(jwt.key(name), f"{path} ({error.strerror})", expected) from None
        except ValueError as error:
            raise ConfigurationError(jwt.key(name), f"{path} ({error})", expected) from None
        self._told: KeySet | None = None
        self._tell()

    @property
    def notices(self) -> list[str]:
        """Tell of a secret that is none."""
        if self.jwt.is_symmetric and self._file.mode & _READABLE_BY_ALL:
            return [f"{self.jwt.key('secret_file')}: everybody on this machine can read it: chmod o-r"]
        return []

    @property
    def _usable(self) -> KeySet | None:
        is_fresh = self._clock() - self._file.good_at < self._limits.issuer_age
        return self._file.content if is_fresh else None

    async def _freshen(self) -> None:
        await self._file.look(oldest=self._limits.issuer_age)
        self._tell()

    async def _look_again(self) -> bool:
        return False  # the file has just been looked at

    def _tell(self) -> None:
        if self._file.why:
            self._failed(self._file.why)
        elif self._why or self._told is not self._file.content:
            self._told = self._file.content
            self._succeeded(self._told)


class FetchedKeys(IssuerKeys):
    """
    The keys at ``jwks``, or where the issuer's metadata says (OpenID Connect Discovery §4, RFC 8414 §3).

    One fetch at a time, whoever asks; at most one in ``issuer_refetch`` seconds, but for those after failures, which
    come after 1 s, 2 s, 4 s and so on while there is no set at all. From half their age on the keys are fetched anew
    while the old ones still count, so that an issuer who is away for minutes is not noticed.
    """

    def __init__(self, jwt: JWT, *, outbound: Outbound, limits: Limits, clock: Clock, log: DecisionLog) -> None:
        super().__init__(jwt, limits=limits, clock=clock, log=log)
        self._outbound = outbound
        self._metadata_urls = _metadata_urls(jwt)
        self._configured = self._metadata_urls if jwt.jwks is None else (jwt.jwks,)
        for url in self._configured:
            try:
                Destination.parse(url)
            except OutboundRefused as error:
                name = "issuer" if jwt.jwks is None else "jwks"
                raise ConfigurationError(jwt.key(name), error.host, f"an https URL ({error.why})") from None
        self._keys: KeySet | None = None
        self._good_at = 0.0
        self._not_before = clock()
        self._failures = 0
        self._flight: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """End the fetch that is under way, on whichever loop."""
        flight, self._flight = self._flight, None
        if flight is not None and not flight.get_loop().is_closed():
            flight.get_loop().call_soon_threadsafe(flight.cancel)

    @property
    def _usable(self) -> KeySet | None:
        return self._keys if self._age < self._limits.issuer_age else None

    @property
    def _age(self) -> float:
        return self._clock() - self._good_at

    async def _freshen(self) -> None:
        if self._usable is None:
            await self._look_again()
        elif self._age >= self._limits.issuer_age / 2:
            self._depart()

    async def _look_again(self) -> bool:
        flight = self._depart()
        if flight is None:
            return False
        # Not awaited itself: an asker who leaves must not end it for the others.
        await asyncio.wait((flight,))
        return True

    def _depart(self) -> asyncio.Task[None] | None:
        """Return the fetch that is under way, a new one where it is time for one, else None."""
        loop = asyncio.get_running_loop()
        flight = self._flight
        if flight is not None and not flight.done() and flight.get_loop() is loop:
            return flight
        now = self._clock()
        if now < self._not_before:
            return None
        self._not_before = now + self._limits.issuer_refetch
        self._flight = loop.create_task(self._fetch(now))
        return self._flight

    async def _fetch(self, now: float) -> None:
        try:
            async with asyncio.timeout(self._limits.issuer_timeout):
                data = await self._key_document()
                # In a thread: a set of many keys takes long enough to be felt by every socket.
                keys = await asyncio.to_thread(KeySet.read, data)
        except TimeoutError:
            self._fail(now, f"no keys within {self._limits.issuer_timeout:g} s")
        except OutboundError as error:
            self._fail(now, str(error))
        except ValueError as error:
            self._fail(now, f"its keys: {error}")
        except Exception as error:  # noqa: BLE001 - whatever is wrong with an answer, its tokens are refused
            self._fail(now, type(error).__name__)
        else:
            self._failures = 0
            self._keys, self._good_at = keys, now  # whole: a key that is gone from the set counts no more
            self._succeeded(keys)

    def _fail(self, now: float, why: str) -> None:
        if self._usable is None:
            # The exponent is bounded before the float is: an issuer can be away for years.
            delay = _FIRST_RETRY * 2.0 ** min(self._failures, 32)
            self._not_before = now + min(delay, self._limits.issuer_refetch)
            self._failures += 1
        self._failed(why)

    async def _key_document(self) -> bytes:
        if self.jwt.jwks is not None:
            return await self._body(self.jwt.jwks)
        metadata = read_object(await self._metadata())
        if metadata.get("issuer") != self.jwt.issuer:
            raise ValueError("its metadata names another issuer")
        url = cast("object", metadata.get("jwks_uri"))
        if not isinstance(url, str):
            raise ValueError("its metadata has no jwks_uri")  # noqa: TRY004 - one error for whatever is wrong
        return await self._body(url)

    async def _metadata(self) -> bytes:
        first, second = self._metadata_urls
        status, body = await self._call(first)
        return body if status == _OK else await self._body(second)

    async def _body(self, url: str) -> bytes:
        status, body = await self._call(url)
        if status != _OK:
            raise ValueError(f"status {status}, not 200, at {Destination.parse(url).shown}")
        return body

    async def _call(self, url: str) -> tuple[int, bytes]:
        """Call *url*; only the host that a person wrote may have an address that is not public."""
        answer = await self._outbound.fetch(
            "GET",
            url,
            headers={"Accept": "application/json"},
            deadline=self._limits.issuer_timeout,
            max_body=self._limits.issuer_bytes,
            listed=self._configured,
        )
        return answer.status, answer.body


def _metadata_urls(jwt: JWT) -> tuple[str, str]:
    """Return where an issuer's metadata may stand: by OpenID Connect behind its path, by RFC 8414 §3.1 before it."""
    issuer = jwt.issuer.removesuffix("/")
    authority, slash, path = issuer.removeprefix("https://").partition("/")
    return (
        f"{issuer}/.well-known/openid-configuration",
        f"https://{authority}/.well-known/oauth-authorization-server{slash}{path}",
    )
