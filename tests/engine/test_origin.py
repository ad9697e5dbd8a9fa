"""The Origin check: the rows of BYPASSES, each by its name, and what is proven where it passes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.make import POLICY, accepted, handshake, reason, verdict
from wsguard.engine.policy import Policy
from wsguard.vocabulary.decision import OriginProof, Refuse
from wsguard.vocabulary.errors import ConfigurationError

SAME_ORIGIN = Policy(hosts=["app.test", "127.0.0.1"])


def origin(value: str | None, policy: Policy = POLICY, host: str = "app.test") -> str | None:
    return reason(handshake({"Origin": value, "Host": host}), policy)


def test_null_origin_is_judged() -> None:
    """B-ORIGIN-01: null skips no list, and is let in only by the word that says so, as no proof."""
    assert origin("null") == "origin.null"
    loud = Policy(origins=["https://app.test"], allow_null_origin=True)
    assert accepted(handshake({"Origin": "null"}), loud).origin is OriginProof.UNLISTED


def test_absent_origin_is_not_a_pass() -> None:
    """B-ORIGIN-02: no Origin is refused unless the policy is for clients that are no browsers."""
    assert origin(None) == "origin.missing"
    loud = Policy(origins=["https://app.test"], allow_missing_origin=True)
    assert accepted(handshake({"Origin": None}), loud).origin is OriginProof.ABSENT
    assert origin("https://evil.test", loud) == "origin.not_allowed"


@pytest.mark.parametrize(
    ("listed", "sent"),
    [
        ("https://target.com", "https://target.com.attacker.com"),
        ("https://example.com", "https://notexample.com"),
        ("https://example.com", "https://example.common.net"),
        ("https://foo.com", "https://barfoo.com"),
        ("https://bar.com", "https://barfoo.com"),
    ],
)
def test_origin_is_compared_whole(listed: str, sent: str) -> None:
    """B-ORIGIN-03: neither prefix nor substring nor suffix."""
    assert origin(sent, Policy(origins=[listed], hosts=["app.test"])) == "origin.not_allowed"


@pytest.mark.parametrize(
    ("listed", "sent"),
    [
        ("https://example.com", "https://example.com.malicious.domain"),
        ("https://my.website.com", "https://myawebsite.com"),
    ],
)
def test_allow_list_is_never_a_pattern(listed: str, sent: str) -> None:
    """B-ORIGIN-04: an entry is no regular expression, and one that looks like one stops the start."""
    assert origin(sent, Policy(origins=[listed], hosts=["app.test"])) == "origin.not_allowed"
    for entry in ("*", "https://.*", "^https://app.test$", r"https://app\.test"):
        with pytest.raises(ConfigurationError):
            Policy(origins=[entry], hosts=["app.test"])


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("https://sibling.app.test", "origin.not_allowed"),
        ("https://app.test:8443", "origin.not_allowed"),
        ("http://app.test", "origin.scheme"),
    ],
)
def test_same_site_is_not_same_origin(sent: str, code: str) -> None:
    """B-ORIGIN-05: a sibling, another port and the http twin are other origins; SameSite cookies ride along there."""
    assert origin(sent) == code
    assert origin(sent, SAME_ORIGIN) == code


def test_same_origin_uses_host_header_only() -> None:
    """B-ORIGIN-06: a target that names another host feeds nothing, and is refused."""
    sent = handshake({"Origin": "https://evil.example"}, target=b"//evil.example/ws")
    assert reason(sent, SAME_ORIGIN) == "target.form"


@pytest.mark.parametrize(
    "sent", ["http://127.attacker.example", "http://localhost.attacker.example", "http://127.0.0.1.nip.io"]
)
def test_loopback_is_parsed_not_prefixed(sent: str) -> None:
    """B-ORIGIN-08: with http loopback origins allowed, a name that merely begins like one is still refused."""
    loud = Policy(origins=["http://127.0.0.1:8000"], hosts=["app.test"], allow_http_loopback_origins=True)
    assert origin(sent, loud) == "origin.scheme"
    assert origin("http://127.0.0.1:8000", loud) is None
    assert origin("http://localhost:8000", loud) == "origin.not_allowed"


def test_loopback_peer_is_no_identity() -> None:
    """B-ORIGIN-09: the victim's browser is a loopback peer, too; the peer opens nothing."""
    assert handshake().peer.address == "127.0.0.1"
    assert origin("https://evil.test") == "origin.not_allowed"


@pytest.mark.parametrize("origins", [(), []])
def test_default_is_not_everyone(origins: Sequence[str]) -> None:
    """B-ORIGIN-11: an empty list allows nobody, and no list is no policy without served hosts."""
    assert origin("https://app.test", Policy(origins=origins, hosts=["app.test"])) == "origin.not_allowed"
    with pytest.raises(ConfigurationError, match="hosts"):
        Policy()
    with pytest.raises(ConfigurationError, match=r"\*"):
        Policy(origins=["*"], hosts=["app.test"])
    with pytest.raises(ConfigurationError, match="a list"):
        Policy(origins="https://app.test", hosts=["app.test"])


@pytest.mark.parametrize(
    "sent",
    [
        "https://a.test https://b.test",
        "https://app.test.",
        "https://u@app.test",
        "https://app.test/",
        "HTTPS://app.test",
    ],
)
def test_origin_grammar(sent: str) -> None:
    """B-ORIGIN-12: one origin, as a browser serialises it; two fields are malformed in either order."""
    assert origin(sent) == "origin.malformed"
    for last in (b"https://app.test", b"https://evil.test"):
        assert reason(handshake(extra=((b"Origin", last),))) == "origin.malformed"


def test_http_is_listed_for_loopback_alone() -> None:
    """An http page can be rewritten on its way: listing one is an error at start, on loopback needs the word."""
    for entry in ("http://app.test", "http://127.0.0.1"):
        with pytest.raises(ConfigurationError, match="https://"):
            Policy(origins=[entry], hosts=["app.test"])
    with pytest.raises(ConfigurationError):
        Policy(origins=["http://app.test"], hosts=["app.test"], allow_http_loopback_origins=True)


def test_what_was_proven_goes_on() -> None:
    """Carriage will judge ambient credentials by this."""
    assert accepted(handshake()).origin is OriginProof.LISTED
    assert accepted(handshake(), SAME_ORIGIN).origin is OriginProof.SAME_ORIGIN
    with_port = handshake({"Host": "app.test:8443", "Origin": "https://app.test:8443"})
    assert accepted(with_port, SAME_ORIGIN).origin is OriginProof.SAME_ORIGIN
    assert origin("https://app.test", SAME_ORIGIN, host="app.test:8443") == "origin.not_allowed"
    assert origin("https://app.test", SAME_ORIGIN, host="app.test:443") is None


def test_app_schemes_can_be_listed() -> None:
    """Tauri, Capacitor and extensions have origins of their own."""
    policy = Policy(
        origins=["tauri://localhost", "chrome-extension://abcdefghijklmnopabcdefghijklmnop"], hosts=["app.test"]
    )
    assert origin("tauri://localhost", policy) is None
    assert origin("chrome-extension://abcdefghijklmnopabcdefghijklmnop", policy) is None
    assert origin("tauri://other", policy) == "origin.not_allowed"


def test_a_pattern_allows_what_is_below() -> None:
    """Never the apex."""
    policy = Policy(origins=["https://*.app.test"], hosts=["app.test"])
    assert origin("https://a.app.test", policy) is None
    assert origin("https://app.test", policy) == "origin.not_allowed"


def test_the_refusal_names_the_setting() -> None:
    """An operator reads in the log what to write."""
    decision = verdict(handshake({"Origin": "https://other.test"}))
    assert isinstance(decision, Refuse)
    assert decision.setting == 'origins += ["https://other.test"]'
    decision = verdict(handshake({"Origin": "https://other.test"}), SAME_ORIGIN)
    assert isinstance(decision, Refuse)
    assert decision.setting == 'origins = ["https://app.test", "https://other.test"]'


HOSTS = st.from_regex(r"[a-z]{1,6}(\.[a-z]{1,6}){0,3}", fullmatch=True)


@given(st.lists(HOSTS, max_size=4), HOSTS)
def test_only_what_is_listed_is_let_in(listed: list[str], sent: str) -> None:
    """Property: for any list and any origin, being let in and being listed are the same."""
    policy = Policy(origins=[f"https://{host}" for host in listed], hosts=["app.test"])
    assert (origin(f"https://{sent}", policy) is None) is (sent in listed)


@given(st.binary(max_size=60).map(lambda value: value.decode("latin-1")))
def test_no_bytes_but_the_listed_ones_get_in(value: str) -> None:
    """Property: of all byte strings only the one serialisation (with or without default port) is let in."""
    let_in = origin(value) is None
    assert let_in is (value in {"https://app.test", "https://app.test:443"})
