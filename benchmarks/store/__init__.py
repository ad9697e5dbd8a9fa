"""What the store costs: `python -m benchmarks.store` from the clone's root.

The unit is CPU µs a command, of the whole process (the SQLite store's thread too), on uvloop as in the gateway. A
ticket's issue is one put, its redemption a peek and a take. Values have 400 bytes, keys 32; they live for three rounds,
so that deleting the expired is in the figures.
"""
