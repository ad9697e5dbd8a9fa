"""Where the admin socket is, and who may speak on it: this process's own user, and root."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
from pathlib import Path

from wsguard.vocabulary.errors import ConfigurationError

_EXPECTED = "unix:PATH, like unix:/run/wsguard/admin.sock"
_BACKLOG = 1024
"""So many connections wait to be served; Linux has no more than net.core.somaxconn."""
_UCRED = struct.Struct("3i")  # pid, uid, gid (Linux, unix(7))
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def read_admin_path(written: str) -> Path:
    """Return the path of ``unix:PATH``. Raises ConfigurationError."""
    path = written.removeprefix("unix:")
    if not written.startswith("unix:") or not path:
        raise ConfigurationError("admin", repr(written), _EXPECTED)
    return Path(path)


def bound_admin_socket(path: Path) -> socket.socket:
    """
    Bind the Unix socket *path*, mode 0600, for this user alone; its folder is made (0700) if it is missing.

    A socket that a process has left behind is replaced. Raises ConfigurationError where another process serves there,
    where something else stands there, and for a folder that others may write.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if stat.S_IMODE(path.parent.stat().st_mode) & _WRITABLE_BY_OTHERS:
            raise ConfigurationError(
                "admin", f"{path.parent}, which others may write", "a folder of its own, mode 0700"
            )
        _clear(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        except BaseException:
            listener.close()
            raise
        finally:
            os.umask(before)
    except OSError as error:
        raise ConfigurationError("admin", f"{path} ({error.strerror or error})", _EXPECTED) from None
    listener.listen(_BACKLOG)
    listener.setblocking(False)  # noqa: FBT003 - the standard library's signature
    return listener


def peer_uid(connection: socket.socket) -> int | None:
    """Return which user is at the other end, as the kernel says (SO_PEERCRED), or None where it does not."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    return int(_UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, option, _UCRED.size))[1])


def may_administer(uid: int | None) -> bool:
    """Tell whether this user may: the one that the process runs as, and root."""
    return uid in (0, os.geteuid())


def _clear(path: Path) -> None:
    """Take away a socket that nobody serves any more."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigurationError("admin", f"{path}, which is no socket", "a path where nothing stands")
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
    raise ConfigurationError("admin", f"{path}, where another process serves", "a path of its own for each process")
