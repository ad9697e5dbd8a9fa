"""The relay benchmark runs, and its figures count only with its own checks passed. Speed is not asserted here."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROXIES = {"wsguard", "nginx", "nginx, default buffer", "HAProxy"}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("relay") / "report.json"
    command = [sys.executable, "-m", "benchmarks.relay", "--rounds", "1", "--json", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(path.read_text())


@pytest.mark.slow
@pytest.mark.requires_program("nginx", "haproxy")
class TestRelayBenchmark:
    def test_every_scenario_measures_all_proxies(self, report: dict[str, Any]) -> None:
        scenarios = report["scenarios"]
        assert [(each["payload_size"], each["in_flight"]) for each in scenarios] == [(256, 1), (256, 16), (65536, 1)]
        for each in scenarios:
            assert set(each["proxies"]) == PROXIES
            assert all(len(proxy["rounds"]) == 1 and proxy["median"] > 0 for proxy in each["proxies"].values())

    def test_every_echoed_byte_was_compared(self, report: dict[str, Any]) -> None:
        payload = sum(each["payload_size"] * (each["warm_up"] + each["messages"]) for each in report["scenarios"])
        compared = report["checks"]["bytes_compared"]
        assert set(compared) == PROXIES
        assert all(count > payload for count in compared.values())

    def test_the_gateway_measured_refused_a_bad_frame(self, report: dict[str, Any]) -> None:
        assert report["checks"]["bad_frame"]["close_code"] == 1002

    def test_all_proxies_spoke_the_same_tls(self, report: dict[str, Any]) -> None:
        assert report["tls"] == {"version": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384"}
