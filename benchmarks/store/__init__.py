"""What the store costs: `python -m benchmarks.store` from the clone's root.

The unit is CPU µs a command, of the whole process (the SQLite store's thread too), on uvloop as in the gateway. A
ticket's issue is one put, its redemption a peek and a take. Values have 400 bytes, keys 32; they live for three rounds,
so that deleting the expired is in the figures. "thread alone" is a command that does nothing: what it costs to hand
anything to another thread and to hear from it.

The process keeps to one core, as the servers of the other benchmarks do; with ``--all-cores`` it does not, and each
command that comes alone wakes a sleeping core twice.
"""
