"""Puts in the SQLite store argv[1] till the system refuses to let its files grow, then lets them grow again."""

import asyncio
import json
import resource
import secrets
import sys
from pathlib import Path

from wsguard.engine.store_keys import hashed_key
from wsguard.store.local import SQLiteStore
from wsguard.vocabulary.bounds import DEFAULTS
from wsguard.vocabulary.errors import StoreError

MOST_BYTES = 200_000
VALUE = b"v" * 4000


async def main() -> None:
    store = SQLiteStore(Path(sys.argv[1]), DEFAULTS, secrets.token_bytes)
    told = []
    for number in range(200):
        resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_BYTES, resource.RLIM_INFINITY))
        try:
            await store.put("tickets", hashed_key(str(number)), VALUE, expires_at=100, now=0)
        except StoreError as error:
            told.append([number, type(error).__name__])
        if len(told) == 3:
            break
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    after = told[-1][0] + 1
    await store.put("tickets", hashed_key(str(after)), VALUE, expires_at=100, now=0)
    kept = [
        number for number in range(after + 1) if (await store.peek("tickets", hashed_key(str(number)), now=0)).value
    ]
    print(json.dumps({"told": told, "after": after, "kept": kept}), flush=True)
    await store.aclose()


asyncio.run(main())
