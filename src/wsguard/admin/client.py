"""The other end of the admin socket, for commands: one request, one answer."""

from __future__ import annotations

import http.client
import socket
from typing import TYPE_CHECKING, Any

import msgspec

from wsguard.vocabulary.errors import WSGuardError

if TYPE_CHECKING:
    from pathlib import Path

_SECONDS = 15.0
_MAX_ANSWER = 256 * 1024 * 1024


class AdminError(WSGuardError):
    """The admin socket does not answer, or says no; the text says why and what to do."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_SECONDS)
        self.sock.connect(str(self._path))


def ask_admin(path: Path, method: str, target: str, members: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask at the socket *path*; return the members of the answer. Raises AdminError."""
    connection = _Connection(path)
    body = None if members is None else msgspec.json.encode(members)
    try:
        connection.request(method, target, body)
        response = connection.getresponse()
        status, data = response.status, response.read(_MAX_ANSWER)
    except (FileNotFoundError, ConnectionRefusedError):
        raise AdminError(f"{path}: nobody serves there; is wsguard running with admin = 'unix:{path}'?") from None
    except PermissionError:
        raise AdminError(f"{path}: not for this user; be the user that wsguard runs as, or root") from None
    except (OSError, http.client.HTTPException) as error:
        raise AdminError(f"{path}: {error or type(error).__name__}") from None
    finally:
        connection.close()
    try:
        answer = msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.DecodeError:
        raise AdminError(f"{path}: no answer of wsguard's ({status})") from None
    if status != 200:  # noqa: PLR2004 - OK
        raise AdminError(f"{answer.get('why') or answer.get('error') or status}")
    return answer
