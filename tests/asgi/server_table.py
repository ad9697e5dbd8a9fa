"""
The hostile table through every ASGI server, and the table of docs/reference/asgi-servers.md that is made of it.

    python -m tests.asgi.server_table            print it
    python -m tests.asgi.server_table --write    write it to the page
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.asgi.server_process import Certificates, ServerName, ServerProcess, trusting
from tests.asgi.tls_proxy import TLSProxy
from wsguard.testing import MountUnderTest, RowResult, check_mount, hostile_rows

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "asgi-servers.md"
BEGIN = "<!-- Made by python -m tests.asgi.server_table --write. Do not edit up to the next such line. -->"
END = "<!-- End of what is made. -->"

# What each server does not show of a request (RULES §11). What a fact is stands in the page.
HIDES: dict[ServerName, frozenset[str]] = {
    "uvicorn": frozenset({"http_version", "grammar", "sni", "peer"}),
    "hypercorn": frozenset({"upgrade", "framing", "grammar", "size", "sni", "peer"}),
    "granian": frozenset({"method", "host", "framing", "grammar", "form", "sni", "peer"}),
    "daphne": frozenset({"http_version", "obs_text", "grammar", "form", "sni"}),
}
# daphne tells no scheme for a socket: over its own TLS all is refused. Behind a proxy that terminates TLS it serves.
BEHIND_PROXY: frozenset[ServerName] = frozenset({"daphne"})
_SILENCE = 1.0
_LATER = 0.3


@dataclass(frozen=True)
class ServerResult:
    """How the whole table went through one server."""

    name: ServerName
    results: tuple[RowResult, ...]

    def count(self, result: str) -> int:
        """How many rows went so."""
        return sum(1 for one in self.results if one.result == result)

    def hidden(self, *, reached: bool) -> list[str]:
        """The hidden rows that did, or did not, reach the app."""
        return [
            one.row.name
            for one in self.results
            if one.result == "hidden" and (one.detail == "it reached the app") == reached
        ]

    @property
    def label(self) -> str:
        """How the page calls it."""
        return f"{self.name} behind a TLS proxy" if self.name in BEHIND_PROXY else self.name


def run(name: ServerName, mount: MountUnderTest) -> ServerResult:
    """Send every row to the running *mount*."""
    results: list[RowResult] = []
    for row in hostile_rows():
        before = mount.reached()
        (result,) = check_mount(mount, (row,))
        # A server that speaks another protocol now (h2c) hands on later what it hands on: no matter of the next row.
        changed = result.answer.status == 101 != row.status and mount.reached() == before
        if changed and _reached_later(mount, before):
            passed = not row.foreign and row.facts & mount.hides
            result = replace(result, result="hidden" if passed else "failed", detail="it reached the app")
        results.append(result)
    return ServerResult(name, tuple(results))


def _reached_later(mount: MountUnderTest, before: int) -> bool:
    end = time.monotonic() + _LATER
    while time.monotonic() < end:
        if mount.reached() > before:
            return True
        time.sleep(0.01)  # a file sends no event
    return False


@contextmanager
def running(
    name: ServerName, certificates: Certificates, folder: Path
) -> Generator[tuple[ServerProcess, MountUnderTest]]:
    """Start *name* with the plain app, behind a proxy where it needs one; give the process and the mount."""
    proxied = name in BEHIND_PROXY
    server = ServerProcess(
        name,
        "tests.asgi.apps.plain:app",
        ROOT,
        None if proxied else certificates,
        environment={"WSGUARD_TEST_PROXIES": "127.0.0.1"} if proxied else None,
        output=folder / f"{name}-table.log",
    )
    try:
        context = trusting(certificates.authority)
        if not proxied:
            yield server, _mount(server, server.address, context)
            return
        with TLSProxy(certificates, server.address) as proxy:
            yield server, _mount(server, proxy.address, context)
    finally:
        server.stop()


def _mount(server: ServerProcess, address: tuple[str, int], context: object) -> MountUnderTest:
    import ssl

    assert isinstance(context, ssl.SSLContext)
    return MountUnderTest(
        address,
        context,
        "app.test",
        "https://app.test",
        server.record.reached,
        server.reason_of,
        HIDES[server.name],
        _SILENCE,
    )


def section(results: list[ServerResult]) -> str:
    """The page's table."""
    lines = [
        BEGIN,
        "",
        f"{len(hostile_rows())} handshakes, each on a TLS connection of its own.",
        "",
        "| Server | As written | Refused earlier | Hidden, refused for another reason | Hidden, let through |",
        "| --- | --- | --- | --- | --- |",
    ]
    for one in results:
        refused, through = one.hidden(reached=False), one.hidden(reached=True)
        cells = [one.label, one.count("as written"), one.count("refused earlier"), _names(refused), _names(through)]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join([*lines, "", END])


def _names(names: list[str]) -> str:
    return f"{len(names)}: {', '.join(f'`{name}`' for name in names)}" if names else "0"


def written_section() -> str:
    """What stands in the page now."""
    text = PAGE.read_text(encoding="utf-8")
    return text[text.index(BEGIN) : text.index(END) + len(END)]


def main() -> int:
    results: list[ServerResult] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        certificates = Certificates.issue(folder)
        for server in HIDES:
            with running(server, certificates, folder) as (_, mount):
                results.append(run(server, mount))
    for one in results:
        for result in one.results:
            if result.result != "as written":
                print(f"{one.name:10} {result.row.name:45} {result.result:16} {result.detail}")
    made = section(results)
    print(made)
    if "--write" in sys.argv[1:]:
        PAGE.write_text(PAGE.read_text(encoding="utf-8").replace(written_section(), made), encoding="utf-8")
    return 1 if any(one.count("failed") for one in results) else 0


if __name__ == "__main__":
    sys.exit(main())
