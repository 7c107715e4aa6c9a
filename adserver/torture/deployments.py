"""How a round's store is deployed: one server with a replica, or a cluster of three primaries with a replica each.

Every server stands behind a proxy of its own. A cluster's servers announce their proxies' ports, so that the service
and the replicas reach them by those; what they say to each other about who is alive goes direct.
"""

import asyncio
import random
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import redis

from adserver.store import partition
from adserver.torture.stores import CannotTorture, Proxy, StoreServer, free_port, until

_SLOTS = 16_384
_SHARDS = 3
_DAY_S = 86_400


class Deployment(Protocol):
    """The servers of a round's store, and the proxies before them."""

    servers: list[StoreServer]
    proxies: list[Proxy]

    @property
    def url(self) -> str:
        """Where the service finds it."""

    async def start(self) -> None: ...

    async def heal(self) -> None:
        """Nothing is wrong with it any more, and nothing of it moves until the round is over."""

    def hit(self, rng: random.Random) -> tuple[StoreServer, Proxy]:
        """The primary that a fault shall strike, and the proxy before it."""

    def needed(self) -> list[StoreServer]:
        """The servers without which there is no store."""

    def wipe(self) -> None: ...

    async def fail_over(self, rng: random.Random) -> bool:
        """A replica made stale on purpose takes over; False when there was none that had a copy."""


class Pair:
    """One server; with a *standby* its replica, which takes its place when we say so."""

    def __init__(self, program: str, home: Path, *, standby: bool) -> None:
        self.servers = [StoreServer(program, home / f"store{n}") for n in range(2 if standby else 1)]
        self._proxy = Proxy()
        self.proxies = [self._proxy]
        self._primary = self.servers[0]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._proxy.port}"

    async def start(self) -> None:
        for server in self.servers:
            await server.start()
        for server in self.servers[1:]:
            server.ask("REPLICAOF", "127.0.0.1", self._primary.port)
        self._proxy.target = self._primary.port
        await self._proxy.start()

    async def heal(self) -> None:
        await _heal(self)

    def hit(self, _: random.Random) -> tuple[StoreServer, Proxy]:
        return self._primary, self._proxy

    def needed(self) -> list[StoreServer]:
        return [self._primary]

    def wipe(self) -> None:
        with suppress(redis.RedisError):
            self._primary.ask("FLUSHALL")

    async def fail_over(self, rng: random.Random) -> bool:
        """The old primary is dead, or goes on taking writes for a while."""
        old = self._primary
        standby = next((server for server in self.servers if server is not old), None)
        if standby is None:
            raise CannotTorture("a failover needs a second server")
        new = standby
        try:
            await until(lambda: new.info().get("master_link_status") == "up", 3, "the replica's copy")
            new.ask("REPLICAOF", "NO", "ONE")
        except (CannotTorture, redis.RedisError):
            return False
        await asyncio.sleep(rng.uniform(0.1, 0.6))  # what is written now the replica will never know of
        self._proxy.target = new.port
        if rng.random() < 0.5:
            old.kill()
            self._proxy.cut()
            await old.start()
        else:
            self._proxy.cut(rng)
            await asyncio.sleep(rng.uniform(0.2, 0.8))
            self._proxy.cut()
        self._primary = new
        old.ask("REPLICAOF", "127.0.0.1", new.port)
        return True


class Cluster:
    """Three primaries that hold a third of the keys each, and a replica of each; who is primary they settle alone."""

    NODE_TIMEOUT_MS = 800

    def __init__(self, program: str, home: Path) -> None:
        self.proxies = [Proxy() for _ in range(2 * _SHARDS)]
        self._bus = [free_port() for _ in self.proxies]
        self.servers = [
            StoreServer(
                program,
                home / f"store{number}",
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                str(self.NODE_TIMEOUT_MS),
                "--cluster-replica-validity-factor",  # a replica that lost its primary long ago takes over, too
                "0",
                "--cluster-announce-ip",
                "127.0.0.1",
                "--cluster-announce-port",
                str(proxy.port),
                "--cluster-port",
                str(bus),
            )
            for number, (proxy, bus) in enumerate(zip(self.proxies, self._bus, strict=True))
        ]

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'127.0.0.1:{proxy.port}' for proxy in self.proxies)}"

    async def start(self) -> None:
        for server, proxy in zip(self.servers, self.proxies, strict=True):
            proxy.target = server.port
            await proxy.start()
            server.launch()
        for server in self.servers:
            await server.wait()
        first = self.servers[0]
        for shard, server in enumerate(self.servers[:_SHARDS]):
            server.ask("CLUSTER", "ADDSLOTSRANGE", _SLOTS * shard // _SHARDS, _SLOTS * (shard + 1) // _SHARDS - 1)
            server.ask("CLUSTER", "SET-CONFIG-EPOCH", shard + 1)
        for proxy, bus in list(zip(self.proxies, self._bus, strict=True))[1:]:
            first.ask("CLUSTER", "MEET", "127.0.0.1", proxy.port, bus)
        await until(self._is_whole, 30, "the cluster's first agreement")
        for shard in range(_SHARDS):
            primary, replica = self._shard(shard)
            name = primary.ask("CLUSTER", "MYID").decode()
            await until(lambda replica=replica, name=name: name in _nodes(replica), 20, "an introduction")  # type: ignore[misc]
            replica.ask("CLUSTER", "REPLICATE", name)
        for replica in self.servers[_SHARDS:]:
            await until(lambda replica=replica: _is_in_step(replica), 20, "a replica's first copy")  # type: ignore[misc]

    async def heal(self) -> None:
        await _heal(self)
        await until(self._is_whole, 60, "the cluster's recovery")
        for server in self.servers:
            server.ask("CONFIG", "SET", "cluster-node-timeout", 60_000)

    def hit(self, rng: random.Random) -> tuple[StoreServer, Proxy]:
        """Mostly the primary of the day that is counted right now, else any."""
        server = self._primary(self._choose(rng))
        return server, self.proxies[self.servers.index(server)]

    def needed(self) -> list[StoreServer]:
        return self.servers

    def wipe(self) -> None:
        for shard in range(_SHARDS):
            with suppress(redis.RedisError):
                self._primary(shard).ask("FLUSHALL")

    async def fail_over(self, rng: random.Random) -> bool:
        """A primary is killed, or hangs, until its replica has taken over; then it comes back and learns of that.

        Before, its replica is cut off: what is written then, it will never know of. A primary that hung still takes
        what was sent to it meanwhile, and forgets it.
        """
        shard = self._choose(rng)
        old = self._primary(shard)
        new = next(server for server in self._shard(shard) if server is not old)
        proxy = self.proxies[self.servers.index(old)]
        try:
            await until(lambda: _is_in_step(new), 5, "the replica's copy")
        except CannotTorture:
            return False
        proxy.part()
        try:
            await asyncio.sleep(rng.uniform(0, 0.6))
            if rng.random() < 0.6:
                old.kill()
            else:
                old.pause()
            await until(lambda: _role(new) == "master", 30, "the replica's taking over")
        finally:
            proxy.join()
        if old.is_running():
            await asyncio.sleep(rng.uniform(0, 0.3))
            old.resume()
        else:
            await old.start()
        return True

    def _choose(self, rng: random.Random) -> int:
        if rng.random() < 0.2:
            return rng.randrange(_SHARDS)
        key = partition(int(time.time() // _DAY_S))
        for server in self.servers:
            with suppress(redis.RedisError):
                return int(server.ask("CLUSTER", "KEYSLOT", key)) * _SHARDS // _SLOTS
        return 0

    def _shard(self, shard: int) -> tuple[StoreServer, StoreServer]:
        return self.servers[shard], self.servers[shard + _SHARDS]

    def _primary(self, shard: int) -> StoreServer:
        """Whichever is; where both believe so, the one that was voted for later."""
        first, second = self._shard(shard)
        claims = {server: _epoch(server) for server in (first, second) if _role(server) == "master"}
        return max(claims, key=lambda server: claims[server], default=first)

    def _is_whole(self) -> bool:
        """Every server knows the others, and sees all keys served."""
        said = [_says(server) for server in self.servers]
        return all("cluster_state:ok" in text and f"cluster_known_nodes:{len(said)}" in text for text in said)


async def _heal(store: Deployment) -> None:
    for proxy in store.proxies:
        proxy.release()
    for server in store.servers:
        server.resume()
        if not server.is_running():
            await server.start()


def _says(server: StoreServer) -> str:
    with suppress(redis.RedisError):
        return str(server.ask("CLUSTER", "INFO").decode())
    return ""


def _nodes(server: StoreServer) -> str:
    with suppress(redis.RedisError):
        return str(server.ask("CLUSTER", "NODES").decode())
    return ""


def _epoch(server: StoreServer) -> int:
    words = [line.partition(":") for line in _says(server).split()]
    return next((int(value) for name, _, value in words if name == "cluster_my_epoch"), 0)


def _role(server: StoreServer) -> str:
    with suppress(redis.RedisError):
        return str(server.info().get("role"))
    return ""


def _is_in_step(replica: StoreServer) -> bool:
    with suppress(redis.RedisError):
        return replica.info().get("master_link_status") == "up"
    return False
