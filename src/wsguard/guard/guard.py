"""
The guard: what every mount asks. It holds the routes, the caps, the live sockets and the decision log of one process.

The engine knows no clock and no network. Here they are joined to it: the lists that a policy keeps elsewhere are
opened, the authenticators that it names are found, and a decision that waits is bounded in time.
"""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
import time
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from wsguard.admin.server import AdminServer
from wsguard.admin.socket import read_admin_path
from wsguard.endpoints.counter import issue, judge_presented
from wsguard.endpoints.desk import Desk
from wsguard.endpoints.messages import EndpointRequest, EndpointResponse, json_members, refused
from wsguard.endpoints.public_url import read_public_url
from wsguard.endpoints.renew import answer_renew
from wsguard.endpoints.session import answer_session
from wsguard.endpoints.ticket import answer_ticket, named
from wsguard.engine.authentication import challenged
from wsguard.engine.limits import AddressLimits, address_key
from wsguard.engine.policy import Policy, decide, origin_has_passed, refused_by
from wsguard.engine.proxies import TrustedProxies, client_of
from wsguard.engine.tickets import SoldTickets, TicketRecord, handle_digest, new_secret
from wsguard.guard.administration import Administration
from wsguard.guard.assembly import Assembly, World, written_routes
from wsguard.guard.live_sockets import NO_SESSION, LiveSockets
from wsguard.observe.decision_log import DecisionLog, guard_logger
from wsguard.store.opened import open_store
from wsguard.vocabulary import reasons
from wsguard.vocabulary.bounds import DEFAULTS, Limits
from wsguard.vocabulary.decision import Accept, Refusal, Refuse
from wsguard.vocabulary.errors import ConfigurationError, TicketRefused, UnguardedScopeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from wsguard.admin.neighbours import Neighbours
    from wsguard.endpoints.counter import JudgedPage
    from wsguard.engine.authenticators.bearer import Bearer
    from wsguard.engine.authenticators.ticket import TicketAuthenticator
    from wsguard.engine.limits import Place
    from wsguard.engine.ports import Clock, Randomness, Store, WallClock
    from wsguard.engine.sessions import Session
    from wsguard.engine.tickets import Ticket
    from wsguard.guard.assembly import Credential
    from wsguard.guard.elsewhere import Elsewhere
    from wsguard.observe.decision_log import Value
    from wsguard.vocabulary.decision import Decision, Redemption
    from wsguard.vocabulary.handshake import Client, Handshake
    from wsguard.vocabulary.identity import Identity

_ID_BYTES = 8

Endpoint = Callable[["Desk", EndpointRequest], Awaitable[EndpointResponse]]
_ENDPOINTS: dict[bytes, Endpoint] = {
    b"/.wsguard/ticket": answer_ticket,
    b"/.wsguard/renew": answer_renew,
    b"/.wsguard/session": answer_session,
}


class Admission(msgspec.Struct, frozen=True):
    """
    An admitted handshake: the *facts* that its `Session` is made of.

    *handle* is its renewal handle, to be told in the 101 and nowhere else; None where it has none to tell.
    """

    accept: Accept
    facts: dict[str, Any]
    handle: str | None = None

    def __repr__(self) -> str:
        """Name the session, without its handle."""
        return f"Admission({self.facts['public_id']!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return what `repr` names: msgspec's own would tell all, in every traceback that rich writes with locals."""
        return [("public_id", self.facts["public_id"])]


class Guard:
    """
    Judges handshakes by its routes, and knows the sockets that it let in.

    Give one *policy* for everything, or *routes*, a mapping of paths (exact, or ending in ``/*``) to policies in the
    order in which they are tried. *authenticators* are those that policies name in ``auth``. *trusted_proxies* are
    the addresses and ranges (or ``unix``) whose X-Forwarded-* and Forwarded fields are believed; without it nobody's.

    Among the *authenticators* `JWT` is an issuer of bearer tokens, `APIKeys` a file of keys, `Ask` the app that is
    asked whose cookie it is, `SessionLookup` a function that says it, `ClientCertificate` the CA of certificates that
    the gateway takes; *bearer* says in which header a token stands.
    *outbound* lists private networks that calls to issuers may reach, *outbound_ca* adds a CA for all outgoing calls.

    *ticket* sells tickets for routes whose ``auth`` names ``ticket``; *public_url* (``https://app.example.com``) is
    what their addresses are made of, by default the only served host. *store* keeps tickets and revocations: a
    `Store`, ``memory`` (the default: this process's), or ``sqlite:FILE``, which outlives a restart and which processes
    of one machine share. *admin* (``unix:PATH``) is a socket for this user's commands, ``wsguard sessions`` among them,
    served from the first request on. *limits* are the bounds in force; *log* replaces the decision log.

    Raises ConfigurationErrors, all at once, for a policy that cannot work: an unknown authenticator, a route that an
    earlier one hides entirely, an ambient authenticator without explicit origins.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        routes: Mapping[str, Policy] | None = None,
        authenticators: Sequence[Credential] = (),
        bearer: Bearer | None = None,
        trusted_proxies: Iterable[str] = (),
        trust_any_proxy: bool = False,
        ticket: Ticket | None = None,
        public_url: str | None = None,
        store: Store | str | None = None,
        admin: str | None = None,
        outbound: Sequence[str] = (),
        outbound_ca: str | Path | None = None,
        limits: Limits = DEFAULTS,
        log: DecisionLog | None = None,
        clock: Clock = time.monotonic,
        wall_clock: WallClock = time.time,
        randomness: Randomness = secrets.token_bytes,
    ) -> None:
        self.limits = limits
        self.clock = clock
        self.wall_clock = wall_clock
        self.randomness = randomness
        self.proxies = TrustedProxies.read(trusted_proxies, trust_any=trust_any_proxy)
        self.log = DecisionLog(guard_logger(), clock, limits.hints) if log is None else log
        self.addresses = AddressLimits(limits, clock)
        self.store: Store = self._opened_store("memory" if store is None else store)
        self._tickets = SoldTickets(self.store, limits.tickets_at_hand)
        self.live = LiveSockets(
            limits=limits,
            clock=clock,
            wall_clock=wall_clock,
            log=self.log,
            replay_closes=ticket is not None and ticket.replay_closes,
            holds=self._holds,
            policy_of=self._policy_of,
        )
        self.sessions = self.live.sessions
        self._ticket = ticket
        self._lifespans = 0
        world = World(
            limits,
            clock,
            self.log,
            self.store,
            self._tickets,
            bearer,
            outbound,
            outbound_ca,
            randomness,
            self.live.replayed,
            self.live.withdrawn,
        )
        assembly = Assembly(written_routes(policy, routes), authenticators, ticket, world)
        self.routes = assembly.table
        self._assembly = assembly
        self.admin = None if admin is None else AdminServer(read_admin_path(admin), Administration(self), self.log)
        keeps = any(route.authenticators or route.policy.keeps_lists for route in self.routes.routes)
        self._waits = keeps or self.admin is not None
        authenticates = any(route.authenticators for route in self.routes.routes)
        self._desk = self._opened_desk(ticket, public_url) if authenticates else None
        if authenticates and self.store.is_shared:
            self.live.share(self.store)

    @classmethod
    def from_file(cls, path: str | Path) -> Guard:
        """
        Return the guard of an app's own process that a configuration file describes.

        *path* is the file of ``wsguard gateway`` or ``wsguard run``; what it says of listeners, upstream and workers is
        left to those. Raises ConfigurationErrors with all that is wrong.
        """
        from wsguard.config.guards import guard_from_file

        return guard_from_file(Path(path))

    def __repr__(self) -> str:
        """Name the routes."""
        return f"Guard({', '.join(route.path for route in self.routes.routes)})"

    @property
    def notices(self) -> list[str]:
        """Return what the log says at start: every insecure word of a policy, with its route."""
        notices = [
            f"{route.path}: {notice}" if len(self.routes.routes) > 1 else notice
            for route in self.routes.routes
            for notice in route.policy.notices
        ]
        notices += self._assembly.notices
        if not self.store.is_shared and any(route.policy.authenticates for route in self.routes.routes):
            notices.append(
                "memory store: a restart forgets tickets, which lets nobody in, and revocations, which lets a "
                'credential that is still valid in again; store = "sqlite:FILE" keeps them'
            )
        if self.proxies.is_anybody:
            notices.append("trust_any_proxy: every peer is believed in what it says of the client")
        return notices

    def client_of(self, handshake: Handshake) -> Client:
        """Return who sent *handshake*, with listed proxies believed (RULES §9)."""
        return client_of(handshake, self.proxies)

    def cap_key(self, client: Client) -> str | None:
        """Return what *client* is counted as by the caps, or None where its address is unknown."""
        return None if client.peer.address is None else address_key(client.peer.address)

    async def decide(self, handshake: Handshake, client: Client) -> Decision:
        """
        Judge *handshake* of *client*; raises nothing.

        A decision that waits, for a list or an authenticator, takes at most ``limits.decision`` seconds.
        """
        key = self.cap_key(client)
        retry_after = self.addresses.attempt(key) if handshake.is_handshake and key is not None else None
        deciding = decide(handshake, self.routes, limits=self.limits, client=client, now=self.wall_clock())
        try:
            if self._waits:
                self.start()
                async with asyncio.timeout(self.limits.decision):
                    decision = await deciding
            else:
                decision = await deciding
        except TimeoutError:
            return Refuse(reasons.POLICY_SLOW)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # What an authenticator awaited was cancelled, and nobody has cancelled us.
            return Refuse(reasons.CREDENTIAL_UNAVAILABLE, "what an authenticator waited for was cancelled")
        if isinstance(decision, Refuse):
            return decision
        if decision.identity is not None:
            refusal = await self._withdrawn_meanwhile(decision.identity)
            if refusal is not None:
                return self._refused(handshake, decision, await self._used(decision) or refusal)
        if retry_after is not None:
            return await self._over(handshake, decision, retry_after)
        return decision

    async def _over(self, handshake: Handshake, accept: Accept, seconds: int) -> Refuse:
        used = await self._used(accept)
        if used is not None:
            return self._refused(handshake, accept, used)
        return Refuse(reasons.LIMITS_ADDRESS, headers=(("Retry-After", str(seconds)),))

    async def _used(self, accept: Accept) -> Refusal | None:
        """
        Tell of a ticket that is refused for something else whether it is used, too: that closes its first socket.

        One that was sold here has been believed without a look; the take would tell, and does not come any more.
        """
        if accept.redemption is None:
            return None
        try:
            found = await self._tickets.look(accept.redemption.key, now=self.wall_clock())
        except Exception:  # noqa: BLE001 - whatever the store raises: it is refused anyhow
            return None
        if isinstance(found, TicketRecord) or found.mark is None:
            return None
        self.live.replayed(found.mark)
        return Refusal(reasons.TICKET_USED)

    async def _withdrawn_meanwhile(self, identity: Identity) -> Refusal | None:
        """Return why *identity*, which was found to be good, does not count: revoked, or nobody can say."""
        refusal = await self.live.revocations_unknown()
        if refusal is None and not self.live.still_holds(identity):
            refusal = Refusal(reasons.SESSION_REVOKED)
        return refusal

    def _holds(self, identity: Identity) -> bool:
        keys = self._assembly.keys
        return identity.method != "api_key" or keys is None or keys.holds(identity)

    def _policy_of(self, path: str) -> Policy | None:
        return next((route.policy for route in self.routes.routes if route.path == path), None)

    def request_id(self) -> str:
        """Return a new id, for a refusal or a session: unguessable, and no secret."""
        return self.randomness(_ID_BYTES).hex()

    def tell_refusal(self, handshake: Handshake, client: Client, refuse: Refuse) -> str:
        """Write the log line of a refusal; return its request id, which the client is told."""
        request_id = self.request_id()
        self.log.refused(
            refuse.reason,
            status=refuse.status,
            detail=refuse.detail,
            setting=refuse.setting,
            **where(handshake),
            peer=str(client.peer if client.peer.address is not None else handshake.peer),
            request_id=request_id,
            kind=handshake.kind,
            **({} if refuse.identity is None else named(refuse.identity)),
        )
        return request_id

    def tell_fault(self, fault: Exception, *, kind: str) -> str:
        """Write the log line of a request that could not even be read, its traceback to stderr; return its id."""
        traceback.print_exception(fault)
        request_id = self.request_id()
        reason = reasons.GATEWAY_FAULT
        detail = type(fault).__name__
        self.log.refused(reason, status=reason.status, detail=detail, setting="", request_id=request_id, kind=kind)
        return request_id

    async def admit(self, handshake: Handshake, accept: Accept, place: Place | None) -> Admission | Refuse:
        """
        Let an accepted handshake in, last of all: count its *place*, then take its ticket from the store.

        Returns what its session is made of, or the Refuse that comes instead. A refused one spends no ticket.
        """
        if place is not None and not place.admit():
            return await self._over(handshake, accept, 60)
        facts = self._session_facts(handshake, accept)
        handle = None
        if accept.redemption is not None:
            refusal = await self._redeem(accept.redemption, facts["public_id"].encode())
            if refusal is not None:
                return self._refused(handshake, accept, refusal)
            facts["handle"] = accept.redemption.handle
            facts["sold_by"] = accept.redemption.sold_by
        elif accept.in_header and self._desk is not None:
            handle = new_secret(self.randomness)
            facts["handle"] = handle_digest(handle)
        return Admission(accept, facts, handle)

    def _refused(self, handshake: Handshake, accept: Accept, refusal: Refusal) -> Refuse:
        route = self.routes.find(handshake.raw_path) or self.routes.routes[0]
        tells_script = origin_has_passed(accept.origin, excused=accept.drop_cookies)
        return refused_by(route.policy, handshake, challenged(refusal), accept.identity, tells_script=tells_script)

    async def _redeem(self, redemption: Redemption, mark: bytes) -> Refusal | None:
        try:
            taken = await self._tickets.take(redemption.key, mark=mark, now=self.wall_clock())
        except Exception as error:  # noqa: BLE001 - fail closed: whatever the store raises refuses (B-STORE-03)
            return Refusal(reasons.STORE_UNAVAILABLE, type(error).__name__)
        if taken.value is not None:
            return None
        if taken.mark is not None:
            self.live.replayed(taken.mark)
            return Refusal(reasons.TICKET_USED)
        return Refusal(reasons.TICKET_UNKNOWN)

    async def revoke(
        self,
        *,
        subject: str | None = None,
        issuer: str | None = None,
        sid: str | None = None,
        credential_id: str | None = None,
        issued_before: float | None = None,
    ) -> int:
        """
        Revoke what all the given names match and what was issued until *issued_before* (Unix seconds, default now).

        Closes its live sockets with 3000 and refuses it from now on (401 ``session.revoked``). Returns how many sockets
        of this process were closed; other processes that share the store hear of it within ``limits.store_poll``.
        Raises RevocationSyntaxError where nobody is named, and StoreError, once the sockets are closed, where it cannot
        be remembered.
        """
        members = {
            "subject": subject,
            "issuer": issuer,
            "sid": sid,
            "credential_id": credential_id,
            "issued_before": issued_before,
        }
        given = {name: value for name, value in members.items() if value is not None}
        return (await self.live.revoke(given)).closed

    def endpoint_of(self, handshake: Handshake) -> Endpoint | None:
        """Return what answers a page under ``/.wsguard/``, or None where nothing does."""
        if self._desk is None or handshake.is_handshake:
            return None
        endpoint = _ENDPOINTS.get(handshake.raw_path)
        return None if endpoint is answer_ticket and self._ticket is None else endpoint

    def join(self, neighbours: Neighbours, admin: Path) -> None:
        """
        Be one of several workers: what concerns a session of another is asked of the *neighbours*.

        They ask this one at the socket *admin*, which takes the place of an admin socket of its own. Raises
        ConfigurationError for a store that the others do not share.
        """
        if not self.store.is_shared and any(route.policy.authenticates for route in self.routes.routes):
            found = "several, and a guard whose store is in the memory of each"
            raise ConfigurationError("workers", found, 'store = "sqlite:wsguard.db", which they share')
        self.live.join(neighbours)
        self.admin = AdminServer(admin, Administration(self), self.log)
        self._waits = True

    async def answer_renewal(self, request: EndpointRequest) -> EndpointResponse:
        """Answer a renewal of a session that lives here, though it came to another worker."""
        return await self._answer_here(answer_renew, request)

    async def answer(self, endpoint: Endpoint, request: EndpointRequest) -> EndpointResponse:
        """Answer *request* to *endpoint*, and write its log line; raises nothing."""
        if endpoint is answer_renew and self.live.elsewhere is not None:
            answered = await self._renewed_elsewhere(self.live.elsewhere, request)
            if isinstance(answered, Refusal):
                return await self._answer_here(partial(answer_renew, unknown=answered), request)
            if answered is not None:
                return answered
        return await self._answer_here(endpoint, request)

    async def _renewed_elsewhere(
        self, elsewhere: Elsewhere, request: EndpointRequest
    ) -> EndpointResponse | Refusal | None:
        """Let the worker that holds the session answer; None where none does, or it lives here."""
        members = json_members(request)
        handle = None if isinstance(members, Refusal) else members.get("session")
        address = request.client.peer.address
        if not isinstance(handle, str):
            return None
        digest = handle_digest(handle)
        if self.sessions.of_handle(digest) is not None:
            return None
        # Whoever guesses handles asks all workers each time: bounded before anybody is asked.
        if address is not None and not self._may_ask_others(address):
            return None
        return await elsewhere.renewed(digest, request)

    def _may_ask_others(self, address: str) -> bool:
        desk = cast("Desk", self._desk)
        # As many as handshakes: behind one address may be a whole company, whose pages all renew.
        most = self.limits.attempts_address
        return desk.rates.take(("elsewhere", address_key(address)), most, self.clock()) is None

    async def _answer_here(self, endpoint: Endpoint, request: EndpointRequest) -> EndpointResponse:
        desk = cast("Desk", self._desk)
        try:
            self.start()
            async with asyncio.timeout(self.limits.decision):
                unknown = await self.live.revocations_unknown()
                response = await endpoint(desk, request) if unknown is None else refused(unknown)
        except TimeoutError:
            response = refused(Refusal(reasons.POLICY_SLOW))
        except Exception as error:  # noqa: BLE001 - fail closed: whatever an endpoint raises refuses
            response = refused(Refusal(reasons.GATEWAY_FAULT, type(error).__name__))
        return self._told(request, response)

    def _told(self, request: EndpointRequest, response: EndpointResponse) -> EndpointResponse:
        request_id = self.tell_answer(request, response)
        return dataclasses.replace(response, fields=[*response.fields, (b"X-Request-Id", request_id.encode("ascii"))])

    async def issue_ticket(self, request: Any, identity: Identity, *, path: str) -> EndpointResponse:
        """
        Sell a ticket for *path* to *identity*, whom the app has logged in, and the page that sent *request*.

        *request* is what the framework hands to the app (it has a ``scope``), or the ASGI scope itself, of a page that
        this guard has let through. Origin and Host are judged as the endpoint judges them. The answer has the
        endpoint's ``status`` and, in ``json()``, its members; a refusal's ``json()`` holds status and phrase.

        Raises UnguardedScopeError for a request that no guard has let through, and ConfigurationError where no ticket
        opens anything.
        """
        desk, page = self._opened_counter(), _judged_page(request)
        self.start()
        unknown = await self.live.revocations_unknown()
        response = await issue(desk, page, identity, path) if unknown is None else refused(unknown)
        return self._told(EndpointRequest(page.handshake, page.client, b""), response)

    async def redeem(self, request: Any) -> Identity:
        """
        Take the ticket in *request*'s field ``X-WSGuard-Ticket``, for a download or a streamed answer.

        It is the ticket that opens a socket, bought for a path of this route, and good once for either. Pages of the
        route must reach the app (``http = "open"``). Returns who bought it.

        Raises TicketRefused with what to answer, and otherwise as `issue_ticket` does.
        """
        desk, page = self._opened_counter(), _judged_page(request)
        self.start()
        found = await self.live.revocations_unknown() or await judge_presented(
            desk, page, cast("TicketAuthenticator", self._assembly.tickets)
        )
        if isinstance(found, Refusal):
            raise self._ticket_refused(page, found)
        identity, redemption = found
        refusal = await self._redeem(redemption, NO_SESSION)
        if refusal is not None:
            raise self._ticket_refused(page, refusal)
        self.log.event("ticket.redeemed", **where(page.handshake), peer=str(page.client.peer), **named(identity))
        return identity

    def counter(self) -> Desk | None:
        """Return where tickets are sold, or None where none are."""
        return self._desk if self._assembly.tickets is not None else None

    def _opened_counter(self) -> Desk:
        desk = self.counter()
        if desk is None:
            raise ConfigurationError("ticket", "nothing", 'Guard(ticket=Ticket(…)), and "ticket" in a route\'s auth')
        return desk

    def _ticket_refused(self, page: JudgedPage, refusal: Refusal) -> TicketRefused:
        route = self.routes.find(page.handshake.raw_path) or self.routes.routes[0]
        refuse = refused_by(route.policy, page.handshake, challenged(refusal), tells_script=False)
        request_id = self.tell_refusal(page.handshake, page.client, refuse)
        headers = (*refuse.headers, ("X-Request-Id", request_id))
        return TicketRefused(refuse.status, headers, request_id, refuse.reason.code)

    def tell_answer(self, request: EndpointRequest, response: EndpointResponse) -> str:
        """Write the log line of what an endpoint answers; return its request id."""
        refusal = response.refusal
        if refusal is not None:
            refuse = Refuse(refusal.reason, refusal.detail, refusal.setting, identity=refusal.identity)
            return self.tell_refusal(request.handshake, request.client, refuse)
        if response.event:
            place = where(request.handshake)
            self.log.event(
                response.event, **{**response.values, "origin": place["origin"], "peer": str(request.client.peer)}
            )
        return self.request_id()

    def _opened_store(self, store: Store | str) -> Store:
        if isinstance(store, str):
            return open_store(store, limits=self.limits, randomness=self.randomness, folder=Path.cwd())
        return store

    def _opened_desk(self, ticket: Ticket | None, public_url: str | None) -> Desk:
        return Desk(
            table=self.routes,
            limits=self.limits,
            tickets=self._tickets,
            ticket=ticket,
            sellers=self._assembly.sellers,
            sessions=self.sessions,
            revocations=self.live.revocations,
            public_url="" if ticket is None and public_url is None else read_public_url(public_url, self.routes),
            request_headers=self._assembly.headers,
            clock=self.clock,
            wall_clock=self.wall_clock,
            randomness=self.randomness,
        )

    def _session_facts(self, handshake: Handshake, accept: Accept) -> dict[str, Any]:
        """Return what a new `Session` for *handshake* is made of."""
        place = where(handshake)
        return {
            "public_id": self.request_id(),
            "origin": place["origin"],
            "host": place["host"] or "",
            "route": accept.terms.route,
            "path": place["path"] or "",
            "peer": str(accept.client.peer),
            "opened_at": self.clock(),
            "client": accept.client,
            "proof": accept.origin,
            "source": accept.source,
            "identity": accept.identity,
            "recheck": accept.recheck,
            "close_codes": accept.terms.close_codes,
        }

    def tell_opened(self, session: Session) -> None:
        """Write the log line of a session's open."""
        values: dict[str, Value] = {
            "session": session.public_id,
            "origin": session.origin,
            "host": session.host,
            "path": session.path,
            "route": session.route,
            "source": session.source or None,
            "peer": session.peer,
        }
        self.log.tell("session.opened", _with_who(values, session))

    def tell_closed(self, session: Session, *, code: int | None, by: str | None, reason: str, **sums: Value) -> None:
        """Write the log line of a session's close: *code*, who closed it, why, and the *sums* that the mount has."""
        values: dict[str, Value] = {
            "session": session.public_id,
            "code": code,
            "by": by,
            "reason": reason or None,
            **sums,
            "seconds": round(self.clock() - session.opened_at, 3),
            "host": session.host,
            "path": session.path,
            "peer": session.peer,
        }
        self.log.tell("session.closed", _with_who(values, session))

    def start(self) -> None:
        """Begin what runs in the background, on the running loop. Cheap where it runs already."""
        if self.admin is not None:
            self.admin.start()
        self.live.start()
        for running in self._assembly.background:
            running.start()

    def stop(self) -> None:
        """End what runs in the background: polls of lists, timers, the admin socket. A decision starts them anew."""
        if self.admin is not None:
            self.admin.stop()
        self.live.stop()
        for running in self._assembly.background:
            running.stop()

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        """Run in the background while an app lives; with several apps around, until the last of them has ended."""
        self._lifespans += 1
        self.start()
        try:
            yield
        finally:
            self._lifespans -= 1
            if not self._lifespans:
                await self.aclose()

    async def aclose(self) -> None:
        """End all that `stop` ends, and close the connections of outgoing calls on the running loop."""
        self.stop()
        await self._assembly.aclose()


def _judged_page(request: Any) -> JudgedPage:
    scope: Any = getattr(request, "scope", request)
    page: Any = cast("Mapping[str, Any]", scope).get("wsguard") if isinstance(scope, Mapping) else None
    if getattr(page, "handshake", None) is None:
        raise UnguardedScopeError("scope['wsguard']: no page there; is WebSocketGuard around this app?")
    return cast("JudgedPage", page)


def where(handshake: Handshake) -> dict[str, str | None]:
    """Say where a handshake came from and goes to, as received, without its query. The log escapes it."""
    origin, host = handshake.fields.first(b"origin"), handshake.fields.first(b"host")
    return {
        "origin": None if origin is None else origin.decode("ascii", "backslashreplace"),
        "host": None if host is None else host.decode("ascii", "backslashreplace"),
        "path": handshake.raw_path.decode("ascii", "backslashreplace"),
    }


def _with_who(values: dict[str, Value], session: Session) -> dict[str, Value]:
    identity = session.identity
    return values if identity is None else {**values, **named(identity)}
