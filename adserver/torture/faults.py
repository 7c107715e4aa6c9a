"""What goes wrong, one thing after the other, as the seed says."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

import redis

from adserver.torture.control import Control
from adserver.torture.service import Lost, Service
from adserver.torture.stores import CannotTorture, Proxy, StoreServer, until

_DAY_S = 86_400


class Faults:
    """Everything that can be done to one round."""

    def __init__(
        self, service: Service, stores: list[StoreServer], proxy: Proxy, control: Control, rng: random.Random
    ) -> None:
        self._service = service
        self._primary = stores[0]
        self._standby = stores[1] if len(stores) > 1 else None
        self._proxy = proxy
        self._control = control
        self._rng = rng
        self.lost_to_power: Lost = set()
        self.done: Counter[str] = Counter()

    @property
    def primary(self) -> StoreServer:
        return self._primary

    async def rage(self, names: tuple[str, ...], pause_s: tuple[float, float], stopping: asyncio.Event) -> None:
        """One fault after the other until *stopping*: all of them in turn, in an order of chance."""
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
            "disk": self._disk,
            "clock": self._clock,
            "kill-then-power": self._kill_then_power,
        }
        self.done[name] += 1
        await ways[name]()

    async def end(self) -> None:
        """Nothing is wrong any more."""
        self._primary.resume()
        self._proxy.release()
        self._control.fail_syncs(0, 0)
        self._control.fill_disk(0)
        self._control.shift_clock(0)
        if not self._primary.process or self._primary.process.poll() is not None:
            await self._primary.start()

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
            self._primary.kill()
            await asyncio.sleep(self._rng.uniform(0, 0.3))
            await self._primary.start()

    async def _redis_power(self) -> None:
        self._primary.lose_power(self._rng)
        await self._primary.start()

    async def _failover(self) -> None:
        if self._standby is None:
            raise CannotTorture("a failover needs a second server")
        old, new = self._primary, self._standby
        try:
            await until(lambda: new.info().get("master_link_status") == "up", 3, "the replica's copy")
            new.ask("REPLICAOF", "NO", "ONE")
        except (CannotTorture, redis.RedisError):
            return
        await asyncio.sleep(self._rng.uniform(0.1, 0.6))  # what is written now the replica will never know of
        self._proxy.target = new.port
        if self._rng.random() < 0.5:
            old.kill()
            self._proxy.cut()
            await old.start()
        else:
            self._proxy.cut(self._rng)
            await asyncio.sleep(self._rng.uniform(0.2, 0.8))
            self._proxy.cut()
        self._primary, self._standby = new, old
        old.ask("REPLICAOF", "127.0.0.1", new.port)

    async def _wipe(self) -> None:
        with suppress(redis.RedisError):
            self._primary.ask("FLUSHALL")

    async def _cut(self) -> None:
        how = self._rng.choice(("hang", "break", "hold", "swallow"))
        if how == "hang":
            self._primary.pause()
            await asyncio.sleep(self._rng.uniform(0.3, 1.6))
            self._primary.resume()
        elif how == "hold":
            self._proxy.hold()
            await asyncio.sleep(self._rng.uniform(0.3, 1.6))
            self._proxy.release()
        elif how == "swallow":
            self._proxy.swallow()
            await asyncio.sleep(self._rng.uniform(0.15, 0.5))
            self._proxy.cut()
            self._proxy.release()
        else:
            self._proxy.cut()

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
