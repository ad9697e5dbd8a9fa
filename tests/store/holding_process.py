"""Holds the write lock of the SQLite file argv[1] (argv[2] is ``file``: the whole file), till a line or the end comes."""

import sqlite3
import sys

connection = sqlite3.connect(sys.argv[1], isolation_level=None)
if sys.argv[2] == "file":
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
connection.execute("BEGIN EXCLUSIVE")
print('"locked"', flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
connection.close()
print('"free"', flush=True)
