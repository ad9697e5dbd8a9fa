"""
Every bound in one table: bytes, counts and seconds, with default, range and precedent.

A bound is changed by its *key* in the configuration's ``[limits]`` table; one whose *table* is ``policy`` is a key of
the policy, so that each route can have its own. docs/reference/bounds.md is generated from
this list. Nothing in wsguard waits, buffers or counts without one of these.
"""

from __future__ import annotations

from dataclasses import dataclass

from wsguard.vocabulary.errors import ConfigurationError

KIB = 1024
MIB = 1024 * 1024
GIB = 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Bound:
    """What one bound is: *key*, *unit* (bytes, count, seconds), *default* (None: not bounded), range, and why."""

    key: str
    unit: str
    default: float | None
    minimum: float
    maximum: float
    meaning: str
    precedent: str
    table: str = "limits"


BOUNDS: tuple[Bound, ...] = (
    Bound("head", "bytes", 16 * KIB, KIB, 256 * KIB, "One request head.", "nginx 8 KiB a line; h11 16 KiB"),
    Bound("fields", "count", 100, 16, 1000, "Fields of one head.", "Apache httpd 100"),
    Bound("subprotocols", "count", 32, 1, 256, "Subprotocols offered.", "browsers send any number"),
    Bound("subprotocol_bytes", "bytes", 8 * KIB, 256, 64 * KIB, "All subprotocols together.", "nginx, 8 KiB a line"),
    Bound("tls_handshake", "seconds", 10, 1, 120, "From accept to the end of the TLS handshake.", "nginx 60 s"),
    Bound(
        "head_timeout",
        "seconds",
        10,
        1,
        120,
        "Until a head is whole, from the end of TLS or from its first byte.",
        "nginx 60 s",
    ),
    Bound("keep_alive", "seconds", 75, 1, 3600, "A kept-alive connection without a request.", "nginx 75 s"),
    Bound(
        "body_timeout",
        "seconds",
        60,
        1,
        3600,
        "A body without a byte; one for /.wsguard/, whole.",
        "nginx 60 s",
    ),
    Bound("upstream_connect", "seconds", 5, 0.1, 120, "Connecting to the upstream, TLS included.", "HAProxy 5 s"),
    Bound("upstream_response", "seconds", 60, 0.1, 3600, "The upstream's response head to a page.", "nginx 60 s"),
    Bound("upstream_upgrade", "seconds", 10, 0.1, 120, "The upstream's answer to a handshake.", "websockets 10 s"),
    Bound("upstream_idle", "seconds", 600, 1, 86400, "A response body without a byte.", "nginx 60 s; SSE needs more"),
    Bound("upstream_head", "bytes", 64 * KIB, 4 * KIB, 1024 * KIB, "One response head.", "curl 300 KiB in all"),
    Bound("upstream_pool", "count", 32, 0, 4096, "Idle upstream connections kept for pages.", "nginx keepalive 32"),
    Bound(
        "upstream_pool_idle", "seconds", 20, 1, 3600, "How long one is kept idle.", "Node closes after 5 s; nginx 60 s"
    ),
    Bound("early_bytes", "bytes", 64 * KIB, 0, MIB, "Bytes a client sends before the 101.", "one read"),
    Bound(
        "buffer", "bytes", 256 * KIB, 16 * KIB, 16 * MIB, "Unread by one side before the other waits.", "nginx 8 KiB"
    ),
    Bound(
        "max_message", "bytes", 16 * MIB, 125, 1024 * MIB, "One message (and one frame).", "uvicorn 16 MiB", "policy"
    ),
    Bound(
        "messages_per_second",
        "count",
        None,
        1,
        1_000_000,
        "Messages of a client a second, as many at once.",
        "Slack 1, Discord 2",
        "policy",
    ),
    Bound("idle", "seconds", None, 0.1, 86400, "Without a message of the client.", "an app's own", "policy"),
    Bound("max_lifetime", "seconds", None, 0.1, 31_536_000, "Of one socket.", "AWS API Gateway 2 h", "policy"),
    Bound("fragments", "count", 131_072, 1, 16_777_216, "Fragments of one message.", "Autobahn sends 65,536"),
    Bound("frame_rate", "count", 1000, 10, 1_000_000, "Empty or control frames a second.", "far above any ping"),
    Bound(
        "ping", "seconds", 25, 0.1, 3600, "Silence of one side before we ping it.", "websockets 20 s; socket.io 25 s"
    ),
    Bound("idle", "seconds", 60, 0.2, 86400, "Silence of one side before the socket is closed.", "nginx 60 s"),
    Bound("close_deadline", "seconds", 1, 0.1, 60, "Waiting for a frame boundary for a Close of ours.", "one frame"),
    Bound("close_handshake", "seconds", 10, 0.1, 120, "From the first Close frame to the end.", "websockets 10 s"),
    Bound("preauth", "count", 4096, 16, 1_000_000, "Connections not admitted yet, a process.", "somaxconn 4096"),
    Bound("preauth_address", "count", 1000, 1, 1_000_000, "Connections not admitted yet, an address.", "a NAT's worth"),
    Bound("open_address", "count", 2000, 1, 1_000_000, "Open sockets, an address.", "a NAT's worth"),
    Bound("attempts_address", "count", 6000, 1, 100_000_000, "Attempts a minute, an address.", "100 a second"),
    Bound("addresses", "count", 100_000, 100, 10_000_000, "Addresses remembered by the caps.", "about 20 MB"),
    Bound(
        "decision", "seconds", 10, 0.1, 120, "One decision, where it waits for a list or an authenticator.", "one RTT"
    ),
    Bound("list_bytes", "bytes", 4 * MIB, KIB, 64 * MIB, "A list of origins or hosts in a file or at a URL.", "ours"),
    Bound("list_entries", "count", 100_000, 1, 1_000_000, "Entries of such a list.", "thousands of customers"),
    Bound("list_interval", "seconds", 60, 1, 86400, "Between two polls of a list at a URL.", "CDN caches"),
    Bound("list_timeout", "seconds", 5, 0.1, 60, "One call for a list, or of a function that judges.", "HAProxy 5 s"),
    Bound("lookups", "count", 10_000, 16, 1_000_000, "Answers of such a function that are remembered.", "about 2 MB"),
    Bound(
        "lookups_pending", "count", 100, 1, 10_000, "Different values that it is asked at one time.", "a pool's worth"
    ),
    Bound("lookup_allowed", "seconds", 60, 0, 3600, "How long a yes of it is remembered.", "DNS"),
    Bound("lookup_refused", "seconds", 10, 0, 3600, "How long a no of it is remembered.", "negative DNS"),
    Bound("token_bytes", "bytes", 8 * KIB, KIB, 64 * KIB, "One bearer token.", "nginx, 8 KiB a line"),
    Bound("issuer_timeout", "seconds", 5, 0.1, 60, "Fetching an issuer's keys, discovery included.", "jose 5 s"),
    Bound("issuer_bytes", "bytes", 256 * KIB, KIB, 4 * MIB, "An issuer's metadata, keys or secret.", "ours"),
    Bound("issuer_refetch", "seconds", 30, 1, 3600, "Between two fetches of one issuer's keys.", "jose 30 s"),
    Bound("issuer_age", "seconds", 3600, 60, 86400, "How old an issuer's keys may become.", "jose 10 min"),
    Bound("app_answer", "bytes", 64 * KIB, KIB, 4 * MIB, "What an app that is asked who it is answers.", "ours"),
    Bound("app_answers", "count", 10_000, 16, 1_000_000, "Answers of that app that are remembered.", "lookups"),
    Bound("app_pending", "count", 100, 1, 10_000, "Different questions to it at one time.", "a pool's worth"),
    Bound("rechecks", "count", 32, 1, 10_000, "Live sockets whose session is looked at again at one time.", "ours"),
    Bound(
        "cookies_seen",
        "count",
        100_000,
        16,
        10_000_000,
        "Session cookies whose age is remembered; as many tokens of issuers whose clock is ahead.",
        "about 20 MB",
    ),
    Bound("api_keys", "count", 10_000, 1, 1_000_000, "API keys in the key file.", "about 1.5 MB"),
    Bound("key_file_bytes", "bytes", 4 * MIB, KIB, 64 * MIB, "The key file.", "ours"),
    Bound(
        "key_file_age", "seconds", 3600, 1, 86400, "How long API keys count whose file has become bad.", "issuer_age"
    ),
    Bound("revocations", "count", 100_000, 16, 10_000_000, "Revocations remembered, a process.", "about 50 MB"),
    Bound(
        "tickets_at_hand", "count", 1024, 0, 1_000_000, "Tickets sold last that need no look into the store.", "1.5 MB"
    ),
    Bound("hints", "count", 1024, 16, 100_000, "Different log hints remembered a minute.", "one table"),
    Bound(
        "store_values",
        "count",
        100_000,
        16,
        10_000_000,
        "Values in the store, taken ones till they expire; as many records in its streams.",
        "about 60 MB in memory",
    ),
    Bound(
        "store_bytes",
        "bytes",
        64 * MIB,
        64 * KIB,
        16 * GIB,
        "All values in the store together; its streams have as much again.",
        "memcached 64 MiB",
    ),
    Bound("store_value", "bytes", 16 * KIB, 256, MIB, "One value of the store.", "a token is 8 KiB; memcached 1 MiB"),
    Bound("store_command", "seconds", 2, 0.05, 60, "The store's answer, waiting for a lock included.", "sqlite3 5 s"),
    Bound("store_pending", "count", 10_000, 16, 1_000_000, "Commands that wait for the store.", "2 s of its work"),
    Bound("store_poll", "seconds", 0.25, 0.02, 10, "Between two looks for what other processes have revoked.", "ours"),
    Bound(
        "store_patience",
        "seconds",
        10,
        0.1,
        300,
        "How long identities count while nobody can say what was revoked.",
        "one decision",
    ),
    Bound(
        "revocation_age",
        "seconds",
        366 * 86400,
        60,
        3660 * 86400,
        "How long a shared store keeps a revocation: at least the life of the longest credential.",
        "a year's certificate",
    ),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds in force. Field names are the keys of `BOUNDS`; sizes are bytes, times are seconds."""

    head: int = 16 * KIB
    fields: int = 100
    subprotocols: int = 32
    subprotocol_bytes: int = 8 * KIB
    tls_handshake: float = 10
    head_timeout: float = 10
    keep_alive: float = 75
    body_timeout: float = 60
    upstream_connect: float = 5
    upstream_response: float = 60
    upstream_upgrade: float = 10
    upstream_idle: float = 600
    upstream_head: int = 64 * KIB
    upstream_pool: int = 32
    upstream_pool_idle: float = 20
    early_bytes: int = 64 * KIB
    buffer: int = 256 * KIB
    fragments: int = 131_072
    frame_rate: int = 1000
    ping: float = 25
    idle: float = 60
    close_deadline: float = 1
    close_handshake: float = 10
    preauth: int = 4096
    preauth_address: int = 1000
    open_address: int = 2000
    attempts_address: int = 6000
    addresses: int = 100_000
    decision: float = 10
    list_bytes: int = 4 * MIB
    list_entries: int = 100_000
    list_interval: float = 60
    list_timeout: float = 5
    lookups: int = 10_000
    lookups_pending: int = 100
    lookup_allowed: float = 60
    lookup_refused: float = 10
    token_bytes: int = 8 * KIB
    issuer_timeout: float = 5
    issuer_bytes: int = 256 * KIB
    issuer_refetch: float = 30
    issuer_age: float = 3600
    app_answer: int = 64 * KIB
    app_answers: int = 10_000
    app_pending: int = 100
    rechecks: int = 32
    cookies_seen: int = 100_000
    api_keys: int = 10_000
    key_file_bytes: int = 4 * MIB
    key_file_age: float = 3600
    revocations: int = 100_000
    tickets_at_hand: int = 1024
    hints: int = 1024
    store_values: int = 100_000
    store_bytes: int = 64 * MIB
    store_value: int = 16 * KIB
    store_command: float = 2
    store_pending: int = 10_000
    store_poll: float = 0.25
    store_patience: float = 10
    revocation_age: float = 366 * 86400

    def __post_init__(self) -> None:
        """Refuse a value outside its range. Raises ValueError that names key, value and range."""
        for bound in BOUNDS:
            if bound.table != "limits":
                continue
            value = getattr(self, bound.key)
            if not bound.minimum <= value <= bound.maximum:
                raise ValueError(
                    f"{bound.key}: {value} is not between {bound.minimum} and {bound.maximum} {bound.unit}"
                )


DEFAULTS = Limits()


def check_bound(name: str, value: float) -> None:
    """Refuse a *value* outside the range of the bound *name* (``policy idle``). Raises ConfigurationError."""
    table, _, key = name.rpartition(" ")
    bound = next(bound for bound in BOUNDS if bound.key == key and bound.table == (table or "limits"))
    wanted = (int,) if bound.unit in ("bytes", "count") else (int, float)
    if type(value) not in wanted or not bound.minimum <= value <= bound.maximum:
        raise ConfigurationError(key, repr(value), f"between {bound.minimum:g} and {bound.maximum:g} {bound.unit}")


MAX_MESSAGE = 16 * MIB
