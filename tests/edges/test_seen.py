"""The shared memory of acknowledged events."""

import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from adserver import seen
from adserver.seen import PLACES, Seen

ROOT = Path(__file__).parent.parent.parent
ISSUER = b"abcde"


@pytest.mark.parametrize("shared", [True, False])
def test_what_was_added_is_seen(tmp_path: Path, shared: bool) -> None:
    """
    An event is known after it was added, and its neighbours are not: other issuers, serials and types.
    """
    table = Seen(tmp_path / "seen" if shared else None)
    assert not table.has(ISSUER, 7, 3)

    table.add(ISSUER, 7, 3)

    assert table.has(ISSUER, 7, 3)
    assert not table.has(b"abcdf", 7, 3)
    assert not table.has(ISSUER, 8, 3)
    assert not table.has(ISSUER, 7, 4)


def test_a_fresh_table_knows_nothing() -> None:
    """
    Also not the event whose key would be all zeros.
    """
    assert not Seen(None).has(bytes(5), 0, 0)


def test_workers_share_one_table(tmp_path: Path) -> None:
    """
    What another process adds to the same file is seen here at once, and the file is for its owner alone.
    """
    table = Seen(tmp_path / "seen")
    script = "import sys; from pathlib import Path; from adserver.seen import Seen"
    script += "; table = Seen(Path(sys.argv[1])); print(table.has(b'abcde', 1, 3)); table.add(b'abcde', 2, 3)"
    table.add(ISSUER, 1, 3)

    said = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "seen"], cwd=ROOT, capture_output=True, check=True
    ).stdout

    assert said == b"True\n"
    assert table.has(ISSUER, 2, 3)
    assert (tmp_path / "seen").stat().st_mode & 0o777 == 0o600


def test_a_newer_event_takes_the_place_of_an_older() -> None:
    """
    Two events of one place: the newer is known, the older is forgotten, and never is one taken for the other.
    """
    table = Seen(None)
    place = zlib.crc32(seen._KEY.pack(1, ISSUER, 0, 3)) % PLACES
    other = next(n for n in range(1, 10**7) if zlib.crc32(seen._KEY.pack(1, ISSUER, n, 3)) % PLACES == place)

    table.add(ISSUER, 0, 3)
    assert not table.has(ISSUER, other, 3)
    table.add(ISSUER, other, 3)

    assert table.has(ISSUER, other, 3)
    assert not table.has(ISSUER, 0, 3)


def test_the_table_keeps_a_hundred_thousand_events_mostly() -> None:
    """
    It is a memory of fixed size: most of the latest are known, and nothing that was never added.
    """
    table = Seen(None)
    for serial in range(100_000):
        table.add(ISSUER, serial, 3)

    known = sum(table.has(ISSUER, serial, 3) for serial in range(100_000))

    assert known > 60_000
    assert not any(table.has(ISSUER, serial, 5) for serial in range(1000))
    assert len(table._table) == PLACES * 16


def test_a_torn_entry_is_not_seen() -> None:
    """
    Any mixture of two entries, as two writers at once may leave it, stands for no event at all.
    """
    table = Seen(None)
    table.add(ISSUER, 1, 3)
    one = bytes(table._table[:])
    at = next(n for n in range(0, len(one), 16) if any(one[n : n + 16]))
    mine = one[at : at + 16]
    for cut in range(1, 16):
        table._table[at : at + 16] = mine[:cut] + bytes(16 - cut)
        assert not table.has(ISSUER, 1, 3) or mine[cut:] == bytes(16 - cut)
