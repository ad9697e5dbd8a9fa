"""Takes each of the keys 0 to argv[2] - 1 of the SQLite store argv[1] 100 times at once, when a line says so."""

import asyncio
import json
import os
import secrets
import sys
import time
from pathlib import Path

from wsguard.engine.store_keys import hashed_key
from wsguard.store.local import SQLiteStore
from wsguard.vocabulary.bounds import DEFAULTS

TAKES = 100


async def main() -> None:
    store = SQLiteStore(Path(sys.argv[1]), DEFAULTS, secrets.token_bytes)
    own = str(os.getpid()).encode()
    await store.peek("race", hashed_key("0"), now=0)  # its thread runs, its connection is open
    print(json.dumps(os.getpid()), flush=True)
    for number in range(int(sys.argv[2])):
        sys.stdin.readline()
        began = time.monotonic()
        key = hashed_key(str(number))
        found = await asyncio.gather(*(store.take("race", key, mark=own, now=0) for _ in range(TAKES)))
        won = sum(each.value is not None for each in found)
        marks = sorted({each.mark.decode() for each in found if each.mark is not None})
        span = [began, time.monotonic()]
        print(
            json.dumps({"pid": os.getpid(), "answered": len(found), "won": won, "marks": marks, "span": span}),
            flush=True,
        )
    await store.aclose()


asyncio.run(main())
