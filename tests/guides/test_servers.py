"""Each guide of examples/ under each server: real handshakes, and an app that hears only of those that were accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.guides.matrix import GUIDES, PROXIED, SERVERS, documented_gaps

if TYPE_CHECKING:
    from tests.asgi.server_process import ServerName
    from tests.guides.matrix import Matrix

NGINX = pytest.mark.requires_program("nginx")
pytestmark = pytest.mark.story


@pytest.mark.parametrize("server", [pytest.param(name, marks=NGINX if name == "daphne" else ()) for name in SERVERS])
@pytest.mark.parametrize("guide", GUIDES)
def test_a_listed_page_connects_and_a_foreign_one_does_not(guide: str, server: ServerName, matrix: Matrix) -> None:
    """
    The guide works as written: its own page connects and is answered; pages of other origins, `null`, clients without
    Origin and plain ws are refused, and the app's count of visitors shows that it never heard of them.
    """
    matrix.measure(guide, server)
    tally = matrix.cells[guide, PROXIED if server == "daphne" else server]
    assert tally.accepted >= 2
    assert tally.refused >= 6


@NGINX
def test_what_a_server_cannot_do_is_what_the_docs_say(matrix: Matrix) -> None:
    """No cell of guide × server is without numbers unless the docs' table says so, and none that it names has any."""
    for guide in GUIDES:
        for server in SERVERS:
            matrix.measure(guide, server)
    without = {cell for cell, tally in matrix.cells.items() if not tally.accepted}
    assert without == documented_gaps()
