"""Origins as values: strict when received, forgiving and exact when written by an operator."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from wsguard.vocabulary.origin import Origin, OriginPattern, OriginSyntaxError, parse_origin_entry

RECEIVED = [
    (b"https://app.test", Origin("https", "app.test")),
    (b"https://app.test:443", Origin("https", "app.test")),
    (b"https://app.test:8443", Origin("https", "app.test", 8443)),
    (b"http://app.test:80", Origin("http", "app.test")),
    (b"https://127.0.0.1:8443", Origin("https", "127.0.0.1", 8443)),
    (b"https://[::1]", Origin("https", "[::1]")),
    (b"https://xn--bcher-kva.example", Origin("https", "xn--bcher-kva.example")),
    (b"tauri://localhost", Origin("tauri", "localhost")),
    (
        b"moz-extension://0f1e2d3c-aaaa-bbbb-cccc-0123456789ab",
        Origin("moz-extension", "0f1e2d3c-aaaa-bbbb-cccc-0123456789ab"),
    ),
]

NOT_SERIALISED = [
    b"",
    b"null",
    b"https://",
    b"https:app.test",
    b"//app.test",
    b"app.test",
    b"HTTPS://app.test",
    b"https://App.test",
    b"https://app.test.",
    b"https://app.test/",
    b"https://app.test/x",
    b"https://app.test?x",
    b"https://app.test#x",
    b"https://u@app.test",
    b"https://u:p@app.test",
    b"https://app.test https://b.test",
    b"https://app.test,https://b.test",
    b" https://app.test",
    b"https://app.test ",
    b"https://b\xc3\xbccher.example",
    b"https://0x7f.1",
    b"https://127.1",
    b"https://[0:0:0:0:0:0:0:1]",
    b"https://[::1",
    b"https://app.test:",
    b"https://app.test:99999",
    b"ht tp://app.test",
    b"https://app.test\x00",
]

ENTRIES = [
    ("https://app.test", "https://app.test"),
    ("HTTPS://App.Test:443", "https://app.test"),
    ("https://bücher.example", "https://xn--bcher-kva.example"),
    ("https://app。example", "https://app.example"),
    ("https://app.test.", "https://app.test"),
    ("tauri://localhost", "tauri://localhost"),
    ("capacitor://localhost", "capacitor://localhost"),
    ("chrome-extension://abcdefghijklmnopabcdefghijklmnop", "chrome-extension://abcdefghijklmnopabcdefghijklmnop"),
    ("https://*.app.test", "https://*.app.test"),
    ("https://{label}.app.test:8443", "https://{label}.app.test:8443"),
]

NO_ENTRY = [
    ("*", "every page"),
    ("null", "allow_null_origin"),
    ("https://*", "pattern"),
    ("https://*.com", "strangers"),
    ("https://a*.app.test", "pattern"),
    ("https://app.*.test", "pattern"),
    ("https://*.*.test", "first label"),
    ("*://app.test", "scheme"),
    ("https://app\\.test", "no regular expressions"),
    ("^https://app.test", "no regular expressions"),
    ("https://app.test$", "no regular expressions"),
    ("https://app.test/", "without the slash"),
    ("https://app.test/path", "an origin without the path: https://app.test"),
    ("app.test", "scheme and host"),
    ("wss://app.test", "the origin of the page, not of the socket: https://app.test"),
    ("https://*.127.0.0.1", "nothing below"),
]


@pytest.mark.parametrize(("value", "origin"), RECEIVED)
def test_a_serialised_origin_is_read(value: bytes, origin: Origin) -> None:
    """What browsers send is understood; an explicit default port is read as none."""
    assert Origin.parse(value) == origin


@pytest.mark.parametrize("value", NOT_SERIALISED)
def test_what_no_browser_serialises_is_refused(value: bytes) -> None:
    """B-ORIGIN-12: another spelling is never normalised into an allowed origin."""
    with pytest.raises(OriginSyntaxError):
        Origin.parse(value)


@pytest.mark.parametrize(("written", "read"), ENTRIES)
def test_an_entry_is_normalised(written: str, read: str) -> None:
    """An operator may write an origin as people do."""
    assert str(parse_origin_entry(written)) == read


@pytest.mark.parametrize(("written", "way_out"), NO_ENTRY)
def test_an_entry_that_would_let_strangers_in_is_refused(written: str, way_out: str) -> None:
    """B-ORIGIN-04: entries are no patterns but the two, and the error says what to write instead."""
    with pytest.raises(OriginSyntaxError, match=way_out.replace("*", r"\*")):
        parse_origin_entry(written)


BELOW = OriginPattern("https", "app.test", None, one_label=False)
ONE_BELOW = OriginPattern("https", "app.test", None, one_label=True)


@pytest.mark.parametrize(
    ("host", "any_depth", "one_deep"),
    [
        ("a.app.test", True, True),
        ("a.b.app.test", True, False),
        ("app.test", False, False),
        ("notapp.test", False, False),
        (".app.test", False, False),
        ("app.test.evil.test", False, False),
    ],
)
def test_a_pattern_matches_whole_labels_below_only(host: str, any_depth: bool, one_deep: bool) -> None:
    """Never the apex, never a suffix of letters."""
    assert BELOW.matches(Origin("https", host)) is any_depth
    assert ONE_BELOW.matches(Origin("https", host)) is one_deep


def test_a_pattern_compares_scheme_and_port() -> None:
    """A pattern allows one scheme and one port."""
    assert not BELOW.matches(Origin("http", "a.app.test"))
    assert not BELOW.matches(Origin("https", "a.app.test", 8443))


LABELS = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
HOSTS = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
PORTS = st.one_of(st.none(), st.integers(1, 65535))


@given(st.sampled_from(["https", "http", "tauri"]), HOSTS, PORTS)
def test_serialising_and_parsing_are_inverse(scheme: str, host: str, port: int | None) -> None:
    """An Origin survives the wire."""
    try:
        origin = Origin.parse(str(Origin(scheme, host, port)).encode())
    except OriginSyntaxError:
        assume(False)
        raise
    assert Origin.parse(str(origin).encode()) == origin


@given(st.binary(max_size=60))
def test_any_bytes_are_an_origin_or_the_documented_error(value: bytes) -> None:
    """Fuzz: nothing a stranger sends raises another exception, and what is read serialises to the same bytes."""
    try:
        origin = Origin.parse(value)
    except OriginSyntaxError:
        return
    default = {"https": b":443", "http": b":80", "ftp": b":21"}.get(origin.scheme, b"")
    assert str(origin).encode() in (value, value.removesuffix(default))


@given(HOSTS, HOSTS)
def test_two_origins_are_equal_only_if_their_text_is(left: str, right: str) -> None:
    """Comparison is of whole values: no prefix, suffix or substring ever matches (B-ORIGIN-03)."""
    assert (Origin("https", left) == Origin("https", right)) is (left == right)
