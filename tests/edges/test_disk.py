"""Whose directories the journals lie in, locks, and a disk that is full."""

import errno
import fcntl
import os
import re
from contextlib import suppress
from pathlib import Path

import pytest

from adserver import journal
from adserver.disk import check_root, holding, list_closed, read_closed, volume
from adserver.errors import JournalUnavailable
from adserver.journal import Journal, create_journal
from adserver.reader import Reader
from adserver.segments import HEADER, RECORD
from tests.edges.journals import (
    needs_root,
    put,
    read_all,
    serials,
    settled,
    tiny_disk,
    with_journal,
)

# Directories and locks


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_root_that_others_can_write_to_is_refused(root: Path, mode: int) -> None:
    """
    Whoever can plant files there could forge counts: no journal is made.
    """
    root.chmod(mode)

    with pytest.raises(JournalUnavailable, match="chmod 700"):
        create_journal(root)


def test_a_root_that_is_a_link_or_a_file_is_refused(tmp_path: Path) -> None:
    """
    The root must be a directory itself.
    """
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")

    for name in ("link", "file", "nowhere"):
        with pytest.raises(JournalUnavailable):
            create_journal(tmp_path / name)


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a directory away needs root")
def test_a_root_of_another_user_is_refused(root: Path) -> None:
    """
    The message names the user it belongs to.
    """
    os.chown(root, 12345, -1)

    with pytest.raises(JournalUnavailable, match="12345"):
        check_root(root)


def test_a_file_system_without_locks_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where flock does not work no journal is made, and the attempt ends. (No such file system is at hand: flock is
    replaced.)
    """

    def flock(fd: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)

    with pytest.raises(JournalUnavailable, match="No locks available"):
        create_journal(root)


def test_the_lock_of_a_data_directory_is_held_once(tmp_path: Path) -> None:
    """
    The second to ask is told so; when the first is done it may have it.
    """
    with holding(tmp_path / "lock") as first, holding(tmp_path / "lock") as second:
        assert (first, second) == (True, False)
    with holding(tmp_path / "lock") as third:
        assert third


def test_the_list_of_closed_days_only_grows(root: Path) -> None:
    """
    Each day with its page's digest; a line that is damaged names no day, and none is told of twice.
    """
    assert read_closed(root) == {}
    list_closed(root, {20514: "aa", 20513: "bb"})
    with (root / "closed").open("ab") as file:
        file.write(b"20515\nx20516 cc\n20517 dd ee\n\xff\n")
    list_closed(root, {20518: "ff"})
    assert read_closed(root) == {20513: "bb", 20514: "aa", 20518: "ff"}
    assert (root / "closed").read_text() == "20513 bb\n20514 aa\n20518 ff\n"
    before = (root / "closed").stat().st_ino
    list_closed(root, {20513: "bb"})
    assert (root / "closed").stat().st_ino == before
    assert [path.name for path in root.iterdir()] == ["closed"]


def test_a_volume_keeps_the_name_it_got_first(root: Path) -> None:
    """
    16 hex digits made up once; a file that power has emptied is no name.
    """
    name = volume(root)
    assert re.fullmatch(r"[0-9a-f]{16}", name)
    assert volume(root) == name
    assert (root / "volume").stat().st_mode & 0o777 == 0o600
    (root / "volume").write_text("")
    assert volume(root) == "unknown"


# A full disk


@needs_root
def test_a_full_disk_refuses_in_words_and_recovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    When no segment can be prepared the rest of this one is used, then events are refused; with room again it goes on.
    """
    monkeypatch.setattr(journal, "_RETRY_S", 0.05)
    room = 512
    with tiny_disk(tmp_path / "disk", "128k") as small:

        async def body(made: Journal) -> None:
            made.name(bytes(7), f"889990/line/{'x' * 400}")
            ballast = small / "ballast"
            with ballast.open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(b"x" * 4096)
            for _ in range(room - 1):
                put(made)
            await made.wait_synced()
            await settled(lambda: made.trouble)
            assert "cannot be prepared" in (made.trouble or "")
            assert (made.failure, made.room) == (None, 1)  # a worry yet: there is room for one more
            put(made)
            await made.wait_synced()
            with pytest.raises(JournalUnavailable, match="No space"):
                put(made)
            assert "No space" in (made.failure or "")
            assert made.synced == room
            with suppress(JournalUnavailable):
                for n in range(1, 1000):
                    made.name(n.to_bytes(7, "big"), f"889990/line/{'x' * 400}")
            assert "names" in (made.failure or "")
            ballast.unlink()
            await settled(lambda: made.failure is None)  # also when nobody appends: readiness must come back
            assert made.trouble is None
            assert put(made) == room + 1
            made.name(b"\xff" * 7, "889990/a/b")
            await made.wait_synced()

        directory = with_journal(small / "journal", body, HEADER + room * RECORD)
        assert serials(read_all(directory)) == list(range(1, room + 2))
        names = Reader(directory).names()
        assert names[b"\xff" * 7] == "889990/a/b"
        assert {len(name) for name in names.values()} == {len("889990/a/b"), len("889990/line/") + 400}


@needs_root
def test_no_journal_on_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    """
    A journal that cannot be made is refused in words; no descriptor and no half-made directory stays.
    """
    with tiny_disk(tmp_path / "disk", "64k") as small:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            with pytest.raises(JournalUnavailable, match="No space"):
                create_journal(small / "journal")
        assert list((small / "journal").iterdir()) == []
        assert len(os.listdir("/proc/self/fd")) == before
