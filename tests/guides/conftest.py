"""One matrix for the whole run; at its end it is written to `.test-results/guides.txt`, which scripts/test prints."""

from __future__ import annotations

import pytest

from tests.asgi.server_process import Certificates
from tests.ci_rules import ROOT
from tests.guides.matrix import Matrix
from tests.guides.servers import Place

_MATRIX = pytest.StashKey[Matrix]()
REPORT = ROOT / ".test-results" / "guides.txt"


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Where the guides are run."""
    folder = tmp_path_factory.mktemp("guides")
    return Place(folder, Certificates.issue(folder))


@pytest.fixture(scope="session")
def matrix(place: Place, pytestconfig: pytest.Config) -> Matrix:
    """The cells that have been measured in this run."""
    return pytestconfig.stash.setdefault(_MATRIX, Matrix(place))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write guide × server: handshakes accepted and refused. One process measures all of it (`--dist loadfile`)."""
    matrix = session.config.stash.get(_MATRIX, None)
    if matrix is None or not matrix.cells:
        return
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text("\n".join(matrix.lines()) + "\n", "utf-8")
