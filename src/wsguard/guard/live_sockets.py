"""
The live sockets of one process, and all that ends one after its handshake (RULES §8).

Its credential ends or is revoked, its key is gone from the file, the app does not know its cookie any more, its ticket
comes a second time. What another process says of it is heard here, too.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from wsguard.admin.requests import Revoked
from wsguard.engine.authentication import same_login
from wsguard.engine.policy import lacks
from wsguard.engine.revocations import Revocation, Revocations
from wsguard.engine.sessions import SessionRegistry
from wsguard.guard.deadlines import Deadlines
from wsguard.guard.elsewhere import Elsewhere
from wsguard.guard.rechecks import Rechecks
from wsguard.guard.shared_news import SharedNews
from wsguard.vocabulary import close_codes, reasons
from wsguard.vocabulary.decision import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from wsguard.admin.neighbours import Neighbours
    from wsguard.engine.policy import Policy
    from wsguard.engine.ports import Clock, Store, WallClock
    from wsguard.engine.sessions import Session
    from wsguard.guard.rechecks import Watched
    from wsguard.observe.decision_log import DecisionLog
    from wsguard.vocabulary.bounds import Limits
    from wsguard.vocabulary.identity import Identity

# The mark of a ticket that a page has redeemed: there is no socket to close.
NO_SESSION = b"page"
_REPLAYS = 4096
_ENDED = "session ended"
# How many intervals a live socket outlives the last yes about its cookie while the app cannot be asked.
_BORNE = 3


class LiveSockets:
    """
    Knows the sessions of one guard, and closes them.

    *holds* says whether an identity's credential is still one (a key may be gone from its file), *policy_of* which
    policy a route has now, *replay_closes* whether a ticket that comes again closes the socket that it has opened.
    """

    def __init__(
        self,
        *,
        limits: Limits,
        clock: Clock,
        wall_clock: WallClock,
        log: DecisionLog,
        replay_closes: bool,
        holds: Callable[[Identity], bool],
        policy_of: Callable[[str], Policy | None],
    ) -> None:
        self.sessions = SessionRegistry()
        self.revocations = Revocations(most=limits.revocations, age=limits.revocation_age)
        self.deadlines = Deadlines(self.sessions, wall_clock, _expired)
        self.rechecks = Rechecks(self.sessions, clock, self._judge_again, limits.rechecks)
        self.elsewhere: Elsewhere | None = None
        self._limits = limits
        self._clock = clock
        self._wall_clock = wall_clock
        self._log = log
        self._replay_closes = replay_closes
        self._holds = holds
        self._policy_of = policy_of
        self._news: SharedNews | None = None
        self._replays: OrderedDict[str, None] = OrderedDict()

    def share(self, store: Store) -> None:
        """Hear from *store* what other processes revoke, and tell them."""
        self._news = SharedNews(
            store,
            limits=self._limits,
            clock=self._clock,
            wall_clock=self._wall_clock,
            log=self._log,
            on_revocation=self._revoked_elsewhere,
            on_replay=self._close_replayed,
        )

    def join(self, neighbours: Neighbours) -> None:
        """Be one of several workers: what concerns a session of another is asked of the *neighbours*."""
        self.elsewhere = Elsewhere(neighbours)

    def start(self) -> None:
        """Begin to hear of other processes. The timers begin with what they wait for, and go on with it."""
        if self._news is not None:
            self._news.start()
        self.deadlines.start()
        self.rechecks.start()

    def stop(self) -> None:
        """End what runs in the background."""
        if self._news is not None:
            self._news.stop()
        self.deadlines.stop()
        self.rechecks.stop()

    def register(self, session: Session) -> bool:
        """
        Register *session*, then look whether it is revoked, before its 101 goes out: nothing slips between (RULES §8).

        Returns False where it is: then it must not live.
        """
        self.sessions.add(session)
        if session.identity is not None and not self.still_holds(session.identity):
            return False
        if session.public_id in self._replays:
            del self._replays[session.public_id]
            session.close(close_codes.CREDENTIAL, reasons.TICKET_REPLAYED.code)
        self.deadlines.watch(session)
        self.rechecks.watch(session)
        return True

    def still_holds(self, identity: Identity) -> bool:
        """Tell whether *identity*, which was found to be good, counts now: not revoked, nor withdrawn by its file."""
        return self._holds(identity) and not self.revocations.revokes(identity)

    async def revocations_unknown(self) -> Refusal | None:
        """Return why nobody can say now what has been revoked, or None where that is known."""
        if self._news is None:
            return None
        try:
            await self._news.current()
        except Exception as error:  # noqa: BLE001 - fail closed: whatever the store raises refuses (B-STORE-03)
            return Refusal(reasons.STORE_UNAVAILABLE, f"revocations: {type(error).__name__}")
        return None

    def replayed(self, mark: bytes) -> None:
        """Close the socket of a ticket's first redemption: of two who have it, nobody knows who is right."""
        if not self._replay_closes or mark == NO_SESSION:
            return
        public_id = mark.decode("ascii", "replace")
        if self._news is not None and public_id not in self.sessions and public_id not in self._replays:
            self._news.tell_replay(mark)
        self._close_replayed(mark)

    def _close_replayed(self, mark: bytes) -> None:
        public_id = mark.decode("ascii", "replace")
        session = self.sessions.of_id(public_id)
        if session is not None:
            session.close(close_codes.CREDENTIAL, reasons.TICKET_REPLAYED.code)
            return
        # Its handshake may still be under way: then it is closed as soon as it stands.
        self._replays[public_id] = None
        if len(self._replays) > _REPLAYS:
            self._replays.popitem(last=False)

    def withdrawn(self, names: frozenset[str]) -> None:
        """Close the sockets of API keys that are gone from their file, or allow less than before."""
        for session in self.sessions:
            identity = session.identity
            if identity is not None and identity.method == "api_key" and identity.credential_id in names:
                session.close(close_codes.CREDENTIAL, "revoked", cause=reasons.SESSION_REVOKED.code)

    async def revoke(self, members: Mapping[str, Any], *, peer_uid: int | None = None) -> Revoked:
        """
        Revoke what *members* name, as `Guard.revoke` does, for the user *peer_uid* of the admin socket.

        Raises RevocationSyntaxError and StoreError likewise.
        """
        now = self._wall_clock()
        revocation = Revocation.read(members, now)
        try:
            self.revocations.add(revocation, now)
            if self._news is not None:
                await self._news.tell_revocation(revocation)
        finally:
            closed = self._close_revoked(revocation)
            told = dataclasses.asdict(revocation)
            more, workers = (0, 0) if self.elsewhere is None else await self.elsewhere.revoked(revocation)
            closed += more
            self._log.event("session.revoked", **told, closed=closed, peer_uid=peer_uid)
        return Revoked(closed, 1 + workers)

    def _revoked_elsewhere(self, revocation: Revocation) -> None:
        """Heed what another process has revoked, or this one before a restart."""
        closed = self.hear_revocation(revocation)
        if closed:
            self._log.event("session.revoked", **dataclasses.asdict(revocation), closed=closed, heard="store")

    def hear_revocation(self, revocation: Revocation) -> int:
        """Heed what somebody else has revoked; return how many sockets were closed here."""
        self.revocations.add(revocation, self._wall_clock(), heard=True)
        return self._close_revoked(revocation)

    def _close_revoked(self, revocation: Revocation) -> int:
        closed = 0
        for session in self.sessions:
            if session.identity is not None and revocation.matches(session.identity) and session.closing is None:
                session.close(close_codes.CREDENTIAL, "revoked", cause=reasons.SESSION_REVOKED.code)
                closed += 1
        return closed

    async def _judge_again(self, watched: Watched) -> None:
        """Ask again whose cookie it is that opened a live socket; close the socket where it no longer opens one."""
        session = watched.session
        recheck, held = session.recheck, session.identity
        if recheck is None or held is None:
            return
        try:
            answer = await recheck.again(self._wall_clock())
        except Exception as error:  # noqa: BLE001 - nobody could say: below it is told, and borne for a while
            answer = Refusal(reasons.CREDENTIAL_UNAVAILABLE, type(error).__name__)
        if session.recheck is not recheck:
            return  # renewed by another cookie meanwhile: this one has no say any more
        if isinstance(answer, Refusal) and answer.reason.status >= 500:  # noqa: PLR2004 - nobody could say
            self._bear(watched, recheck.interval, answer)
        elif isinstance(answer, Refusal):
            session.close(close_codes.CREDENTIAL, _ENDED, cause=answer.reason.code)
        elif not same_login(answer, held):
            session.close(close_codes.CREDENTIAL, _ENDED, cause=reasons.CREDENTIAL_REFUSED.code)
        else:
            watched.confirmed_at = self._clock()
            self._confirm(session, answer)

    def _bear(self, watched: Watched, interval: float, refusal: Refusal) -> None:
        """Let a socket live on while the app cannot be asked, but not for ever: its user may have logged out."""
        session = watched.session
        if self._clock() - watched.confirmed_at >= _BORNE * interval:
            session.close(close_codes.CREDENTIAL, _ENDED, cause=refusal.reason.code)
            return
        self._log.hint("session.not_rechecked", refusal.detail, reason=refusal.reason.code)

    def _confirm(self, session: Session, identity: Identity) -> None:
        """Go on with what the app says of its user now."""
        policy = self._policy_of(session.route)
        lacking = None if policy is None else lacks(policy, identity)
        if lacking is not None:
            session.close(close_codes.POLICY, close_codes.TEXTS[close_codes.POLICY], cause=lacking.reason.code)
        elif not self.still_holds(identity):
            session.close(close_codes.CREDENTIAL, "revoked", cause=reasons.SESSION_REVOKED.code)
        elif identity != session.identity:
            session.renew(identity)
            self.deadlines.watch(session)


def _expired(session: Session) -> None:
    text = close_codes.TEXTS[close_codes.CREDENTIAL]
    session.close(close_codes.CREDENTIAL, text, cause=reasons.CREDENTIAL_EXPIRED.code)
