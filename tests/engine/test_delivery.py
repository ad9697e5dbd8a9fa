"""Pages stay on HTTPS: HSTS where it belongs, Secure on every cookie."""

from __future__ import annotations

import pytest

from wsguard.engine.delivery import delivered_fields, secured_cookie, takes_hsts

HSTS = (b"Strict-Transport-Security", b"max-age=15552000")


def test_hsts_not_suppressed() -> None:
    """B-DELIVER-01: every answer over TLS has HSTS, whatever a header claims; never one over plain HTTP."""
    assert HSTS in delivered_fields([(b"X-Forwarded-Proto", b"http")], host=b"app.example", secure=True)
    assert HSTS not in delivered_fields([], host=b"app.example", secure=False)


def test_idn_dot_is_a_dot() -> None:
    """B-DELIVER-02: the host is normalised before any rule, so another spelling of it gets the same answer."""
    assert takes_hsts(b"APP.example.:443")
    assert takes_hsts(b"xn--bcher-kva.example")
    assert not takes_hsts(b"LOCALHOST.")


@pytest.mark.parametrize(
    "host", [b"localhost", b"app.localhost:8443", b"test", b"app.test", b"127.0.0.1", b"[::1]:1", b"a/b", None]
)
def test_local_names_get_no_hsts(host: bytes | None) -> None:
    """It would bind every other port of them to TLS."""
    assert delivered_fields([(b"Strict-Transport-Security", b"max-age=63072000")], host=host, secure=True) == []


def test_a_longer_hsts_of_the_app_stays() -> None:
    """Ours is the least; a weaker one of the app's is replaced."""
    longer = (b"Strict-Transport-Security", b"max-age=63072000; includeSubDomains; preload")
    assert delivered_fields([longer], host=b"app.example", secure=True) == [longer]
    assert delivered_fields([(b"strict-transport-security", b"max-age=0")], host=b"app.example", secure=True) == [HSTS]


@pytest.mark.parametrize(
    ("value", "secured"),
    [
        (b"a=b", b"a=b; Secure"),
        (b"a=b; Path=/", b"a=b; Path=/; Secure"),
        (b"a=b; secure", b"a=b; secure"),
        (b"secure=1", b"secure=1; Secure"),
        (b"a=b;Secure;HttpOnly", b"a=b;Secure;HttpOnly"),
    ],
)
def test_cookies_become_secure(value: bytes, secured: bytes) -> None:
    """A cookie of an app that thinks it speaks http must not leave over http."""
    assert secured_cookie(value) == secured
    assert (b"Set-Cookie", secured) in delivered_fields([(b"Set-Cookie", value)], host=b"a", secure=True)
