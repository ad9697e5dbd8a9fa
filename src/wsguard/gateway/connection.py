"""One client connection: heads come in one by one; each is judged, and answered, proxied, or made a socket."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsguard.endpoints.messages import MAX_BODY, EndpointRequest
from wsguard.engine.authentication import challenged
from wsguard.engine.forwarding import deflate_offer, forwarded_fields
from wsguard.engine.sessions import Session
from wsguard.gateway.answer import endpoint_answer, refusal, switching_protocols, told_by_close
from wsguard.gateway.handshake import ConnectionFacts, handshake_from
from wsguard.gateway.http_proxy import (
    CutShort,
    PageRequest,
    RequestBodyFailure,
    forward_refusal,
    read_body,
    serve_page,
)
from wsguard.gateway.relay import Relay, RelayOutcome
from wsguard.gateway.stream import ByteStream, StreamEnded
from wsguard.gateway.upstream import Upstream, read_response_head
from wsguard.guard.guard import where
from wsguard.vocabulary import reasons
from wsguard.vocabulary.bounds import MAX_MESSAGE
from wsguard.vocabulary.decision import Refusal, Refuse
from wsguard.vocabulary.errors import HeadViolation, UpstreamFailure
from wsguard.wire.head_writer import write_request_head
from wsguard.wire.request_head import RequestHead, head_end, parse_request_head
from wsguard.wire.response_head import SWITCHING_PROTOCOLS, check_upgrade

if TYPE_CHECKING:
    from wsguard.engine.limits import Place
    from wsguard.gateway.reaper import Reaper
    from wsguard.gateway.relay import Heartbeat
    from wsguard.gateway.stream import ReadBuffer
    from wsguard.gateway.transports import TransportEngine
    from wsguard.guard import Admission, Guard
    from wsguard.guard.guard import Endpoint
    from wsguard.vocabulary.bounds import Limits
    from wsguard.vocabulary.decision import Accept
    from wsguard.vocabulary.handshake import Handshake
    from wsguard.vocabulary.reasons import Reason
    from wsguard.wire.response_head import ResponseHead, Upgraded

_DENIALS = frozenset({401, 403})


class CredentialWithdrawn(Exception):
    """The credential was revoked while the upstream was asked."""


@dataclass(frozen=True, slots=True)
class Services:
    """What every connection of a gateway shares; made once at start."""

    guard: Guard
    upstream: Upstream
    engine: TransportEngine
    buffer: ReadBuffer
    heartbeat: Heartbeat
    reaper: Reaper

    @property
    def limits(self) -> Limits:
        """The bounds in force."""
        return self.guard.limits


class Connection:
    """
    Serves one client's stream until it ends or becomes a socket.

    Its *place* in the counts is the caller's to release, unless the relay has taken it (*handed_over*).
    """

    def __init__(self, stream: ByteStream, facts: ConnectionFacts, services: Services, place: Place) -> None:
        self._stream = stream
        self._facts = facts
        self._services = services
        self._place = place
        self.handed_over = False
        self._pipelined = False
        self.heads = 0

    async def serve(self) -> None:
        """Serve heads until the connection is done. Raises nothing that is the client's fault."""
        try:
            while True:
                head = await self._read_head()
                if head is None or not await self._serve_head(head):
                    return
                # What already waits was sent before our answer was whole.
                self._pipelined = bool(self._stream.data)
        except StreamEnded:
            return
        finally:
            if self._stream.successor is None:
                await self._stream.finish()

    async def _read_head(self) -> RequestHead | None:
        """Return the next head, or None when there is none: the connection is idle, slow, over, or speaks nonsense."""
        limits, stream = self._services.limits, self._stream
        if self.heads and not stream.data and not await self._wait_for_next():
            return None
        try:
            async with asyncio.timeout(limits.head_timeout):
                data = await self._whole_head()
            self.heads += 1
            return parse_request_head(data, limits)
        except TimeoutError:
            return None  # told with the other unfinished ones, once a minute
        except HeadViolation as violation:
            self.heads += 1
            await self._answer_unparsed(violation.reason, violation.detail)
        return None

    async def _wait_for_next(self) -> bool:
        try:
            async with asyncio.timeout(self._services.limits.keep_alive):
                await self._stream.more()
        except TimeoutError:
            return False
        return True

    async def _whole_head(self) -> bytes:
        searched = 0
        while True:
            end = head_end(self._stream.data, searched, self._services.limits)
            if end is not None:
                return self._stream.take(end)
            searched = len(self._stream.data)
            await self._stream.more()

    async def _serve_head(self, head: RequestHead) -> bool:
        """Serve one request; return whether the connection can serve another."""
        handshake = handshake_from(head, self._facts)
        guard = self._services.guard
        endpoint = guard.endpoint_of(handshake)
        if endpoint is not None:
            return await self._answer_endpoint(endpoint, head, handshake)
        decision = await guard.decide(handshake, guard.client_of(handshake))
        if handshake.is_handshake and self._pipelined and not isinstance(decision, Refuse):
            decision = Refuse(reasons.SYNTAX_PIPELINED)
        if not handshake.is_handshake and not isinstance(decision, Refuse) and not self._place.admit():
            decision = Refuse(reasons.LIMITS_ADDRESS, headers=(("Retry-After", "60"),))
        admission = None
        if handshake.is_handshake and not isinstance(decision, Refuse):
            outcome = await guard.admit(handshake, decision, self._place)
            if isinstance(outcome, Refuse):
                decision = outcome
            else:
                admission = outcome
        if isinstance(decision, Refuse):
            await self._refuse(handshake, decision)
            return False
        try:
            if admission is not None:
                await self._open_socket(head, handshake, admission)
                return False
            page = PageRequest(head, handshake, decision, self._stream, self._services.limits)
            return await serve_page(page, self._services.upstream)
        except UpstreamFailure as failure:
            await self._refuse(handshake, Refuse(failure.reason, failure.detail))
        except CredentialWithdrawn:
            revoked = challenged(Refusal(reasons.SESSION_REVOKED))
            await self._refuse(handshake, Refuse(revoked.reason, headers=revoked.headers, identity=decision.identity))
        except RequestBodyFailure as failure:
            await self._refuse(handshake, Refuse(failure.reason))
        except CutShort:
            self._stream.abort()
        except StreamEnded:
            raise
        except asyncio.CancelledError:
            self._stream.abort()  # half an answer must not look like a whole one
            raise
        except Exception as fault:  # noqa: BLE001 - fail closed, and say so
            _report(fault)
            await self._refuse(handshake, Refuse(reasons.GATEWAY_FAULT, type(fault).__name__))
        return False

    async def _answer_endpoint(self, endpoint: Endpoint, head: RequestHead, handshake: Handshake) -> bool:
        guard = self._services.guard
        if not self._place.admit():
            await self._refuse(handshake, Refuse(reasons.LIMITS_ADDRESS, headers=(("Retry-After", "60"),)))
            return False
        if head.version == "1.1" and (handshake.fields.first(b"expect") or b"").lower() == b"100-continue":
            await self._stream.write(b"HTTP/1.1 100 Continue\r\n\r\n")  # RFC 9110 §10.1.1: it waits for that
        try:
            body = await read_body(head, self._stream, self._services.limits, MAX_BODY)
        except RequestBodyFailure as failure:
            await self._refuse(handshake, Refuse(failure.reason))
            return False
        request = EndpointRequest(handshake, guard.client_of(handshake), body)
        await self._stream.write(endpoint_answer(await guard.answer(endpoint, request), handshake))
        return False

    async def _open_socket(self, head: RequestHead, handshake: Handshake, admission: Admission) -> None:
        accept = admission.accept
        upstream = await self._services.upstream.connect()
        try:
            answer = await self._upgrade(upstream, handshake, accept)
            if answer.status == SWITCHING_PROTOCOLS:
                upgraded = self._check_upgrade(answer, handshake, accept)
                self._begin_relay(upstream, handshake, admission, answer, upgraded)
            else:
                page = PageRequest(head, handshake, accept, self._stream, self._services.limits)
                await forward_refusal(page, answer, upstream)
                self._log_upstream_refusal(handshake, accept, answer)
        finally:
            if not self.handed_over:
                upstream.abort()

    async def _upgrade(self, upstream: ByteStream, handshake: Handshake, accept: Accept) -> ResponseHead:
        """Ask the upstream for the socket; return its final answer, whatever it is."""
        fields = forwarded_fields(handshake, accept, self._services.upstream.address.name)
        fields += [(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade")]
        try:
            async with asyncio.timeout(self._services.limits.upstream_upgrade):
                await upstream.write(write_request_head("GET", handshake.target, fields))
                while True:
                    answer = await read_response_head(upstream, "GET", self._services.limits)
                    if not answer.is_interim:
                        return answer
        except TimeoutError:
            raise UpstreamFailure(reasons.UPSTREAM_SLOW, "the answer to a handshake") from None
        except StreamEnded:
            raise UpstreamFailure(reasons.UPSTREAM_UNREACHABLE, "the connection ended") from None

    def _check_upgrade(self, answer: ResponseHead, handshake: Handshake, accept: Accept) -> Upgraded:
        offer = deflate_offer(handshake, accept)
        return check_upgrade(
            answer,
            handshake.fields.first(b"sec-websocket-key") or b"",
            accept.subprotocols.forwarded,
            deflate_offer=None if offer is None else offer.decode("ascii"),
        )

    def _begin_relay(
        self, upstream: ByteStream, handshake: Handshake, admission: Admission, answer: ResponseHead, upgraded: Upgraded
    ) -> None:
        services = self._services
        accept = admission.accept
        session = Session(**admission.facts)
        # Register, then look whether it is revoked, then send the 101: nothing slips between.
        stands = services.guard.live.register(session)
        if not stands:
            services.guard.sessions.remove(session)
            raise CredentialWithdrawn
        if self._stream.lost:
            services.guard.sessions.remove(session)
            raise StreamEnded
        relay = Relay(
            session,
            client=self._stream,
            upstream=upstream,
            engine=services.engine,
            buffer=services.buffer,
            reaper=services.reaper,
            limits=services.limits,
            max_message=MAX_MESSAGE if accept.terms.max_message is None else accept.terms.max_message,
            deflate=upgraded.extension is not None,
            socket_limits=accept.terms.limits,
            randomness=services.guard.randomness,
            on_end=self._ended,
        )
        self._stream.transport.write(switching_protocols(handshake, accept, answer, upgraded, admission.handle))
        services.heartbeat.add(relay)
        services.guard.tell_opened(session)
        self._warn_of_missing_subprotocol(handshake, accept, upgraded)
        self.handed_over = True
        relay.begin()

    def _ended(self, relay: Relay, outcome: RelayOutcome) -> None:
        services = self._services
        services.guard.sessions.remove(relay.session)
        services.heartbeat.remove(relay)
        self._place.release()
        services.guard.tell_closed(
            relay.session,
            code=outcome.code,
            by=outcome.by,
            reason=outcome.reason,
            bound=outcome.bound or None,
            bytes_from_client=outcome.bytes_from_client,
            bytes_from_upstream=outcome.bytes_from_upstream,
            messages_from_client=outcome.messages_from_client,
            messages_from_upstream=outcome.messages_from_upstream,
        )

    async def _refuse(self, handshake: Handshake, refuse: Refuse) -> None:
        guard = self._services.guard
        request_id = guard.tell_refusal(handshake, guard.client_of(handshake), refuse)
        if refuse.close_code is not None:
            await self._stream.write(told_by_close(handshake, refuse.close_code, request_id))
            return
        host = handshake.fields.first(b"host")
        answer = refusal(
            refuse.status, request_id, host=host, headers=refuse.headers, head_only=handshake.method == "HEAD"
        )
        await self._stream.write(answer)

    async def _answer_unparsed(self, reason: Reason, detail: str) -> None:
        request_id = self._services.guard.request_id()
        self._services.guard.log.refused(
            reason,
            status=reason.status,
            detail=detail,
            setting="",
            peer=str(self._facts.peer),
            request_id=request_id,
            kind="unparsed",
        )
        await self._stream.write(refusal(reason.status, request_id, host=None))

    def _log_upstream_refusal(self, handshake: Handshake, accept: Accept, answer: ResponseHead) -> None:
        rewritten = accept.terms.upstream_host != "preserve" and accept.terms.upstream_origin == "preserve"
        self._services.guard.log.event(
            "handshake.refused_by_app",
            status=answer.status,
            **where(handshake),
            peer=str(handshake.peer),
            # An app that compares Origin with Host sees two names now.
            hint='upstream_origin = "upstream"' if rewritten and answer.status in _DENIALS else None,
        )

    def _warn_of_missing_subprotocol(self, handshake: Handshake, accept: Accept, upgraded: Upgraded) -> None:
        offered = accept.subprotocols
        if offered.forwarded and upgraded.subprotocol is None and not offered.companion_offered:
            self._services.guard.log.hint(
                "subprotocol.none_selected",
                "the app selected none of the offered subprotocols; Chromium fails such a socket: offer wsguard.v1 too",
                **where(handshake),
            )


def _report(fault: Exception) -> None:
    asyncio.get_running_loop().call_exception_handler(
        {"message": "a fault while serving a request", "exception": fault}
    )
