"""What app and upstream see: the client's claims never, ours always, and Origin as it was judged."""

from __future__ import annotations

import pytest

from tests.engine.make import POLICY, accepted, handshake, page
from wsguard.engine import forwarding
from wsguard.engine.forwarding import (
    UpstreamName,
    forwarded_fields,
    identity_fields,
    is_managed,
    overlong_identity_field,
    returned_fields,
)
from wsguard.engine.policy import Policy
from wsguard.vocabulary.handshake import Handshake
from wsguard.vocabulary.identity import Identity

UPSTREAM = UpstreamName("http", "127.0.0.1:8888")


def sent(subject: Handshake, policy: Policy = POLICY) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    for name, value in forwarded_fields(subject, accepted(subject, policy), UPSTREAM):
        fields.setdefault(name.decode().lower(), []).append(value.decode("latin-1"))
    return fields


@pytest.mark.parametrize(
    "name",
    [
        "X-Forwarded-Proto",
        "X_Forwarded_Proto",
        "X.Forwarded.Proto",
        "x-FORWARDED_for",
        "X_Real_IP",
        "True_Client_IP",
        "X.Client-IP",
        "X_WSGuard_Subject",
        "FORWARDED",
        "X-Forwarded",
    ],
)
def test_aliases_are_the_header(name: str) -> None:
    """B-PROXY-03: CGI and WSGI fold `-`, `_` and `.`: a name that folds to a managed one is dropped."""
    assert is_managed(name.encode())
    for subject in (handshake({name: "evil"}), page({name: "evil"})):
        fields = sent(subject)
        assert "evil" not in [value for values in fields.values() for value in values]
        assert name.lower() not in fields or len(fields[name.lower()]) == 1


@pytest.mark.parametrize(
    "name", ["X-Forwarded-Prefix", "X-Forwarded-Port", "X-Forwarded-Server", "X-Forwarded-Ssl", "X-Forwarded-Anything"]
)
def test_whole_forwarded_family_is_rebuilt(name: str) -> None:
    """B-PROXY-04: every X-Forwarded-* is dropped, not only those that we set."""
    assert name.lower() not in sent(handshake({name: "evil"}))
    fields = sent(handshake())
    assert fields["x-forwarded-for"] == ["127.0.0.1"]
    assert fields["x-forwarded-proto"] == ["https"]
    assert fields["x-forwarded-host"] == ["app.test"]
    assert fields["x-real-ip"] == ["127.0.0.1"]
    assert fields["forwarded"] == ['for=127.0.0.1;host="app.test";proto=https']


@pytest.mark.parametrize(
    "option", ["X-Forwarded-Host", "x-forwarded-host", "X-Forwarded-For", "Origin", "Host", "Cookie", "Sec-Fetch-Site"]
)
def test_connection_cannot_name_our_headers(option: str) -> None:
    """B-PROXY-05: what a page's Connection names can strip neither ours nor what we judged."""
    subject = page(
        {"Connection": f"close, {option}", "Origin": "https://evil.test", "Cookie": "a=b", "Sec-Fetch-Site": "none"}
    )
    assert option.lower() in sent(subject)
    assert "connection" not in sent(subject)


def test_connection_options_are_hop_by_hop() -> None:
    """RFC 9110 §7.6.1: what Connection names otherwise goes no further."""
    fields = sent(
        page({"Connection": "X-Hop", "X-Hop": "1", "Keep-Alive": "1", "TE": "trailers", "Proxy-Authorization": "x"})
    )
    assert not {"x-hop", "keep-alive", "te", "proxy-authorization"} & fields.keys()


def test_identity_header_deleted_on_upgrade() -> None:
    """B-PROXY-06: the same names are deleted from pages and from upgrades, by one function."""
    for subject in (handshake({"X-WSGuard-Subject": "admin"}), page({"X-WSGuard-Subject": "admin"})):
        assert "x-wsguard-subject" not in sent(subject)


def test_origin_reaches_the_upstream() -> None:
    """B-PROXY-07: the app's own check sees what we saw."""
    assert sent(handshake())["origin"] == ["https://app.test"]
    assert sent(handshake())["host"] == ["app.test"]


def test_upstream_sees_no_local_user() -> None:
    """B-PROXY-08: an app that trusts loopback peers can tell that this one came through a proxy."""
    assert sent(page())["x-forwarded-for"] == ["127.0.0.1"]


def test_host_and_origin_are_rewritten_only_if_written() -> None:
    """For apps that compare them with their own address; after our verdict."""
    own = Policy(origins=["https://app.test"], upstream_host="upstream", upstream_origin="upstream")
    assert sent(handshake(), own)["host"] == ["127.0.0.1:8888"]
    assert sent(handshake(), own)["origin"] == ["http://127.0.0.1:8888"]
    assert sent(handshake(), own)["x-forwarded-host"] == ["app.test"]
    named = Policy(origins=["https://app.test"], upstream_host="internal", upstream_origin="https://internal")
    assert sent(handshake(), named)["host"] == ["internal"]
    assert sent(handshake(), named)["origin"] == ["https://internal"]


def test_secrets_and_extensions_are_taken_out() -> None:
    """What was parted from the offer reaches no upstream; deflate only where it is passed through."""
    offer = {
        "Sec-WebSocket-Protocol": "chat, wsguard.v1, wsguard.ticket.A",
        "Sec-WebSocket-Extensions": "x-other, permessage-deflate; client_max_window_bits",
    }
    assert sent(handshake(dict(offer)))["sec-websocket-protocol"] == ["chat"]
    assert "sec-websocket-extensions" not in sent(handshake(dict(offer)))
    passing = Policy(origins=["https://app.test"], compression=True)
    assert sent(handshake(dict(offer)), passing)["sec-websocket-extensions"] == [
        "permessage-deflate; client_max_window_bits"
    ]
    assert "sec-websocket-protocol" not in sent(handshake({"Sec-WebSocket-Protocol": "wsguard.v1"}))


def test_ipv6_peers_are_quoted_in_forwarded() -> None:
    """RFC 7239 §6."""
    subject = handshake()
    other = Handshake(
        "handshake", "GET", subject.target, subject.fields, "1.1", type(subject.peer)("::1", 1), secure=True
    )
    fields = dict(forwarded_fields(other, accepted(other), UPSTREAM))
    assert fields[b"Forwarded"] == b'for="[::1]";host="app.test";proto=https'
    assert fields[b"X-Forwarded-For"] == b"::1"


def test_what_comes_back_is_cleaned() -> None:
    """Hop-by-hop fields and identity fields of the upstream end here."""
    fields = [
        (b"Connection", b"x-hop"),
        (b"X-Hop", b"1"),
        (b"X_WSGuard_Subject", b"a"),
        (b"Content-Length", b"1"),
        (b"X-Good", b"1"),
    ]
    assert returned_fields(fields, [b"x-hop"]) == [(b"X-Good", b"1")]


def test_a_long_name_is_judged_and_not_remembered() -> None:
    """What is kept of names that clients send is bounded in bytes too."""
    before = forwarding._is_managed.cache_info()
    for number in range(3):
        assert forwarding.is_managed(b"X_Forwarded." + b"a" * 60 + b"%d" % number)
        assert not forwarding.is_managed(b"X-Other-" + b"a" * 60 + b"%d" % number)
    assert forwarding._is_managed.cache_info() == before


@pytest.mark.parametrize(
    ("identity", "overlong"),
    [
        (Identity("a" * 1024, "i", "m"), None),
        (Identity("a" * 1025, "i", "m"), "X-WSGuard-Subject"),
        (Identity("%" * 341, "i", "m"), None),
        (Identity("%" * 342, "i", "m"), "X-WSGuard-Subject"),
        (Identity("😀" * 85, "i", "m"), None),
        (Identity("😀" * 86, "i", "m"), "X-WSGuard-Subject"),
        (Identity("\ud800" * 114, "i", "m"), "X-WSGuard-Subject"),
        (Identity("s", "é" * 171, "m"), "X-WSGuard-Issuer"),
        (Identity("s", "i", "m", scopes=frozenset(f"scope{n:05d}" for n in range(93))), None),
        (Identity("s", "i", "m", scopes=frozenset(f"scope{n:05d}" for n in range(94))), "X-WSGuard-Scopes"),
        (Identity("s", "i", "m", groups=frozenset(["g" * 1025])), "X-WSGuard-Groups"),
    ],
)
def test_an_identity_field_has_at_most_a_kibibyte(identity: Identity, overlong: str | None) -> None:
    """As it is written: percent-encoded, with a space between names. Whoever looks first looks at the same."""
    written = {name.decode(): len(value) for name, value in identity_fields(identity)}
    assert overlong_identity_field(identity) == overlong
    assert [name for name, size in written.items() if size > 1024] == ([] if overlong is None else [overlong])
