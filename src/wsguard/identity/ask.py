"""The app that is asked whose credential it is: one call at a time for one question, and a short memory of answers."""

from __future__ import annotations

import hashlib
import ipaddress
from collections import OrderedDict
from typing import TYPE_CHECKING

from wsguard.engine.authenticators.ask import AppAnswer
from wsguard.engine.forwarding import UpstreamName
from wsguard.identity.outbound import Destination, is_public
from wsguard.identity.shared_calls import CallEnded, SharedCalls, TooManyCalls
from wsguard.vocabulary.errors import ConfigurationError, OutboundFailed, OutboundRefused

if TYPE_CHECKING:
    from wsguard.engine.authenticators.ask import Ask, Question
    from wsguard.engine.forwarding import RawFields
    from wsguard.engine.ports import Clock
    from wsguard.identity.outbound import Outbound
    from wsguard.vocabulary.bounds import Limits

_SERVER_ERROR = 500


class AskedApp:
    """
    Asks at the URL of *options*.

    Answers are remembered for ``options.cache`` seconds, at most ``limits.app_answers`` of them; those that are none
    (5xx, no answer) are not. Who ask the same at one time share one call; ``limits.app_pending`` bounds how many
    different ones run at once.

    Raises ConfigurationError for a URL that cannot be called.
    """

    def __init__(self, options: Ask, *, outbound: Outbound, limits: Limits, clock: Clock) -> None:
        try:
            self._destination = Destination.parse_app(options.url)
        except OutboundRefused as error:
            expected = "https://…, http://… of a loopback or private address, or unix:PATH:/api/me"
            raise ConfigurationError("ask.url", error.why, expected) from None
        if self._destination.scheme == "http" and _is_public_literal(self._destination.name):
            raise ConfigurationError("ask.url", f"http:// to {self._destination.host}", "https: this address is public")
        self._options = options
        self._outbound = outbound
        self._limits = limits
        self._clock = clock
        self._answers: OrderedDict[bytes, tuple[AppAnswer, float]] = OrderedDict()
        self._calls: SharedCalls[AppAnswer] = SharedCalls(limits.app_pending)

    @property
    def name(self) -> UpstreamName:
        """How the app is called where Host is rewritten to it."""
        return UpstreamName(self._destination.scheme, self._destination.authority)

    async def ask(self, question: Question, *, fresh: bool) -> AppAnswer:
        """
        Put *question*; where it need not be *fresh*, a remembered answer will do.

        Raises OutboundError where nobody answers.
        """
        digest = _digest(question.revealed)
        remembered = None if fresh else self._answers.get(digest)
        if remembered is not None and self._clock() < remembered[1]:
            self._answers.move_to_end(digest)
            return remembered[0]
        try:
            return await self._calls.join(digest, lambda: self._asked(digest, question))
        except TooManyCalls:
            why = f"asked {len(self._calls)} different questions already (limits.app_pending)"
            raise OutboundFailed(self._destination.host, why) from None
        except CallEnded:
            raise OutboundFailed(self._destination.host, "the call was ended from outside") from None

    def stop(self) -> None:
        """End the calls under way."""
        self._calls.stop()

    async def _asked(self, digest: bytes, question: Question) -> AppAnswer:
        answer = await self._outbound.ask(
            self._destination, question.revealed, deadline=self._options.timeout, max_body=self._limits.app_answer
        )
        found = AppAnswer(answer.status, answer.body)
        self._answers.pop(digest, None)
        if self._options.cache and found.status < _SERVER_ERROR:
            self._answers[digest] = found, self._clock() + self._options.cache
            if len(self._answers) > self._limits.app_answers:
                self._answers.popitem(last=False)
        return found


def _is_public_literal(name: str) -> bool:
    try:
        return is_public(ipaddress.ip_address(name))
    except ValueError:
        return False  # a name: its addresses are judged at each call


def _digest(fields: RawFields) -> bytes:
    """Hash all that the app is told: the same cookie from another address, or for another host, is asked anew."""
    digest = hashlib.sha256()
    for name, value in fields:
        digest.update(b"%d:%b%d:%b" % (len(name), name, len(value), value))
    return digest.digest()
