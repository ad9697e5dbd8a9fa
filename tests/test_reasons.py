"""Every reason code has a test that provokes it: its code stands as a literal in some test or in the hostile table."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsguard.vocabulary.reasons import Reason, all_reasons

TESTS = Path(__file__).parent
TABLE = TESTS.parent / "src" / "wsguard" / "testing" / "hostile_handshakes.toml"
TEXT = "\n".join(path.read_text() for path in [*TESTS.rglob("test_*.py"), TABLE] if path != Path(__file__))


@pytest.mark.parametrize("reason", all_reasons(), ids=lambda reason: reason.code)
def test_a_reason_is_provoked_somewhere(reason: Reason) -> None:
    """A code that no test expects is either dead or untested."""
    assert f'"{reason.code}"' in TEXT
