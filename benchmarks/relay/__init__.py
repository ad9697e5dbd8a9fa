"""What relaying one WebSocket message costs the server: wsguard, nginx and HAProxy side by side.

`python -m benchmarks.relay` from the clone's root. The unit is server CPU µs a message, where a message is one
round trip: a frame of the client through the proxy to the upstream, and its echo back. docs/performance.md tells
the method and holds the table.
"""
