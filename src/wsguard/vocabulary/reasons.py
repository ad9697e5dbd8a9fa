"""
Why a handshake, a page, an upstream answer or a frame was refused: stable codes ``<check>.<what>`` with their status.

The code stands in the log, in metrics and in tests. The client sees the status and a request id, never the code.
docs/reference/reasons.md is generated from this list, and every code has a test that provokes it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason: its stable *code*, the HTTP *status* that answers it, and what it means in one sentence."""

    code: str
    status: int
    meaning: str


_ALL: dict[str, Reason] = {}


def _reason(code: str, status: int, meaning: str) -> Reason:
    reason = Reason(code, status, meaning)
    if code in _ALL:
        raise ValueError(code)
    _ALL[code] = reason
    return reason


def all_reasons() -> tuple[Reason, ...]:
    """Return every reason, in the order of the checks."""
    return tuple(_ALL.values())


SYNTAX_GRAMMAR = _reason("syntax.grammar", 400, "The bytes are no HTTP/1.1 request head (RFC 9112).")
SYNTAX_LINE_ENDING = _reason("syntax.line_ending", 400, "A bare LF or CR ends or splits a line.")
SYNTAX_HTTP_VERSION = _reason("syntax.http_version", 400, "The HTTP version cannot carry this request.")
SYNTAX_HEAD_TOO_LARGE = _reason("syntax.head_too_large", 431, "The head is larger than the bound.")
SYNTAX_TOO_MANY_FIELDS = _reason("syntax.too_many_fields", 431, "The head has more fields than the bound.")
SYNTAX_FIELD_NAME = _reason("syntax.field_name", 400, "A field name is no token.")
SYNTAX_FIELD_VALUE = _reason(
    "syntax.field_value", 400, "A field value holds a control byte, or a judged one is not ASCII."
)
SYNTAX_REPEATED_FIELD = _reason("syntax.repeated_field", 400, "A field that may stand once stands twice.")
SYNTAX_HOST = _reason("syntax.host", 400, "There is no Host field.")
SYNTAX_FRAMING = _reason("syntax.framing", 400, "Content-Length or Transfer-Encoding is not to be trusted.")
SYNTAX_METHOD = _reason("syntax.method", 405, "A handshake is a GET; CONNECT and TRACE are never served.")
SYNTAX_UPGRADE = _reason("syntax.upgrade", 400, "Upgrade is missing or names another protocol than websocket.")
SYNTAX_CONNECTION = _reason("syntax.connection", 400, "Connection is not made of upgrade and at most keep-alive.")
SYNTAX_VERSION = _reason("syntax.version", 426, "Sec-WebSocket-Version is not 13.")
SYNTAX_KEY = _reason("syntax.key", 400, "Sec-WebSocket-Key is not 16 bytes in base64.")
SYNTAX_BODY = _reason("syntax.body", 400, "A handshake has no body.")
SYNTAX_EXTENSIONS = _reason("syntax.extensions", 400, "Sec-WebSocket-Extensions does not follow its grammar.")
SYNTAX_PIPELINED = _reason("syntax.pipelined", 400, "A handshake came behind a request that was not answered yet.")

TARGET_FORM = _reason("target.form", 400, "The request target is not in origin form, visible ASCII, one leading slash.")
TARGET_AMBIGUOUS = _reason("target.ambiguous", 400, "The path means another place once it is decoded.")

TRANSPORT_INSECURE = _reason("transport.insecure", 403, "The connection is not TLS. ws:// is never served.")
TRANSPORT_SNI_MISMATCH = _reason("transport.sni_mismatch", 421, "The TLS server name is not the Host.")

HOST_MALFORMED = _reason("host.malformed", 400, "The Host field is no host[:port].")
HOST_NOT_ALLOWED = _reason("host.not_allowed", 421, "The Host is none of the served names (DNS rebinding).")

PROXIES_MALFORMED = _reason(
    "proxies.malformed", 400, "What a listed proxy says of the client is malformed or contradicts itself (RFC 7239)."
)

ROUTE_NONE = _reason("route.none", 404, "No route has this path.")
ROUTE_RESERVED = _reason("route.reserved", 404, "The path is wsguard's own, and nothing answers there.")

ORIGIN_MALFORMED = _reason("origin.malformed", 400, "The Origin field is no single serialised origin (RFC 6454).")
ORIGIN_NULL = _reason("origin.null", 403, "The Origin is null: a sandboxed frame, a file, a redirect.")
ORIGIN_MISSING = _reason("origin.missing", 403, "There is no Origin field: no browser, or something stripped it.")
ORIGIN_SCHEME = _reason("origin.scheme", 403, "The page was not delivered over HTTPS.")
ORIGIN_NOT_ALLOWED = _reason("origin.not_allowed", 403, "The Origin is not on the allow-list.")

ORIGIN_BROWSER = _reason("origin.browser", 403, "The route refuses browsers, and only they send an Origin.")

FETCH_MALFORMED = _reason("fetch.malformed", 400, "A Sec-Fetch field holds no value that the standard knows.")
FETCH_MODE = _reason("fetch.mode", 403, "Sec-Fetch-Mode is not websocket.")
FETCH_DEST = _reason("fetch.dest", 403, "Sec-Fetch-Dest is neither empty nor websocket.")
FETCH_SITE = _reason("fetch.site", 403, "Sec-Fetch-Site does not fit the Origin, or the page is not this site's.")

SUBPROTOCOL_MALFORMED = _reason("subprotocol.malformed", 400, "Sec-WebSocket-Protocol is no list of tokens.")
SUBPROTOCOL_REPEATED = _reason("subprotocol.repeated", 400, "A subprotocol is offered twice.")
SUBPROTOCOL_TOO_MANY = _reason("subprotocol.too_many", 400, "More subprotocols are offered than the bound.")
SUBPROTOCOL_TOO_LARGE = _reason("subprotocol.too_large", 400, "The offered subprotocols are larger than the bound.")
SUBPROTOCOL_ONLY_CREDENTIALS = _reason(
    "subprotocol.only_credentials", 400, "Only secrets are offered as subprotocols; offer wsguard.v1 beside them."
)

CREDENTIAL_MISSING = _reason("credential.missing", 401, "No credential of a kind that the route takes was sent.")
CREDENTIAL_INVALID = _reason("credential.invalid", 401, "The credential does not verify.")
CREDENTIAL_REFUSED = _reason("credential.refused", 401, "The app does not know, or no longer, whose credential it is.")
CREDENTIAL_EXPIRED = _reason("credential.expired", 401, "The credential has expired.")
CREDENTIAL_UNAVAILABLE = _reason("credential.unavailable", 503, "What verifies the credential cannot be reached.")
CREDENTIAL_AMBIENT = _reason(
    "credential.ambient", 403, "A credential that browsers attach by themselves, and no listed origin beside it."
)
CREDENTIAL_REPEATED = _reason("credential.repeated", 400, "The credential that decides was sent twice.")
TOKEN_SIZE = _reason("token.size", 401, "The token is larger than the bound.")
TOKEN_MALFORMED = _reason("token.malformed", 401, "The token is no compact JWS with unambiguous JSON (RFC 7515).")
TOKEN_ALG = _reason("token.alg", 401, "The token's algorithm is not one that its issuer may use.")
TOKEN_CRIT = _reason("token.crit", 401, "The token demands an extension that nobody here understands.")
TOKEN_TYPE = _reason("token.type", 401, "The token's type is none that its issuer may use here.")
TOKEN_ISSUER = _reason("token.issuer", 401, "The token's issuer is not configured.")
TOKEN_KEY = _reason("token.key", 401, "The issuer has no such key, or the token brings one of its own.")
TOKEN_SIGNATURE = _reason("token.signature", 401, "The token's signature does not verify.")
TOKEN_AUDIENCE = _reason("token.audience", 401, "The token is meant for somebody else.")
TOKEN_EXPIRY = _reason("token.expiry", 401, "The token has expired, or does not say when it will.")
TOKEN_NOT_YET = _reason("token.not_yet", 401, "The token is not valid yet, or issued in the future.")
TOKEN_CLAIMS = _reason("token.claims", 401, "A claim that must be there is missing, or has the wrong type.")
TOKEN_UNAVAILABLE = _reason("token.unavailable", 503, "The issuer's keys cannot be had.")
API_KEY_UNKNOWN = _reason("api_key.unknown", 401, "The API key is not known.")
API_KEY_EXPIRED = _reason("api_key.expired", 401, "The API key has expired.")
CLIENT_CERTIFICATE_MALFORMED = _reason(
    "client_certificate.malformed", 401, "The client certificate verifies, but cannot be read, or a name in it is none."
)
CLIENT_CERTIFICATE_SUBJECT = _reason(
    "client_certificate.subject", 401, "The client certificate has not exactly one name of the kind that counts."
)
AUTHORIZATION_SCOPE = _reason("authorization.scope", 403, "The identity lacks a scope that the route requires.")
AUTHORIZATION_GROUP = _reason("authorization.group", 403, "The identity lacks a group that the route requires.")
IDENTITY_TOO_LONG = _reason("identity.too_long", 403, "A name of the identity is longer than a field may be.")
SESSION_REVOKED = _reason("session.revoked", 401, "The credential has been revoked.")
SESSION_CLOSED = _reason("session.closed", 3000, "An administrator closed this one socket.")
SESSION_UNKNOWN = _reason("session.unknown", 404, "No live session has this handle.")
SESSION_IDENTITY = _reason("session.identity", 403, "The session belongs to another subject, issuer or origin.")
TICKET_MALFORMED = _reason("ticket.malformed", 401, "The ticket is none.")
TICKET_UNKNOWN = _reason("ticket.unknown", 401, "The ticket is not known, or its time is over.")
TICKET_USED = _reason("ticket.used", 401, "The ticket has been redeemed before.")
TICKET_REPLAYED = _reason("ticket.replayed", 3000, "The socket's ticket was presented a second time.")
TICKET_QUERY = _reason("ticket.query", 400, "A ticket stands in the query, where logs and histories keep it.")
TICKET_ROUTE = _reason("ticket.route", 403, "The ticket is for another route, or the route takes none.")
TICKET_ORIGIN = _reason("ticket.origin", 403, "The ticket was bought by a page of another origin.")
TICKET_HOST = _reason("ticket.host", 403, "The ticket was bought for another host.")
TICKET_ADDRESS = _reason("ticket.address", 403, "The ticket was bought from another address.")
TICKET_IDENTITY = _reason("ticket.identity", 403, "The cookie beside the ticket is not that of whom it was sold to.")
TICKET_HEADER = _reason("ticket.header", 403, "A cookie buys a ticket only with X-WSGuard: 1 and an Origin.")
TICKET_BODY = _reason("ticket.body", 400, 'The body is not JSON like {"path": "/ws/chat"}.')
ENDPOINT_METHOD = _reason("endpoint.method", 405, "The endpoint does not take this method.")
ENDPOINT_BODY_TOO_LARGE = _reason("endpoint.body_too_large", 413, "The body is larger than 8 KiB.")
ENDPOINT_CONTENT_TYPE = _reason("endpoint.content_type", 415, "The body is not application/json.")
LIMITS_TICKETS = _reason("limits.tickets", 429, "Too many tickets for one identity or address.")
LIMITS_RENEWALS = _reason("limits.renewals", 429, "Too many renewals of one session.")
STORE_UNAVAILABLE = _reason("store.unavailable", 503, "The store is down, locked or full.")
STORE_NOT_SHARED = _reason("store.not_shared", 503, "The ticket was made by another store than this process has.")
POLICY_BAD_VERDICT = _reason("policy.bad_verdict", 503, "A check failed or answered something that is no verdict.")
POLICY_SOURCE_UNAVAILABLE = _reason("policy.source_unavailable", 503, "A list that the policy needs cannot be had.")
POLICY_SLOW = _reason(
    "policy.slow", 503, "The decision took longer than the bound: a list or an authenticator is slow."
)

GATEWAY_FAULT = _reason("gateway.fault", 503, "A fault of wsguard's own; its traceback is on stderr.")

LIMITS_PREAUTH = _reason("limits.preauth", 503, "Too many connections that are not admitted yet.")
LIMITS_ADDRESS = _reason("limits.address", 429, "Too many sockets or attempts from one address.")
LIMITS_RATE = _reason("limits.rate", 1008, "More messages, or empty or control frames, a second than the bound.")
LIMITS_LIFETIME = _reason("limits.lifetime", 1001, "The socket has lived as long as the policy lets one live.")
LIMITS_IDLE = _reason("limits.idle", 1001, "One side was silent for too long.")

APP_SUBPROTOCOL = _reason("app.subprotocol", 1011, "The app selected a subprotocol that was not offered to it.")

UPSTREAM_UNREACHABLE = _reason("upstream.unreachable", 502, "The upstream refused or broke the connection.")
UPSTREAM_TLS = _reason("upstream.tls", 502, "The upstream's certificate does not verify.")
UPSTREAM_SLOW = _reason("upstream.slow", 504, "The upstream did not answer in time.")
UPSTREAM_MALFORMED = _reason("upstream.malformed", 502, "The upstream's answer is no HTTP/1.1 response.")
UPSTREAM_UNEXPECTED_101 = _reason(
    "upstream.unexpected_101", 502, "The upstream switched protocols though nobody asked."
)
UPSTREAM_BAD_UPGRADE = _reason("upstream.bad_upgrade", 502, "The 101 does not upgrade to websocket.")
UPSTREAM_BAD_ACCEPT = _reason("upstream.bad_accept", 502, "Sec-WebSocket-Accept of the 101 is missing or wrong.")
UPSTREAM_BAD_SUBPROTOCOL = _reason(
    "upstream.bad_subprotocol", 502, "The 101 selects a subprotocol that was not offered."
)
UPSTREAM_BAD_EXTENSION = _reason("upstream.bad_extension", 502, "The 101 selects an extension that was not offered.")
UPSTREAM_BROKEN = _reason("upstream.broken", 1014, "The upstream ended the connection without a Close frame.")

BODY_BROKEN = _reason("body.broken", 400, "The request body's framing is broken, or it ended before it was whole.")
BODY_SLOW = _reason("body.slow", 408, "The body of a request stopped coming.")

FRAMES_RESERVED = _reason("frames.reserved", 1002, "A reserved bit is set that no extension gave a meaning.")
FRAMES_OPCODE = _reason("frames.opcode", 1002, "The opcode is reserved.")
FRAMES_MASK = _reason("frames.mask", 1002, "A client's frame is unmasked, or a server's is masked.")
FRAMES_LENGTH = _reason("frames.length", 1002, "The length is not in its shortest form, or its top bit is set.")
FRAMES_CONTROL = _reason("frames.control", 1002, "A control frame is fragmented or longer than 125 bytes.")
FRAMES_SEQUENCE = _reason(
    "frames.sequence", 1002, "A continuation without a beginning, or a beginning inside a message."
)
FRAMES_CLOSE = _reason("frames.close", 1002, "A Close frame has one byte, or a code that must not be sent.")
FRAMES_UTF8 = _reason("frames.utf8", 1007, "The reason of a Close frame is not UTF-8.")
FRAMES_TOO_LARGE = _reason("frames.too_large", 1009, "A message is larger than the bound.")
FRAMES_FRAGMENTS = _reason("frames.fragments", 1008, "A message has more fragments than the bound.")
