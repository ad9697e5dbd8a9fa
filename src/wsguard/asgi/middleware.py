"""
The guard as ASGI middleware: a scope arrives, the policy decides, and only then the app is called.

Pure ASGI, whatever the framework. Every way in runs the checks (B-ORIGIN-10): sockets, pages, and a handshake that a
server hands on as plain HTTP; a scope of an unknown type is refused.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from wsguard.asgi.answer import answer_endpoint, page_answer, refuse_page, refuse_socket, whole_body
from wsguard.asgi.handshake import handshake_from
from wsguard.asgi.socket import GuardedSocket
from wsguard.endpoints.messages import EndpointRequest
from wsguard.engine.authenticators.client_certificate import ClientCertificateAuthenticator
from wsguard.engine.forwarding import app_fields
from wsguard.engine.sessions import Session
from wsguard.guard import Admission, Guard
from wsguard.vocabulary import reasons
from wsguard.vocabulary.bounds import DEFAULTS, Limits
from wsguard.vocabulary.decision import Refuse
from wsguard.vocabulary.errors import ConfigurationError, ConfigurationErrors, UnguardedScopeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence

    from wsguard.asgi.types import ASGIApp, Message, Receive, Scope, Send
    from wsguard.engine.policy import Policy
    from wsguard.guard.assembly import Credential
    from wsguard.vocabulary.decision import Accept, Decision
    from wsguard.vocabulary.handshake import Client, Handshake
    from wsguard.vocabulary.identity import Identity

_KEY = "wsguard"
_SCHEMES = {("websocket", True): "wss", ("websocket", False): "ws", ("http", True): "https", ("http", False): "http"}


class ASGISession(Session, eq=False):
    """A `Session` as an app finds it in ``scope["wsguard"]``: who it is, until when, and `close`."""

    guard: Guard | None = None


@dataclass(frozen=True, slots=True)
class GuardedPage:
    """
    What stands in ``scope["wsguard"]`` of a page: who asks for it, if the route asks who it is.

    *handshake* is the request as it was judged; `Guard.issue_ticket` and `Guard.redeem` look at that one, which holds
    what the app does not see (``X-WSGuard-Ticket``).
    """

    guard: Guard
    client: Client
    identity: Identity | None
    handshake: Handshake = field(repr=False)

    @property
    def expires_at(self) -> float | None:
        """Unix seconds at which the credential ends, or None where it has no end."""
        return None if self.identity is None else self.identity.expires_at


class WebSocketGuard:
    """
    Guards *app*.

    Give a *guard*, or what makes one: a *policy* for everything or *routes*, and the other arguments of
    `wsguard.Guard`. ``app.add_middleware(WebSocketGuard, policy=…)`` does it in Starlette and FastAPI.
    Raises ConfigurationErrors as `Guard` does, and for a route that names ``client_certificate``.
    """

    def __init__(
        self,
        app: Callable[[Any, Any, Any], Awaitable[Any]],
        *,
        guard: Guard | None = None,
        policy: Policy | None = None,
        routes: Mapping[str, Policy] | None = None,
        authenticators: Sequence[Credential] = (),
        trusted_proxies: Iterable[str] = (),
        trust_any_proxy: bool = False,
        limits: Limits = DEFAULTS,
    ) -> None:
        if guard is None:
            guard = Guard(
                policy,
                routes=routes,
                authenticators=authenticators,
                trusted_proxies=trusted_proxies,
                trust_any_proxy=trust_any_proxy,
                limits=limits,
            )
        elif (
            policy is not None
            or routes is not None
            or authenticators
            or trusted_proxies
            or trust_any_proxy
            or limits is not DEFAULTS
        ):
            raise ConfigurationError(
                "WebSocketGuard", "a guard and arguments of one", "guard=Guard(…), with all of them"
            )
        if not isinstance(cast("object", guard), Guard):
            raise ConfigurationError(
                "WebSocketGuard: guard", type(guard).__name__, "a Guard(…); policy=Policy(…) makes one"
            )
        _refuse_client_certificates(guard)
        # Frameworks type their scopes each in their own way: outside any will do, inside they are ASGI's.
        self.app: ASGIApp = app
        self.guard = guard
        for notice in guard.notices:
            guard.log.event("guard.notice", notice=notice)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Judge one scope. Raises UnguardedScopeError for a type that is neither socket, page nor lifespan."""
        kind = scope["type"]
        if kind == "websocket":
            await self._serve_socket(scope, receive, send)
        elif kind == "http":
            await self._serve_page(scope, receive, send)
        elif kind == "lifespan":
            async with self.guard.lifespan():
                await self.app(scope, receive, send)
        else:
            raise UnguardedScopeError(f"scope type {kind!r}: only websocket, http and lifespan can be judged")

    async def _serve_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            handshake, client = self._judged(scope)
        except Exception as fault:  # noqa: BLE001 - fail closed: a scope that cannot be read is refused
            request_id = self.guard.tell_fault(fault, kind="handshake")
            refuse = Refuse(reasons.GATEWAY_FAULT)
            with self._unsent_told(request_id):
                await refuse_socket(scope, receive, send, refuse, request_id, host=None, secure=False)
            return
        key = self.guard.cap_key(client)
        place = None if key is None else self.guard.addresses.enter(key)
        try:
            if key is not None and place is None:
                decision: Decision = Refuse(reasons.LIMITS_PREAUTH)
            else:
                decision = await self.guard.decide(handshake, client)
            outcome = decision if isinstance(decision, Refuse) else await self.guard.admit(handshake, decision, place)
            if isinstance(outcome, Admission):
                await self._open(scope, handshake, outcome, receive=receive, send=send)
            else:
                request_id = self.guard.tell_refusal(handshake, client, outcome)
                host, secure = handshake.fields.first(b"host"), client.secure is True
                with self._unsent_told(request_id):
                    await refuse_socket(scope, receive, send, outcome, request_id, host=host, secure=secure)
        finally:
            if place is not None:
                place.release()

    async def _open(
        self,
        scope: Scope,
        handshake: Handshake,
        admission: Admission,
        *,
        receive: Receive,
        send: Send,
    ) -> None:
        accept = admission.accept
        session = ASGISession(**admission.facts, guard=self.guard)
        socket = GuardedSocket(
            self.guard, session, handshake, accept, handle=admission.handle, receive=receive, send=send
        )
        try:
            await self.app(_admitted(scope, handshake, accept, session), socket.receive, socket.send)
        finally:
            await socket.finish()

    async def _serve_page(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            handshake, client = self._judged(scope)
        except Exception as fault:  # noqa: BLE001 - fail closed: a scope that cannot be read is refused
            request_id = self.guard.tell_fault(fault, kind="page")
            refuse = Refuse(reasons.GATEWAY_FAULT)
            with self._unsent_told(request_id):
                await refuse_page(send, refuse, request_id, host=None, secure=False, head_only=False)
            return
        endpoint = self.guard.endpoint_of(handshake)
        if endpoint is not None:
            try:
                async with asyncio.timeout(self.guard.limits.body_timeout):
                    body = await whole_body(receive)
            except TimeoutError:
                decision: Decision = Refuse(reasons.BODY_SLOW)
            else:
                request = EndpointRequest(handshake, client, body)
                await answer_endpoint(send, await self.guard.answer(endpoint, request), handshake, client)
                return
        else:
            decision = await self.guard.decide(handshake, client)
        if handshake.is_handshake and not isinstance(decision, Refuse):
            decision = Refuse(reasons.SYNTAX_UPGRADE, "the server hands this handshake on as plain HTTP")
        host, secure = handshake.fields.first(b"host"), client.secure is True
        if isinstance(decision, Refuse):
            request_id = self.guard.tell_refusal(handshake, client, decision)
            head_only = handshake.method == "HEAD"
            with self._unsent_told(request_id):
                await refuse_page(send, decision, request_id, host=host, secure=secure, head_only=head_only)
            return

        async def deliver(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = page_answer(message, host=host, secure=secure)
            await send(message)

        page = GuardedPage(self.guard, client, decision.identity, handshake)
        await self.app(_admitted(scope, handshake, decision, page), receive, deliver)

    @contextmanager
    def _unsent_told(self, request_id: str) -> Generator[None]:
        """Tell in one line of a refusal that could not be sent: a client that is gone costs no traceback."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - servers raise what they like at a client that is gone
            self.guard.log.event("refusal.unsent", request_id=request_id, error=type(error).__name__)

    def _judged(self, scope: Scope) -> tuple[Handshake, Client]:
        handshake = handshake_from(scope)
        outer = scope.get(_KEY)
        if isinstance(outer, ASGISession | GuardedPage) and outer.client is not None:
            return handshake, outer.client  # a guard before this one has judged it, and set the forwarded fields
        return handshake, self.guard.client_of(handshake)


def _refuse_client_certificates(guard: Guard) -> None:
    errors = [
        ConfigurationError(
            f"routes {route.path}: auth",
            repr(one.name),
            "another authenticator: no ASGI server passes client certificates to the app; `wsguard gateway` takes them",
        )
        for route in guard.routes.routes
        for one in route.authenticators
        if isinstance(one, ClientCertificateAuthenticator)
    ]
    if errors:
        raise ConfigurationErrors(errors)


def session(scope: Any) -> ASGISession:
    """
    Return the `Session` of a websocket scope: its identity, its expiry, and `close`.

    Raises UnguardedScopeError where no guard stands before the app: nobody has been let in by one then.
    """
    found = cast("object", scope.get(_KEY))
    if not isinstance(found, ASGISession):
        raise UnguardedScopeError("scope['wsguard']: no session; is WebSocketGuard around this app?")
    return found


def identity(scope: Any) -> Identity | None:
    """Return who opened the socket or asks for the page; None on a route that asks nobody. Raises as `session`."""
    found = cast("object", scope.get(_KEY))
    if not isinstance(found, ASGISession | GuardedPage):
        raise UnguardedScopeError("scope['wsguard']: nothing there; is WebSocketGuard around this app?")
    return found.identity


def _admitted(scope: Scope, handshake: Handshake, accept: Accept, admission: ASGISession | GuardedPage) -> Scope:
    """Return the scope that the app sees: what was judged, and nothing that a client claims as a proxy."""
    client = accept.client
    admitted: dict[str, Any] = {**scope, "headers": app_fields(handshake, accept), _KEY: admission}
    if handshake.is_handshake:
        admitted["subprotocols"] = list(accept.subprotocols.forwarded)
    if client.through_proxy:
        address = client.peer.address
        admitted["client"] = None if address is None else (address, 0)
        admitted["scheme"] = _SCHEMES[scope["type"], client.secure is True]
    return admitted
