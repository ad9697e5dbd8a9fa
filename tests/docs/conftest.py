"""A place where the documentation's commands and files find what they name: certificates, an empty data folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme


@pytest.fixture(scope="session")
def certificates() -> dict[str, bytes]:
    """What stands in the files that the pages name, by file name."""
    authority = trustme.CA()
    leaf = authority.issue_cert("app.example.com")
    chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
    key = leaf.private_key_pem.bytes()
    return {
        "app.pem": chain,
        "app.key": key,
        "cert.pem": chain,
        "key.pem": key,
        "internal-ca.pem": authority.cert_pem.bytes(),
    }


@pytest.fixture(scope="session")
def data_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the development CA is made, once for all."""
    return tmp_path_factory.mktemp("data-home")


@pytest.fixture
def place(tmp_path: Path, certificates: dict[str, bytes], data_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with those files, as the current one."""
    for name, content in certificates.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.setenv("XDG_DATA_HOME", str(data_home))
    monkeypatch.chdir(tmp_path)
    return tmp_path
