"""The public API as an application uses it; `make types` lets mypy and pyright read it. New API, new line."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, Literal

from wsguard import (
    JWT,
    APIKeys,
    Authenticator,
    Bearer,
    ConfigurationError,
    Context,
    FileList,
    Guard,
    Handshake,
    Identity,
    Limits,
    Policy,
    Refusal,
    Ticket,
    URLList,
    WSGuardError,
    reasons,
)
from wsguard.asgi import WebSocketGuard, session
from wsguard.testing import MountUnderTest, RowResult, check_mount, hostile_rows


def make_policy() -> Policy:
    try:
        return Policy(
            origins=["https://app.example.com"],
            hosts=["app.example.com"],
            allow_missing_origin=False,
            max_message=1024,
            http="same-policy",
        )
    except ConfigurationError as error:
        key: str = error.key
        raise WSGuardError(key) from error


def check_my_mount(context: ssl.SSLContext) -> list[str]:
    mount = MountUnderTest(
        address=("127.0.0.1", 8443),
        context=context,
        host="app.example.com",
        origin="https://app.example.com",
        reached=lambda: 0,
        hides=frozenset({"key"}),
    )
    results: list[RowResult] = check_mount(mount, hostile_rows())
    return [result.row.name for result in results if result.result == "failed"]


class RobotKey:
    name = "robot_key"
    carriage: Literal["ambient", "explicit"] = "explicit"

    async def authenticate(self, handshake: Handshake, context: Context) -> Identity | Refusal | None:
        if handshake.fields.first(b"x-robot-key") is None:
            return None
        if context.now > 0:
            return Identity("robot", "app", self.name, scopes=frozenset({"chat"}), expires_at=context.now + 60)
        return Refusal(reasons.CREDENTIAL_INVALID, self.name)


async def is_customer(origin: str) -> bool:
    return origin.endswith(".example")


def make_guard() -> Guard:
    authenticator: Authenticator = RobotKey()
    return Guard(
        routes={
            "/ws/*": Policy(
                origins=is_customer,
                hosts=FileList("hosts.txt"),
                auth=["ticket", "bearer", "robot_key"],
                require={"scopes": ["chat"]},
                idle=60,
                max_lifetime=3600,
                messages_per_second=10,
            ),
            "/*": Policy(
                origins=URLList("https://lists.example.com/origins"), hosts=["app.example.com"], anonymous=True
            ),
        },
        authenticators=[authenticator, JWT("https://id.example.com", audience=["app"]), APIKeys("keys.toml")],
        bearer=Bearer(header="X-Token"),
        ticket=Ticket(sold_for=["bearer"], lifetime=20),
        public_url="https://app.example.com",
        trusted_proxies=["10.0.0.0/8"],
        limits=Limits(decision=5),
    )


async def application(scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    live = session(scope)
    if live.identity is not None and live.expires_at is not None:
        live.close(3000, live.identity.subject)


def guard_application() -> WebSocketGuard:
    guarded = WebSocketGuard(application, guard=make_guard())
    WebSocketGuard(application, policy=make_policy(), trusted_proxies=["unix"])
    return guarded


async def log_out(guard: Guard) -> int:
    return await guard.revoke(subject="alice", sid="s1")
