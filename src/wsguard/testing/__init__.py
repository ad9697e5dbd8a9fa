"""Tower: suites that run against a mount of the user's own. `check_mount` sends the table of hostile handshakes."""

from wsguard.testing.hostile import Answer, MountUnderTest, Row, RowResult, check_mount, hostile_rows

__all__ = ["Answer", "MountUnderTest", "Row", "RowResult", "check_mount", "hostile_rows"]
