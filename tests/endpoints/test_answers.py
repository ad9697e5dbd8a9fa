"""What `/.wsguard/` answers, without a socket: whose credential counts, who may read, and what a fault answers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from msgspec.structs import replace

from tests.engine.make import page
from tests.guard.world import APP, NOW, Cookie, Key, World, code_of, fields_of, refusal_of, run
from wsguard import Guard, Identity, Limits, Policy, Refusal, Ticket
from wsguard.endpoints.messages import EndpointRequest, EndpointResponse
from wsguard.engine.policy import Context
from wsguard.engine.sessions import Session
from wsguard.guard import Admission
from wsguard.vocabulary.decision import Refuse
from wsguard.vocabulary.handshake import Handshake, Peer

OTHER = "https://other.test"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-key"}


class Robot(Key):
    """Another header, which sells no tickets."""

    name = "robot"
    field_name = b"x-robot"

    async def authenticate(self, handshake: Handshake, context: Context) -> Identity | Refusal | None:
        value = handshake.fields.first(b"x-robot")
        return None if value is None else self._world.identity(value.decode(), self.name)


class Blocking(Key):
    """Answers when the test lets it."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.asked, self.answers = asyncio.Event(), asyncio.Event()

    async def authenticate(self, handshake: Handshake, context: Context) -> Identity | Refusal | None:
        answer = await super().authenticate(handshake, context)
        if handshake.raw_path == b"/.wsguard/renew":
            self.asked.set()
            await self.answers.wait()
        return answer


class Raising(Key):
    async def authenticate(self, handshake: Handshake, context: Context) -> Identity | Refusal | None:
        raise ConnectionError


class Endless(Key):
    async def authenticate(self, handshake: Handshake, context: Context) -> Identity | Refusal | None:
        await asyncio.Event().wait()
        return None


def world_of(routes: dict[str, Policy], *, sold_for: list[str] | None = None, key: type[Key] = Key) -> World:
    """A world with these routes; without *sold_for* no tickets are sold."""
    world = World()
    world.guard = Guard(
        routes=routes,
        authenticators=[key(world), Cookie(world), Robot(world)],
        ticket=None if sold_for is None else Ticket(sold_for),
        public_url=APP,
        limits=Limits(decision=0.1),
        wall_clock=lambda: world.now,
    )
    return world


def policy(*auth: str, origin: str = APP, **more: Any) -> Policy:
    return Policy(origins=[origin], hosts=["app.test"], auth=list(auth), **more)


async def renewed(world: World, handle: str, fields: dict[str, str]) -> EndpointResponse:
    return await world.ask("/.wsguard/renew", fields, json.dumps({"session": handle}).encode())


async def opened(world: World, fields: dict[str, str | None], target: bytes = b"/ws/chat") -> tuple[Session, str]:
    """A socket that a header opened, and the handle that its 101 tells."""
    admission = await world.shake([], fields, target=target)
    assert isinstance(admission, Admission), admission
    assert admission.handle is not None
    session = Session(**admission.facts)
    assert world.guard.live.register(session)
    session.bind(lambda code, reason: world.closed.append((session.public_id, code, reason)))
    return session, admission.handle


# --- who may read -----------------------------------------------------------------------------------------------------


def test_a_page_reads_answers_only_where_its_own_route_lists_it() -> None:
    """A narrower route in front of ``/ws/*`` lists other pages: they cannot be taken for those that buy tickets."""

    async def scenario() -> None:
        routes = {"/ws": policy("key", origin=OTHER), "/ws/*": policy("ticket", "key")}
        world = world_of(routes, sold_for=["key"])
        for origin, expected in ((APP, 204), (OTHER, 403)):
            answer = await world.ask("/.wsguard/ticket", {**PREFLIGHT, "Origin": origin}, method="OPTIONS")
            assert answer.status == expected, origin
            assert ("access-control-allow-origin" in fields_of(answer)) == (expected == 204)
            assert fields_of(answer)["vary"] == "Origin"
        assert (await world.buy()).status == 200

    run(scenario)


def test_a_preflight_is_whole() -> None:
    """204 without a body or a length (RFC 9110 §8.6); an OPTIONS that asks for nothing is 405."""

    async def scenario() -> None:
        world = World()
        answer = await world.ask("/.wsguard/renew", PREFLIGHT, method="OPTIONS")
        assert (answer.status, answer.body) == (204, b"")
        assert b"Content-Length" not in dict(answer.framed_fields)
        assert fields_of(answer)["access-control-allow-methods"] == "POST"
        assert fields_of(answer)["access-control-max-age"] == "600"
        bare = await world.ask("/.wsguard/renew", {}, method="OPTIONS")
        assert refusal_of(bare) == (405, "endpoint.method")
        session = await world.ask("/.wsguard/session?path=/ws/chat", {"X-Key": "alice"}, method="POST")
        assert fields_of(session)["allow"] == "GET, OPTIONS"

    run(scenario)


@pytest.mark.parametrize("origin", ["null", "https://evil.test", "http://app.test", "https://APP.test", "nonsense"])
def test_no_other_page_reads_anything(origin: str) -> None:
    """Neither a preflight nor an answer is for a page that is not listed exactly."""

    async def scenario() -> None:
        for method in ("OPTIONS", "POST"):
            fields = {"X-Key": "alice", "Origin": origin, **(PREFLIGHT if method == "OPTIONS" else {})}
            answer = await World().ask("/.wsguard/ticket", fields, b'{"path": "/ws/chat"}', method=method)
            assert answer.status in (400, 403)
            assert "access-control-allow-origin" not in fields_of(answer)

    run(scenario)


def test_nothing_is_kept_by_anybody() -> None:
    """Every answer with a body is ``no-store``, has a request id, and tells no reason."""

    async def scenario() -> None:
        world = World()
        for answer in (await world.buy(), await world.buy({}), await world.ask("/.wsguard/renew", {}, b"{}")):
            fields = fields_of(answer)
            assert fields["cache-control"] == "no-store"
            assert fields["content-type"] == "application/json"
            assert len(fields["x-request-id"]) == 16
            if answer.refusal is not None:
                assert answer.refusal.reason.code.encode() not in answer.body

    run(scenario)


def test_every_401_carries_its_challenge() -> None:
    """RFC 6750 §3.1: at the endpoints, for a used ticket and for what was revoked, as anywhere."""

    async def scenario() -> None:
        world = World()
        assert fields_of(await world.buy({}))["www-authenticate"] == "Bearer"
        sold = await world.ticket()
        outcomes = await asyncio.gather(*(world.shake(sold["protocols"]) for _ in range(3)))
        used = [one for one in outcomes if isinstance(one, Refuse)]
        assert len(used) == 2
        await world.guard.revoke(subject="alice")
        revoked = await world.shake([], {"X-Key": "alice"})
        assert isinstance(revoked, Refuse)
        for refuse in (*used, revoked):
            assert refuse.headers == (("WWW-Authenticate", 'Bearer error="invalid_token"'),)
        assert "invalid_token" in fields_of(await world.buy())["www-authenticate"]

    run(scenario)


def test_a_script_is_told_of_a_used_ticket_too() -> None:
    """``refusal = "close"``: what is found last of all is told like everything else that a credential lacks."""

    async def scenario() -> None:
        world = World(refusal="close")
        sold = await world.ticket()
        assert code_of(await world.shake(sold["protocols"])) is None
        used = await world.shake(sold["protocols"])
        assert isinstance(used, Refuse)
        assert (used.reason.code, used.close_code) == ("ticket.used", 3000)
        await world.guard.revoke(subject="alice")
        revoked = await world.shake([], {"X-Key": "alice"})
        assert isinstance(revoked, Refuse)
        assert (revoked.reason.code, revoked.close_code) == ("session.revoked", 3000)

    run(scenario)


def test_who_needs_a_header_for_an_origin_that_failed_is_told_nothing() -> None:
    """A close code would tell a foreign page whether its visitor's credential is a login: only the Origin's pages hear it."""

    async def scenario() -> None:
        world = World(refusal="close", origin_required="unless-header-credential")
        await world.guard.revoke(subject="alice")
        for origin, expected in ((APP, 3000), (None, None), ("https://evil.test", None)):
            revoked = await world.shake([], {"X-Key": "alice", "Origin": origin})
            assert isinstance(revoked, Refuse)
            assert (revoked.reason.code, revoked.close_code) == ("session.revoked", expected), origin

    run(scenario)


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "expected"), [(Raising, (503, "credential.unavailable")), (Endless, (503, "policy.slow"))]
)
def test_an_authenticator_that_fails_sells_nothing(key: type[Key], expected: tuple[int, str]) -> None:
    """An issuer that is down or slow is 503, in bounded time."""

    async def scenario() -> None:
        world = world_of({"/ws/*": policy("ticket", "key")}, sold_for=["key"], key=key)
        assert refusal_of(await world.buy()) == expected

    run(scenario)


def test_a_fault_of_ours_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever an endpoint raises is 503, and nothing is sold."""

    async def scenario() -> None:
        world = World()

        async def broken(*_: Any) -> EndpointResponse:
            raise RuntimeError

        subject = page({"Origin": APP}, method="POST", target=b"/.wsguard/ticket")
        request = EndpointRequest(subject, world.guard.client_of(subject), b"")
        assert refusal_of(await world.guard.answer(broken, request)) == (503, "gateway.fault")

    run(scenario)


def test_who_guesses_is_counted() -> None:
    """Bad credentials count by address before anybody looks at them: 429, whoever comes from there next."""

    async def scenario() -> None:
        world = World(ticket={"rate_address": 3})
        statuses = [(await world.buy({"X-Key": "bad"})).status for _ in range(4)]
        assert statuses == [401, 401, 401, 429]
        assert refusal_of(await world.buy()) == (429, "limits.tickets")
        assert (await world.buy(peer="192.0.2.8")).status == 200

    run(scenario)


def test_a_ticket_that_is_bound_to_no_address_is_not_sold() -> None:
    """``bind_address`` where nobody knows the client's address: refused, not sold without the bond."""

    async def scenario() -> None:
        world = World(ticket={"bind_address": True})
        subject = replace(
            page(
                {"Origin": APP, "Content-Type": "application/json", "X-Key": "alice"},
                method="POST",
                target=b"/.wsguard/ticket",
            ),
            peer=Peer(None),
        )
        endpoint = world.guard.endpoint_of(subject)
        assert endpoint is not None
        request = EndpointRequest(subject, world.guard.client_of(subject), b'{"path": "/ws/chat"}')
        assert refusal_of(await world.guard.answer(endpoint, request)) == (403, "ticket.address")

    run(scenario)


@pytest.mark.parametrize(
    ("fields", "secure", "expected"),
    [
        ({}, True, (200, None)),
        ({}, False, (403, "transport.insecure")),
        ({"Host": "evil.test"}, True, (421, "host.not_allowed")),
    ],
)
def test_a_route_whose_pages_are_plain_has_no_plain_endpoints(
    fields: dict[str, str], secure: bool, expected: tuple[int, str | None]
) -> None:
    """Health probes ask by address and without TLS; tokens and tickets travel as ever (``http = "plain"``)."""

    async def scenario() -> None:
        world = world_of({"/plain/*": policy("ticket", "key", http="plain")}, sold_for=["key"])
        for method, target, body in (
            ("POST", "/.wsguard/ticket", b'{"path": "/plain/x"}'),
            ("GET", "/.wsguard/session?path=/plain/x", b""),
            # Whatever else is wrong with a request: it came in the clear, or for a name that is not ours.
            *((("GET", "/.wsguard/ticket", b""), ("POST", "/.wsguard/ticket", b"[]")) if expected[0] != 200 else ()),
        ):
            sent = {"Content-Type": "application/json", "X-Key": "alice", **fields}
            subject = page(sent, method=method, target=target.encode(), secure=secure)
            endpoint = world.guard.endpoint_of(subject)
            assert endpoint is not None
            request = EndpointRequest(subject, world.guard.client_of(subject), body)
            assert refusal_of(await world.guard.answer(endpoint, request)) == expected, target

    run(scenario)


@pytest.mark.parametrize("path", ["/.wsguard/ticket/", "/.wsguard/%74icket", "/.wsguard", "/.wsguard/tickets"])
def test_one_spelling(path: str) -> None:
    """Nothing answers at another spelling, and no handshake does at ours: 404 `route.reserved`, never the app."""

    async def scenario() -> None:
        guard = World().guard
        subject = page({"Origin": APP}, method="POST", target=path.encode())
        assert guard.endpoint_of(subject) is None
        for target in (path, "/.wsguard/ticket"):
            outcome = await World().shake([], {"X-Key": "alice"}, target=target.encode())
            assert code_of(outcome) == "route.reserved"

    run(scenario)


# --- renewal ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sold_for", [["key"], ["cookie"], None])
def test_the_header_that_opened_it_renews_it(sold_for: list[str] | None) -> None:
    """Also where it sells no tickets, and where none are sold at all; a stranger's credential does not."""

    async def scenario() -> None:
        auth = ["robot", "key"] if sold_for is None else ["ticket", "robot", "key"]
        world = world_of({"/ws/*": policy(*auth, allow_missing_origin=True)}, sold_for=sold_for)
        session, handle = await opened(world, {"X-Robot": "r2", "Origin": None})
        world.life = 500
        answer = await renewed(world, handle, {"X-Robot": "r2", "Origin": ""})
        assert json.loads(answer.body) == {"session_expires_at": int(NOW) + 500, "renew_after": 333}
        assert session.expires_at == NOW + 500
        other = await renewed(world, handle, {"X-Robot": "c3po", "Origin": ""})
        assert refusal_of(other) == (403, "session.identity")
        assert refusal_of(await renewed(world, handle, {"X-Robot": "r2"})) == (403, "session.identity")
        if sold_for is None:
            subject = page({"Origin": APP}, method="POST", target=b"/.wsguard/ticket")
            assert world.guard.endpoint_of(subject) is None

    run(scenario)


def test_what_is_no_request_to_renew() -> None:
    """400, 413, 415 and 405, as everywhere."""

    async def scenario() -> None:
        world = World()
        for body in (b"", b"{}", b'{"session": 1}', b'{"session": "x", "path": "/ws"}', b'["x"]', b"\xff"):
            answer = await world.ask("/.wsguard/renew", {"X-Key": "alice"}, body)
            assert refusal_of(answer) == (400, "ticket.body"), body
        long = await world.ask("/.wsguard/renew", {"X-Key": "alice"}, b'{"session": "' + b"a" * 8192 + b'"}')
        assert refusal_of(long) == (413, "endpoint.body_too_large")
        form = {"X-Key": "alice", "Content-Type": "text/plain"}
        assert refusal_of(await world.ask("/.wsguard/renew", form, b"{}")) == (415, "endpoint.content_type")
        assert (await world.ask("/.wsguard/renew", {"X-Key": "alice"}, method="PUT")).status == 405
        surrogate = await world.ask("/.wsguard/renew", {"X-Key": "alice"}, b'{"session": "\\ud800"}')
        assert surrogate.status in (400, 404)

    run(scenario)


def test_a_revoked_credential_renews_nothing() -> None:
    """401 where the revocation does not name the live socket; the socket keeps what it had."""

    async def scenario() -> None:
        world = World()
        sold = await world.ticket()
        session = await world.open(sold["protocols"])
        # Another credential of the same subject is revoked, by name.
        session.renew(Identity("alice", "app", "key", credential_id="c0", expires_at=NOW + 50, issued_at=NOW))
        assert await world.guard.revoke(credential_id="c1") == 0
        assert refusal_of(await renewed(world, sold["session"], {"X-Key": "alice"})) == (401, "session.revoked")
        assert session.expires_at == NOW + 50
        assert world.closed == []

    run(scenario)


def test_a_socket_that_ends_meanwhile_is_not_renewed() -> None:
    """Revoked while the credential was looked at: 404, and not a second more."""

    async def scenario() -> None:
        world = world_of({"/ws/*": policy("ticket", "key")}, sold_for=["key"], key=Blocking)
        key: Any = world.guard.routes.routes[0].authenticators[1]
        session, handle = await opened(world, {"X-Key": "alice"})
        world.guard.limits = Limits(decision=20)
        world.life = 500
        asked = asyncio.ensure_future(renewed(world, handle, {"X-Key": "alice"}))
        await key.asked.wait()
        session.close(3000, "revoked")
        key.answers.set()
        assert refusal_of(await asked) == (404, "session.unknown")
        assert session.expires_at == NOW + 100

    run(scenario)


def test_names_that_no_field_holds_end_the_socket() -> None:
    """An upstream that is told who it is would be told something else from then on."""

    async def scenario() -> None:
        world = world_of({"/ws/*": policy("key")})
        session, handle = await opened(world, {"X-Key": "alice"})
        world.scopes = frozenset({"chat", "s" * 1025})
        answer = await renewed(world, handle, {"X-Key": "alice"})
        assert refusal_of(answer) == (403, "identity.too_long")
        assert world.closed == [(session.public_id, 3003, "not allowed")]

    run(scenario)


def test_a_cookie_renews_only_what_a_cookie_bought() -> None:
    """And an explicit credential does not renew a cookie's: neither says who the other is."""

    async def scenario() -> None:
        world = World(auth=["ticket", "key", "cookie"])
        cookie = {"Cookie": "login=alice", "X-WSGuard": "1"}
        by_cookie, by_key = await world.ticket(cookie), await world.ticket()
        one = await world.open(by_cookie["protocols"], {"Cookie": "login=alice"})
        await world.open(by_key["protocols"])
        world.life = 500
        assert refusal_of(await renewed(world, by_cookie["session"], {"X-Key": "alice"})) == (403, "session.identity")
        assert refusal_of(await renewed(world, by_key["session"], cookie)) == (403, "session.identity")
        without = {"Cookie": "login=alice"}
        assert refusal_of(await renewed(world, by_cookie["session"], without)) == (403, "ticket.header")
        assert (await renewed(world, by_cookie["session"], cookie)).status == 200
        assert one.expires_at == NOW + 500

    run(scenario)


def test_a_credential_without_end_makes_a_life_without_end() -> None:
    """Null in the answer; and nothing shortens it again."""

    async def scenario() -> None:
        world = World()
        sold = await world.ticket()
        session = await world.open(sold["protocols"])
        world.life = None
        endless = {"session_expires_at": None, "renew_after": None}
        assert json.loads((await renewed(world, sold["session"], {"X-Key": "alice"})).body) == endless
        world.life = 5
        assert json.loads((await renewed(world, sold["session"], {"X-Key": "alice"})).body) == endless
        assert session.expires_at is None

    run(scenario)


# --- the session endpoint ---------------------------------------------------------------------------------------------


def test_a_route_without_tickets_is_judged_by_its_own_auth() -> None:
    """Cookie with the marker, or the header that opens it; an anonymous one is 403, whoever asks."""

    async def scenario() -> None:
        routes = {
            "/ws/*": policy("ticket", "key"),
            "/robots/*": policy("robot"),
            "/cookies/*": policy("cookie"),
            "/*": Policy(origins=[APP], anonymous=True),
        }
        world = world_of(routes, sold_for=["key"])

        async def ask(path: str, fields: dict[str, str]) -> tuple[int, str | None]:
            return refusal_of(await world.ask(f"/.wsguard/session?path={path}", fields, method="GET"))

        assert await ask("/robots/1", {"X-Robot": "r2"}) == (200, None)
        assert await ask("/robots/1", {"X-Key": "alice"}) == (401, "credential.missing")
        assert await ask("/cookies/1", {"Cookie": "login=alice"}) == (403, "ticket.header")
        assert await ask("/cookies/1", {"Cookie": "login=alice", "X-WSGuard": "1"}) == (200, None)
        assert await ask("/ws/1", {"X-Robot": "r2"}) == (401, "credential.missing")
        for fields in ({"X-Key": "alice"}, {}):
            assert await ask("/open", fields) == (403, "ticket.route")
        cors = fields_of(await world.ask("/.wsguard/session?path=/cookies/1", PREFLIGHT, method="OPTIONS"))
        assert cors["access-control-allow-credentials"] == "true"
        assert "access-control-allow-credentials" not in fields_of(
            await world.ask("/.wsguard/ticket", PREFLIGHT, method="OPTIONS")
        )

    run(scenario)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", (400, "ticket.body")),
        ("?path=/ws/a&path=/ws/b", (400, "ticket.body")),
        ("?" + "&".join(["a"] * 40), (400, "ticket.body")),
        ("?other=/ws/a", (400, "ticket.body")),
        ("?path=", (403, "ticket.route")),
        ("?path=/ws/chat%3Fx=1", (400, "ticket.body")),
        ("?path=%2Fws%2Fchat", (200, None)),
    ],
)
def test_a_query_that_asks_about_one_path(query: str, expected: tuple[int, str | None]) -> None:
    """Anything else is 400, however long; never a fault of ours."""

    async def scenario() -> None:
        answer = await World().ask(f"/.wsguard/session{query}", {"X-Key": "alice"}, method="GET")
        assert refusal_of(answer) == expected

    run(scenario)


def test_a_subject_that_no_field_holds_has_no_session() -> None:
    """A ticket would be 403 for it, so the page is told the same."""

    async def scenario() -> None:
        world = World()
        answer = await world.ask("/.wsguard/session?path=/ws/chat", {"X-Key": "a" * 1025}, method="GET")
        assert refusal_of(answer) == (403, "identity.too_long")

    run(scenario)


def test_the_session_endpoint_judges_as_the_sale_does() -> None:
    """Scope, revocation and expiry: the status that a ticket would get."""

    async def scenario() -> None:
        world = World(require={"scopes": ["chat"]})

        async def ask() -> tuple[int, str | None]:
            answer = await world.ask("/.wsguard/session?path=/ws/chat", {"X-Key": "alice"}, method="GET")
            return refusal_of(answer)

        world.scopes = frozenset()
        assert await ask() == (403, "authorization.scope")
        world.scopes, world.life = frozenset({"chat"}), -1
        assert await ask() == (401, "credential.expired")
        world.life = None
        answer = await world.ask("/.wsguard/session?path=/ws/chat", {"X-Key": "alice"}, method="GET")
        assert json.loads(answer.body) == {"expires_at": None}
        await world.guard.revoke(subject="alice")
        assert await ask() == (401, "session.revoked")

    run(scenario)


def test_whoever_asks_about_sessions_is_counted() -> None:
    """
    B-FRAME-08: as often as an address may knock, it may ask how its credential would fare, good or bad.

    Else a password that `ask` verifies would be guessed here, past the bound of the handshakes.
    """

    async def scenario() -> None:
        world = World(limits={"attempts_address": 2})

        async def ask(key: str, peer: str = "192.0.2.7") -> EndpointResponse:
            return await world.ask("/.wsguard/session?path=/ws/chat", {"X-Key": key}, method="GET", peer=peer)

        assert [(await ask(key)).status for key in ("bad", "alice")] == [401, 200]
        over = await ask("alice")
        assert refusal_of(over) == (429, "limits.address")
        assert fields_of(over)["retry-after"] == "30"
        assert (await ask("alice", peer="192.0.2.8")).status == 200

    run(scenario)
