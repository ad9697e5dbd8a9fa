"""How long a socket lives where several things may end it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.credentials import CLOSE, Place, bearer, closed, echoes_until
from tests.gateway.raw_client import frame
from tests.mounts.conftest import StartMount
from wsguard.admin.client import ask_admin

pytestmark = pytest.mark.slow

CONFIGURATION = """
origins = ["https://app.test"]
hosts = ["app.test"]
public_url = "https://app.test"
auth = ["ticket", "bearer"]
max_lifetime = "3s"

[jwt."https://id.test"]
audience = ["https://app.test"]
jwks = "file:jwks.json"

[ticket]
sold_for = ["bearer"]
"""


def test_no_renewal_outlives_max_lifetime(start_mount: StartMount, tmp_path: Path) -> None:
    """Renewed in time it outlives its first token, and ends with 1001 when its route says so, however long the token."""
    Place(tmp_path)
    mount = start_mount(CONFIGURATION)
    begun = time.time()
    sold = mount.visitor.buy(bearer(1.5))
    raw, _ = mount.visitor.open(sold["protocols"])
    opened = time.time()
    renewed = mount.visitor.renew(sold["session"], bearer(60))
    assert renewed.status == 200, renewed
    assert renewed.json["session_expires_at"] > begun + 50  # the token's end; the route's may come before it
    echoes_until(raw, opened + 2.7)
    assert closed(raw) == (1001, "going away")
    assert 3 <= time.time() - begun < 5
    assert mount.wait_for("session.closed")["reason"] == "limits.lifetime"
    # The client has not answered the Close, so its connection stands; its session has ended all the same.
    assert mount.visitor.renew(sold["session"], bearer(60)).status == 404
    assert json.dumps(mount.log).count("credential.expired") == 0


def test_a_socket_that_its_client_has_closed_has_ended(start_mount: StartMount, tmp_path: Path) -> None:
    """Nothing is renewed any more, and nothing is left to revoke, while the connection is still taken down."""
    Place(tmp_path)
    mount = start_mount(CONFIGURATION.replace('max_lifetime = "3s"', 'admin = "unix:run/admin.sock"'))
    sold = mount.visitor.buy(bearer(60))
    raw, _ = mount.visitor.open(sold["protocols"])
    raw.send(frame(CLOSE, (1000).to_bytes(2)))
    assert closed(raw)[0] == 1000
    assert mount.visitor.renew(sold["session"], bearer(60)).status == 404
    assert ask_admin(tmp_path / "run" / "admin.sock", "POST", "/revocations", {"subject": "alice"})["closed"] == 0
