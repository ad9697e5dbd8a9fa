"""
`python -m benchmarks.asgi.server VARIANT PORT CERTIFICATE KEY LOG`: one echo under uvicorn, one worker, TLS.

Once it serves, its stdout goes to the file LOG: a pipe would make each log line wake whoever reads it, and the server
would pay for that.
"""

import os
import socket
import sys

import uvicorn

from benchmarks.asgi.variants import fastapi_echo

READY = "listening"


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(READY, flush=True)
        os.dup2(os.open(sys.argv[-1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), sys.stdout.fileno())


def main() -> None:
    name, port, certificate, key, _ = sys.argv[1:]
    config = uvicorn.Config(
        fastapi_echo(name),
        host="127.0.0.1",
        port=int(port),
        ssl_certfile=certificate,
        ssl_keyfile=key,
        proxy_headers=False,
        # uvicorn's own lines would cost every variant the same; the guard's decision log is on.
        access_log=False,
        log_level="warning",
        # A ping between two echoes is not what the load compares.
        ws_ping_interval=None,
    )
    _Server(config).run()


if __name__ == "__main__":
    main()
