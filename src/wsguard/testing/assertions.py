"""`assert_refused` and `assert_accepted`: a project's policy in three lines, and a failure that says what to write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wsguard.testing.decisions import REFUSED, REFUSED_BY_APP
from wsguard.testing.handshakes import HandshakeResult, Headers, handshake
from wsguard.vocabulary.reasons import all_reasons


def assert_refused(
    app: Any,
    *,
    path: str = "/ws",
    origin: str | None = None,
    host: str | None = None,
    cookies: Mapping[str, str] | None = None,
    headers: Headers | None = None,
    subprotocols: Sequence[str] = (),
    status: int = 403,
    reason: str | None = None,
) -> HandshakeResult:
    """
    Fail unless the guard of *app* refuses this handshake with *status* (and, if given, for *reason*).

    The arguments are those of `handshake`. A refusal by the app itself does not count: a path without a route answers
    403 too.
    """
    __tracebackhide__ = True
    result = handshake(
        app, path=path, origin=origin, host=host, cookies=cookies, headers=headers, subprotocols=subprotocols
    )
    expected = f"{status}" if reason is None else f"{status} {reason}"
    if result.accepted:
        raise AssertionError(_told(result, f"expected a refusal with {expected}, but {_OPEN}", _why_accepted(result)))
    if not result.refused_by_guard:
        raise AssertionError(_told(result, f"refused with {result.status}, but not by wsguard", _why_foreign(result)))
    if result.refused_status != status or (reason is not None and result.reason != reason):
        told = f"expected a refusal with {expected}, but it was {_refusal(result)}"
        right = f"if that is right, write status={result.refused_status}"
        right += "" if reason is None or result.reason is None else f', reason="{result.reason}"'
        raise AssertionError(_told(result, told, [*_why_refused(result), right]))
    return result


def assert_accepted(
    app: Any,
    *,
    path: str = "/ws",
    origin: str | None = None,
    host: str | None = None,
    cookies: Mapping[str, str] | None = None,
    headers: Headers | None = None,
    subprotocols: Sequence[str] = (),
) -> HandshakeResult:
    """Fail unless this handshake opens a socket of *app*. The arguments are those of `handshake`."""
    __tracebackhide__ = True
    result = handshake(
        app, path=path, origin=origin, host=host, cookies=cookies, headers=headers, subprotocols=subprotocols
    )
    if result.accepted:
        return result
    if result.refused_by_guard:
        raise AssertionError(
            _told(result, f"expected an open socket, but it was {_refusal(result)}", _why_refused(result))
        )
    told = f"expected an open socket, but the app or its server answered {result.status or 'nothing'}"
    raise AssertionError(_told(result, told, _why_app(result)))


_OPEN = "the socket was opened"


def _told(result: HandshakeResult, what: str, advice: list[str]) -> str:
    lines = [what, f"  sent: {result.sent}"]
    if result.log:
        lines.append(f"  log:  {result.log}")
    return "\n".join([*lines, *(f"  {line}" for line in advice)])


def _refusal(result: HandshakeResult) -> str:
    told = f"refused with {result.refused_status}"
    return told if result.reason is None else f"{told} {result.reason}"


def _why_accepted(result: HandshakeResult) -> list[str]:
    if result.event is None:
        return [
            "no guard judged it: the decision log has no line of it",
            "is there one around this app? app.add_middleware(WebSocketGuard, policy=Policy(origins=[…]))",
        ]
    return ["the policy of this app lets it in: take it off its origins, or write assert_accepted"]


def _why_refused(result: HandshakeResult) -> list[str]:
    advice = [f"why:  {reason.meaning}" for reason in all_reasons() if reason.code == result.reason]
    if result.reason == "origin.missing":
        advice.append('a browser always sends one: write origin="https://…" in the test')
    elif result.reason == "host.not_allowed":
        advice.append("if the app has another name, write it in the test: host=…")
    if result.hint is not None:
        advice.append(f"to allow it, write in the policy: {result.hint}")
    if result.event != REFUSED:
        advice.append("why stands in the guard's own log, which is not wsguard.decisions here")
    return advice


def _why_foreign(result: HandshakeResult) -> list[str]:
    if result.event == REFUSED_BY_APP:
        return [
            "the guard let it in, then the app refused it itself: that proves nothing about the policy",
            "has the app a WebSocket route at this path? path=… names another; handshake(…).status tests the app's own",
        ]
    return [
        "the decision log has no line of it: is WebSocketGuard around this app?",
        "a server refuses by itself what is no handshake at all; handshake(…).status tests that",
    ]


def _why_app(result: HandshakeResult) -> list[str]:
    if result.event == REFUSED_BY_APP:
        return [
            "the guard let it in, the app itself refused it",
            "has the app a WebSocket route at this path (path=…)? does it want a login (cookies=…, headers=…)?",
        ]
    return ["the app raised before it accepted, or the server refused the request; their log says more"]
