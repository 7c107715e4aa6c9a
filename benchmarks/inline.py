"""`python -m benchmarks.inline serve …`: the service as it is, but for one thing: each beacon is counted by an HINCRBY.

The baseline of the counting figures: what one would write first. A request awaits one command on a pooled connection
and is answered when the store has replied. Nothing of it survives a store that is away, and a repeat that this machine
has forgotten counts twice. Workers are spawned with this as their main module, so it is in place before they start.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import redis.asyncio as aioredis

from adserver import metrics
from adserver.events import Type
from adserver.settings import read_settings
from adserver.store import partition
from adserver.tally import field_of
from adserver.token import Token
from adserver.tracking import Taken, Tracking
from benchmarks.load import CONNECTIONS

_pool: list[aioredis.Redis] = []
_running: set[asyncio.Task[None]] = set()


def _client() -> aioredis.Redis:
    if not _pool:
        url = read_settings(os.environ).store_url
        _pool.append(aioredis.Redis.from_url(url, max_connections=CONNECTIONS, protocol=2))
    return _pool[0]


def _count(self: Any, token: Token, type_: Type, headers: Any, client: Any, tell: Callable[[Taken], None]) -> None:
    """`Tracking._count` with the store in place of the journal."""
    if self._seen.has(token.issuer, token.serial, type_):
        self._meter.add(metrics.REJECTED.labels(metrics.DUPLICATE))
        tell(Taken(metrics.DUPLICATE))
        return
    judge = self._judge.click if type_ is Type.CLICK else self._judge.beacon
    reason = judge(headers, client, time.monotonic())
    hour = self._days.hour_of(token.day, token.issued)

    async def increment() -> None:
        await _client().hincrby(partition(token.day, ":inline"), field_of(type_, reason, hour, token.ad), 1)
        tell(self._taken(token, type_, reason, None))

    task = asyncio.get_running_loop().create_task(increment())
    _running.add(task)
    task.add_done_callback(_running.discard)


setattr(Tracking, "_count", _count)  # noqa: B010

if __name__ == "__main__":
    from adserver.cli import main

    sys.exit(main())
