"""Appends, puts and takes in the SQLite store argv[1] till it is killed, and tells each number once it is answered."""

import asyncio
import json
import secrets
import sys
from itertools import count
from pathlib import Path

from wsguard.engine.store_keys import hashed_key
from wsguard.store.local import SQLiteStore
from wsguard.vocabulary.bounds import DEFAULTS


async def main() -> None:
    store = SQLiteStore(Path(sys.argv[1]), DEFAULTS, secrets.token_bytes)
    for turn in count():
        number = await store.append("revocations", b"%d" % turn, expires_at=100, now=0)
        await store.put("tickets", hashed_key(str(turn)), b"%d" % turn, expires_at=100, now=0)
        await store.take("tickets", hashed_key(str(turn)), mark=b"spent", now=0)
        print(json.dumps([turn, number]), flush=True)


asyncio.run(main())
