"""
Ask the app: a URL of the app, unchanged, says whose cookie it is (Jupyter: ``/api/me``).

2xx is yes; 401, 403 and any redirect are no; anything else is no answer, which refuses (503). The cookie is ambient:
browsers attach it by themselves, so it counts only where carriage says so. The app is asked as a page would ask it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, cast

import msgspec

from wsguard.engine.cookies import CookieNames, RepeatedCookie
from wsguard.engine.forwarding import asked_fields
from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import Refusal
from wsguard.vocabulary.errors import ConfigurationError, ConfigurationErrors, OutboundError
from wsguard.vocabulary.identity import LATEST_TIME, Identity
from wsguard.vocabulary.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wsguard.engine.forwarding import RawFields, UpstreamName
    from wsguard.engine.policy import Context
    from wsguard.engine.ports import Carriage
    from wsguard.engine.seen_credentials import SeenCredentials
    from wsguard.vocabulary.handshake import Handshake

ISSUER = "app"
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
# What the browser or the message sets, what the gateway writes itself, and what would make the app judge a page.
_NOT_ASKED_WITH = frozenset(
    b"accept accept-encoding connection content-length content-type cookie expect forwarded host keep-alive origin "
    b"referer te trailer transfer-encoding upgrade x-real-ip x-client-ip true-client-ip".split()
)
_NOT_ASKED_PREFIXES = ("sec-", "proxy-", "x-forwarded", "x-wsguard", "access-control-")
_NO = frozenset({401, 403})


@dataclass(frozen=True)
class Ask:
    """
    How the app is asked who it is.

    *url*: an address of the app: https, or http on a loopback or private address, or ``unix:PATH:/api/me``. *cookies*
    and *headers* are what is sent on, and together the credential; a cookie's name may end in ``*``. *subject*,
    *expires_at*, *scopes* and *sid* name members of the answer's JSON (``identity.username``); without a subject it is
    a keyed hash of the credential. *timeout*: seconds of one call. *cache*: seconds that an answer is remembered, 0 for
    none. *recheck*: seconds between two questions about a live socket, 0 for none.

    Raises ConfigurationError for a value outside its range, and where neither cookies nor headers are named.
    """

    url: str
    cookies: Sequence[str] = ()
    headers: Sequence[str] = ()
    subject: str | None = None
    expires_at: str | None = None
    scopes: str | None = None
    sid: str | None = None
    timeout: float = 5
    cache: float = 5
    recheck: float = 60
    cookie_names: CookieNames = field(init=False, repr=False)
    header_names: tuple[bytes, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse what can never work, all at once, and read the names."""
        errors = [ConfigurationError(f"ask.{key}", found, expected) for key, found, expected in _mistakes(self)]
        try:
            object.__setattr__(self, "cookie_names", CookieNames.read("ask.cookies", self.cookies))
        except ConfigurationError as error:
            errors.append(error)
        if errors:
            raise ConfigurationErrors(errors)
        object.__setattr__(self, "header_names", tuple(name.lower().encode("ascii") for name in self.headers))


def _mistakes(ask: Ask) -> Iterator[tuple[str, str, str]]:
    for name in ask.headers:
        if not _may_be_asked_with(name):
            yield "headers", repr(name), "a field of the client's own, like Authorization"
    if not ask.cookies and not ask.headers:
        yield "cookies", "none", 'the names of the app\'s cookies, like ["sessionid"]'
    for key, lowest, highest in (("timeout", 0.1, 60), ("cache", 0, 300), ("recheck", 1, 86400)):
        value = getattr(ask, key)
        if not lowest <= value <= highest and not (key == "recheck" and value == 0):
            yield key, repr(value), f"between {lowest} and {highest} seconds"
    for key in ("subject", "expires_at", "scopes", "sid"):
        if getattr(ask, key) == "":
            yield key, "''", "the name of a member, like identity.username"


@dataclass(frozen=True, slots=True)
class Question:
    """
    What the app is asked: a page request's *fields*, the cookie among them, so their values are secrets.

    *credential* is the keyed digest of what the client sent; *method* names the authenticator that asks.
    """

    fields: Sequence[tuple[bytes, Secret]] = field(repr=False)
    credential: bytes = field(repr=False)
    method: str

    @property
    def revealed(self) -> RawFields:
        """The fields as they are sent."""
        return [(name, value.reveal()) for name, value in self.fields]


@dataclass(frozen=True, slots=True)
class AppAnswer:
    """What the app answered: its *status* and *body*."""

    status: int
    body: bytes = field(repr=False)


class App(Protocol):
    """The app that is asked."""

    @property
    def name(self) -> UpstreamName:
        """How it is called where Host is rewritten to it."""
        ...

    async def ask(self, question: Question, *, fresh: bool) -> AppAnswer:
        """Put *question*; where it need not be *fresh*, a remembered answer will do. Raises OutboundError."""
        ...


class AppQuestions:
    """Asks *app* by *options*; *seen* names credentials, and says how old they are."""

    def __init__(self, app: App, options: Ask, seen: SeenCredentials) -> None:
        self.options = options
        self._app = app
        self._seen = seen

    async def judged(
        self, handshake: Handshake, context: Context, method: str, credential: RawFields
    ) -> Identity | Refusal:
        """
        Return whose *credential* it is, the fields that are sent on.

        The context keeps how the app is asked again while the socket lives.
        """
        fields = asked_fields(handshake, context.client, context.policy.upstream_host, self._app.name, credential)
        held = [(name, Secret(value)) for name, value in fields]
        question = Question(held, await self._seen.digest(credential, context.now), method)
        if self.options.recheck:
            context.recheck = AskedAgain(self, question, self.options.recheck)
        return await self.ask(question, context.now, fresh=False)

    async def ask(self, question: Question, now: float, *, fresh: bool) -> Identity | Refusal:
        """Ask, and read the answer; *now* is Unix seconds."""
        try:
            answer = await self._app.ask(question, fresh=fresh)
        except OutboundError as error:
            return Refusal(reasons.CREDENTIAL_UNAVAILABLE, f"{question.method}: {error}")
        if answer.status in _NO or 300 <= answer.status < 400:  # noqa: PLR2004 - redirects: to a login, mostly
            return Refusal(reasons.CREDENTIAL_REFUSED, f"{question.method}: the app answered {answer.status}")
        if not 200 <= answer.status < 300:  # noqa: PLR2004 - a success (RFC 9110 §15.3)
            return Refusal(reasons.CREDENTIAL_UNAVAILABLE, f"{question.method}: the app answered {answer.status}")
        try:
            members = _read_members(answer.body, self.options)
        except _MemberError as error:
            return Refusal(reasons.CREDENTIAL_UNAVAILABLE, f"{question.method}: {error}")
        name = question.credential.hex()[:32]
        return Identity(
            subject=members.subject or name,
            issuer=ISSUER,
            method=question.method,
            scopes=members.scopes,
            credential_id=name,
            sid=members.sid,
            expires_at=members.expires_at,
            issued_at=self._seen.when(question.credential, now),
        )


@dataclass(frozen=True, slots=True)
class AskedAgain:
    """How the app is asked again about a live socket. It holds the cookie, in this process, while the socket lives."""

    questions: AppQuestions = field(repr=False)
    question: Question = field(repr=False)
    interval: float

    async def again(self, now: float) -> Identity | Refusal:
        """Ask now."""
        return await self.questions.ask(self.question, now, fresh=True)


class AskAuthenticator:
    """Finds the app's own cookies, and asks the app whose they are."""

    name: str = "ask"
    carriage: Carriage = "ambient"

    def __init__(self, questions: AppQuestions) -> None:
        self._questions = questions

    async def authenticate(self, handshake: Handshake, context: Context) -> Identity | Refusal | None:
        """Say who it is; None where neither a cookie nor a header that is asked about was sent."""
        options = self._questions.options
        try:
            cookies = options.cookie_names.found(handshake.fields)
        except RepeatedCookie:
            return Refusal(reasons.CREDENTIAL_REPEATED, self.name)
        credential: RawFields = []
        if cookies:
            credential.append((b"Cookie", b"; ".join(name + b"=" + value for name, value in cookies)))
        for name in options.header_names:
            values = handshake.fields.values(name)
            if len(values) > 1:
                return Refusal(reasons.CREDENTIAL_REPEATED, self.name)
            credential += [(name, value) for value in values]
        if not credential:
            return None
        return await self._questions.judged(handshake, context, self.name, credential)


def _may_be_asked_with(name: str) -> bool:
    lower = name.lower()
    taken = lower.startswith(_NOT_ASKED_PREFIXES) or lower.encode("utf-8") in _NOT_ASKED_WITH
    return _FIELD_NAME.fullmatch(name) is not None and not taken


@dataclass(frozen=True, slots=True)
class _Members:
    subject: str | None
    scopes: frozenset[str]
    sid: str | None
    expires_at: float | None


class _MemberError(Exception):
    """A member of the answer is not of the kind that was configured: nobody can say what was meant."""


def _read_members(body: bytes, options: Ask) -> _Members:
    names = (options.subject, options.expires_at, options.scopes, options.sid)
    if not any(names):
        return _Members(None, frozenset(), None, None)
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        raise _MemberError("its answer is no JSON") from None
    return _Members(
        subject=_text("subject", _member(answer, options.subject)),
        scopes=_scopes(_member(answer, options.scopes)),
        sid=_text("sid", _member(answer, options.sid)),
        expires_at=_time(_member(answer, options.expires_at)),
    )


def _member(answer: Any, path: str | None) -> Any:
    if path is None:
        return None
    for name in path.split("."):
        if not isinstance(answer, dict):
            return None
        answer = cast("dict[str, Any]", answer).get(name)
    return answer


def _text(name: str, value: Any) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise _MemberError(f"{name} is a {type(value).__name__}, no text")


def _scopes(value: Any) -> frozenset[str]:
    if value is None:
        return frozenset()
    if isinstance(value, str):
        return frozenset(value.split())
    if isinstance(value, list):
        entries = cast("list[Any]", value)
        if all(isinstance(entry, str) for entry in entries):
            return frozenset(cast("list[str]", entries))
    raise _MemberError("scopes is neither a list of texts nor a text")


def _time(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not 0 <= value <= LATEST_TIME:
            raise _MemberError("expires_at is no time before the year 10000 in Unix seconds (milliseconds?)")
        return float(value)
    if isinstance(value, str):
        try:
            time = datetime.fromisoformat(value)
        except ValueError:
            time = None
        if time is not None and time.tzinfo is not None:
            return time.timestamp()
    raise _MemberError("expires_at is neither Unix seconds nor an RFC 3339 time")
