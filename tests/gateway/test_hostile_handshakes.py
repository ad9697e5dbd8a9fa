"""The table of hostile handshakes through the running gateway: every row as written, on both engines."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

from tests.gateway.recording_upstream import RecordingUpstream
from wsguard.testing import MountUnderTest, check_mount


def test_every_row_is_answered_as_written(
    engine: str,
    start_gateway: Callable[..., Any],
    start_upstream: Callable[..., RecordingUpstream],
    client_context: ssl.SSLContext,
) -> None:
    """The gateway sees every fact, so nothing is hidden and nothing is refused for another reason than written."""
    upstream = start_upstream()
    gateway = start_gateway(upstream.url, tls_engine=engine, hosts=["app.test"])
    mount = MountUnderTest(
        gateway.address, client_context, "app.test", "https://app.test", upstream.count, gateway.reason_of
    )
    results = check_mount(mount)
    wrong = [
        f"{result.row.name}: {result.result}, {result.detail}" for result in results if result.result != "as written"
    ]
    assert not wrong, "\n".join(wrong)
    assert len(results) > 100
