"""Who sent a handshake, by Django's session cookie."""

import hashlib
from http.cookies import CookieError, SimpleCookie
from typing import Literal

from channels.auth import get_user
from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore

from wsguard import Context, Handshake, Identity, Refusal, reasons


class DjangoSession:
    """
    Asks Django whose session it is.

    Browsers attach the cookie by themselves, to a foreign page's handshake too: it is *ambient*, and wsguard demands
    that the origins beside it are written out.
    """

    name = "django_session"
    carriage: Literal["ambient"] = "ambient"

    async def authenticate(self, handshake: Handshake, context: Context) -> Identity | Refusal | None:
        """Look the session up; one that is unknown, expired or nobody's is refused."""
        key = session_key(handshake)
        if key is None:
            return None
        session = SessionStore(key)
        user = await get_user({"session": session})  # with the check that Django makes after a change of password
        if not user.is_authenticated or not user.is_active:
            return Refusal(reasons.CREDENTIAL_INVALID)
        expiry = await session.aget_expiry_date()
        return Identity(
            subject=user.get_username(),
            issuer="django",
            method=self.name,
            credential_id=hashlib.sha256(key.encode()).hexdigest()[:16],  # the key itself stands in no log
            expires_at=expiry.timestamp(),
        )


def session_key(handshake: Handshake) -> str | None:
    """Return the session cookie's value."""
    cookies: SimpleCookie = SimpleCookie()
    try:
        for field in handshake.fields.values(b"cookie"):
            cookies.load(field.decode("latin-1"))
    except CookieError:
        return None
    found = cookies.get(settings.SESSION_COOKIE_NAME)
    return None if found is None else found.value
