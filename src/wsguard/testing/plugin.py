"""
The pytest plugin: ends the servers that `wsguard.testing` has started.

pytest loads it wherever wsguard is installed, so it imports nothing of ours and does nothing in a run that starts none.
"""

from __future__ import annotations

import sys


def pytest_unconfigure() -> None:
    """End what was started, at the end of the run (of each worker, under xdist)."""
    module = sys.modules.get("wsguard.testing.loopback_server")
    if module is not None:
        module.stop_servers()
