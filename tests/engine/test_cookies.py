"""Cookies are read as exact bytes, and never guessed between two."""

from __future__ import annotations

import pytest

from tests.engine.make import handshake
from wsguard import ConfigurationError, Refusal, only_cookie
from wsguard.engine.cookies import CookieNames, RepeatedCookie
from wsguard.vocabulary.fields import Fields


def found(cookie: str | bytes, *names: str) -> list[tuple[bytes, bytes]]:
    raw = cookie if isinstance(cookie, bytes) else cookie.encode("utf-8")
    return CookieNames.read("ask.cookies", names).found(Fields([(b"Cookie", raw)]))


@pytest.mark.parametrize(
    "forged",
    [
        "=__Host-s=x",
        "  __Host-s=x",
        "\t__Host-s=x",
        "\x0b__Host-s=x",
        "__%48ost-s=x",
        "_[Host-s=x",
        "__host-s=x",
        "__Host-s =x",
        "__Host-s",
        '"__Host-s"=x',
        "__Host-s\x00=x",
        "a=1,__Host-s=x",
    ],
)
def test_forged_cookie_prefix(forged: str) -> None:
    """B-CARRY-01: what a lenient reader takes for ``__Host-s`` any subdomain can set; here it is another cookie."""
    assert found(f"a=1;{forged}", "__Host-s") == []
    assert found(f"{forged}; __Host-s=real", "__Host-s") == [(b"__Host-s", b"real")]


def test_a_no_break_space_before_the_name_is_part_of_it() -> None:
    """U+2000 and its like are stripped by text functions; a cookie's name is bytes."""
    for blank in ("\u2000", "\u00a0", "\u3000", "\ufeff"):
        assert found(f"{blank}__Host-s=x", "__Host-s") == []


@pytest.mark.parametrize("sent", ["s=1; s=2", "s=1; s=1", "s=1; t=0; s=", "s=; s=1"])
def test_two_cookies_one_name(sent: str) -> None:
    """B-CARRY-02: a sibling's twin with a longer path comes first; nobody can say which the app has set."""
    with pytest.raises(RepeatedCookie):
        found(sent, "s")
    two_fields = Fields(
        [(b"Cookie", sent.split("; ", maxsplit=1)[0].encode()), (b"Cookie", sent.rsplit("; ", maxsplit=1)[-1].encode())]
    )
    with pytest.raises(RepeatedCookie):
        CookieNames.read("ask.cookies", ["s*"]).found(two_fields)


def test_values_go_on_as_they_came() -> None:
    """Quotes, equal signs and bytes beyond ASCII are the app's to read."""
    assert found(b't="a=b\xff"; s=x==; u=', "s", "t", "u") == [(b"t", b'"a=b\xff"'), (b"s", b"x=="), (b"u", b"")]


def test_a_star_is_the_rest_of_a_name() -> None:
    """Jupyter names its cookie by host and port."""
    sent = "username-localhost-8888=a; username-=b; username=c; user=d; xusername-1=e"
    assert found(sent, "username-*") == [(b"username-localhost-8888", b"a"), (b"username-", b"b")]
    assert found(sent, "user") == [(b"user", b"d")]


@pytest.mark.parametrize("name", ["", "a b", "a;b", "a=b", "*a", "a*b", "a**", "ä"])
def test_a_name_that_no_cookie_has_stops_the_start(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"ask\.cookies"):
        CookieNames.read("ask.cookies", [name])


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        ("session=mine", "mine"),
        ("other=1; session=mine", "mine"),
        ("session=", ""),
        ("other=1", None),
        (None, None),
        ("session=planted; session=mine", "credential.repeated"),
        ("sessions=planted; session=mine", "mine"),
        ("%73ession=planted; session=mine", "mine"),
    ],
)
def test_an_authenticator_of_an_apps_own_gets_the_only_cookie(sent: str | None, found: str | None) -> None:
    """B-CARRY-02 holds for it too: of two nobody can say which one the app has set."""
    got = only_cookie(handshake({"Cookie": sent}), "session")
    assert (got.reason.code if isinstance(got, Refusal) else got) == found
