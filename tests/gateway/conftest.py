"""Certificates, upstreams and running gateways for the tests of this folder."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.gateway.gateway_process import GatewayProcess
from tests.gateway.recording_upstream import RecordingUpstream, Script, answer_anything
from wsguard.config.file import GatewayConfig, LimitKeys, RouteKeys, render_toml

NAMES = ("app.test", "other.test", "localhost", "127.0.0.1")


@dataclass(frozen=True)
class Certificates:
    """Files of one throw-away authority."""

    cert: Path
    key: Path
    authority: Path

    def client_context(self) -> ssl.SSLContext:
        """A client that trusts the authority, and sends any server name it is told to."""
        context = ssl.create_default_context(cafile=self.authority)
        context.check_hostname = False
        return context


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    leaf = authority.issue_cert(*NAMES)
    files = Certificates(folder / "cert.pem", folder / "key.pem", folder / "authority.pem")
    files.cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    files.key.write_bytes(leaf.private_key_pem.bytes())
    files.authority.write_bytes(authority.cert_pem.bytes())
    return files


@pytest.fixture(scope="session")
def client_context(certificates: Certificates) -> ssl.SSLContext:
    return certificates.client_context()


@pytest.fixture(params=["aiofastnet", "stdlib"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


StartGateway = Callable[..., GatewayProcess]


@pytest.fixture
def start_gateway(certificates: Certificates, tmp_path: Path) -> Iterator[StartGateway]:
    """
    Start gateways before *upstream*; keyword arguments are keys of the configuration file.

    *planted* is Python that runs in the gateway's process first; what that one writes to stderr is the test's own.
    """
    running: list[GatewayProcess] = []
    silent: list[GatewayProcess] = []

    def start(
        upstream: str,
        *,
        limits: dict[str, Any] | None = None,
        routes: list[dict[str, Any]] | None = None,
        environment: dict[str, str] | None = None,
        planted: str | None = None,
        **keys: Any,
    ) -> GatewayProcess:
        written: dict[str, Any] = {
            "listen": ["127.0.0.1:0"],
            "cert": str(certificates.cert),
            "key": str(certificates.key),
            "upstream": upstream,
            "origins": ["https://app.test"],
            **keys,
        }
        if limits is not None:
            written["limits"] = LimitKeys(**limits)
        if routes is not None:
            written["route"] = [RouteKeys(**route) for route in routes]
        file = tmp_path / f"wsguard-{len(running)}.toml"
        file.write_text(render_toml(GatewayConfig(**written), "wsguard.schema.json"))
        program = (
            None if planted is None else [sys.executable, "-c", f"{planted}\nfrom wsguard.cli import main\nmain()"]
        )
        gateway = GatewayProcess(file, environment, program=program)
        running.append(gateway)
        if planted is None:
            silent.append(gateway)
        return gateway

    yield start
    for gateway in running:
        assert gateway.stop() == 0, gateway.stderr()
    for gateway in silent:
        assert gateway.stderr() == ""


@pytest.fixture
def start_upstream() -> Iterator[Callable[..., RecordingUpstream]]:
    running: list[RecordingUpstream] = []

    def start(script: Script = answer_anything) -> RecordingUpstream:
        running.append(RecordingUpstream(script))
        return running[-1]

    yield start
    for upstream in running:
        upstream.close()
