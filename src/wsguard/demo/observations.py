"""
What was seen: of each case what the browser sent and what became of it, and the gateway's decision log.

Everything here is bounded, because strangers' pages can make it grow. Whoever waits for something waits on `changed`:
no event is queued for a slow reader, it finds the newest state whenever it looks.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from wsguard.demo.places import CASES, App, Caller, Case, Places

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MESSAGES_KEPT = 12
LOG_LINES_KEPT = 80
TEXT_KEPT = 300

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Message:
    """One chat message."""

    sender: str
    text: str


@dataclass(frozen=True)
class Sent:
    """What this browser sent on a handshake: names of cookies only, never their values."""

    origin: str
    cookies: tuple[str, ...]
    fetch_metadata: Mapping[str, str]


@dataclass(frozen=True)
class Refusal:
    """One line of the decision log that says no."""

    status: int
    reason: str
    hint: str


@dataclass
class Observation:
    """What was seen of one case since its page was last opened."""

    attempts: int = 0
    sent: Sent | None = None
    admitted: bool = False
    received: deque[Message] = field(default_factory=lambda: deque[Message](maxlen=MESSAGES_KEPT))
    refusal: Refusal | None = None
    turned_away: bool = False
    token_withheld: bool = False
    revoked: bool = False
    ended: bool = False

    def outcome(self, caller: Caller) -> str:
        """Say in one word what became of it."""
        if self.attempts == 0 and not self.refusal:
            return "idle"
        if self.received:
            return "hijacked"
        if self.revoked:
            return "revoked"
        if self.refusal:
            return "refused"
        if self.admitted and caller is Caller.OWN:
            return "connected"
        if self.turned_away:
            return "turned-away"
        return "failed" if self.ended else "trying"


class Observations:
    """The observation of every case, and the newest lines of the decision log."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self.cases = {case: Observation() for case in CASES}
        self.log: deque[Mapping[str, object]] = deque(maxlen=LOG_LINES_KEPT)
        self._log_lines = 0
        self.changed = asyncio.Event()

    async def until(self, question: Callable[[], Answer | None]) -> Answer:
        """Return the first answer of *question* that is neither None nor False."""
        while True:
            changed = self.changed
            answer = question()
            if answer:
                return answer
            await changed.wait()

    def begin(self, case: Case) -> None:
        """A page of *case* was opened: forget what was seen of it before."""
        self.cases[case] = Observation(attempts=self.cases[case].attempts + 1)
        self._tell()

    def handshake(self, case: Case, sent: Sent) -> None:
        """This browser sent *sent* on the handshake of *case*."""
        self.cases[case].sent = sent
        self._tell()

    def admitted(self, case: Case) -> None:
        """The app took the socket for its user's."""
        self.cases[case].admitted = True
        self._tell()

    def turned_away(self, case: Case) -> None:
        """The app itself refused the handshake: no session came with it."""
        self.cases[case].turned_away = True
        self._tell()

    def stolen(self, case: Case, message: Message) -> None:
        """The attacker's server received *message* out of the victim's session."""
        self.cases[case].received.append(message)
        self._tell()

    def token_withheld(self, case: Case) -> None:
        """The page asked for its victim's token, and the browser did not let it read the answer."""
        self.cases[case].token_withheld = True
        self._tell()

    def ended(self, case: Case) -> None:
        """The socket of *case* is closed, or never opened."""
        self.cases[case].ended = True
        self._tell()

    def log_line(self, line: Mapping[str, object]) -> None:
        """The gateway decided something."""
        self._log_lines += 1
        self.log.append({"number": self._log_lines, **line})
        app = self._places.app_at(str(line.get("host")))
        if app is not None and line.get("event") == "handshake.refused" and line.get("kind") == "handshake":
            self._refused(app, line)
        if app is not None and line.get("event") == "session.closed" and line.get("reason") == "session.revoked":
            self.cases[Case(Caller.OWN, app)].revoked = True
        self._tell()

    def _refused(self, app: App, line: Mapping[str, object]) -> None:
        case = self._places.case_from(str(line.get("origin")), app)
        if case is not None:
            status = line.get("status")
            self.cases[case].refusal = Refusal(
                status=status if isinstance(status, int) else 0,
                reason=str(line.get("reason", ""))[:TEXT_KEPT],
                hint=str(line.get("hint", ""))[:TEXT_KEPT],
            )

    def _tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()
