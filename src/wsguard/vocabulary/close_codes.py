"""The close codes that wsguard knows (RFC 6455 §7.4, IANA registry), and which may stand on the wire at all."""

from __future__ import annotations

GOING_AWAY = 1001
PROTOCOL_ERROR = 1002
NO_STATUS = 1005
ABNORMAL = 1006
INVALID_DATA = 1007
POLICY_VIOLATION = 1008
MESSAGE_TOO_BIG = 1009
INTERNAL_ERROR = 1011
SERVICE_RESTART = 1012
BAD_GATEWAY = 1014
CREDENTIAL = 3000
POLICY = 3003

MEANINGS: dict[int, str] = {
    GOING_AWAY: "going away: shutdown, one side was silent for too long, or the socket reached its max_lifetime",
    PROTOCOL_ERROR: "a frame broke the rules of RFC 6455",
    INVALID_DATA: "the reason of a Close frame was not UTF-8",
    POLICY_VIOLATION: "too many fragments, empty or control frames, or messages",
    MESSAGE_TOO_BIG: "a message larger than max_message",
    INTERNAL_ERROR: "a fault on our side: the app selected a subprotocol that was not offered",
    BAD_GATEWAY: "the upstream broke its connection or the protocol",
    CREDENTIAL: "the credential has expired or is refused",
    POLICY: "the policy does not allow it",
}

# What stands in the Close frame beside the code: short and fixed. The reason code stands in the log.
TEXTS: dict[int, str] = {
    GOING_AWAY: "going away",
    PROTOCOL_ERROR: "protocol error",
    INVALID_DATA: "invalid data",
    POLICY_VIOLATION: "policy violation",
    MESSAGE_TOO_BIG: "message too big",
    INTERNAL_ERROR: "internal error",
    BAD_GATEWAY: "bad gateway",
    CREDENTIAL: "credential expired",
    POLICY: "not allowed",
}

# What a route's `close_codes` makes of the two codes that are about who it is: some protocols have codes of their own.
PRESETS: dict[str, dict[int, int]] = {
    "registered": {},
    "graphql-transport-ws": {CREDENTIAL: 4401, POLICY: 4403},
}

# Registered with IANA and allowed in a Close frame; 1004 to 1006 and 1015 are never sent (RFC 6455 §7.4.1).
_REGISTERED = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})
_FIRST_FREE, _LAST_FREE = 3000, 4999


def may_be_sent(code: int) -> bool:
    """Tell whether *code* may stand in a Close frame: registered, or 3000 to 4999."""
    return code in _REGISTERED or _FIRST_FREE <= code <= _LAST_FREE
