"""The other checks: host, target, transport, syntax, fetch metadata, subprotocols; and pages by the same policy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.engine.make import POLICY, accepted, handshake, page, reason, verdict
from wsguard.engine.checks.target import is_unambiguous
from wsguard.engine.policy import Policy
from wsguard.engine.routes import Route, RouteSyntaxError, RouteTable, decoded_path, is_dot_segment, route_table
from wsguard.vocabulary.decision import Refuse
from wsguard.vocabulary.errors import ConfigurationError

SAME_ORIGIN = Policy(hosts=["app.test", "[::1]", "only.test:8443", "{label}.wild.test"])


# --- host -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("value", ["a/?x=", "", "a;b", "a,b", 'a"b', "u@a", "a b", "a:x", "a:99999", "[::1"])
def test_host_is_grammar_checked(value: str) -> None:
    """B-HOST-01: what is no host[:port] is 400, before anything is built from it."""
    assert reason(handshake({"Host": value})) == "host.malformed"
    assert reason(page({"Host": value})) == "host.malformed"


def test_two_host_headers() -> None:
    """B-HOST-02: whichever of two is right, the request is not."""
    assert reason(handshake(extra=((b"Host", b"app.test"),))) == "syntax.repeated_field"


def test_rebinding_beats_same_origin() -> None:
    """B-HOST-03: a foreign name that resolves here is not served, though Origin equals Host."""
    rebound = {"Host": "attacker.example", "Origin": "https://attacker.example"}
    assert reason(handshake(rebound), SAME_ORIGIN) == "host.not_allowed"
    assert reason(page({"Host": "attacker.example"}), SAME_ORIGIN) == "host.not_allowed"
    with pytest.raises(ConfigurationError, match="hosts"):
        Policy(origins=None)
    with pytest.raises(ConfigurationError, match="hosts"):
        Policy(origins=None, hosts=[])


@pytest.mark.parametrize("value", ["app.test", "APP.test", "app.test.", "App.Test.:443", "app.test:8443"])
def test_fqdn_dot_and_case_are_one_host(value: str) -> None:
    """B-HOST-04: another spelling of a host meets the same policy."""
    assert reason(handshake({"Host": value})) is None


@pytest.mark.parametrize(
    ("value", "served"),
    [
        ("[::1]:1", True),
        ("only.test:8443", True),
        ("only.test", False),
        ("a.wild.test", True),
        ("a.b.wild.test", False),
        ("wild.test", False),
    ],
)
def test_served_names(value: str, served: bool) -> None:
    """A port counts only where the entry names one; a certificate's wildcard is one label."""
    assert (reason(handshake({"Host": value, "Origin": f"https://{value}"}), SAME_ORIGIN) is None) is served


def test_hosts_that_are_none_stop_the_start() -> None:
    """The error names the entry."""
    with pytest.raises(ConfigurationError, match="a/b"):
        Policy(hosts=["a/b"])


# --- target -----------------------------------------------------------------------------------------------------------
ADMIN = Policy(origins=["https://admin.test"], hosts=["app.test"])
TABLE = route_table([("/admin/*", ADMIN), ("/ws/*", POLICY), ("/login", POLICY)])


@pytest.mark.parametrize(
    "target",
    [
        b"http://169.254.169.254/",
        b"//evil.example/ws",
        b"//ws",
        b"@google.com",
        b"*",
        b"",
        b"ws",
        b"/w#s",
        b"/w s",
        b"/\xc3\xa9",
        b"/a\x7f",
    ],
)
def test_target_is_origin_form(target: bytes) -> None:
    """B-HEAD-04: one leading slash, visible ASCII, nothing else."""
    assert reason(handshake(target=target)) == "target.form"
    assert reason(page(target=target)) == "target.form"


@pytest.mark.parametrize(
    "target",
    [
        b"/ws/../admin/x",
        b"/ws/%2e%2e/admin/x",
        b"/ws/.%2E/x",
        b"/ws/%252e%252e/x",
        b"/ws/..;/admin",
        b"/ws/.",
        b"/ws/%2f",
        b"/ws\\x",
        b"/ws/%5Cx",
        b"/ws/%00",
        b"/ws/%0d%0a",
        b"/ws/%7f",
        b"/ws/%",
        b"/ws/%4",
    ],
)
def test_guard_and_upstream_see_one_path(target: bytes) -> None:
    """B-HEAD-05: a path that means another place once decoded is refused in a handshake."""
    assert reason(handshake(target=target), TABLE) == "target.ambiguous"


@pytest.mark.parametrize(
    ("target", "code"),
    [
        (b"/ws/../admin/x", "target.ambiguous"),
        (b"/ws/%2e%2e/admin/x", "target.ambiguous"),
        (b"/ws/%2fx", None),
        (b"/ws/a/../b", None),
        (b"/nowhere", "route.none"),
    ],
)
def test_a_page_may_be_spelled_oddly_but_not_into_another_route(target: bytes, code: str | None) -> None:
    """In a page an odd spelling goes on as it is, unless it would reach another route."""
    assert reason(page(target=target), TABLE) == code


@pytest.mark.parametrize(
    "target", [b"/.wsguard", b"/.wsguard/ticket", b"/%2Ewsguard/x", b"/a/../.wsguard/x", b"/.wsguar%64"]
)
def test_our_own_paths_are_never_the_apps(target: bytes) -> None:
    """Nothing answers under /.wsguard/ yet, in no spelling that decodes to it."""
    assert reason(page(target=target)) == "route.reserved"
    assert reason(handshake(target=target)) == "route.reserved"


def test_the_query_is_not_judged() -> None:
    """Apps may put anything there."""
    assert reason(handshake(target=b"/ws?next=/../%2e%2e\\%00")) is None


@pytest.mark.parametrize(
    ("path", "request_path", "matches"),
    [
        ("/ws/*", b"/ws", True),
        ("/ws/*", b"/ws/", True),
        ("/ws/*", b"/ws/a/b", True),
        ("/ws/*", b"/wsx", False),
        ("/*", b"/", True),
        ("/*", b"/a", True),
        ("/login", b"/login", True),
        ("/login", b"/login/", False),
        ("/", b"/", True),
        ("/", b"/a", False),
    ],
)
def test_routes_match_whole_segments(path: str, request_path: bytes, matches: bool) -> None:
    """RULES §12."""
    assert Route(path, POLICY).matches(request_path) is matches


@pytest.mark.parametrize(
    "path",
    ["ws", "", "/ws*", "/*/x", "/ws?x", "/ws/../x", "/%61", "/w s", "/r/{id}", "/r/<int:id>", "/r/:id", "/:id/*"],
)
def test_a_route_that_could_never_match_is_an_error(path: str) -> None:
    """A route with a typing error must not silently protect nothing."""
    with pytest.raises(RouteSyntaxError):
        Route(path, POLICY)


def test_the_first_route_counts() -> None:
    """Written order, and no match is 404."""
    assert reason(handshake(target=b"/admin/x"), TABLE) == "origin.not_allowed"
    assert reason(handshake(target=b"/other"), TABLE) == "route.none"


@given(st.lists(st.sampled_from([b"a", b"..", b".", b"%2e", b"%2e%2e", b"ws", b"admin", b""]), max_size=6))
def test_decoding_twice_changes_nothing_more(segments: list[bytes]) -> None:
    """Property: a decoded path holds no dot-segment, and decoding it again gives it back."""
    path = b"/" + b"/".join(segments)
    decoded = decoded_path(path)
    assert decoded.startswith(b"/")
    assert not any(is_dot_segment(segment) for segment in decoded.split(b"/"))
    assert decoded_path(decoded) == decoded


@given(st.binary(max_size=40))
def test_no_accepted_handshake_changes_route_when_decoded(tail: bytes) -> None:
    """Property: whatever an upstream decodes once, it ends in the route that was judged."""
    subject = handshake(target=b"/ws/" + tail)
    if reason(subject, TABLE) is None:
        assert TABLE.find(decoded_path(subject.raw_path)) is TABLE.find(subject.raw_path)


# --- transport --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("secure", [False, None])
def test_only_tls_is_served(secure: bool | None) -> None:
    """ws:// is never served, and unknown is not secure."""
    assert reason(handshake(secure=secure)) == "transport.insecure"
    assert reason(page(secure=secure)) == "transport.insecure"


@pytest.mark.parametrize(
    ("server_name", "host", "code"),
    [
        ("app.test", "app.test", None),
        ("APP.test", "app.test.", None),
        (None, "app.test", None),
        ("open.test", "app.test", "transport.sni_mismatch"),
        ("app.test", "app.test:8443", None),
    ],
)
def test_sni_and_host_agree(server_name: str | None, host: str, code: str | None) -> None:
    """B-TLS-01: the name that chose the certificate is the name that is asked for."""
    assert reason(handshake({"Host": host}, server_name=server_name)) == code


# --- syntax -----------------------------------------------------------------------------------------------------------
def test_upgrade_has_no_body() -> None:
    """B-HEAD-01: a body behind a handshake would be read as the next request."""
    assert reason(handshake({"Content-Length": "40"})) == "syntax.body"
    assert reason(handshake({"Transfer-Encoding": "chunked"})) == "syntax.body"
    assert reason(handshake({"Content-Length": "0"})) is None


def test_half_and_pipelined_upgrades() -> None:
    """B-HEAD-03: half an upgrade is a handshake, and refused; it is never served as a page."""
    assert reason(handshake({"Connection": None})) == "syntax.connection"
    assert reason(handshake({"Upgrade": None})) == "syntax.upgrade"


@pytest.mark.parametrize("value", ["a\x0bb", "a\x0cb", "a\x1cb", "a\x1eb", "a\x00b", "a\rb", "a\nb", "a\x7fb"])
def test_odd_bytes_in_values(value: str) -> None:
    """B-HEAD-06: bytes that some reader takes for a line end, and letters that fold to ASCII, are refused."""
    assert reason(handshake({"X-Any": value})) == "syntax.field_value"
    assert reason(handshake({"Sec-WebSocket-Protocol": "chat\x85"})) == "syntax.field_value"
    assert reason(handshake({"Upgrade": "websoc\u212aet".encode().decode("latin-1")})) == "syntax.field_value"


def test_only_websocket_is_upgraded() -> None:
    """B-HEAD-09: h2c is no WebSocket, and never goes on."""
    assert reason(handshake({"Upgrade": "h2c"})) == "syntax.upgrade"
    assert reason(handshake({"Upgrade": "websocket, h2c"})) == "syntax.upgrade"


def test_a_field_name_is_a_token() -> None:
    """Servers behind which the guard stands let others through."""
    assert reason(handshake(extra=((b"X Y", b"z"),))) == "syntax.field_name"
    assert reason(handshake(extra=((b"", b"z"),))) == "syntax.field_name"


def test_a_head_over_its_bounds_is_refused_in_every_mount() -> None:
    """Also where the server in front has larger ones."""
    assert reason(handshake(extra=((b"X", b"y"),) * 100)) == "syntax.too_many_fields"
    assert reason(handshake({"X": "y" * 16384})) == "syntax.head_too_large"


def test_http_2_has_no_key_upgrade_or_connection() -> None:
    """RFC 8441 §5: what HTTP/2 does not have is not asked for; the rest is."""
    lean = {"Upgrade": None, "Connection": None, "Sec-WebSocket-Key": None}
    assert reason(handshake(lean, method="CONNECT", version="2")) is None
    assert reason(handshake(lean, method="GET", version="2")) == "syntax.method"
    assert (
        reason(handshake({**lean, "Origin": "https://evil.test"}, method="CONNECT", version="2"))
        == "origin.not_allowed"
    )


def test_a_wrong_version_is_told_the_right_one() -> None:
    """426 carries Sec-WebSocket-Version: 13 (RFC 6455 §4.4)."""
    decision = verdict(handshake({"Sec-WebSocket-Version": "8"}))
    assert isinstance(decision, Refuse)
    assert (decision.status, decision.headers) == (426, (("Sec-WebSocket-Version", "13"),))


@pytest.mark.parametrize(
    ("value", "good"),
    [
        ("permessage-deflate", True),
        ("permessage-deflate; client_max_window_bits", True),
        ('a; b="c", d; e=f', True),
        ("", False),
        ("a,,b", False),
        ("a; b=", False),
        ("a; =b", False),
        ('a; b="c', False),
        ("a; b=" + '"\\c' * 4000, False),
    ],
)
def test_extensions_have_a_grammar(value: str, good: bool) -> None:
    """B-HEAD-07: quoted and unclosed, it is refused in linear time."""
    assert (reason(handshake({"Sec-WebSocket-Extensions": value})) is None) is good


# --- fetch metadata ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "websocket", "Sec-Fetch-Dest": "empty"}, None),
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "websocket", "Sec-Fetch-Dest": "websocket"}, None),
        ({"Sec-Fetch-Site": "same-site", "Origin": "https://listed.test"}, None),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://listed.test"}, None),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://listed.test"}, None),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://a.below.test"}, "fetch.site"),
        ({"Sec-Fetch-Site": "cross-site"}, "fetch.site"),
        ({"Sec-Fetch-Site": "none"}, "fetch.site"),
        ({"Sec-Fetch-Site": "Same-Origin"}, "fetch.malformed"),
        ({"Sec-Fetch-Mode": "cors"}, "fetch.mode"),
        ({"Sec-Fetch-Dest": "iframe"}, "fetch.dest"),
    ],
)
def test_fetch_metadata_must_fit_if_present(fields: dict[str, str], code: str | None) -> None:
    """It can only contradict: it never lets a foreign origin in."""
    policy = Policy(origins=["https://app.test", "https://listed.test", "https://*.below.test"], hosts=["app.test"])
    assert reason(handshake(dict(fields)), policy) == code
    assert reason(handshake({**fields, "Origin": "https://evil.test"}), policy) is not None


@pytest.mark.parametrize("name", [b"Sec-Fetch-Site", b"Sec-Fetch-Mode", b"Sec-Fetch-Dest"])
def test_fetch_metadata_that_stands_twice_is_none(name: bytes) -> None:
    """Whichever a reader takes, another may take the other."""
    good = {b"Sec-Fetch-Site": b"same-origin", b"Sec-Fetch-Mode": b"websocket", b"Sec-Fetch-Dest": b"websocket"}
    sent = {known.decode(): value.decode() for known, value in good.items()}
    assert reason(handshake(dict(sent))) is None
    assert reason(handshake(dict(sent), extra=((name, good[name]),))) == "fetch.malformed"


HIDDEN = {
    "Upgrade": ("h2c", "syntax.upgrade"),
    "Connection": ("close", "syntax.connection"),
    "Sec-WebSocket-Key": ("short", "syntax.key"),
    "Sec-WebSocket-Version": ("8", "syntax.version"),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_field_that_the_server_keeps_is_not_asked_for(name: str) -> None:
    """Missing, it says nothing where a server takes it out, and is missed elsewhere; there and wrong, it is judged."""
    wrong, code = HIDDEN[name]
    keeps = frozenset({name.lower().encode()})
    assert reason(replace(handshake({name: None}), hidden=keeps)) is None
    assert reason(handshake({name: None})) == code
    assert reason(replace(handshake({name: wrong}), hidden=keeps)) == code


# --- subprotocols -----------------------------------------------------------------------------------------------------
def test_secrets_are_parted_from_what_is_shown() -> None:
    """A ticket or token goes to nobody; the companion is ours."""
    offer = "wsguard.v1, chat, wsguard.ticket.AAAA, wsguard.bearer.BBBB"
    parted = accepted(handshake({"Sec-WebSocket-Protocol": offer})).subprotocols
    assert parted.forwarded == ("chat",)
    assert parted.removed == ("wsguard.ticket.AAAA", "wsguard.bearer.BBBB")
    assert parted.companion_offered


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("a b", "subprotocol.malformed"),
        ("a,", "subprotocol.malformed"),
        ("a/b", "subprotocol.malformed"),
        ("a,a", "subprotocol.repeated"),
        ("a,A", None),
        (",".join(f"p{n}" for n in range(33)), "subprotocol.too_many"),
        ("x" * 8193, "subprotocol.too_large"),
        ("wsguard.ticket.A, wsguard.bearer.B", "subprotocol.only_credentials"),
    ],
)
def test_an_offer_has_a_grammar(value: str, code: str | None) -> None:
    """Tokens, once each, bounded, not secrets alone."""
    assert reason(handshake({"Sec-WebSocket-Protocol": value})) == code


# --- pages ------------------------------------------------------------------------------------------------------------
SAME_POLICY = Policy(origins=["https://app.test"], http="same-policy")


@pytest.mark.parametrize(
    ("method", "fields", "code"),
    [
        ("GET", {}, None),
        ("POST", {}, "fetch.site"),
        ("POST", {"Origin": "https://app.test"}, None),
        ("POST", {"Origin": "https://evil.test"}, "origin.not_allowed"),
        ("GET", {"Origin": "https://evil.test"}, "origin.not_allowed"),
        ("GET", {"Origin": "null"}, "origin.null"),
        ("OPTIONS", {"Origin": "https://evil.test", "Access-Control-Request-Method": "POST"}, "origin.not_allowed"),
        ("OPTIONS", {"Origin": "https://app.test", "Access-Control-Request-Method": "POST"}, None),
        ("GET", {"Sec-Fetch-Site": "same-origin"}, None),
        ("GET", {"Sec-Fetch-Site": "none"}, None),
        ("GET", {"Sec-Fetch-Site": "cross-site"}, "fetch.site"),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, None),
        (
            "GET",
            {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
            "fetch.site",
        ),
        (
            "POST",
            {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
            "fetch.site",
        ),
        ("POST", {"Sec-Fetch-Site": "same-site"}, "fetch.site"),
    ],
)
def test_pages_under_the_same_policy(method: str, fields: dict[str, str], code: str | None) -> None:
    """RULES §1: fallback transports are pages, and a foreign page must not reach them either."""
    assert reason(page(fields, method=method), SAME_POLICY) == code


def test_open_pages_are_the_apps_business() -> None:
    """By default a page goes to the app, which logs people in itself."""
    assert reason(page({"Origin": "https://evil.test"}, method="POST")) is None


def test_plain_pages_need_neither_tls_nor_host() -> None:
    """Health probes ask by address; handshakes there are refused as ever."""
    plain = Policy(origins=["https://app.test"], http="plain")
    assert reason(page({"Host": "10.0.0.1"}, secure=False), plain) is None
    assert reason(handshake(secure=False), plain) == "transport.insecure"
    assert reason(handshake({"Host": "10.0.0.1"}), plain) == "host.not_allowed"


@pytest.mark.parametrize("method", ["CONNECT", "TRACE"])
def test_connect_and_trace_are_never_served(method: str) -> None:
    """405, pages too."""
    assert reason(page(method=method)) == "syntax.method"


def test_a_table_without_a_match_has_no_policy_and_no_way_in() -> None:
    """404 is told only after transport and host have passed."""
    table = RouteTable((Route("/ws/*", POLICY),))
    assert reason(page(target=b"/other"), table) == "route.none"
    assert reason(page({"Host": "evil.test"}, target=b"/other"), table) == "host.not_allowed"


@pytest.mark.parametrize(
    ("path", "clear"),
    [
        (b"/ws/room", True),
        (b"/ws//room", True),
        (b"/ws/room?x=1", False),
        (b"/ws/%72oom", True),
        (b"/ws/../ws/room", False),
        (b"/ws%2Froom", False),
        (b"//ws", False),
        (b"/ws/room\xe9", False),
        (b"/.wsguard/ticket", False),
        (b"", False),
        (b"ws", False),
    ],
)
def test_a_path_that_an_endpoint_is_asked_about_has_one_meaning(path: bytes, clear: bool) -> None:
    """As a handshake's target, and without a query: a ticket is for a path."""
    assert is_unambiguous(path, route_table([("/ws/*", POLICY), ("/*", POLICY)])) is clear
