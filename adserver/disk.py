"""Directories that only we can write to, locks, and files that are whole or absent; and the notes beside the journals.

Rules that must hold here: a file appears under its name only when it is on the disk, and a lock lasts exactly as long
as the process that holds it.
"""

import fcntl
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from adserver.errors import JournalUnavailable


def check_root(root: Path) -> None:
    """Raises JournalUnavailable unless *root* is a real directory of ours that nobody else can write to."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_ours(root)


def check_ours(directory: Path) -> None:
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise JournalUnavailable(f"{directory} is not a directory (a link is not followed); give another --data-dir")
    if found.st_uid != os.geteuid():
        raise JournalUnavailable(f"{directory} belongs to user {found.st_uid}, not to the user running this service")
    if found.st_mode & 0o022:
        raise JournalUnavailable(f"{directory} can be written by other users; run: chmod 700 {directory}")


def take_lock(directory: Path) -> int | None:
    """The lock's descriptor, or None while another process holds it. The kernel lets go of it when its holder dies."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(directory / "lock", flags, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError:  # this file system has no locks
        os.close(fd)
        raise
    return fd


@contextmanager
def holding(path: Path) -> Iterator[bool]:
    """Hold the lock file *path* while the body runs; False when another process holds it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)


# Writing


def write_all(fd: int, data: bytes) -> None:
    """A full disk first writes fewer bytes than it was given, and only then says ENOSPC."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_synced(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    temporary.replace(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def free_bytes(path: Path) -> int:
    """What may still be written on the volume of *path*. Raises OSError."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


# What lies beside the journals on their volume


def volume(root: Path) -> str:
    """The name of the volume that the journals under *root* are on; made up at the first call."""
    path = root / "volume"
    with suppress(FileExistsError):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(secrets.token_hex(8).encode())
    return path.read_text("ascii") or "unknown"


def read_closed(root: Path) -> dict[int, str]:
    """The days closed for good, and the digest of each one's page in the archive."""
    try:
        lines = (root / "closed").read_text("ascii", "replace").splitlines()
    except FileNotFoundError:
        return {}
    found = (line.split() for line in lines)
    return {int(words[0]): words[1] for words in found if len(words) == 2 and words[0].isdigit()}


def list_closed(root: Path, digests: Mapping[int, str]) -> None:
    """Note on the journals' volume which days are closed, whatever the store forgets. Raises OSError."""
    found = read_closed(root)
    if not digests.keys() <= found.keys():
        lines = (f"{day} {digest}\n" for day, digest in sorted({**found, **digests}.items()))
        write_synced(root / "closed", "".join(lines).encode())
