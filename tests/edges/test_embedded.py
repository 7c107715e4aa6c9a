"""The embedded store: a real server that starts, restarts, is the only one on its files, and stops last."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
import redis

from adserver import embedded
from adserver.embedded import EmbeddedStore, EmbeddedUnavailable
from adserver.settings import Settings
from tests.edges.servers import until

ROOT = Path(__file__).parent.parent.parent


def pid_of(store: EmbeddedStore) -> int:
    return int(store._server._process.pid)


@pytest.fixture
def place() -> Iterator[Path]:
    """A short directory: a socket's path has room for 107 bytes. Whatever still runs in it at the end is stopped."""
    with tempfile.TemporaryDirectory(prefix="ads-") as name:
        yield Path(name)
        for process in psutil.process_iter(["cmdline"]):
            if any(name in word for word in process.info["cmdline"] or ()):
                process.kill()
                process.wait(5)


def ask(socket: Path, *command: object) -> object:
    with redis.Redis(unix_socket_path=str(socket), socket_timeout=5) as client:
        return client.execute_command(*command)


def test_it_starts_as_ours_alone(place: Path) -> None:
    """
    A socket for its owner, no port, an append-only file, nothing evicted; a stop leaves no process.
    """
    store = EmbeddedStore(place / "valkey", place / "valkey" / "valkey.sock")
    store.start()
    socket = place / "valkey" / "valkey.sock"
    try:
        assert "running" in repr(store)
        assert socket.stat().st_mode & 0o077 == 0
        assert (place / "valkey").stat().st_mode & 0o077 == 0
        for name, value in (("port", b"0"), ("appendonly", b"yes"), ("maxmemory-policy", b"noeviction"), ("save", b"")):
            assert ask(socket, "CONFIG", "GET", name) in ([name.encode(), value], {name.encode(): value})
        listening = psutil.Process(pid_of(store)).net_connections("inet")
        assert listening == []
        pid = pid_of(store)
    finally:
        store.stop()
    assert not psutil.pid_exists(pid)
    assert "down" in repr(store)
    store.stop()


def test_it_starts_in_a_long_path(place: Path) -> None:
    """
    Where the data directory's path is longer than a socket's may be, the socket moves and the files stay.
    """
    deep = place / ("d" * 90) / ("e" * 90)
    settings = Settings(data_dir=str(deep))
    store = EmbeddedStore(settings.data / "valkey", settings.store_socket)
    store.start()
    try:
        assert ask(settings.store_socket, "ECHO", "hello") == b"hello"
        assert (deep / "valkey" / "appendonlydir").is_dir()
        assert settings.store_socket.parent.stat().st_mode & 0o077 == 0
    finally:
        store.stop()
    assert not settings.store_socket.parent.exists()
    assert (deep / "valkey" / "appendonlydir").is_dir()


def test_it_is_started_again_after_kill_9(place: Path) -> None:
    """
    `keep_alive` finds it dead, starts it on the same files, and does nothing while it runs.
    """
    socket = place / "valkey.sock"
    store = EmbeddedStore(place / "valkey", socket)
    store.start()
    try:
        ask(socket, "HSET", "as:{1}", "field", "5")
        for _ in range(2):
            before = pid_of(store)
            until(lambda: ask(socket, "INFO", "persistence")["aof_pending_bio_fsync"] == 0)  # type: ignore[index]
            os.kill(before, signal.SIGKILL)
            until(lambda: not store._alive())
            store.keep_alive()
            assert pid_of(store) != before
            assert ask(socket, "HGET", "as:{1}", "field") == b"5"
            again = pid_of(store)
            store.keep_alive()
            assert pid_of(store) == again
    finally:
        store.stop()


SUPERVISOR = """
import signal, sys, time
from pathlib import Path
from adserver.embedded import EmbeddedStore
signal.signal(signal.SIGINT, lambda *_: print("interrupted", flush=True))
signal.signal(signal.SIGHUP, lambda *_: print("hung up", flush=True))
store = EmbeddedStore(Path(sys.argv[1]) / "valkey", Path(sys.argv[1]) / "valkey.sock")
store.start()
print(store._server._process.pid, flush=True)
time.sleep(60)
"""


@contextmanager
def supervisor(place: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A supervisor in a process group of its own, and its server's pid; it is killed at the end."""
    command = [sys.executable, "-c", SUPERVISOR, str(place)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    assert process.stdout
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("hung", [False, True])
def test_the_leftover_of_a_killed_supervisor_is_stopped_first(
    place: Path, hung: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Two servers never write one append-only file, also when the old one hangs; what it had counted is kept.
    """
    with supervisor(place) as (_, left):
        ask(place / "valkey.sock", "HSET", "as:{1}", "field", "7")
    assert psutil.pid_exists(left)
    if hung:
        until(lambda: b"field" in b"".join(p.read_bytes() for p in (place / "valkey/appendonlydir").glob("*.incr.aof")))
        os.kill(left, signal.SIGSTOP)
        monkeypatch.setattr(embedded, "TERM_PATIENCE_S", 0.2)

    store = EmbeddedStore(place / "valkey", place / "valkey.sock")
    began = time.monotonic()
    store.start()
    try:
        assert time.monotonic() - began < 5
        until(lambda: not psutil.pid_exists(left) or psutil.Process(left).status() == psutil.STATUS_ZOMBIE)
        assert ask(place / "valkey.sock", "HGET", "as:{1}", "field") == b"7"
    finally:
        store.stop()


def test_ctrl_c_does_not_stop_it(place: Path) -> None:
    """
    SIGINT and SIGHUP to the whole group reach the supervisor, which stops the server when the workers are done.
    """
    with supervisor(place) as (process, server):
        assert process.stdout
        socket = place / "valkey.sock"
        for number, said in ((signal.SIGINT, b"interrupted\n"), (signal.SIGHUP, b"hung up\n")):
            os.killpg(process.pid, number)
            assert process.stdout.readline() == said
            ask(socket, "SET", "clock", "ticks", "PX", 250)
            until(lambda: ask(socket, "EXISTS", "clock") == 0)  # time enough for a server that had heard it to go
        assert psutil.Process(server).status() != psutil.STATUS_ZOMBIE


def test_a_stale_socket_does_not_keep_it_from_starting(place: Path) -> None:
    """
    The file of a socket that nobody listens on is removed.
    """
    first = EmbeddedStore(place / "valkey", place / "valkey.sock")
    first.start()
    os.kill(pid_of(first), signal.SIGKILL)
    until(lambda: not first._alive())
    assert (place / "valkey.sock").exists()

    second = EmbeddedStore(place / "valkey", place / "valkey.sock")
    second.start()
    second.stop()


def test_a_place_that_others_can_write_to_is_refused(place: Path) -> None:
    """
    Somebody else's socket could lie there: the sentence names the directory.
    """
    (place / "run").mkdir()
    (place / "run").chmod(0o777)
    (place / "link").symlink_to(place / "run")

    for parent in ("run", "link"):
        with pytest.raises(EmbeddedUnavailable, match=parent):
            EmbeddedStore(place / "valkey", place / parent / "valkey.sock").start()


def test_a_server_that_cannot_start_is_told_and_tried_again(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    """
    An append-only file that is none: a sentence, not a traceback; once it is mended `keep_alive` brings it up.
    """
    folder = place / "valkey" / "appendonlydir"
    folder.mkdir(parents=True)
    (folder / "appendonly.aof.manifest").write_text("nonsense\n")
    store = EmbeddedStore(place / "valkey", place / "valkey.sock")

    with pytest.raises(EmbeddedUnavailable, match="does not start"):
        store.start()
    store.keep_alive()
    assert "does not start" in caplog.text
    (folder / "appendonly.aof.manifest").unlink()

    def is_up() -> bool:
        store.keep_alive()
        return store._alive()

    until(is_up)
    store.stop()
