"""Opens a store (argv[1]), forks, and tells how parent and child saw it; argv[2] is ``used`` if it was before."""

import asyncio
import json
import os
import secrets
import sys
from pathlib import Path

from wsguard.engine.ports import Store
from wsguard.store.opened import open_store
from wsguard.vocabulary.bounds import DEFAULTS
from wsguard.vocabulary.errors import StoreError

PLACE = ("tickets", b"key")


async def put(store: Store) -> None:
    await store.put(*PLACE, b"value", expires_at=100, now=0)
    await store.append("revocations", b"record", expires_at=100, now=0)


async def look(store: Store) -> list[object]:
    try:
        taken = await store.peek(*PLACE, now=0)
        records = await store.read("revocations", after=0, now=0)
    except StoreError as error:
        return [store.name, str(error), 0]
    return [store.name, taken.value is not None, len(records)]


store = open_store(sys.argv[1], limits=DEFAULTS, randomness=secrets.token_bytes, folder=Path.cwd())
if sys.argv[2] == "used":
    asyncio.run(put(store))
child = os.fork()
if child == 0:
    print(json.dumps(["child", *asyncio.run(look(store))]), flush=True)
    asyncio.run(store.aclose())
    os._exit(0)
os.waitpid(child, 0)
print(json.dumps(["parent", *asyncio.run(look(store))]), flush=True)
asyncio.run(store.aclose())
