"""The operator's list of addresses: read again when its file changes, kept when the new one is bad."""

import asyncio
import os
import resource
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest

from adserver.address_file import MOST_BYTES, AddressFile
from adserver.errors import ConfigError

INSIDE, OUTSIDE = ip_address("192.0.2.9").packed, ip_address("198.51.100.9").packed


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "addresses.txt"
    write(path, "192.0.2.0/24  # a data centre\n\n2001:db8::/48\n")
    return path


def write(path: Path, text: str | bytes) -> None:
    """Replace the file, as an editor or a mounted volume does."""
    new = path.with_suffix(".new")
    new.write_bytes(text if isinstance(text, bytes) else text.encode())
    new.replace(path)


def refused(listed: AddressFile) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        listed.read()
    return [str(problem) for problem in raised.value.problems]


def test_a_list_is_taken_over_once_and_again_when_it_changes(path: Path) -> None:
    """
    Only a file that was written to is read, and then all of it.
    """
    listed = AddressFile(path)

    assert (listed.read(), listed.read()) == (True, False)
    assert INSIDE in listed.networks
    assert listed.networks.size == 2
    assert listed.changed == datetime.fromtimestamp(path.stat().st_mtime, UTC)
    write(path, "198.51.100.0/24\n")

    assert listed.read()
    assert INSIDE not in listed.networks
    assert OUTSIDE in listed.networks


def test_a_list_written_in_place_is_noticed(path: Path) -> None:
    """
    A change of the same length within the same moment of the clock is one too.
    """
    listed = AddressFile(path)
    listed.read()
    was = path.stat()
    path.write_text(path.read_text().replace("192.0.2.0", "192.0.3.0"))
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))

    assert listed.read()
    assert INSIDE not in listed.networks


def test_a_bad_list_says_every_problem_and_changes_nothing(path: Path) -> None:
    """
    Each problem with the line it is in, told once; the last good list stays in force until a good one comes.
    """
    listed = AddressFile(path)
    listed.read()
    write(path, "198.51.100.0/24\n192.0.2.1/24\n\nnonsense\n0.0.0.0/0\n")

    told = refused(listed)

    assert [one.partition(": ")[0] for one in told] == [f"{path}:{line}" for line in (2, 4, 5)]
    assert INSIDE in listed.networks
    assert OUTSIDE not in listed.networks
    assert "3 problems" in str(listed.trouble)
    assert not listed.read(), "the same file is not complained about again"
    write(path, "198.51.100.0/24\n")
    assert listed.read()
    assert listed.trouble is None
    assert OUTSIDE in listed.networks


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.unlink(), "cannot be read (No such file"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be read (Is a directory)"),
        (lambda path: (path.unlink(), subprocess.run(["mkfifo", path], check=True)), "no plain file"),
        (lambda path: write(path, b"\n" * (MOST_BYTES + 1)), "larger than 8 MiB"),
        (lambda path: write(path, b"\xff\xfe1\x009\x002\x00"), "no address and no network"),
        (lambda path: write(path, b"192.0.2.0/24\0\n"), "no address and no network"),
    ],
    ids=["gone", "a directory", "a pipe", "too large", "UTF-16", "NUL"],
)
def test_a_file_that_cannot_be_a_list_changes_nothing(path: Path, spoil: Callable[[Path], object], says: str) -> None:
    """
    Whatever comes in the file's place, it is refused without a wait and the last good list stays.
    """
    listed = AddressFile(path)
    listed.read()
    good = path.read_bytes()
    spoil(path)

    assert says in refused(listed)[0]
    assert not listed.read(), "the same is not complained about again"
    assert INSIDE in listed.networks
    assert listed.trouble
    if path.is_dir():
        path.rmdir()
    write(path, good)
    assert listed.read()
    assert listed.trouble is None


def test_a_file_that_could_not_be_opened_for_a_moment_is_tried_again(path: Path) -> None:
    """
    A file is not given up because of what passes, such as too many open files: it need not change to be read.
    """
    listed = AddressFile(path)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        told = refused(listed)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    assert "Too many open files" in told[0]
    assert listed.read()
    assert INSIDE in listed.networks


def test_a_byte_order_mark_is_no_part_of_the_first_line(path: Path) -> None:
    """
    Editors that write one are welcome.
    """
    write(path, b"\xef\xbb\xbf192.0.2.0/24\r\n")
    listed = AddressFile(path)
    assert listed.read()
    assert INSIDE in listed.networks


def test_a_worker_that_starts_with_a_bad_list_has_the_last_good_one(path: Path, tmp_path: Path) -> None:
    """
    The copy beside the journals stands in for a file that is broken; it is never used once the file is good.
    """
    copy = tmp_path / "copy"
    first = AddressFile(path, copy)
    first.read()
    write(path, "nonsense\n")

    second = AddressFile(path, copy)
    assert len(refused(second)) == 1
    assert INSIDE in second.networks
    assert second.changed == first.changed
    assert second.trouble
    write(path, "198.51.100.0/24\n")
    assert second.read()
    assert INSIDE not in second.networks
    assert copy.read_text() == "198.51.100.0/24\n"
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []


def test_a_copy_that_cannot_be_made_costs_the_copy_alone(path: Path, tmp_path: Path) -> None:
    """
    With the data directory gone or full, the list is in force all the same.
    """
    listed = AddressFile(path, tmp_path / "gone" / "copy")
    assert listed.read()
    assert INSIDE in listed.networks


def test_without_a_file_the_list_is_empty() -> None:
    """
    No setting, no list, nothing to read.
    """
    listed = AddressFile(None)
    assert not listed.read()
    assert listed.networks.size == 0


def test_a_bad_list_is_counted_and_its_problems_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """
    Each refusal is counted once, with a line of the log for each problem; a good list is told by its size.
    """
    refusals: list[str] = []
    listed = AddressFile(path, on_refused=lambda: refusals.append(str(listed.trouble)))
    caplog.set_level("INFO")

    asyncio.run(listed.look())
    write(path, "nonsense\n192.0.2.1/24\n")
    asyncio.run(listed.look())
    asyncio.run(listed.look())

    assert len(refusals) == 1
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 4
    assert told[0] == "the address list has 2 networks"
    assert "2 problems" in told[1]
    assert told[2].startswith(f"{path}:1: 'nonsense'")
    assert told[3].startswith(f"{path}:2: ")


def test_changes_are_followed_until_the_server_stops(path: Path) -> None:
    """
    One bad file after the other is noticed without being asked for, and the loop ends when it is told to.
    """
    refused_now = asyncio.Event()

    async def follow() -> None:
        listed = AddressFile(path, on_refused=refused_now.set)
        stopping = asyncio.Event()
        following = asyncio.create_task(listed.follow(stopping))
        for text in ("nonsense\n", "more nonsense\n"):
            write(path, text)
            await asyncio.wait_for(refused_now.wait(), 10)
            refused_now.clear()
        stopping.set()
        await asyncio.wait_for(following, 5)

    asyncio.run(follow())


def test_ten_thousand_networks_are_looked_up_at_once(path: Path) -> None:
    """
    A look-up in 10,000 networks takes a few microseconds: with room to spare for a slow machine, under 50.
    """
    write(path, "".join(f"100.{n >> 8}.{n & 255}.0/25\n" for n in range(10_000)))
    listed = AddressFile(path)
    listed.read()
    asked = [ip_address(f"100.{n % 39}.{n % 256}.{n % 256}").packed for n in range(10_000)]
    began = time.perf_counter()
    found = sum(address in listed.networks for address in asked)
    took_us = (time.perf_counter() - began) / len(asked) * 1e6
    assert 0 < found < len(asked)
    assert took_us < 50
