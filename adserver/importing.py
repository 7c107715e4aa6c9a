"""`adserver import`: what another ad server keeps, as configuration files to look at and publish."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from adserver.errors import BadExport
from adserver.settings import Settings

_DONE, _AT_FAULT = 0, 1
_ABOUT = """
FILE is what 'wp adserver export-advanced-ads' writes (JSON), or what Advanced Ads itself exports
(XML, with ads, groups and placements). Each ad becomes a slot with the ad's number, which shortcodes in
articles name, a line item in it and a creative; groups and placements keep their names. What has no equal is listed.

Nothing is published, and WordPress is not touched: look at the files, then 'adserver check DIR', 'adserver apply DIR'.

An ad whose conditions cannot be said as targeting is moved with weight 0, so that it never shows where it must not.
Pictures stay where they are, in WordPress; with --media they are taken along: say where wp-content/uploads is, or a
copy of it.

Exit codes: 0 written, with or without a list of what has no equal; 1 the file cannot be read, or DIR holds files.
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
    from adserver.advanced_ads.move import move

    target = Path(options.to)
    if target.exists() and any(target.glob("*.toml")) and not options.force:
        print(f"{target} holds *.toml files already; name another directory or use --force.", file=sys.stderr)
        return _AT_FAULT
    try:
        if options.file == "-":
            data = sys.stdin.buffer.read(MOST_BYTES + 1)
        else:
            with Path(options.file).open("rb") as file:
                data = file.read(MOST_BYTES + 1)
        moved = move(read_export(data), _reader(options.media), options.time_zone)
    except (OSError, BadExport) as error:
        what = f"cannot be read: {error.strerror or error}" if isinstance(error, OSError) else str(error)
        print(f"{options.file}: {what}", file=sys.stderr)
        return _AT_FAULT
    target.mkdir(parents=True, exist_ok=True)
    for name, text in moved.files.items():
        (target / name).write_text(text, "utf-8")
        print(target / name)
    if moved.pictures:
        (target / "assets").mkdir(exist_ok=True)
        for name, data in moved.pictures.items():
            (target / "assets" / name).write_bytes(data)
        print(f"{target / 'assets'}: {len(moved.pictures):,} pictures")
    for left in moved.left:
        print(f"no equal: {left}")
    print(f"Look at them, then: adserver check {target} && adserver apply {target}")
    return _DONE


def _reader(media: str | None) -> Callable[[str], bytes | None]:
    """Pictures by their addresses, from the copy of wp-content/uploads. What leads out of it is not followed."""
    if media is None:
        return lambda _: None
    root = Path(media).resolve(strict=True)
    if not root.is_dir():
        raise NotADirectoryError(20, f"{media} is no directory")

    def read(url: str) -> bytes | None:
        from adserver.config_files import MOST_IMAGE_BYTES

        path = PurePosixPath(unquote(urlsplit(url).path))
        parts = path.parts[path.parts.index("uploads") + 1 :] if "uploads" in path.parts else path.parts[-1:]
        try:
            file = root.joinpath(*parts).resolve(strict=True)
            if not file.is_relative_to(root) or not file.is_file():
                return None
            with file.open("rb") as opened:
                data = opened.read(MOST_IMAGE_BYTES + 1)
        except (OSError, ValueError):
            return None
        return data if len(data) <= MOST_IMAGE_BYTES else None

    return read
