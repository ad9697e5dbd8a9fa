"""The public API as an application uses it; `make types` lets mypy and pyright read it. New API, new line."""

from __future__ import annotations

import ssl

from wsguard import ConfigurationError, Policy, WSGuardError
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
