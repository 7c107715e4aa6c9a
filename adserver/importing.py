"""`adserver import`: what another ad server keeps, as configuration files to look at and publish."""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from adserver.errors import BadExport
from adserver.fields import parse_zone
from adserver.settings import Settings

_DONE, _AT_FAULT = 0, 1
_ABOUT = """
FILE is what 'wp adserver export-advanced-ads' writes (JSON), or what Advanced Ads itself exports
(XML, with ads, groups and placements). Each ad becomes a slot with the ad's number, which shortcodes in
articles name, a line item in it and a creative; groups and placements keep their names. What has no equal is listed.

Nothing is published, and WordPress is not touched: look at the files, then 'adserver check DIR', 'adserver apply DIR'.
That makes DIR the whole catalog: where adserver has bookings already, put these files beside those of
'adserver export', under other names and without their [site].

An ad whose conditions cannot be said as targeting is moved with weight 0, so that it never shows where it must not.
Pictures stay where they are, in WordPress; with --media they are taken along: say where wp-content/uploads is, or a
copy of it.

Exit codes: 0 written, with or without a list of what has no equal; 1 the file cannot be read, nothing in it can be
moved, or DIR holds files.
"""


def add_commands(commands: Any, add: Callable[..., Any]) -> None:
    """Add `import` to the command line."""
    parser = commands.add_parser(
        "import",
        help="turn what Advanced Ads keeps into a config directory",
        description="Move from another ad server.",
    )
    kinds = parser.add_subparsers(required=True, metavar="FROM")
    one = add(kinds, "advanced-ads", _import, "turn an export of Advanced Ads into a config directory")
    one.formatter_class = argparse.RawDescriptionHelpFormatter
    one.epilog = _ABOUT
    one.add_argument("file", metavar="FILE", help="the export, JSON or XML; - for standard input")
    one.add_argument("--to", metavar="DIR", required=True, help="the directory to write; it is created")
    one.add_argument("--media", metavar="DIR", help="wp-content/uploads, to take pictures along")
    one.add_argument("--time-zone", metavar="ZONE", help="the newsroom's, where the file says none, as Europe/Oslo")
    one.add_argument("--force", action="store_true", help="write into a directory that holds *.toml files already")


def _import(_: Settings, options: argparse.Namespace) -> int:
    from adserver.advanced_ads.kept import MOST_BYTES, read_export
    from adserver.advanced_ads.move import NothingMoved, move

    target = Path(options.to)
    if target.exists() and any(target.glob("*.toml")) and not options.force:
        print(f"{target} holds *.toml files already; name another directory or use --force.", file=sys.stderr)
        return _AT_FAULT
    try:
        zone = None if options.time_zone is None else parse_zone(options.time_zone)
        read = _reader(options.media)
    except (OSError, ValueError) as error:
        what = f"--media {options.media}: {error.strerror}" if isinstance(error, OSError) else f"--time-zone {error}"
        print(what, file=sys.stderr)
        return _AT_FAULT
    try:
        moved = move(read_export(_read(options.file, MOST_BYTES), zone), read, zone)
    except NothingMoved as error:
        for left in error.left:
            print(f"not moved: {left}", file=sys.stderr)
        what = "none of what it holds could be moved, for the reasons above" if error.left else str(error)
        print(f"{options.file}: {what}; nothing is written", file=sys.stderr)
        return _AT_FAULT
    except (OSError, BadExport) as error:
        what = f"cannot be read: {error.strerror or error}" if isinstance(error, OSError) else str(error)
        print(f"{options.file}: {what}", file=sys.stderr)
        return _AT_FAULT
    try:
        for path in _write(target, moved.files, moved.pictures):
            print(path)
    except OSError as error:
        print(f"{target} cannot be written: {error.strerror or error}", file=sys.stderr)
        return _AT_FAULT
    for left in moved.left:
        print(f"not as before: {left}")
    print(f"Look at them, then: adserver check {target} && adserver apply {target}")
    print("What is live goes with that: a directory is the whole catalog. To keep it, add its files (adserver export).")
    return _DONE


def _read(file: str, most: int) -> bytes:
    """As much of it as is read, and a byte more."""
    if file == "-":
        return sys.stdin.buffer.read(most + 1)
    with Path(file).open("rb") as opened:
        return opened.read(most + 1)


def _write(target: Path, files: Mapping[str, str], pictures: Mapping[str, bytes]) -> Iterator[Path]:
    """Write all of it, and tell each file; pictures have names of their own making, and are told by their directory."""
    target.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (target / name).write_text(text, "utf-8")
        yield target / name
    if pictures:
        (target / "assets").mkdir(exist_ok=True)
        for name, data in pictures.items():
            (target / "assets" / name).write_bytes(data)
        yield target / "assets"


def _reader(media: str | None) -> Callable[[str], bytes | None]:
    """Pictures by their addresses, from the copy of wp-content/uploads. What leads out of it is not followed."""
    if media is None:
        return lambda _: None
    root = Path(media).resolve(strict=True)
    if not root.is_dir():
        raise NotADirectoryError(20, "is no directory")

    def read(url: str) -> bytes | None:
        from adserver.config_files import MOST_IMAGE_BYTES

        try:
            path = PurePosixPath(unquote(urlsplit(url).path))
            parts = path.parts[path.parts.index("uploads") + 1 :] if "uploads" in path.parts else path.parts[-1:]
            file = root.joinpath(*parts).resolve(strict=True)
            if not file.is_relative_to(root) or not file.is_file():
                return None
            with file.open("rb") as opened:
                data = opened.read(MOST_IMAGE_BYTES + 1)
        except (OSError, ValueError, RuntimeError):  # no address, no file, a link that leads to itself
            return None
        return data if len(data) <= MOST_IMAGE_BYTES else None

    return read
