"""`config/*.toml` and its images into a booking document, or a ConfigError that lists every problem; and back.

Files are opened relative to the directory and links are not followed, so that a configuration cannot reach outside.
"""

import os
import stat
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import tomli_w
from msgspec import Struct

from adserver.checks import check
from adserver.documents import TABLES, Document, Entry, Known, read_tables
from adserver.errors import ConfigError, Problem
from adserver.fields import say_cap
from adserver.model import Cap, Creative, Goal, Kind, Size
from adserver.stills import Still, asset_name, make_still

MOST_FILE_BYTES = 64 * 1024 * 1024
MOST_IMAGE_BYTES = 1024 * 1024
EXTENSIONS = {"PNG": "png", "JPEG": "jpg", "GIF": "gif", "WEBP": "webp", "AVIF": "avif"}


class Files(Struct, frozen=True):
    """What a config directory holds. *exported_from* is the live version the files were written from, if any."""

    document: Document
    assets: dict[str, bytes]
    exported_from: int | None


def read_config(directory: Path) -> Files:
    """Read and check the whole directory. Raises ConfigError with every problem found."""
    problems: list[Problem] = []
    entries, exported_from = _read_entries(directory, problems)
    document, known, wrong = read_tables(entries)
    problems += wrong
    assets: dict[str, bytes] = {}
    creatives = tuple(_load_image(directory, one, known, assets, problems) for one in document.creatives)
    document = msgspec.structs.replace(document, creatives=creatives)
    problems += check(document, known)
    if not problems and not document.slots:
        problems.append(Problem(str(directory), "names no [[slot]], so no page could ask for anything; add one"))
    if problems:
        raise ConfigError(sorted(set(problems)))
    return Files(document, assets, exported_from)


def _read_entries(directory: Path, problems: list[Problem]) -> tuple[list[Entry], int | None]:
    entries: list[Entry] = []
    exported_from: int | None = None
    try:
        names = sorted(
            path.name for path in directory.iterdir() if path.suffix == ".toml" and not path.name.startswith(".")
        )
    except OSError as error:
        problems.append(Problem(str(directory), f"cannot be read ({error.strerror}); name a directory of *.toml files"))
        return entries, None
    if not names:
        problems.append(Problem(str(directory), "holds no *.toml file; add one, such as the sample's slots.toml"))
    for name in names:
        file = f"{directory.resolve().name}/{name.encode(errors='backslashreplace').decode()}"
        tables = _read_toml(directory, name, file, problems)
        if (version := tables.pop("version", None)) is not None:
            if isinstance(version, int) and not isinstance(version, bool):
                exported_from = version
            else:
                problems.append(
                    Problem(file, f"field 'version' is {version!r:.80}; expected the number that export wrote")
                )
        entries += _entries_of(tables, file, problems)
    return entries, exported_from


def read_changes(path: str) -> dict[str, Any]:
    """The tables of one file. Raises ConfigError."""
    problems: list[Problem] = []
    file = Path(path)
    found = _read_toml(file.parent, file.name, path, problems)
    if problems:
        raise ConfigError(problems)
    found.pop("version", None)
    return found


def _read_toml(directory: Path, name: str, file: str, problems: list[Problem]) -> dict[str, Any]:
    try:
        text = _read_inside(directory, name, MOST_FILE_BYTES).decode()
        return tomllib.loads(text)
    except (ValueError, OSError) as error:
        problems.append(Problem(file, f"cannot be read: {error}"))
    except RecursionError:
        problems.append(Problem(file, "is nested too deeply to be read"))
    return {}


def _entries_of(tables: Mapping[str, Any], file: str, problems: list[Problem]) -> list[Entry]:
    entries: list[Entry] = []
    for table, value in tables.items():
        if table not in TABLES:
            problems.append(Problem(file, f"table {table!r:.80} does not exist; expected one of {', '.join(TABLES)}"))
        elif table == "site":
            entries.append(Entry(file, table, value))
        elif isinstance(value, list):
            entries += [Entry(file, table, raw) for raw in value]
        else:
            problems.append(Problem(file, f"write [[{table}]] with double brackets; there can be several"))
    return entries


def _read_inside(directory: Path, name: str, most: int) -> bytes:
    """The bytes of *name*, a plain file below *directory*; no link is followed. Raises OSError, ValueError."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name or "\\" in name:
        raise ValueError(f"{name!r:.80} leads out of the config directory; give a path below it")
    at = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = inner
        fd = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ValueError(f"{name!r:.80} is not a plain file")
            with os.fdopen(fd, "rb", closefd=False) as file:
                data = file.read(most + 1)
        finally:
            os.close(fd)
    finally:
        os.close(at)
    if len(data) > most:
        raise ValueError(f"{name!r:.80} is larger than {most:,} bytes")
    return data


def _load_image(
    directory: Path, creative: Creative, known: Known, assets: dict[str, bytes], problems: list[Problem]
) -> Creative:
    """*creative* with its image named by content; its bytes go to *assets*."""
    if not creative.image or creative.kind not in (Kind.IMAGE, Kind.NATIVE):
        return creative
    try:
        data = _read_inside(directory, creative.image, MOST_IMAGE_BYTES)
        found = measure_image(creative, data)
    except (OSError, ValueError) as error:
        what = f"{creative.image!r} cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
        problems.append(Problem(known.where("creative", creative.id), f"field 'image': {what}"))
        return creative
    name = asset_name(data, found.extension)
    assets[name] = data
    if found.still:
        assets[found.still.name] = found.still.data
    still = found.still.name if found.still else None
    return msgspec.structs.replace(creative, image=name, image_size=found.size, still=still)


class Measured(Struct, frozen=True):
    """What an image is: its extension by its content, its pixels, and its still where it moves."""

    extension: str
    size: Size
    still: Still | None


def measure_image(creative: Creative, data: bytes) -> Measured:
    """What *creative*'s image is. Raises ValueError for none, for one not of the creative's size, and for one that
    moves too long.
    """
    form, size = _look_at_image(data)
    if creative.size and size != creative.size and size != (creative.size[0] * 2, creative.size[1] * 2):
        raise ValueError(
            f"{creative.image!r} is {size[0]}x{size[1]} pixels; expected {creative.size[0]}x{creative.size[1]},"
            " the creative's size, or exactly twice that"
        )
    try:
        return Measured(form, size, None if form == "jpg" else make_still(data))
    except ValueError as error:
        raise ValueError(f"{creative.image!r} {error}") from None


def _look_at_image(data: bytes) -> tuple[str, Size]:
    """The extension and size of an image, from its content and not from its name. Raises ValueError."""
    from PIL import Image  # see stills

    try:
        with Image.open(BytesIO(data), formats=list(EXTENSIONS)) as image:
            image.verify()
            return EXTENSIONS[str(image.format)], image.size
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        raise ValueError(f"is not a readable PNG, JPEG, GIF, WebP or AVIF image ({error})") from None


# Writing


def write_config(directory: Path, document: Document, assets: Mapping[str, bytes], version: int) -> list[Path]:
    """Write *document* as files that `read_config` reads back unchanged; returns what was written."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "assets").mkdir(exist_ok=True)
    tables: dict[str, Any] = {"version": version, "site": raw_of(document.site)}
    tables |= {table: rows for table, rows in rows_of(document).items() if rows}
    written = [directory / "catalog.toml"]
    written[0].write_bytes(tomli_w.dumps(tables).encode())
    for name, data in assets.items():
        written.append(directory / "assets" / name)
        written[-1].write_bytes(data)
    return written


def rows_of(document: Document) -> dict[str, list[dict[str, Any]]]:
    tables = {
        "slot": document.slots,
        "group": document.groups,
        "placement": document.placements,
        "advertiser": document.advertisers,
        "campaign": document.campaigns,
        "line_item": document.line_items,
        "creative": document.creatives,
        "pause": document.pauses,
    }
    return {table: [raw_of(row) for row in rows] for table, rows in tables.items()}


def raw_of(struct: Struct) -> dict[str, Any]:
    """A struct as a person would write it: only what differs from the defaults."""
    raw: dict[str, Any] = {}
    for field in _fields_of(type(struct)):
        value = getattr(struct, field.name)
        default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
        if field.name not in ("image_size", "still") and value is not None and (field.required or value != default):
            raw[field.name] = plain(field.name, value)
    return raw


_fields_of = cache(msgspec.structs.fields)
"""What there is to write of each kind of entry: found anew for every entry it takes nine tenths of the time."""


def plain(name: str, value: Any) -> Any:
    """The value of the field *name* as TOML has it."""
    match value:
        case Enum():
            return value.value
        case Goal():
            return {value.of.value: value.n, **({"per": "day"} if value.daily else {})}
        case Cap():
            return say_cap(value)
        case Struct():
            return raw_of(value)
        case (int(), int()) if name in ("size", "sizes"):
            return f"{value[0]}x{value[1]}"
        case tuple():
            return [plain(name, one) for one in value]
        case dict():  # a page's own words
            return {key: plain(name, one) for key, one in value.items()}
        case float() if name in ("starts", "ends"):
            return datetime.fromtimestamp(value, UTC)
        case str() if name == "image":
            return f"assets/{value}"
    return value
