"""What the guard costs inside an ASGI app: a FastAPI echo under uvicorn bare, with a check by hand, with the guard.

`python -m benchmarks.asgi` from the clone's root. The units are server CPU µs a handshake (TLS, opening, closing, log
lines) and a message (one round trip), each beside the bare app in the same round. A second part measures the same
without sockets, where a microsecond does not drown. docs/performance.md has the method and the table.
"""
