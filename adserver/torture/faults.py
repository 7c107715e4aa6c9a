"""What goes wrong, one thing after the other, as the seed says."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

from adserver.torture.control import Control
from adserver.torture.deployments import Deployment
from adserver.torture.service import Lost, Service
from adserver.torture.stores import CannotTorture, until

OUTAGE_S = 120.0
"""No outage is longer, however slow the machine."""
_DAY_S = 86_400


class Memory:
    """What the workers grew by while the store was away: at most *most* bytes in any outage.

    Not *watched* where workers die, too: a young one grows in any case.
    """

    def __init__(self) -> None:
        self.most = 0
        self.watched = False
        self._before: dict[int, int] = {}

    def begin(self, found: dict[int, int]) -> None:
        self._before = found

    def end(self, found: dict[int, int]) -> None:
        if not self.watched:
            return
        grown = [size - self._before[worker] for worker, size in found.items() if worker in self._before]
        self.most = max([self.most, *grown])


class Faults:
    """Everything that can be done to one round of *events* events, of which *asked* says how many were asked for."""

    def __init__(
        self,
        service: Service,
        store: Deployment,
        control: Control,
        rng: random.Random,
        events: int,
        asked: Callable[[], int],
    ) -> None:
        self._service = service
        self._store = store
        self._control = control
        self._rng = rng
        self._events = events
        self._asked = asked
        self._share = 1.0
        self.lost_to_power: Lost = set()
        self.done: Counter[str] = Counter()
        self.memory = Memory()

    async def rage(self, names: tuple[str, ...], pause_s: tuple[float, float], stopping: asyncio.Event) -> None:
        """One fault after the other until *stopping*: all of them in turn, in an order of chance."""
        self._share = 0.8 / max(1, len(names))
        self.memory.watched = names == ("outage",)
        while not stopping.is_set():
            if not names:
                await stopping.wait()
            for name in self._rng.sample(names, len(names)):
                with suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), self._rng.uniform(*pause_s))
                if stopping.is_set():
                    return
                await self.strike(name)

    async def strike(self, name: str) -> None:
        ways: dict[str, Callable[[], Awaitable[None]]] = {
            "kill": self._kill,
            "power": self._power,
            "redis": self._redis,
            "redis-power": self._redis_power,
            "failover": self._failover,
            "wipe": self._wipe,
            "cut": self._cut,
            "outage": self._outage,
            "disk": self._disk,
            "clock": self._clock,
            "kill-then-power": self._kill_then_power,
        }
        self.done[name] += 1
        await ways[name]()

    async def end(self) -> None:
        """Nothing is wrong any more."""
        self._control.fail_syncs(0, 0)
        self._control.fill_disk(0)
        self._control.shift_clock(0)
        await self._store.heal()

    async def _kill(self) -> None:
        self._service.kill_worker(self._rng)

    async def _power(self) -> None:
        await self._service.kill()
        self.lost_to_power |= self._service.lose_power(self._rng)
        await self._service.start()

    async def _kill_then_power(self) -> None:
        """Power fails just after another worker has taken a dead one's journal over."""
        for _ in range(3):
            self._service.kill_worker(self._rng)
            await asyncio.sleep(self._rng.uniform(0.3, 0.6))
        await asyncio.sleep(1.2)
        await self._power()

    async def _redis(self) -> None:
        if self._rng.random() < 0.5:
            await self._redis_power()
        else:
            server, _ = self._store.hit(self._rng)
            server.kill()
            await asyncio.sleep(self._rng.uniform(0, 0.3))
            await server.start()

    async def _redis_power(self) -> None:
        server, _ = self._store.hit(self._rng)
        server.lose_power(self._rng)
        await server.start()

    async def _failover(self) -> None:
        if not await self._store.fail_over(self._rng):
            self.done["failover"] -= 1

    async def _wipe(self) -> None:
        self._store.wipe()

    async def _cut(self) -> None:
        server, proxy = self._store.hit(self._rng)
        how = self._rng.choice(("hang", "break", "hold", "swallow"))
        if how == "hang":
            server.pause()
            await asyncio.sleep(self._rng.uniform(0.3, 1.6))
            server.resume()
        elif how == "hold":
            proxy.hold()
            await asyncio.sleep(self._rng.uniform(0.3, 1.6))
            proxy.release()
        elif how == "swallow":
            proxy.swallow()
            await asyncio.sleep(self._rng.uniform(0.15, 0.5))
            proxy.cut()
            proxy.release()
        else:
            proxy.cut()

    async def _outage(self) -> None:
        """The whole store is away while this fault's share of the events flows."""
        until_asked = min(self._events, self._asked() + int(self._events * self._share))
        killed = self._rng.random() < 0.5
        if killed:
            for server in self._store.needed():
                server.kill()
        else:
            for proxy in self._store.proxies:
                proxy.hold()
        self.memory.begin(self._service.memory())
        with suppress(CannotTorture):
            await until(lambda: self._asked() >= until_asked, OUTAGE_S, "an outage's end")
        self.memory.end(self._service.memory())
        if killed:
            for server in self._store.needed():
                server.launch()
            for server in self._store.needed():
                await server.wait()
        else:
            for proxy in self._store.proxies:
                proxy.release()

    async def _disk(self) -> None:
        lasting = self._rng.choice((0.005, 0.05, 0.3))
        if self._rng.random() < 0.2:  # the journal of a dead worker, as its adopter tries to sync it
            self._service.kill_worker(self._rng)
            lasting = 1.3
            self._control.fail_syncs(time.monotonic() + lasting, 1.0)
        elif self._rng.random() < 0.7:
            self._control.fail_syncs(time.monotonic() + lasting, self._rng.choice((0.3, 1.0)))
        else:
            self._control.fill_disk(time.monotonic() + 3 * lasting)
        await asyncio.sleep(lasting)

    async def _clock(self) -> None:
        now = time.time()
        to_midnight = _DAY_S - now % _DAY_S
        jump = self._rng.choice((0, 1.5, -1.5, 30, -30, -100, 900, -900, 3700, -3700, to_midnight - 3601, to_midnight))
        self._control.shift_clock(jump)
