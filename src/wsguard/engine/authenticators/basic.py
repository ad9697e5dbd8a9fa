"""
HTTP Basic (RFC 7617), verified by the app: there is no password file of ours.

Browsers keep a password and attach it by themselves: it is ambient, and read only where ``auth`` names it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import Refusal

if TYPE_CHECKING:
    from wsguard.engine.authenticators.ask import AppQuestions
    from wsguard.engine.policy import Context
    from wsguard.engine.ports import Carriage
    from wsguard.vocabulary.handshake import Handshake
    from wsguard.vocabulary.identity import Identity

_BASIC = re.compile(rb"basic(?: +(?P<token>.*))?", re.DOTALL | re.IGNORECASE)
_TOKEN68 = re.compile(rb"[A-Za-z0-9+/]+=*")


class BasicAuthenticator:
    """Finds ``Authorization: Basic …``, and asks the app whether it is somebody's."""

    name: str = "basic"
    carriage: Carriage = "ambient"
    field_name: bytes = b"authorization"

    def __init__(self, questions: AppQuestions) -> None:
        self._questions = questions

    async def authenticate(self, handshake: Handshake, context: Context) -> Identity | Refusal | None:
        """Say who it is; None where there is no such credential, as with another scheme."""
        values = [match for value in handshake.fields.values(self.field_name) if (match := _BASIC.fullmatch(value))]
        if not values:
            return None
        if len(values) > 1:
            return Refusal(reasons.CREDENTIAL_REPEATED, self.name)
        token = values[0]["token"] or b""
        if not _TOKEN68.fullmatch(token):
            return Refusal(reasons.CREDENTIAL_INVALID, self.name)
        credential = [(b"Authorization", b"Basic " + token)]
        return await self._questions.judged(handshake, context, self.name, credential)
