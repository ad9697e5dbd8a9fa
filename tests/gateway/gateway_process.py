"""The gateway as its users run it: a subprocess on real sockets."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.logging_process import LoggingProcess


class GatewayProcess(LoggingProcess):
    """One running ``wsguard gateway --config FILE`` that listens."""

    def __init__(
        self, config: Path, environment: dict[str, str] | None = None, program: list[str] | None = None
    ) -> None:
        command = program or [sys.executable, "-m", "wsguard"]
        super().__init__(
            [*command, "gateway", "--config", str(config), "--log-format", "json"],
            errors=config.parent / f"{config.stem}.stderr",
            called="wsguard gateway",
            environment=environment,
        )
        self.start_line = self.wait_for("gateway.listening")
        self.addresses = [_address(text) for text in self.start_line["on"]]

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens first."""
        return self.addresses[0]

    def memory(self) -> int:
        """VmRSS in bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def descriptors(self) -> int:
        """How many files it has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)
