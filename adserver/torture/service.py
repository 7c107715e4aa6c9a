"""The service under torture: started, killed and cut off from its power, by the ids of its processes alone."""

import asyncio
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import zlib
from contextlib import suppress
from pathlib import Path

from adserver.events import SIZE, Type, unpack
from adserver.reader import Reader
from adserver.segments import HEADER, RECORD
from adserver.torture.control import BROKEN, SIDE
from adserver.torture.stores import CannotTorture, free_port, until

Lost = set[tuple[bytes, int, int]]
"""Events by issuer, serial and type."""


class Service:
    """`adserver serve` in *home*, on *config*, with its store at *store_url*."""

    def __init__(self, home: Path, config: Path, store_url: str, workers: int, broken: str | None) -> None:
        self.home = home
        self.data = home / "data"
        self.journals = self.data / "journal"
        self.side = home / "side"
        self.port = free_port()
        self._workers = workers
        self._config = config
        (home / "tmp").mkdir()
        self.side.mkdir()
        self._process: subprocess.Popen[bytes] | None = None
        self._environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("ADSERVER_", "PROMETHEUS_"))},
            "TMPDIR": str(home / "tmp"),
            "ADSERVER_DATA_DIR": str(self.data),
            "ADSERVER_CONFIG": str(config),
            "ADSERVER_REDIS_URL": store_url,
            "ADSERVER_PORT": str(self.port),
            SIDE: str(self.side),
            **({BROKEN: broken} if broken else {}),
        }

    def _launch(self) -> subprocess.Popen[bytes]:
        with (self.home / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "adserver.torture.inside", "serve", "--workers", str(self._workers)],
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                process_group=0,  # Ctrl-C is for the torturer, who stops it
            )

    async def start(self) -> None:
        """Start it and wait until somebody answers."""
        self._process = self._launch()
        deadline = time.monotonic() + 30
        while True:
            if self._process.poll() is not None:
                raise CannotTorture(f"the service ended with {self._process.returncode}: {self.log()[-2000:]}")
            with suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    if b"200 OK" in await asyncio.wait_for(reader.read(4096), 10):
                        return
                except TimeoutError:
                    pass
                finally:
                    writer.transport.abort()
            if time.monotonic() > deadline:
                raise CannotTorture(f"the service did not start within 30 s: {self.log()[-2000:]}")
            await asyncio.sleep(0.02)

    def log(self) -> str:
        return (self.home / "log").read_text(errors="replace")

    def _children(self) -> list[tuple[int, bytes]]:
        """The supervisor's children and their command lines."""
        if self._process is None:
            return []
        found = []
        with suppress(OSError):
            parent = self._process.pid
            for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
                with suppress(OSError):
                    found.append((int(pid), Path(f"/proc/{pid}/cmdline").read_bytes()))
        return found

    def _workers_now(self) -> list[int]:
        return [pid for pid, command in self._children() if b"spawn_main" in command]

    def memory(self) -> dict[int, int]:
        """By worker the bytes of memory it has for itself alone: no file's pages are among them."""
        found = {}
        for pid in self._workers_now():
            with suppress(OSError):
                if line := re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text()):
                    found[pid] = int(line[1]) * 1024
        return found

    def kill_worker(self, rng: random.Random) -> None:
        """kill -9 of one worker; the supervisor starts another."""
        workers = self._workers_now()
        if workers:
            with suppress(ProcessLookupError):
                os.kill(rng.choice(workers), signal.SIGKILL)

    async def kill(self) -> None:
        """kill -9 of all of it at once; returns when no process of it is left."""
        if self._process is None:
            return
        watched = []
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGSTOP)  # it must not start another worker meanwhile
        for _ in range(2):
            for pid, _command in self._children():
                with suppress(OSError):
                    watched.append(os.pidfd_open(pid))
                    os.kill(pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        for fd in watched:
            await until(lambda fd=fd: select.select([fd], [], [], 0)[0], 10, "a worker's end")  # type: ignore[misc]
            os.close(fd)
        self._process = None

    async def stop(self) -> None:
        """SIGTERM, as ops stop it."""
        if self._process:
            self._process.send_signal(signal.SIGTERM)
            with suppress(CannotTorture):
                await until(lambda: self._process is None or self._process.poll() is not None, 30, "its stop")
            await self.kill()

    # Its files

    def producers(self) -> list[Path]:
        if not self.journals.is_dir():
            return []
        return sorted(path for path in self.journals.iterdir() if re.fullmatch("[0-9a-f]{16}", path.name))

    def uncounted(self) -> Lost:
        """What was answered although no journal took it, and the service said so in its metrics."""
        found: Lost = set()
        for words in _notes(self.side):
            if words[1] == "uncounted":
                found.add((bytes.fromhex(words[3]), int(words[4]), int(words[2])))
        return found

    def lose_power(self, rng: random.Random) -> Lost:
        """After `kill`: take from the journals what no sync had made safe, or part of it; the events that went."""
        before = self._events()
        safe, listed = _safe(self.side)
        for directory in self.producers():
            names = listed.get(directory.name)
            if names is None and directory.name not in listed.get(self.journals.name, {}) and rng.random() < 0.5:
                shutil.rmtree(directory)
                continue
            for path in sorted(directory.glob("*.seg")):
                inode = path.stat().st_ino
                if (names or {}).get(path.name) != inode and rng.random() < 0.5:
                    _undo_rename(path, names or {}, inode)
                    continue
                _cut(path, safe.get(inode, 0), rng)
            lines = directory / "names"
            if lines.exists():
                size = lines.stat().st_size
                os.truncate(lines, rng.randint(min(size, safe.get(lines.stat().st_ino, 0)), size))
        return before - self._events()

    def _events(self) -> Lost:
        found: Lost = set()
        for directory in self.producers():
            for _, record in read_all(directory):
                event, _ = unpack(record)
                if event.type is not Type.UNFILLED:
                    found.add((event.issuer, event.serial, int(event.type)))
        return found


def read_all(directory: Path) -> list[tuple[int, bytes]]:
    """Every valid record of a journal, with its number."""
    reader = Reader(directory)
    found: list[tuple[int, bytes]] = []
    while batch := reader.read(found[-1][0] if found else 0, None, 8192):
        found += batch
    return found


def _notes(side: Path) -> list[list[str]]:
    lines = [line for path in side.glob("notes-*") for line in path.read_text().splitlines()]
    return sorted((line.split() for line in lines), key=lambda words: int(words[0]))


def _safe(side: Path) -> tuple[dict[int, int], dict[str, dict[str, int]]]:
    """By inode how many bytes are safe, and by directory the names that are."""
    files: dict[int, int] = {}
    failed: dict[int, int] = {}
    directories: dict[str, dict[str, int]] = {}
    for words in _notes(side):
        if words[1] in ("new", "rewritten", "failed", "file"):
            inode = int(words[2])
        if words[1] == "new":
            files.pop(inode, None)
            failed.pop(inode, None)
        elif words[1] == "rewritten":  # these pages are dirty again: the next sync writes them
            failed.pop(inode, None)
        elif words[1] == "failed":
            failed.setdefault(inode, files.get(inode, 0))
        elif words[1] == "file":
            files[inode] = max(files.get(inode, 0), min(int(words[3]), failed.get(inode, 1 << 62)))
        elif words[1] == "directory":
            directories[words[2]] = {name: int(inode) for name, inode in (word.split("=") for word in words[3:])}
    return files, directories


def _undo_rename(path: Path, names: dict[str, int], inode: int) -> None:
    """The directory was not synced since: the segment has the name it had before, or none."""
    before = next((name for name, found in names.items() if found == inode), None)
    if before is None or path.with_name(before).exists():
        path.unlink()
    else:
        path.replace(path.with_name(before))


def _cut(path: Path, safe: int, rng: random.Random) -> None:
    """Take away what lies behind the first *safe* bytes: all from a random place on, or sectors here and there."""
    seed, first = zlib.crc32(bytes.fromhex(path.parent.name)), int(path.stem)
    data = bytearray(path.read_bytes())
    end = HEADER
    while end + RECORD <= len(data):  # where what was stored ends
        record = data[end : end + SIZE]
        number = first + (end - HEADER) // RECORD
        crc = int.from_bytes(data[end + SIZE : end + RECORD], "little")
        if zlib.crc32(record, seed) != crc or int.from_bytes(record[-2:], "little") != number & 0xFFFF:
            break
        end += RECORD
    safe = min(safe, end)
    if safe >= end:
        return
    keep = rng.randint(safe, end)
    match rng.choice(("clean", "garbage", "sectors", "all")):
        case "clean":
            data[keep:end] = bytes(end - keep)
        case "garbage":
            noise = rng.randbytes(min(rng.randint(1, 4096), len(data) - keep))
            data[keep:end] = bytes(end - keep)
            data[keep : keep + len(noise)] = noise
        case "sectors":
            for start in range(safe - safe % 512, end, 512):
                if rng.random() < 0.5:
                    low, high = max(start, safe), min(start + 512, end)
                    data[low:high] = bytes(high - low)
        case _:
            data[safe:end] = bytes(end - safe)
    with path.open("r+b") as file:
        file.write(data)
