"""
Does the table prove anything? Each check is replaced by one that always passes: then rows named after it must get through.

`route` is left out: the last line of `decide()` refuses as well, which test_policy.py shows.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable

import pytest

from tests.gateway.conftest import StartGateway
from tests.gateway.recording_upstream import RecordingUpstream
from wsguard.testing import MountUnderTest, check_mount, hostile_rows

MUTATION = """
import wsguard.engine.checks as checks
from wsguard.vocabulary.decision import Passed

class AlwaysPasses:
    name = "{name}"
    def check(self, handshake, context):
        return Passed()

assert [check.name for check in checks.ORDER].count("{name}") == 1
checks.ORDER = tuple(AlwaysPasses() if check.name == "{name}" else check for check in checks.ORDER)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["syntax", "target", "transport", "host", "origin", "fetch", "subprotocol"])
def test_a_check_that_always_passes_is_noticed(
    name: str,
    client_context: ssl.SSLContext,
    start_upstream: Callable[..., RecordingUpstream],
    start_gateway: StartGateway,
) -> None:
    """At least one row named after the check reaches the recording upstream once the check is gone."""
    upstream = start_upstream()
    gateway = start_gateway(upstream.url, hosts=["app.test"], planted=MUTATION.format(name=name))
    mount = MountUnderTest(
        gateway.address, client_context, "app.test", "https://app.test", upstream.count, gateway.reason_of
    )
    rows = tuple(row for row in hostile_rows() if (row.reason or "").startswith(f"{name}."))
    results = check_mount(mount, rows)
    through = [result.row.name for result in results if result.result == "failed"]
    print(f"{name}: {len(through)} of {len(rows)} rows get through without it")
    assert upstream.count() > 0
    assert through
