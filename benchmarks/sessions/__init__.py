"""
How long it takes until the last socket of somebody who is revoked has its Close frame, and what a session weighs.

`python -m benchmarks.sessions`: real TLS sockets against `wsguard gateway` as a process of its own, opened by other
processes. Time runs from the call on the admin socket to the client's receipt of each Close frame; memory is the
difference of the gateway's VmRSS with and without a policy that asks who it is.
"""
