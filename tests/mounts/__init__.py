"""What holds for the gateway and for an ASGI app alike, each run as a program of its own."""
