"""Origins at a polled URL and hosts in a watched file, while a mount runs: who is let in follows them (RULES §12)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from tests.identity.tls_server import Answer, serving
from tests.mounts.conftest import Mount, StartMount

pytestmark = pytest.mark.slow

CONFIGURATION = """
origins = {{ url = "{url}", interval = "1s" }}
hosts = {{ file = "hosts.txt" }}
outbound_ca = "lists-ca.pem"
"""
CUSTOMER, OTHER, STRANGER = "https://customer.test", "https://other.test", "https://stranger.test"
DEADLINE = 20.0


def told(mount: Mount, origin: str) -> tuple[int, str | None]:
    """What a handshake of that page gets, and the logged reason of a refusal."""
    page = replace(mount.visitor, origin=origin)
    raw = page.connect()
    raw.send(page.request())
    head = raw.reader.head().decode()
    status = int(head.split(" ")[1])
    if status == 101:
        return status, None
    (request_id,) = [line.partition(": ")[2] for line in head.split("\r\n") if line.lower().startswith("x-request-id")]
    return status, mount.reason_of(request_id)


def until(expected: tuple[int, str | None], ask: Callable[[], tuple[int, str | None]]) -> None:
    """What a list says is seen at its next poll, which tells nobody."""
    end = time.monotonic() + DEADLINE
    while (last := ask()) != expected:
        assert time.monotonic() < end, f"still {last}"
        time.sleep(0.05)  # between two questions, within the deadline: a poll sends no event


def test_who_is_let_in_follows_the_lists(start_mount: StartMount, tmp_path: Path) -> None:
    """Closed until the URL has answered once; then as it says, and as it said last while it fails."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "lists-ca.pem")
    (tmp_path / "hosts.txt").write_text("app.test\n")
    with serving(authority, answer=Answer(503)) as lists:
        url = lists.url("/origins")
        mount = start_mount(CONFIGURATION.format(url=url))
        for _ in range(2):
            assert told(mount, CUSTOMER) == (503, "policy.source_unavailable")
        assert mount.reached() == 0
        (failure,) = mount.events("list.failed")
        assert "503" in failure["hint"]

        lists.says(Answer(parts=(json.dumps([CUSTOMER]).encode(),), headers={"ETag": '"1"'}))
        until((101, None), lambda: told(mount, CUSTOMER))
        assert mount.wait_for("session.opened")["source"] == url
        assert told(mount, STRANGER) == (403, "origin.not_allowed")

        lists.says(Answer(parts=(json.dumps([OTHER]).encode(),), headers={"ETag": '"2"'}))
        until((403, "origin.not_allowed"), lambda: told(mount, CUSTOMER))
        assert told(mount, OTHER) == (101, None)

        lists.says(Answer(503))
        failed = len(mount.log)
        assert mount.wait_for("list.failed", after=failed)
        assert told(mount, OTHER) == (101, None)
        assert told(mount, CUSTOMER) == (403, "origin.not_allowed")

        (tmp_path / "hosts.txt").write_text("elsewhere.test\n")
        until((421, "host.not_allowed"), lambda: told(mount, OTHER))
    assert mount.stderr_faults() == []
