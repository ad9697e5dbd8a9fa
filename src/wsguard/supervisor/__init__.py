"""
Floor 6: several processes of one gateway or app, on one port, under a small parent that judges nothing.

Read it in this order: `place` (what a worker is told), `processes` (they are started, and come back), `fleet` (the
admin socket of all of them).
"""
