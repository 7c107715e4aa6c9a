"""The real service as a process: started on a free port, used as its users would, stopped by its pid."""

import base64
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import httpx
import psutil  # type: ignore[import-untyped]
import redis

from adserver.report import FIGURES
from adserver.settings import Settings

REPOSITORY = Path(__file__).parents[2]
SAMPLE = REPOSITORY / "config"
SLOTS = range(889977, 889995)
NEWSROOM = ZoneInfo("Europe/Amsterdam")
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # made once: reading the root certificates takes 30 ms a client
Found = TypeVar("Found")


def eventually(probe: Callable[[], Found | None], within_s: float = 10.0, what: str = "it") -> Found:
    """What *probe* returns as soon as that is true; fails when it is not within the deadline."""
    deadline = time.monotonic() + within_s
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {within_s:g} s; at the end: {found!r:.500}")
        time.sleep(0.02)


def coming(weekday: int, hour: int = 9) -> datetime:
    """A *weekday* (Monday is 0) some weeks from now, at a full hour by the sample newsroom's clock."""
    day = datetime.now(NEWSROOM).date() + timedelta(weeks=4)
    day += timedelta(days=(weekday - day.weekday()) % 7)
    return datetime(day.year, day.month, day.day, hour, tzinfo=NEWSROOM)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def client(base_url: str, *, keep: bool = False, timeout_s: float = 10.0) -> httpx.Client:
    """A reader's browser: a connection of its own for each request, so that any worker may answer it."""
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=1 if keep else 0)
    return httpx.Client(
        base_url=base_url,
        headers={"user-agent": BROWSER},
        limits=limits,
        timeout=timeout_s,
        trust_env=False,
        verify=_NO_TLS,
    )


def tokens(html: str) -> list[str]:
    """The tokens of the snippets in *html*, in its order."""
    return list(dict.fromkeys(re.findall(r"/[ic]/([A-Za-z0-9_-]{48})", unescape(html))))


def issuer(token: str) -> bytes:
    """Which worker minted *token*."""
    return base64.urlsafe_b64decode(token)[8:13]


def totals(rows: list[dict[str, Any]]) -> dict[str, int]:
    """The sums of a report's figures."""
    return {figure: sum(row[figure] for row in rows) for figure in FIGURES}


class Service:
    """One `python -m adserver serve`, its data directory and its own copy of the sample configuration."""

    def __init__(
        self,
        home: Path,
        *flags: str,
        workers: int = 2,
        port: int = 0,
        environ: Mapping[str, str] | None = None,
        configure: Callable[[Path], object] = lambda config: None,
    ) -> None:
        self.home = home
        self.data = home / "data"
        self.config = home / "config"
        self.flags = ["--port", str(port), "--workers", str(workers), *flags]
        self.port = self.fixed_port = port
        self.workers_wanted = workers
        home.mkdir(parents=True, exist_ok=True)
        if not self.config.exists():
            shutil.copytree(SAMPLE, self.config)
            configure(self.config)
        (home / "tmp").mkdir(exist_ok=True)
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("ADSERVER_", "PROMETHEUS_"))},
            "TMPDIR": str(home / "tmp"),
            "ADSERVER_CONFIG": str(self.config),
            "ADSERVER_DATA_DIR": str(self.data),
            **(environ or {}),
        }
        self.settings = Settings(data_dir=str(self.data))
        self.url = ""
        self.http = client("http://unset.invalid")

    # Its life

    def launch(self) -> None:
        """Start it, without waiting for more than its process."""
        with (self.home / "out").open("wb") as out, (self.home / "err").open("ab") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "adserver", "serve", *self.flags],
                cwd=REPOSITORY,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def start(self, *statuses: str) -> None:
        """Start it and wait until every worker has started and /readyz says one of *statuses*, or "ok"."""
        self.launch()
        announced, ops = eventually(self._announced, 20, "the announcement")
        self.port = self.fixed_port or int(announced.rpartition(":")[2])
        self.url = f"http://127.0.0.1:{self.port}"
        self.http.close()
        self.http = client(self.url)
        self.readiness: dict[str, Any] = {}
        try:
            eventually(lambda: self._ready(ops, statuses or ("ok",)), 20, "readiness")
        except AssertionError as error:
            raise AssertionError(f"{error}; it says {self.readiness}") from None

    def _announced(self) -> tuple[str, str] | None:
        """The addresses of the public listener and of ops, as the service prints them."""
        if self.process.poll() is not None:
            raise AssertionError(f"the service ended with {self.process.returncode}: {self.log()[-2000:]}")
        out = (self.home / "out").read_text()
        found = re.search(r"(https?://[^ ]+?)/ .*?(https?://[^ ]+)/readyz", out, re.DOTALL)
        return (found[1], found[2]) if found else None

    def _ready(self, ops: str, statuses: tuple[str, ...]) -> bool:
        with suppress(httpx.TransportError), client(ops) as http:
            self.readiness = http.get("/readyz").json()
            if self.readiness["status"] in statuses:
                with self.each_worker():
                    return True
        return False

    def answered_by(self, answer: httpx.Response) -> int:
        """The pid of the worker at the other end of the connection, still open, that *answer* came on; 0: unknown."""
        port = answer.extensions["network_stream"].get_extra_info("client_addr")[1]
        for worker in self.workers():
            with suppress(psutil.NoSuchProcess):
                if any(one.raddr and one.raddr.port == port for one in worker.net_connections("tcp")):
                    return int(worker.pid)
        return 0

    def workers(self) -> list[psutil.Process]:
        """The worker processes."""
        return [one for one in self._children() if "spawn_main" in " ".join(_command(one))]

    def store(self) -> psutil.Process:
        """The embedded store's process."""
        return next(one for one in self._children() if "valkey-server" in "".join(_command(one)[:1]))

    def _children(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            found: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
            return found
        return []

    def stop(self, within_s: float = 25.0) -> int:
        """SIGTERM; afterwards nothing of it is left: no process, no listener, no file but its data."""
        family = self._children()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(within_s)
        finally:
            self._close(family)
        left = [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
        assert left == []
        assert not _listening(self.port)
        assert not list(self.data.rglob("*.sock"))
        assert not self.settings.store_socket.exists()
        assert list((self.home / "tmp").iterdir()) == []
        return code

    def kill(self) -> None:
        """kill -9 of all of it at once, by pid."""
        self._close([psutil.Process(self.process.pid), *self._children()])

    def _close(self, family: list[psutil.Process]) -> None:
        self.http.close()
        for one in [*family, *self._children()]:
            with suppress(psutil.NoSuchProcess):
                one.kill() if one.pid != self.process.pid else self.process.kill()
        self.process.wait(10)
        psutil.wait_procs(family, 10)

    # Using it

    def run(self, *arguments: str, code: int | None = 0, within_s: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Another command of the command line, on the same settings; asserts its exit *code* unless that is None."""
        command = [sys.executable, "-m", "adserver", *arguments]
        with subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=within_s)
            except subprocess.TimeoutExpired:
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
                process.kill()
                raise
        assert code is None or process.returncode == code, (process.returncode, out, err)
        assert "Traceback" not in err
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def report(self, by: str = "slot") -> list[dict[str, Any]]:
        """The rows of `adserver report --json`."""
        rows: list[dict[str, Any]] = json.loads(self.run("report", "--by", by, "--json").stdout)["rows"]
        return rows

    def counts(self) -> dict[str, int]:
        """Today's sums, by the service's own /api/report, as soon as nothing waits to be counted."""
        return eventually(self.settled, 20, "counting")

    def settled(self) -> dict[str, int] | None:
        """Today's sums, once nothing waits to be counted; None before."""
        answer = self.http.get("/api/report")
        return totals(answer.json()["rows"]) if answer.status_code == 200 and not answer.json()["waiting"] else None

    def row(self, slot: int) -> dict[str, Any]:
        """A slot's row of /api/report, as soon as nothing waits to be counted."""
        self.counts()
        rows = self.http.get("/api/report").json()["rows"]
        found: dict[str, Any] = next(row for row in rows if row["slot"] == slot)
        return found

    def token(self, slot: int = 889990) -> str:
        """A fresh snippet's token."""
        return tokens(self.http.get(f"/ads/{slot}").text)[0]

    def series(self) -> dict[str, float]:
        """/metrics, by series."""
        return read_series(self.http.get("/metrics").text)

    def metric(self, series: str) -> float:
        return self.series()[series]

    def log(self) -> str:
        return (self.home / "err").read_text(errors="replace")

    def redis(self) -> "redis.Redis":
        """A look into the embedded store."""
        return redis.Redis(unix_socket_path=str(self.settings.store_socket), socket_timeout=5)

    @contextmanager
    def connection(self) -> Iterator[httpx.Client]:
        """One connection, kept: everything asked on it is answered by the same worker."""
        with client(self.url, keep=True) as http:
            yield http

    @contextmanager
    def each_worker(self) -> Iterator[dict[int, httpx.Client]]:
        """A kept connection to each of the workers, found by connecting until all of them have answered; by pid."""
        found: dict[int, httpx.Client] = {}
        opened: list[httpx.Client] = []
        try:
            deadline = time.monotonic() + 20
            while len(found) < self.workers_wanted and time.monotonic() < deadline:
                http = client(self.url, keep=True)
                opened.append(http)
                found.setdefault(self.answered_by(http.get("/healthz")), http)
                found.pop(0, None)
            assert len(found) == self.workers_wanted, f"only {sorted(found)} answer"
            yield found
        finally:
            for http in opened:
                http.close()

    def raw(self, request: bytes, within_s: float = 10.0) -> bytes:
        """Send *request* as it is; everything answered until the connection closes."""
        with socket.create_connection(("127.0.0.1", self.port), within_s) as connection:
            connection.settimeout(within_s)
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(request)
            answer = b""
            with suppress(ConnectionResetError):
                while piece := connection.recv(65536):
                    answer += piece
            return answer


def read_series(text: str) -> dict[str, float]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def _command(process: psutil.Process) -> list[str]:
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        words: list[str] = process.cmdline()
        return words
    return []


def _listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
