"""The signing keys on disk."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from adserver.secret import BadSecret, read_keys, read_staff_token
from adserver.settings import Settings
from adserver.token import parse_keys

ROOT = Path(__file__).parent.parent.parent
LINE = f"7 {'ab' * 32}\n"


def settings_for(directory: Path) -> Settings:
    return Settings(data_dir=str(directory))


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    """
    The first start makes it with mode 0600, later ones read it; nothing else stays in the directory.
    """
    before = os.umask(0)
    try:
        one = read_keys(settings_for(tmp_path))
    finally:
        os.umask(before)
    two = read_keys(settings_for(tmp_path))

    assert one.fingerprint() == two.fingerprint()
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o600


def test_two_processes_that_start_at_once_share_one_key(tmp_path: Path) -> None:
    """
    One of them wins, and all read its key.
    """
    script = "import sys; from adserver.secret import read_keys; from adserver.settings import Settings"
    script += "; sys.stdin.read(); print(read_keys(Settings(data_dir=sys.argv[1])).fingerprint())"
    children = [
        subprocess.Popen(
            [sys.executable, "-c", script, tmp_path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(4)
    ]
    for child in children:
        assert child.stdin
        child.stdin.close()
    said = set()
    for child in children:
        assert child.stdout
        said.add(child.stdout.read())
        child.stdout.close()
        assert child.wait() == 0

    assert len(said) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602, 0o666])
def test_a_file_that_everybody_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    """
    The sentence says what to run.
    """
    (tmp_path / "keys").write_text(LINE)
    (tmp_path / "keys").chmod(mode)

    with pytest.raises(BadSecret, match="chmod 600"):
        read_keys(settings_for(tmp_path))


@pytest.mark.parametrize("text", ["", "# nothing\n", "1 abc\n", LINE + LINE, f"300 {'ab' * 32}\n", "\xff\n", "\0"])
def test_a_file_that_holds_no_keys_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    """
    Where and what was expected, and not a digit of a key.
    """
    (tmp_path / "keys").write_bytes(text.encode("latin-1"))
    (tmp_path / "keys").chmod(0o600)

    with pytest.raises(BadSecret, match="keys") as raised:
        read_keys(settings_for(tmp_path))
    assert "abab" not in str(raised.value)


def test_a_secret_file_of_ones_own_is_read_and_never_made(tmp_path: Path) -> None:
    """
    A mounted secret is a link and group-readable; a missing one is told and not replaced by a new key.
    """
    (tmp_path / "real").write_text(LINE)
    (tmp_path / "real").chmod(0o440)
    (tmp_path / "mounted").symlink_to(tmp_path / "real")

    found = read_keys(Settings(data_dir=str(tmp_path), secret_file=str(tmp_path / "mounted")))
    assert found.signing == 7
    assert "ab" * 4 not in repr(found)
    for missing in (tmp_path / "missing", tmp_path):
        with pytest.raises(BadSecret, match="cannot be read"):
            read_keys(Settings(data_dir=str(tmp_path), secret_file=str(missing)))
    assert not (tmp_path / "missing").exists()
    assert not (tmp_path / "keys").exists()


def test_a_data_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """
    No traceback: the path and the reason.
    """
    with pytest.raises(BadSecret, match="No such file"):
        read_keys(settings_for(tmp_path / "missing"))


def test_the_staff_token_follows_from_the_keys(tmp_path: Path) -> None:
    """
    The same for all who share them, another after they are rotated; the file shows it, to its owner alone.
    """
    settings, other = Settings(data_dir=str(tmp_path / "a")), Settings(data_dir=str(tmp_path / "b"))
    for one in (settings, other):
        Path(one.data_dir).mkdir()
    keys = parse_keys(f"1 {'ab' * 32}")
    token = read_staff_token(settings, keys)
    assert token == read_staff_token(other, keys) == read_staff_token(settings, keys)
    path = tmp_path / "a" / "staff-token"
    assert path.read_text().strip() == token
    assert path.stat().st_mode & 0o777 == 0o600
    rotated = read_staff_token(settings, parse_keys(f"2 {'cd' * 32}"))
    assert rotated != token
    assert path.read_text().strip() == rotated
    assert "ab" * 4 not in token


def test_a_staff_token_of_ones_own(tmp_path: Path) -> None:
    """
    It is taken as it is; one that is short, has blanks, or that everybody can read is refused in words.
    """
    path, keys = tmp_path / "token", parse_keys(f"1 {'ab' * 32}")
    settings = Settings(data_dir=str(tmp_path), staff_token_file=str(path))
    with pytest.raises(BadSecret, match="cannot be read"):
        read_staff_token(settings, keys)
    path.write_text("our-own-token-of-2026\n")
    path.chmod(0o644)
    with pytest.raises(BadSecret, match="chmod 600"):
        read_staff_token(settings, keys)
    path.chmod(0o600)
    assert read_staff_token(settings, keys) == "our-own-token-of-2026"
    for wrong in ("short", "with a blank in the middle", "ünïcödé-token-here-it-is"):
        path.write_text(wrong, encoding="utf-8")
        with pytest.raises(BadSecret, match="expected"):
            read_staff_token(settings, keys)
