"""A real JupyterLab, as its users start it, from the environment that `make jupyter-env` makes."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from wsguard.demo.loopback import free_port

PROGRAM = ".venv-jupyter/bin/jupyter-lab"
START_DEADLINE = 60.0
DEADLINE = 20.0
# It asks nobody on the internet for news or extensions: the machine that tests may have none.
QUIET_SETTINGS = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}


class JupyterLab:
    """
    One running JupyterLab with all its files in *folder*, and every line of its log, each request it answered included.

    People get in with *token*, or, where that is empty, with *password*. *allow_origin* is JupyterLab's own setting: "*"
    switches its Origin check off.
    """

    def __init__(
        self, program: str, folder: Path, *, token: str = "", password: str = "", allow_origin: str = ""
    ) -> None:
        self.notebooks = folder / "notebooks"
        self.port = free_port()
        self._token = token
        self._lines: list[str] = []
        self._changed = threading.Condition()
        _configure(folder, self.notebooks, password, {"port": self.port, "allow_origin": allow_origin})
        self.process = subprocess.Popen(
            [program],
            env=_environment(folder, token),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # a Ctrl-C is for the tests, which then stop it
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """Its address as the gateway takes it."""
        return f"http://127.0.0.1:{self.port}"

    def wait_for(self, text: str) -> None:
        """Wait for a line of its log with *text*."""
        end = time.monotonic() + DEADLINE
        with self._changed:
            while not any(text in line for line in self._lines):
                left = end - time.monotonic()
                if left <= 0 or not self._reader.is_alive():
                    raise AssertionError(f"JupyterLab never logged {text!r}:\n{self._last_lines()}")
                self._changed.wait(min(left, 0.2))

    def lines_with(self, text: str) -> list[str]:
        """Return what it has logged so far about *text*."""
        with self._changed:
            return [line for line in self._lines if text in line]

    def ask(self, method: str, path: str) -> Any:
        """Ask its API past the gateway, as the machine's own administrator can."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        with contextlib.closing(connection):
            connection.request(method, path, headers={"Authorization": f"token {self._token}"} if self._token else {})
            answer = connection.getresponse()
            body = answer.read()
        assert answer.status < 300, (answer.status, body)
        return json.loads(body)

    def stop(self) -> None:
        """SIGTERM, on which it ends its kernels and itself."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(DEADLINE)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _wait_until_it_answers(self) -> None:
        # It logs that it runs before it listens.
        end = time.monotonic() + START_DEADLINE
        while time.monotonic() < end and self.process.poll() is None:
            try:
                self.ask("GET", "/api")
            except ConnectionRefusedError:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(0.1)
            else:
                return
        raise AssertionError(f"JupyterLab never answered:\n{self._last_lines()}")

    def _last_lines(self) -> str:
        return "".join(self._lines[-50:])

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()


def _environment(folder: Path, token: str) -> dict[str, str]:
    """Keep it out of the user's own Jupyter folders, and its secrets off its command line."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "IPYTHON"))}
    return {
        **others,
        "HOME": str(folder),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "IPYTHONDIR": str(folder / "ipython"),
        **({"JUPYTER_TOKEN": token} if token else {}),
    }


def _configure(folder: Path, notebooks: Path, password: str, server_settings: dict[str, Any]) -> None:
    settings = folder / "config" / "labconfig" / "default_setting_overrides.json"
    settings.parent.mkdir(parents=True)
    notebooks.mkdir()
    settings.write_text(json.dumps(QUIET_SETTINGS))
    server: dict[str, Any] = {
        **server_settings,
        "ip": "127.0.0.1",
        "port_retries": 0,
        "root_dir": str(notebooks),
        "open_browser": False,
        "allow_root": True,
        "allow_remote_access": True,  # a Host that is not localhost: the gateway has checked it
        "log_level": "DEBUG",  # every request, not only those that fail
    }
    configuration: dict[str, Any] = {"ServerApp": server, "LabApp": {"extension_manager": "readonly"}}
    if password:
        configuration["PasswordIdentityProvider"] = {"hashed_password": _hashed(password)}
    (folder / "config" / "jupyter_server_config.json").write_text(json.dumps(configuration))


def _hashed(password: str) -> str:
    """Write *password* as `jupyter server password` stores it: algorithm, salt, digest."""
    salt = os.urandom(6).hex()
    return f"sha256:{salt}:{hashlib.sha256((password + salt).encode()).hexdigest()}"
