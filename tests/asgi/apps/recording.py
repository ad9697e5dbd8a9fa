"""What an app under test was given, one JSON line an event, in the file that WSGUARD_TEST_RECORD names."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any, cast

from wsguard.asgi.middleware import ASGISession, GuardedPage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsguard.asgi.types import Message, Scope

_FILE = os.open(os.environ["WSGUARD_TEST_RECORD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def record(event: str, case: str = "", **values: Any) -> None:
    """Write one event: a single write, so that lines never mix. *at* is the machine's monotonic clock."""
    line = {"event": event, "case": case, "at": time.monotonic(), **values}
    os.write(_FILE, json.dumps(line).encode() + b"\n")


def record_call(scope: Scope) -> str:
    """Write what the app was called with; return the case that the query names."""
    case = case_of(scope)
    admission = cast("object", scope.get("wsguard"))
    known = admission if isinstance(admission, ASGISession | GuardedPage) else None
    headers = cast("Sequence[tuple[bytes, bytes]]", scope["headers"])
    record(
        "called",
        case,
        type=scope["type"],
        path=scope["path"],
        raw_path=(scope.get("raw_path") or b"").decode("latin-1"),
        root_path=scope.get("root_path", ""),
        scheme=scope.get("scheme"),
        client=scope.get("client"),
        headers=[[name.decode("latin-1"), value.decode("latin-1")] for name, value in headers],
        subprotocols=scope.get("subprotocols"),
        admission=type(admission).__name__,
        session=admission.public_id if isinstance(admission, ASGISession) else None,
        subject=None if known is None or known.identity is None else known.identity.subject,
    )
    return case


def case_of(scope: Scope) -> str:
    """The ``case=`` of the query: which test this is."""
    query = cast("bytes", scope.get("query_string") or b"").decode("latin-1")
    return next((part.removeprefix("case=") for part in query.split("&") if part.startswith("case=")), "")


def listed_proxies() -> list[str]:
    """The proxies that the test lists."""
    return [entry for entry in os.environ.get("WSGUARD_TEST_PROXIES", "").split(",") if entry]


def plain_message(message: Message) -> dict[str, Any]:
    """A message as JSON can hold it."""
    return {key: value.decode("latin-1") if isinstance(value, bytes) else value for key, value in message.items()}
