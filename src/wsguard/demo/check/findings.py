"""What the check found in one browser and case, and whether that is what must be found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsguard.demo.places import App, Caller

if TYPE_CHECKING:
    from wsguard.demo.places import Case

WORKS = "works"
BROKEN = "does not work"
HIJACKED = "hijacked"
REFUSED = "refused"
NOT_STOLEN = "nothing stolen"
NOT_LOGGED = "nothing stolen, but the decision log holds no refusal"
REVOKED = "closed by its revocation"
OUTLIVED = "outlived its revocation"
UNDECIDED = "no answer in time"


def expected(case: Case) -> str:
    """Return what must be found in *case*: the attack works without the guard, and not with it."""
    if case.caller is Caller.OWN:
        return WORKS
    return HIJACKED if case.app is App.OPEN else REFUSED


@dataclass(frozen=True)
class Finding:
    """What was found in *case* in one browser; *must_be*, where it is another thing than to be expected of the case."""

    browser: str
    case: Case
    found: str
    must_be: str | None = None

    @property
    def as_expected(self) -> bool:
        """Say whether it is what must be found."""
        return self.found == (self.must_be or expected(self.case))

    @property
    def complaint(self) -> str:
        """Say in words what is wrong, the browser aside."""
        app = f"{self.case.app}.localhost"
        if self.case.caller is Caller.OWN:
            return f"{app} {self.found} on its own page"
        attacker = f"the {self.case.caller} attacker"
        if self.found == HIJACKED:
            return f"{app} was hijacked by {attacker}"
        if self.case.app is App.OPEN:
            return f"{attacker} stole nothing on {app}, which nothing guards, so the check proves nothing"
        return f"{app} against {attacker}: {self.found}"
