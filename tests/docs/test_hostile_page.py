"""The page on hostile handshakes: its call of `check_mount`, against a running gateway, finds nothing to print."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.docs.blocks import ROOT, blocks_of
from tests.docs.running import WSGUARD, running
from tests.gateway.recording_upstream import RecordingUpstream, answer_anything


class App(SimpleNamespace):
    """The `app` of the page: whatever tells how many handshakes it was given."""

    upstream: RecordingUpstream

    @property
    def handshakes(self) -> int:
        return self.upstream.count()


def test_the_gateway_passes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = [
        block for block in blocks_of(ROOT / "docs/guides/hostile-handshakes.md") if "data-tested" in block.attributes
    ]
    upstream = RecordingUpstream(answer_anything)
    command = [WSGUARD, "gateway", "--listen", "127.0.0.1:0", "--cert", "app.pem", "--key", "app.key"]
    command += ["--upstream", upstream.url, "--origin", "https://app.example.com"]
    try:
        with running(command, place) as gateway:
            port = gateway.wait_for("gateway.listening").split('on=["127.0.0.1:')[1].split('"')[0]
            text = block.text.replace("8443", port).replace("ca.pem", "internal-ca.pem")
            exec(compile(text, str(block), "exec"), {"app": App(upstream=upstream)})
            assert gateway.stop() == 0
            assert gateway.errors == ""
    finally:
        upstream.close()
    assert capsys.readouterr().out == ""
