"""What ops should know of the journals' volume before it hurts: its room, what was set aside, how far counting lags.

It is looked at beside the requests, so that a disk that hangs holds up no probe.
"""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from adserver import metrics
from adserver.background import wait_for_any
from adserver.disk import free_bytes
from adserver.salvage import journals_set_aside
from adserver.segments import CORRUPT

EVERY_S = 5.0
LOW_BYTES = 256 * 1024 * 1024
"""Less free room than this is told: 8 million events, or a segment each for 64 workers."""
LAG_S = 60.0
"""Events that wait longer than this to be counted are told; a store that fails over takes less."""


class Counting(Protocol):
    """As much of a shipper as is watched here."""

    @property
    def days_set_aside(self) -> Mapping[int, str]: ...

    def waiting(self) -> int: ...

    def lag_s(self, now: float) -> float: ...


class Seen(Struct, frozen=True):
    """One look: free bytes (None where they cannot be told), segments set aside per journal, seconds of lag."""

    free: int | None = None
    set_aside: dict[str, list[Path]] = {}
    lag_s: float = 0.0


class Condition:
    """The journals under *root*, and the shipper of one worker; None where it has no journal."""

    def __init__(self, root: Path, shipper: Counting | None) -> None:
        self._root = root
        self._shipper = shipper
        self.seen = Seen()

    async def follow(self, stopping: asyncio.Event) -> None:
        """Look every EVERY_S, whether or not the store can be reached."""
        while not stopping.is_set():
            await self.look(time.time())
            await wait_for_any(EVERY_S, stopping)

    async def look(self, now: float) -> None:
        """Look once, and tell the metrics."""
        self.seen = await asyncio.to_thread(self._look, now)
        metrics.JOURNALS_SET_ASIDE.set(len(self.seen.set_aside))
        metrics.LAG_SECONDS.set(self.seen.lag_s)
        if self._shipper:
            metrics.WAITING.set(self._shipper.waiting())
            metrics.DAYS_SET_ASIDE.set(len(self._shipper.days_set_aside))
        if self.seen.free is not None:
            metrics.DISK_FREE.set(self.seen.free)

    def _look(self, now: float) -> Seen:
        free, set_aside, lag_s = None, self.seen.set_aside, self.seen.lag_s
        with suppress(OSError):
            free = free_bytes(self._root)
        with suppress(OSError):
            set_aside = journals_set_aside(self._root)
        if self._shipper:
            with suppress(OSError, ValueError):
                lag_s = self._shipper.lag_s(now)
        return Seen(free, set_aside, lag_s)

    def words(self) -> list[str]:
        """A sentence for each thing that somebody should see to."""
        found, seen = [], self.seen
        if seen.free is not None and seen.free < LOW_BYTES:
            found.append(
                f"the journals' volume has {seen.free / 1048576:.0f} MiB free, which is less than "
                f"{LOW_BYTES // 1048576} MiB; make room before events are refused"
            )
        if seen.set_aside:
            paths = [path for some in seen.set_aside.values() for path in some]
            damaged = sum(path.suffix == CORRUPT for path in paths)
            found.append(
                f"records of {_many(len(seen.set_aside), 'journal')} are not counted and wait for a person: "
                f"{_many(damaged, 'segment')} damaged, {len(paths) - damaged} too old; see adserver journal salvage"
            )
        if self._shipper and (days := self._shipper.days_set_aside):
            found.append(f"{_many(len(days), 'day')} not counted for now, events wait: {'; '.join(days.values())}")
        if seen.lag_s > LAG_S:
            found.append(f"counting lags: the oldest event that this worker has yet to count is {seen.lag_s:.0f} s old")
        return found


def _many(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"
