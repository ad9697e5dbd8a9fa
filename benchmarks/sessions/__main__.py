"""`python -m benchmarks.sessions`: see the package."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import resource
import secrets
import socket
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import trustme
from rich.console import Console
from rich.table import Table

from wsguard.identity.key_writer import add_key
from wsguard.vocabulary.bounds import DEFAULTS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

HOST = "app.test"
HOLDERS = 4
SUBJECTS = 100
_OWN_FILES = 40
_START_SECONDS, _OPEN_SECONDS, _CLOSE_SECONDS = 30, 300, 60

CONFIGURATION = """
{mount}
cert = "cert.pem"
key = "key.pem"
origins = ["https://app.test"]
hosts = ["app.test"]
admin = "unix:run/admin.sock"
log_format = "json"
{policy}

# The load comes from one address; RULES §9 lets a benchmark raise the caps of an address in a file of its own.
[limits]
preauth = 100000
preauth_address = 100000
open_address = 100000
attempts_address = 10000000
"""
GATEWAY = """
listen = ["127.0.0.1:0"]
upstream = "http://127.0.0.1:{upstream}"
"""
RUN = """
listen = "127.0.0.1:{port}"
"""
WITH = """
auth = ["api_key"]
origin_required = "unless-header-credential"

[api_keys]
file = "keys.toml"
"""
WITHOUT = "allow_missing_origin = true\n"


@dataclass(frozen=True)
class Closing:
    """How long the Close frames of one revocation took to arrive, in seconds, the admin call included."""

    sockets: int
    median: float
    p99: float
    last: float
    answered: float


@dataclass(frozen=True)
class Result:
    """All figures. Memory is bytes a session: the server's VmRSS with and without a policy that asks who it is."""

    sockets: int
    one_subject: Closing
    everybody: Closing
    without_policy: float
    with_policy: float
    failures: list[str] = field(default_factory=list[str])

    @property
    def more(self) -> float:
        """What the policy adds, in bytes a session."""
        return self.with_policy - self.without_policy


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sessions", description=__doc__)
    parser.add_argument("--sockets", type=int, default=10_000, help="live sockets (default: 10000)")
    parser.add_argument(
        "--mount",
        choices=tuple(_MOUNTS),
        default="gateway",
        help="what holds them: wsguard gateway before an app, or wsguard run with the app in its process",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    mount = _MOUNTS[options.mount]
    # The gateway has two descriptors a socket; where that is not allowed, fewer sockets must do.
    wanted = mount.files * options.sockets + _OWN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), max(hard, wanted)))
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if allowed < wanted:
        most = (allowed - _OWN_FILES) // mount.files
        sys.exit(f"{wanted} open files are needed, {allowed} are allowed: ulimit -n, or --sockets {most}")
    console = Console(width=120)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("two cores are needed: one for the server, one for those who hold the sockets and for the app")
    # Children inherit the core of the moment at which they are started.
    os.sched_setaffinity(0, {cores[1]})
    console.print(f"wsguard {options.mount} on core {cores[0]}, everything else on core {cores[1]}")
    result = asyncio.run(_measured(mount, options.sockets, console))
    _show(result, console, has_targets=mount is _MOUNTS["gateway"])
    if options.json is not None:
        options.json.write_text(json.dumps({**asdict(result), "more": result.more}, indent=2) + "\n")


async def _measured(mount: _Mount, count: int, console: Console) -> Result:
    with tempfile.TemporaryDirectory(prefix="wsguard-") as name:
        folder = Path(name)
        keys = await asyncio.to_thread(_written, folder)
        plain = [""] * count
        named = [f"X-API-Key: {keys[number % SUBJECTS]}\r\n" for number in range(count)]
        console.print(f"{count} sockets without a policy that asks …")
        async with mount.serve(folder, WITHOUT) as server, _held(folder, server, plain):
            without = server.grown() / count
        console.print(f"{count} sockets of {SUBJECTS} subjects …")
        async with mount.serve(folder, WITH) as server, _held(folder, server, named) as sockets:
            weight = server.grown() / count
            one = await _closed(folder, sockets, {"subject": "subject-0"}, named[0])
            rest = await _closed(folder, sockets, {"issuer": "api_key"}, None)
        return Result(count, one, rest, without, weight)


def _written(folder: Path) -> list[str]:
    """Write certificate and key file; return the API keys."""
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    leaf = authority.issue_cert(HOST, key_type=trustme.KeyType.ECDSA)
    leaf.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    leaf.private_key_pem.write_to_path(folder / "key.pem")
    authority.cert_pem.write_to_path(folder / "authority.pem")
    return [
        add_key(
            folder / "keys.toml",
            f"subject-{number}",
            scopes=(),
            now=time.time() - 60,
            randomness=secrets.token_bytes,
            limits=DEFAULTS,
        )[0]
        for number in range(SUBJECTS)
    ]


class _Server:
    """A running server: where it listens, and what its memory has grown by since it listens."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process = process
        self.port = port
        self._began = self._memory()

    def grown(self) -> int:
        """Bytes of VmRSS since the start."""
        return self._memory() - self._began

    def _memory(self) -> int:
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("no VmRSS")


@contextlib.asynccontextmanager
async def _process(*command: str) -> AsyncGenerator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=1024 * 1024)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _line(process: asyncio.subprocess.Process, seconds: float) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(seconds):
        line = await process.stdout.readline()
    if not line:
        raise RuntimeError(f"{process.pid} ended")
    return line.decode()


@contextlib.asynccontextmanager
async def _gateway(folder: Path, policy: str) -> AsyncGenerator[_Server]:
    async with _process(sys.executable, "-m", "benchmarks.sessions.upstream") as upstream:
        port = (await _line(upstream, _START_SECONDS)).strip()
        file = folder / "wsguard.toml"
        file.write_text(CONFIGURATION.format(mount=GATEWAY.format(upstream=port), policy=policy))
        async with _process(sys.executable, "-m", "wsguard", "gateway", "--config", str(file)) as process:
            os.sched_setaffinity(process.pid, {_other_core()})
            while (told := json.loads(await _line(process, _START_SECONDS)))["event"] != "gateway.listening":
                pass
            reading = asyncio.create_task(_read_over(process))
            try:
                yield _Server(process, int(told["on"][0].rpartition(":")[2]))
            finally:
                process.terminate()
                await reading


@contextlib.asynccontextmanager
async def _run(folder: Path, policy: str) -> AsyncGenerator[_Server]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    file = folder / "run.toml"
    file.write_text(CONFIGURATION.format(mount=RUN.format(port=port), policy=policy))
    command = (sys.executable, "-m", "wsguard", "run", "--config", str(file), "benchmarks.sessions.app:app")
    async with _process(*command) as process:
        os.sched_setaffinity(process.pid, {_other_core()})
        reading = asyncio.create_task(_read_over(process))
        try:
            await _answers(process, port)
            yield _Server(process, port)
        finally:
            process.terminate()
            await reading


async def _answers(process: asyncio.subprocess.Process, port: int) -> None:
    """Wait till somebody listens at *port*."""
    async with asyncio.timeout(_START_SECONDS):
        while process.returncode is None:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.05)
    raise RuntimeError(f"wsguard run ended with {process.returncode}")


class _Mount(NamedTuple):
    """How a mount is started, and how many descriptors a socket takes in its process."""

    serve: Callable[[Path, str], contextlib.AbstractAsyncContextManager[_Server]]
    files: int


_MOUNTS = {"gateway": _Mount(_gateway, 2), "run": _Mount(_run, 1)}


def _other_core() -> int:
    """Return the core that nothing of this benchmark but the server runs on."""
    return next(core for core in range(os.cpu_count() or 1) if core not in os.sched_getaffinity(0))


async def _read_over(process: asyncio.subprocess.Process) -> None:
    """Read the log, or a full pipe would hold the gateway."""
    assert process.stdout is not None
    while await process.stdout.read(1024 * 1024):
        pass


class _Sockets:
    """The sockets of all holders, and what they tell of their ends."""

    def __init__(self, holders: list[asyncio.subprocess.Process]) -> None:
        self._ends: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._reading = [asyncio.create_task(self._read(holder)) for holder in holders]
        self.left: dict[str, int] = {}

    async def ends(self, headers: str | None) -> list[dict[str, Any]]:
        """Wait for the ends of all sockets with these *headers*, or of all that are left."""
        wanted = sum(self.left.values()) if headers is None else self.left[headers]
        found: list[dict[str, Any]] = []
        async with asyncio.timeout(_CLOSE_SECONDS):
            while len(found) < wanted:
                end = await self._ends.get()
                if headers is not None and end["headers"] != headers:
                    raise RuntimeError("a socket ended that nobody had revoked")
                if end["code"] != 3000:
                    raise RuntimeError(f"a socket ended with {end['code']}")
                self.left[end["headers"]] -= 1
                found.append(end)
        return found

    def stop(self) -> None:
        for task in self._reading:
            task.cancel()

    async def _read(self, holder: asyncio.subprocess.Process) -> None:
        assert holder.stdout is not None
        while line := await holder.stdout.readline():
            self._ends.put_nowait(json.loads(line))


@contextlib.asynccontextmanager
async def _held(folder: Path, server: _Server, headers: list[str]) -> AsyncGenerator[_Sockets]:
    """Open a socket for each of *headers*, in several processes."""
    async with contextlib.AsyncExitStack() as stack:
        holders: list[asyncio.subprocess.Process] = []
        for number in range(HOLDERS):
            command = (sys.executable, "-m", "benchmarks.sessions.holder")
            holder = await stack.enter_async_context(_process(*command))
            told = {"host": HOST, "port": server.port, "headers": headers[number::HOLDERS]}
            told["authority"] = str(folder / "authority.pem")
            assert holder.stdin is not None
            holder.stdin.write(json.dumps(told).encode() + b"\n")
            holders.append(holder)
        opened = [json.loads(await _line(holder, _OPEN_SECONDS))["opened"] for holder in holders]
        if sum(opened) != len(headers):
            raise RuntimeError(f"{sum(opened)} sockets are open")
        sockets = _Sockets(holders)
        for own in headers:
            sockets.left[own] = sockets.left.get(own, 0) + 1
        try:
            yield sockets
        finally:
            sockets.stop()


async def _closed(folder: Path, sockets: _Sockets, members: dict[str, Any], headers: str | None) -> Closing:
    """Revoke over the admin socket, and see how long the Close frames take."""
    from wsguard.admin.client import ask_admin

    began = time.monotonic()
    answer = await asyncio.to_thread(ask_admin, folder / "run" / "admin.sock", "POST", "/revocations", members)
    answered = time.monotonic() - began
    ends = await sockets.ends(headers)
    if answer["closed"] != len(ends):
        raise RuntimeError(f"the server closed {answer['closed']}, {len(ends)} heard of it")
    seconds = sorted(end["at"] - began for end in ends)
    p99 = seconds[math.ceil(0.99 * len(seconds)) - 1]
    return Closing(len(seconds), statistics.median(seconds), p99, seconds[-1], answered)


def _show(result: Result, console: Console, *, has_targets: bool) -> None:
    """Print the figures, beside the targets where there are any: they were set for the gateway."""
    table = Table("revoked", "sockets", "median", "p99", "last", "admin answered", "target")
    for name, closing in (("one subject", result.one_subject), ("everybody", result.everybody)):
        figures = (closing.median, closing.p99, closing.last, closing.answered)
        times = [f"{seconds * 1000:.0f} ms" for seconds in figures]
        target = "p99 ≤ 1 s: " + ("yes" if closing.p99 <= 1 else "no") if has_targets else ""
        table.add_row(name, str(closing.sockets), *times, target)
    console.print(table)
    target = f" (target ≤ 2000 B: {'yes' if result.more <= 2000 else 'no'})" if has_targets else ""
    console.print(
        f"memory a session: {result.without_policy / 1024:.1f} KiB without, {result.with_policy / 1024:.1f} KiB with a "
        f"policy that asks; + {result.more:.0f} B{target}"
    )


if __name__ == "__main__":
    main()
