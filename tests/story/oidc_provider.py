"""A real OpenID Provider (npm's oidc-provider), from the folder that `make oidc-provider` makes."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import secrets
import ssl
import subprocess
import threading
import urllib.parse
from collections.abc import Generator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import trustme

from tests.leaks import Kind, secret

PROGRAM = ".oidc-provider/oidc-provider"
START_DEADLINE = 60.0
DEADLINE = 20.0


@contextlib.contextmanager
def running(program: str, folder: Path, *, client: str, scopes: str) -> Generator[OIDCProvider]:
    """Run one with a certificate of its own; ``issuer-ca.pem`` in *folder* is the CA that signed it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "issuer-ca.pem")
    leaf = authority.issue_cert("localhost")
    leaf.private_key_pem.write_to_path(folder / "issuer-key.pem")
    (folder / "issuer-cert.pem").write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
    provider = OIDCProvider(
        program,
        cert=folder / "issuer-cert.pem",
        key=folder / "issuer-key.pem",
        ca=folder / "issuer-ca.pem",
        client=client,
        secret=secrets.token_urlsafe(32),
        scopes=scopes,
    )
    try:
        yield provider
    finally:
        provider.stop()


class OIDCProvider:
    """
    One running provider with TLS, and one confidential client that may have access tokens for *scopes*.

    *secret* is the client's; *ca* the file of the CA that signed *cert*.
    """

    def __init__(self, program: str, *, cert: Path, key: Path, ca: Path, client: str, secret: str, scopes: str) -> None:
        self._client = f"{client}:{secret}"
        self._ca = ca
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._log: list[str] = []
        self.process = subprocess.Popen(
            [program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # a Ctrl-C is for the tests, which then stop it
        )
        self._readers = [
            threading.Thread(target=self._read_answers, daemon=True),
            threading.Thread(target=self._read_log, daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        try:
            settings = {"cert": str(cert), "key": str(key), "client": client, "secret": secret, "scopes": scopes}
            self.issuer = self._ask(json.dumps(settings), "serving", START_DEADLINE)
        except BaseException:
            self.stop()
            raise

    def rotate(self) -> list[str]:
        """Sign with a new key from now on; return the names of all keys that are published, the new one first."""
        return self._ask("rotate", "keys").split()

    def forget(self) -> list[str]:
        """Publish the old keys no longer; return what is left."""
        return self._ask("forget", "keys").split()

    def live(self, seconds: int) -> None:
        """Let the tokens from now on live for *seconds*."""
        self._ask(f"lifetime {seconds}", "keys")

    def access_token(self, resource: str, scope: str) -> str:
        """Get an access token for *resource* by the client's credentials (RFC 6749 §4.4, RFC 8707)."""
        address = urllib.parse.urlsplit(self.issuer)
        context = ssl.create_default_context(cafile=str(self._ca))
        assert address.hostname is not None
        connection = http.client.HTTPSConnection(address.hostname, address.port, context=context, timeout=DEADLINE)
        form = {"grant_type": "client_credentials", "resource": resource, "scope": scope}
        headers = {
            "Authorization": f"Basic {base64.b64encode(self._client.encode()).decode()}",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        with contextlib.closing(connection):
            connection.request("POST", "/token", urllib.parse.urlencode(form), headers)
            response = connection.getresponse()
            answer: Any = json.loads(response.read())
        assert response.status == 200, (answer, self._log)
        return secret(Kind.TOKEN, answer["access_token"])

    def stop(self) -> None:
        """Let it end: it does when its stdin does."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for reader in self._readers:
            reader.join(DEADLINE)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def _ask(self, line: str, word: str, deadline: float = DEADLINE) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        try:
            said, _, rest = self._lines.get(timeout=deadline).partition(" ")
        except Empty:
            raise AssertionError(f"oidc-provider never answered:\n{''.join(self._log[-50:])}") from None
        assert said == word, f"{said} {rest}\n{''.join(self._log[-50:])}"
        return rest.strip()

    def _read_answers(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(("serving ", "keys ")):
                self._lines.put(line)
            else:
                self._log.append(line)
        self._lines.put("ended")

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        self._log.extend(self.process.stderr)
