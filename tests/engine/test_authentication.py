"""Who sent the handshake, and whether that credential may decide: the part of the engine behind the checks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tests.engine.make import handshake, page
from wsguard import FileList, Guard, Identity, Policy, Refusal, reasons
from wsguard.asgi import WebSocketGuard
from wsguard.engine.policy import Context
from wsguard.engine.ports import Carriage
from wsguard.vocabulary.decision import Accept, Decision, Refuse
from wsguard.vocabulary.errors import ConfigurationError, ConfigurationErrors
from wsguard.vocabulary.handshake import Handshake

NOW = 1_000_000.0
ALICE = Identity("alice", "app", "test")


class Header:
    """An authenticator that answers whatever the test put behind the name in its header."""

    in_header = False

    def __init__(self, answers: dict[bytes, Any], *, name: str = "key", carriage: Carriage = "explicit") -> None:
        self.answers = answers
        self.name = name
        self.carriage: Carriage = carriage
        self.asked = 0

    async def authenticate(self, handshake: Handshake, context: Context) -> Identity | Refusal | None:
        self.asked += 1
        value = handshake.fields.first(b"x-" + self.name.encode())
        answer = None if value is None else self.answers[value]
        if isinstance(answer, BaseException):
            raise answer
        return answer


def decide(subject: Handshake, authenticators: Sequence[Header], **policy: Any) -> Decision:
    written: dict[str, Any] = {"origins": ["https://app.test"], "auth": [one.name for one in authenticators], **policy}
    guard = Guard(Policy(**written), authenticators=authenticators, wall_clock=lambda: NOW)
    return asyncio.run(guard.decide(subject, guard.client_of(subject)))


def code(decision: Decision) -> str | None:
    return decision.reason.code if isinstance(decision, Refuse) else None


def test_a_credential_gives_the_identity() -> None:
    """The acceptance names who it is; nobody else is asked once one has answered."""
    second = Header({b"1": ALICE}, name="second")
    decision = decide(handshake({"X-Key": "1"}), [Header({b"1": ALICE}), second])
    assert isinstance(decision, Accept)
    assert decision.identity == ALICE
    assert second.asked == 0


def test_no_credential_is_401_with_a_challenge() -> None:
    """RFC 6750 §3: no error code where nothing was sent."""
    decision = decide(handshake(), [Header({})])
    assert isinstance(decision, Refuse)
    assert (decision.status, decision.reason.code, decision.headers) == (
        401,
        "credential.missing",
        (("WWW-Authenticate", "Bearer"),),
    )


def test_a_bad_credential_never_falls_through() -> None:
    """The next kind is not asked: it might say yes to somebody else (RULES §7)."""
    second = Header({b"1": ALICE}, name="second")
    bad = Header({b"1": Refusal(reasons.CREDENTIAL_INVALID)})
    decision = decide(handshake({"X-Key": "1", "X-Second": "1"}), [bad, second])
    assert isinstance(decision, Refuse)
    assert (decision.reason.code, decision.headers) == (
        "credential.invalid",
        (("WWW-Authenticate", 'Bearer error="invalid_token"'),),
    )
    assert second.asked == 0


@pytest.mark.parametrize("answer", [ValueError("secret"), KeyError("x"), True, "alice", ("alice",), Identity])
def test_whatever_is_no_answer_refuses(answer: Any) -> None:
    """Fail closed: 503, and the error's text reaches nobody."""
    decision = decide(handshake({"X-Key": "1"}), [Header({b"1": answer})])
    assert isinstance(decision, Refuse)
    assert decision.status == 503
    assert decision.reason.code in {"credential.unavailable", "policy.bad_verdict"}
    assert "secret" not in decision.detail


@pytest.mark.parametrize(
    ("expires_at", "expected"), [(NOW, "credential.expired"), (NOW - 1, "credential.expired"), (NOW + 1, None)]
)
def test_an_expired_identity_opens_nothing(expires_at: float, expected: str | None) -> None:
    """An authenticator that forgets to look is no way in; `exp` is exact (RULES §7)."""
    one = Identity("alice", "app", "test", expires_at=expires_at)
    assert code(decide(handshake({"X-Key": "1"}), [Header({b"1": one})])) == expected


def test_an_authenticator_that_hangs_is_bounded() -> None:
    """The decision has a deadline of its own: 503 `policy.slow`, whatever it waits for."""
    from wsguard import Limits

    class Hanging(Header):
        async def authenticate(self, handshake: Handshake, context: Context) -> Identity | Refusal | None:
            await asyncio.Event().wait()
            raise AssertionError

    guard = Guard(
        Policy(origins=["https://app.test"], auth=["key"]), authenticators=[Hanging({})], limits=Limits(decision=0.1)
    )
    subject = handshake()
    assert code(asyncio.run(guard.decide(subject, guard.client_of(subject)))) == "policy.slow"


# --- carriage ---------------------------------------------------------------------------------------------------------


def test_an_ambient_credential_never_decides_alone() -> None:
    """A cookie rides on a foreign page's handshake too: it counts only where the origin is listed (CWE-1385)."""
    cookie = Header({b"1": ALICE}, name="cookie", carriage="ambient")
    for origin, expected in (("https://app.test", None), ("https://evil.test", "origin.not_allowed")):
        assert code(decide(handshake({"X-Cookie": "1", "Origin": origin}), [cookie])) == expected
    without = handshake({"X-Cookie": "1", "Origin": None})
    assert code(decide(without, [cookie], allow_missing_origin=True)) == "credential.ambient"
    null = handshake({"X-Cookie": "1", "Origin": "null"})
    assert code(decide(null, [cookie], allow_null_origin=True)) == "credential.ambient"
    explicit = Header({b"1": ALICE})
    assert code(decide(handshake({"X-Key": "1", "Origin": None}), [explicit], allow_missing_origin=True)) is None


@pytest.mark.parametrize("origins", [None, (), ["https://*.app.test"]])
def test_a_policy_whose_ambient_credential_cannot_be_trusted_does_not_start(origins: Any) -> None:
    """Beside an ambient authenticator origins are written out, without patterns."""
    cookie = Header({}, name="cookie", carriage="ambient")
    with pytest.raises(ConfigurationError, match="origins"):
        Guard(Policy(origins=origins, hosts=["app.test"], auth=["cookie"]), authenticators=[cookie])
    Guard(Policy(origins=origins, hosts=["app.test"], auth=["key"]), authenticators=[Header({})])


def test_a_pattern_beside_a_cookie_needs_a_word() -> None:
    """`allow_pattern_with_ambient`, and the log names it at start."""
    policy = Policy(origins=["https://*.app.test"], auth=["cookie"], allow_pattern_with_ambient=True)
    guard = Guard(policy, authenticators=[Header({}, name="cookie", carriage="ambient")])
    assert any("allow_pattern_with_ambient" in notice for notice in guard.notices)


# --- refusal="close" --------------------------------------------------------------------------------------------------


def test_a_script_is_told_why_only_behind_the_origin_check() -> None:
    """`refusal="close"`: a credential's refusal may be told by a close code; every earlier one keeps its status."""
    told = decide(handshake(), [Header({})], refusal="close")
    assert isinstance(told, Refuse)
    assert told.close_code == 3000
    preset = decide(handshake(), [Header({})], refusal="close", close_codes="graphql-transport-ws")
    assert isinstance(preset, Refuse)
    assert preset.close_code == 4401
    forbidden = decide(
        handshake({"X-Cookie": "1", "Origin": None}),
        [Header({b"1": ALICE}, name="cookie", carriage="ambient")],
        refusal="close",
        allow_missing_origin=True,
    )
    assert isinstance(forbidden, Refuse)
    assert forbidden.close_code == 3003
    for early in (
        handshake({"Origin": "https://evil.test"}),
        handshake({"Host": "evil.test"}),
        handshake(secure=False),
    ):
        refused = decide(early, [Header({})], refusal="close")
        assert isinstance(refused, Refuse)
        assert refused.close_code is None


@pytest.mark.parametrize(
    ("origin", "policy"),
    [
        ("https://evil.test", {"origin_required": "unless-header-credential"}),
        (None, {"origin_required": "unless-header-credential"}),
        ("null", {"allow_null_origin": True}),
    ],
)
@pytest.mark.parametrize("cookie", ["1", "not a login", None])
def test_a_foreign_page_does_not_learn_whether_a_cookie_is_a_login(
    origin: str | None, policy: dict[str, Any], cookie: str | None
) -> None:
    """An origin that counts only beside a key in a header is told no close code: 3000 and 3003 would tell logins apart."""
    answers = {b"1": ALICE, b"not a login": Refusal(reasons.CREDENTIAL_INVALID)}
    key = Header({})
    key.in_header = True
    kinds = [Header(answers, name="cookie", carriage="ambient"), key]
    refused = decide(handshake({"Origin": origin, "X-Cookie": cookie}), kinds, refusal="close", **policy)
    assert isinstance(refused, Refuse)
    assert refused.status in (401, 403)
    assert refused.close_code is None


# --- pages under an authenticated route -------------------------------------------------------------------------------


def test_pages_are_judged_like_the_socket() -> None:
    """An attacker takes the fallback transport otherwise: same origins, same credentials (RULES §1)."""
    key = Header({b"1": ALICE, b"bad": Refusal(reasons.CREDENTIAL_INVALID)})
    cookie = Header({b"1": ALICE}, name="cookie", carriage="ambient")
    both = [cookie, key]
    assert code(decide(page(), both)) == "credential.missing"
    assert code(decide(page({"X-Cookie": "1"}), both)) is None
    assert code(decide(page({"X-Cookie": "1", "Origin": "https://app.test"}, method="POST"), both)) is None
    assert (
        code(decide(page({"X-Cookie": "1", "Origin": "https://evil.test"}, method="POST"), both))
        == "origin.not_allowed"
    )
    assert code(decide(page({"X-Cookie": "1", "Sec-Fetch-Site": "cross-site"}), both)) == "fetch.site"
    assert code(decide(page({"X-Cookie": "1"}, method="POST"), both)) == "fetch.site"
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert code(decide(page({**link, "X-Cookie": "1"}), both)) is None
    assert code(decide(page(link), both)) == "credential.missing"


def test_an_explicit_header_needs_no_origin_on_a_page() -> None:
    """A script put it there on purpose; a bad one is told as such, not as a foreign origin's."""
    key = Header({b"1": ALICE, b"bad": Refusal(reasons.CREDENTIAL_INVALID)})
    cookie = Header({b"1": ALICE}, name="cookie", carriage="ambient")
    foreign = {"Origin": "https://evil.test", "Sec-Fetch-Site": "cross-site"}
    assert code(decide(page({**foreign, "X-Key": "1"}, method="POST"), [cookie, key])) is None
    assert code(decide(page({**foreign, "X-Key": "bad"}, method="POST"), [cookie, key])) == "credential.invalid"
    assert code(decide(page(foreign, method="POST"), [cookie, key])) == "origin.not_allowed"
    assert code(decide(page({**foreign, "X-Cookie": "1"}, method="POST"), [cookie, key])) == "origin.not_allowed"
    assert code(decide(handshake({"Origin": "https://evil.test", "X-Key": "1"}), [cookie, key])) == "origin.not_allowed"


def test_a_preflight_of_a_listed_origin_goes_to_the_app() -> None:
    """It can carry no credential; of any other origin it is 403."""
    ask = {"Access-Control-Request-Method": "POST"}
    key = [Header({})]
    assert code(decide(page({**ask, "Origin": "https://app.test"}, method="OPTIONS"), key)) is None
    assert code(decide(page({**ask, "Origin": "https://evil.test"}, method="OPTIONS"), key)) == "origin.not_allowed"
    assert code(decide(page({"Origin": "https://app.test"}, method="OPTIONS"), key)) == "credential.missing"


def test_an_open_page_is_asked_nothing() -> None:
    """The app's own login must be reachable: `http="open"`, and a route that is anonymous."""
    key = Header({})
    assert code(decide(page(), [key], http="open")) is None
    assert key.asked == 0
    guard = Guard(
        routes={
            "/ws/*": Policy(origins=["https://app.test"], auth=["key"]),
            "/*": Policy(origins=["https://app.test"], auth=["key"], anonymous=True),
        },
        authenticators=[key],
    )
    for subject in (page(), handshake(target=b"/other")):
        assert isinstance(asyncio.run(guard.decide(subject, guard.client_of(subject))), Accept)
    assert key.asked == 0


# --- a policy that cannot work ----------------------------------------------------------------------------------------


def test_what_cannot_work_is_told_all_at_once() -> None:
    """Each with what to write: an unknown name and the nearest, a route without auth, one that is hidden."""
    policy = Policy(origins=["https://app.test"], auth=["kye"])
    with pytest.raises(ConfigurationErrors) as raised:
        Guard(
            routes={
                "/ws/*": policy,
                "/ws/chat": Policy(origins=["https://app.test"], auth=["key"]),
                "/else": Policy(origins=["https://app.test"]),
                "no-slash": Policy(origins=["https://app.test"], anonymous=True),
            },
            authenticators=[Header({})],
        )
    text = str(raised.value)
    assert "did you mean 'key'?" in text
    assert "'/ws/chat' behind '/ws/*', which hides it" in text
    assert "routes /else: auth: found nothing" in text
    assert "'no-slash'" in text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"origins": None}, "hosts"),
        ({"origins": "https://app.test"}, "a list"),
        ({"origins": ["https://app.test"], "auth": []}, "auth"),
        ({"origins": ["https://app.test"], "auth": "key"}, "auth"),
        ({"origins": ["https://app.test"], "http": "closed"}, "http"),
        ({"origins": ["https://app.test"], "refusal": "redirect"}, "refusal"),
        ({"origins": ["https://app.test"], "close_codes": "graphql-ws"}, "close_codes"),
        ({"origins": ["https://app.test"], "idle": 0}, "idle"),
        ({"origins": ["https://app.test"], "idle": "30s"}, "idle"),
        ({"origins": ["https://app.test"], "max_message": 1.5}, "max_message"),
        ({"origins": ["https://app.test"], "messages_per_second": True}, "messages_per_second"),
        ({"origins": ["https://app.test"], "max_lifetime": -1.0}, "max_lifetime"),
    ],
)
def test_a_policy_that_cannot_work_says_what_to_write(arguments: dict[str, Any], told: str) -> None:
    """At construction, by the name of the argument."""
    with pytest.raises(ConfigurationError, match=told):
        Policy(**arguments)


def test_a_guard_is_made_of_one_thing() -> None:
    """Neither nothing nor two things; nothing of an authenticator's may be ambiguous."""
    policy = Policy(origins=["https://app.test"])
    for arguments in ({}, {"policy": policy, "routes": {"/*": policy}}, {"routes": {}}):
        with pytest.raises(ConfigurationError):
            Guard(**arguments)  # type: ignore[arg-type]
    odd: Any = Header({}, carriage="implicit")  # type: ignore[arg-type]
    keyed = Policy(origins=["https://app.test"], auth=["key"])
    with pytest.raises(ConfigurationError, match="carriage"):
        Guard(keyed, authenticators=[odd])
    with pytest.raises(ConfigurationError, match="two of the name"):
        Guard(keyed, authenticators=[Header({}), Header({})])


# --- what the identity must hold --------------------------------------------------------------------------------------


def test_a_route_requires_scopes_and_groups() -> None:
    """All of them; a valid credential without them is 403, and says which scopes are wanted (RFC 6750 §3.1)."""
    writer = Identity(
        "alice", "app", "test", scopes=frozenset({"chat:read", "chat:write"}), groups=frozenset({"staff"})
    )
    key = [Header({b"1": writer})]
    subject = handshake({"X-Key": "1"})
    assert code(decide(subject, key, require={"scopes": ["chat:write"], "groups": ["staff"]})) is None
    lacking = decide(subject, key, require={"scopes": ["chat:write", "admin"]})
    assert isinstance(lacking, Refuse)
    assert (lacking.status, lacking.reason.code, lacking.detail) == (403, "authorization.scope", "admin")
    assert lacking.headers == (("WWW-Authenticate", 'Bearer error="insufficient_scope", scope="admin chat:write"'),)
    assert code(decide(subject, key, require={"groups": ["staff", "board"]})) == "authorization.group"
    told = decide(subject, key, require={"groups": ["board"]}, refusal="close")
    assert isinstance(told, Refuse)
    assert told.close_code == 3003


@pytest.mark.parametrize(
    "require", [{"scope": ["chat"]}, {"scopes": "chat"}, {"scopes": []}, {"scopes": ["chat"], "roles": ["x"]}]
)
def test_a_requirement_that_is_none_stops_the_start(require: Any) -> None:
    """A typing error must not require nothing."""
    with pytest.raises(ConfigurationError, match="require"):
        Policy(origins=["https://app.test"], auth=["key"], require=require)
    with pytest.raises(ConfigurationError, match="auth"):
        Policy(origins=["https://app.test"], require={"scopes": ["chat"]})


# --- clients that are no browsers -------------------------------------------------------------------------------------


class InHeader(Header):
    """One whose credential stands in a header field."""

    in_header = True


@pytest.mark.parametrize("origin", [None, "https://evil.test", "http://app.test", "null"])
def test_a_header_credential_takes_the_place_of_an_origin(origin: str | None) -> None:
    """No browser's WebSocket can set a header: who sends one is a program; but a bad one, or another kind, is not enough."""
    key = InHeader({b"1": ALICE, b"bad": Refusal(reasons.CREDENTIAL_INVALID)})
    other = Header({b"1": ALICE}, name="other")
    cookie = Header({b"1": ALICE}, name="cookie", carriage="ambient")
    all_of_them = [other, cookie, key]
    policy: dict[str, Any] = {"origin_required": "unless-header-credential"}
    good = decide(handshake({"Origin": origin, "X-Key": "1", "Cookie": "a=b"}), all_of_them, **policy)
    assert isinstance(good, Accept)
    assert good.drop_cookies
    assert code(decide(handshake({"Origin": origin, "X-Key": "bad"}), all_of_them, **policy)) == "credential.invalid"
    for name in ("X-Other", "X-Cookie", "X-Nothing"):
        refused = code(decide(handshake({"Origin": origin, name: "1"}), all_of_them, **policy))
        assert refused is not None
        assert refused.startswith("origin.")
    strict = code(decide(handshake({"Origin": origin, "X-Key": "1"}), all_of_them))
    assert strict is not None
    assert strict.startswith("origin.")
    malformed = decide(handshake({"Origin": "https://a.test https://b.test", "X-Key": "1"}), all_of_them, **policy)
    assert code(malformed) == "origin.malformed"


class NotAsync(Header):
    def authenticate(self, handshake: Handshake, context: Context) -> Any:
        return None


class Nameless:
    carriage = "explicit"


# What a type checker would refuse, as somebody without one writes it.
AnyGuard: Any = Guard
AnyPolicy: Any = Policy
AnyMiddleware: Any = WebSocketGuard


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (
            lambda: AnyGuard(AnyPolicy(origins=["https://app.test"], hosts="app.test")),
            r"hosts: found 'app\.test', expected a list",
        ),
        (
            lambda: AnyGuard(AnyPolicy(origins=[b"https://app.test"])),
            "origins: found b'https://app.test' among its entries",
        ),
        (lambda: AnyGuard(AnyPolicy(origins=[FileList("x")])), "origins: found FileList.* stands alone"),
        (lambda: AnyGuard({"/*": "open"}), "policy: found dict"),
        (lambda: AnyGuard(routes={"/*": "open"}), r"routes /\*: found str"),
        (lambda: AnyMiddleware(None, guard=AnyPolicy(origins=["https://app.test"])), "guard: found Policy"),
        (lambda: decide(handshake(), [NotAsync({})]), "whose authenticate is not async"),
        (lambda: AnyPolicy(origins=["https://app.test"], auth=["key", "key"]), r"auth: found \['key', 'key'\]"),
        (lambda: AnyGuard(AnyPolicy(origins=["https://app.test"]), authenticators=[Header]), "the class Header"),
        (
            lambda: AnyGuard(AnyPolicy(origins=["https://app.test"]), authenticators=[Nameless()]),
            "a Nameless without a name",
        ),
    ],
)
def test_what_is_of_another_kind_says_what_to_write(written: Any, told: str) -> None:
    """At construction, and not by a traceback or a 503 at the first handshake."""
    with pytest.raises((ConfigurationError, ConfigurationErrors), match=told):
        written()


@pytest.mark.parametrize("cookie", ["1", "bad"])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["cookie first", "header first"])
def test_a_cookie_does_not_stand_in_the_way_of_a_header_credential(order: tuple[int, int], cookie: str) -> None:
    """Where it cannot decide it is not even looked at, wherever its name stands in ``auth``."""
    login = Header({b"1": ALICE, b"bad": Refusal(reasons.CREDENTIAL_INVALID)}, name="cookie", carriage="ambient")
    both = [login, InHeader({b"1": ALICE})]
    kinds = [both[number] for number in order]
    fields: dict[str, str | None] = {"Origin": None, "X-Key": "1", "X-Cookie": cookie}
    decision = decide(handshake(fields), kinds, origin_required="unless-header-credential")
    assert isinstance(decision, Accept), decision
    assert decision.drop_cookies
    foreign = {"Origin": "https://evil.test", "X-Key": "1", "X-Cookie": cookie}
    assert isinstance(decide(page(foreign), kinds), Accept)
    assert login.asked == 0


def test_a_listed_origin_keeps_its_cookies_beside_a_header_credential() -> None:
    """Only an unlisted page's cookies are dropped."""
    key = InHeader({b"1": ALICE})
    good = decide(handshake({"X-Key": "1"}), [key], origin_required="unless-header-credential")
    assert isinstance(good, Accept)
    assert not good.drop_cookies


def test_a_route_may_refuse_browsers() -> None:
    """Every handshake with an Origin is refused, a listed one too; one without passes and needs no list."""
    key = [Header({b"1": ALICE})]
    policy: dict[str, Any] = {"origins": None, "hosts": ["app.test"], "browsers": "refuse"}
    assert code(decide(handshake({"X-Key": "1", "Origin": None}), key, **policy)) is None
    for origin in ("https://app.test", "null", "nonsense"):
        assert code(decide(handshake({"X-Key": "1", "Origin": origin}), key, **policy)) == "origin.browser"
    basic = [Header({b"1": ALICE}, name="basic", carriage="ambient")]
    assert code(decide(handshake({"X-Basic": "1", "Origin": None}), basic, **policy)) is None
    with pytest.raises(ConfigurationError, match="origins"):
        decide(handshake(), [Header({}, name="cookie", carriage="ambient")], **policy)
