"""The files of `pages/` and the headers they are served with."""

from __future__ import annotations

from functools import cache
from http import HTTPStatus
from importlib.resources import files

from websockets.datastructures import Headers
from websockets.http11 import Response

CONTENT_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}


def asset(name: str, *connects_to: str) -> Response:
    """Answer with the file *name* of `pages/`, whose script may also connect to the origins *connects_to*."""
    return _answer(200, name.rpartition(".")[2], _content(name), connects_to)


def plain(status: int, text: str) -> Response:
    """Answer with *text* alone."""
    return _answer(status, "txt", f"{text}\n".encode(), ())


@cache
def _content(name: str) -> bytes:
    return files("wsguard.demo").joinpath("pages", name).read_bytes()


def _answer(status: int, kind: str, body: bytes, connects_to: tuple[str, ...]) -> Response:
    headers = Headers(
        {
            "Content-Type": CONTENT_TYPES[kind],
            "Content-Length": str(len(body)),
            "Content-Security-Policy": _content_security_policy(connects_to),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
            "Connection": "close",
        }
    )
    return Response(status, HTTPStatus(status).phrase, headers, body)


def _content_security_policy(connects_to: tuple[str, ...]) -> str:
    connect = " ".join(("'self'", *connects_to))
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        f"connect-src {connect}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
