"""Notices another service on the same store that cannot share it: other signing keys, or a clock far from ours.

Every service leaves its keys' fingerprint in one hash now and then. Two fingerprints at the same time mean that one
service rejects the other's tokens, as happens for a moment when keys are rotated, and for ever when it is a mistake.
"""

import asyncio
import re
import time
from contextlib import suppress

from adserver.background import wait_for_any
from adserver.errors import StoreRefused, StoreUnavailable
from adserver.store import Store, open_store

KEY = "as:services"
BEAT_S = 20.0
_ALIVE_S = 90.0
_CLOCK_SLACK_S = 60.0
_FORGET_S = 86_400.0
_OURS = re.compile(rb"[0-9a-f]{16} [0-9]{1,12}")


async def look(store: Store, fingerprint: str, now: float) -> list[str]:
    """Leave *fingerprint* in the store and return a sentence for each thing that does not fit."""
    await store.ask("HSET", KEY, fingerprint, f"{now:.0f}")
    seconds, _ = await store.ask("TIME")
    sentences = []
    apart = now - int(seconds)
    if abs(apart) > _CLOCK_SLACK_S:
        sentences.append(f"this machine's clock is {apart:+.0f} s from the store's; set one of them right")
    found = await store.ask("HGETALL", KEY)
    pairs = found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)
    # Anything may stand in a shared store; what we did not write ourselves is left out.
    ages = {name.decode(): now - int(seen) for name, seen in pairs if _OURS.fullmatch(name + b" " + seen)}
    others = [name for name, age in ages.items() if name != fingerprint and age < _ALIVE_S]
    if others:
        sentences.append(
            f"{len(others)} other service with other signing keys uses this store, and each rejects the other's "
            "tokens; give both the same ADSERVER_SECRET_FILE, or each a store of its own"
        )
    for name, age in ages.items():
        if age > _FORGET_S:
            await store.ask("HDEL", KEY, name)
    return sentences


async def beat(url: str, fingerprint: str, stopping: asyncio.Event) -> None:
    """Keep this service's fingerprint fresh while it runs."""
    while not stopping.is_set():
        with suppress(StoreUnavailable, StoreRefused):  # the shipper and readyz speak of it
            async with open_store(url) as store:
                await look(store, fingerprint, time.time())
        await wait_for_any(BEAT_S, stopping)
    with suppress(StoreUnavailable, StoreRefused):
        async with open_store(url) as store:
            await store.ask("HDEL", KEY, fingerprint)  # so that rotated keys are no neighbours of themselves
