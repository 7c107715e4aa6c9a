"""An uploaded file into the picture that is kept: told by its bytes, refused in words, and written anew.

Rules: nothing is unpacked before its headers have been compared with the limits in `image_files`; nothing of the upload
is kept but its pixels, palettes, durations and loops, and the gamma of a PNG without a colour profile. The same file
gives the same bytes. `take` is synchronous and computes only, so callers run it in a thread. Of some thirty files made
to hurt within the limits (their most pixels in each format, hundreds of frames, 64 passes, bombs), the worst took 2.5 s
(an AVIF of 44 see-through frames) and 215 MB (a lossless WebP of 3,000 x 3,000) on one core; banners take 10 to 150 ms.

Animations: one run of more than 30 seconds is refused; more than 15 seconds in all, or more than three loops, are told
(the IAB's guidance says 15 and three; many sites take 30). Flashing is refused by WCAG 2.2, 2.3.1 (see `flashes`).
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import PurePosixPath

from msgspec import Struct

from adserver.config_files import EXTENSIONS, MOST_IMAGE_BYTES
from adserver.console.avif_files import read_avif
from adserver.console.image_files import Layout, damaged, read_gif, read_jpeg, read_png, read_webp
from adserver.console.rewriting import MAKERS, Made, fitting, too_heavy
from adserver.errors import BadPicture
from adserver.fields import shown
from adserver.model import Size
from adserver.stills import Still, asset_name, make_still

__all__ = ["SUGGESTED_BYTES", "BadPicture", "Kept", "Picture", "take"]

SUGGESTED_BYTES = 200_000
_SUGGESTED_S = 15
_SUGGESTED_LOOPS = 3
_EXPECTED = "expected a PNG, JPEG, GIF, WebP or AVIF image"
_NAMES = {"PNG": "a PNG", "JPEG": "a JPEG", "GIF": "a GIF", "WEBP": "a WebP", "AVIF": "an AVIF"}
_SPELLED = {
    "PNG": ("png", "apng"),
    "JPEG": ("jpg", "jpeg", "jpe", "jfif"),
    "GIF": ("gif",),
    "WEBP": ("webp",),
    "AVIF": ("avif", "avifs"),
}

# Anywhere, pixels included: of a million random megabytes, fewer than ten hold one of these by chance.
_MARKUP = re.compile(
    rb"<script|<\?php|<html|<svg|<!doctype|<iframe|<body|<%@|javascript:|document\.cookie", re.IGNORECASE
)
# Four or five bytes, so only where there are no pixels.
_CONTAINERS = re.compile(rb"PK\x03\x04|%PDF-|\x7fELF|Rar!\x1a|7z\xbc\xaf")


class Kept(Struct, frozen=True):
    """What a form needs to know of a picture that is kept: *name*, pixels, and what was said of it."""

    name: str
    size: Size
    still_name: str | None
    notes: tuple[str, ...] = ()


class Picture(Struct, frozen=True):
    """What is kept of an upload. *fits* are the slot sizes it is for, at once or at twice their pixels; *size* is in
    pixels; *loops* 0 is without end; *still* is one frame of what moves; *notes* are sentences about what was accepted
    and could be better.
    """

    name: str
    data: bytes
    format: str
    size: Size
    fits: tuple[Size, ...]
    frames: int
    duration_s: float
    loops: int
    bytes_before: int
    bytes_after: int
    notes: tuple[str, ...]
    still: Still | None = None

    @property
    def kept(self) -> "Kept":
        return Kept(self.name, self.size, self.still_name, self.notes)

    @property
    def still_name(self) -> str | None:
        return self.still.name if self.still else None


def take(data: bytes, file_name: str, slot_sizes: Collection[Size] = ()) -> Picture:
    """The picture that *data* is. Without *slot_sizes* any size will do. Raises BadPicture with a whole sentence."""
    try:
        return _take(data, file_name, slot_sizes)
    except BadPicture as error:
        raise BadPicture(f"{shown(file_name)} {error}") from None


def _take(data: bytes, file_name: str, slot_sizes: Collection[Size]) -> Picture:
    if len(data) > MOST_IMAGE_BYTES:
        raise BadPicture(f"has {len(data):,} bytes; at most {MOST_IMAGE_BYTES:,} (1 MB) are taken; make it lighter")
    form = _tell(data)
    _check_name(file_name, form)
    layout = _READERS[form](data)
    _check_hidden(data, layout)
    try:
        made = MAKERS[form](data, layout, slot_sizes)
    except BadPicture:
        raise
    except Exception as error:  # what is left of a damaged file makes Pillow raise nearly anything
        raise damaged(f"it cannot be drawn ({error})") from None
    if len(made.data) > MOST_IMAGE_BYTES:
        raise too_heavy()
    if _MARKUP.search(made.data):
        raise BadPicture("has pixels that read as a program; change the picture a little")
    name = asset_name(made.data, EXTENSIONS[form])
    fits = fitting(made.size, slot_sizes)
    length_s = round(sum(made.delays_ms) / 1000, 3)
    try:
        still = make_still(made.data) if made.delays_ms else None
    except ValueError as error:
        raise BadPicture(str(error)) from None
    return Picture(
        name,
        made.data,
        form,
        made.size,
        fits,
        max(1, len(made.delays_ms)),
        length_s,
        made.loops,
        len(data),
        len(made.data),
        tuple(_notes(made, fits, length_s)),
        still,
    )


# What it is


def _tell(data: bytes) -> str:
    if not data:
        raise BadPicture(f"is empty; {_EXPECTED}")
    for form, magic in _MAGIC.items():
        if magic.match(data):
            return form
    what = next((words for words, magic in _OTHERS if magic.match(data[:4096])), None)
    raise BadPicture(f"is {what}; {_EXPECTED}" if what else f"is no image that is known here; {_EXPECTED}")


_MAGIC = {
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "GIF": re.compile(rb"GIF8[79]a"),
    "WEBP": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "AVIF": re.compile(rb"\0\0..ftyp(?:avi[fs]|(?:mif1|msf1|miaf).{4}(?:.{4}){0,15}?avi[fs])", re.DOTALL),
}
_OTHERS = [
    (words, re.compile(magic, re.DOTALL | re.IGNORECASE))
    for words, magic in (
        ("a PDF", rb".{0,1024}?%PDF-"),
        ("a ZIP or an Office file", rb"PK\x03\x04|PK\x05\x06"),
        ("an old Office file", rb"\xd0\xcf\x11\xe0"),
        ("a program", rb"MZ|\x7fELF|#!|\xca\xfe\xba\xbe"),
        ("a PHP program", rb"\s*<\?(?:php|=)"),
        ("an SVG drawing, which can carry programs", rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml.{0,1000}?|<!--.{0,1000}?)?<svg"),
        (
            "an SVG drawing, which can carry programs",
            rb"(?:\xef\xbb\xbf)?\s*<\?xml.{0,200}?<!doctype\s+svg|\x1f\x8b.{0,40}?\.svg",
        ),
        ("an HTML page", rb"(?:\xef\xbb\xbf)?\s*(?:<!doctype html|<html|<head|<body|<script|<!--)"),
        ("a script", rb"\s*(?:function|var|const|let|import|alert|document|window)\b"),
        ("a HEIC photograph", rb"....ftyp(?:hei|hev|mif1|msf1)"),
        ("a film", rb"....ftyp|\x1a\x45\xdf\xa3|RIFF....AVI |\0\0\x01\xba|OggS"),
        ("a TIFF", rb"II\*\0|MM\0\*"),
        ("a Photoshop file", rb"8BPS"),
        ("a BMP", rb"BM.{4}\0\0\0\0"),
        ("an icon file", rb"\0\0[\x01\x02]\0"),
        ("a JPEG XL", rb"\xff\x0a|\0\0\0\x0cJXL "),
        ("a JPEG 2000", rb"\0\0\0\x0cjP  "),
        ("a PostScript file", rb"%!PS|\xc5\xd0\xd3\xc6"),
        ("a compressed file", rb"\x1f\x8b|BZh|\xfd7zXZ|Rar!|7z\xbc\xaf"),
        ("an XML file", rb"(?:\xef\xbb\xbf)?\s*<\?xml"),
        ("a text", rb"[\t\n\r -~]+\Z"),
    )
]
_READERS: Mapping[str, Callable[[bytes], Layout]] = {
    "PNG": read_png,
    "JPEG": read_jpeg,
    "GIF": read_gif,
    "WEBP": read_webp,
    "AVIF": read_avif,
}


def _check_name(file_name: str, form: str) -> None:
    path = PurePosixPath(file_name.replace("\\", "/").strip())
    extension = path.suffix.lower().removeprefix(".")
    if extension in _SPELLED[form]:
        return
    right = shown(f"{path.stem or 'picture'}.{EXTENSIONS[form]}")
    if not extension:
        raise BadPicture(f"is {_NAMES[form]}, and its name does not say so; rename it {right}")
    other = next((_NAMES[kind] for kind, ends in _SPELLED.items() if extension in ends), None)
    named = f"is named like {other}" if other else f"its name ends in {shown('.' + extension)}"
    raise BadPicture(f"is {_NAMES[form]}, and {named}; if it is the right file, rename it {right}")


def _check_hidden(data: bytes, layout: Layout) -> None:
    behind = data[layout.end :]
    if behind.strip(b"\0\r\n\t "):
        what = "a ZIP file" if b"PK\x03\x04" in behind else "a PDF" if b"%PDF-" in behind else None
        what = what or ("a page or program" if _MARKUP.search(behind) else f"{len(behind):,} bytes that are none of it")
        raise BadPicture(f"goes on after the picture's end, with {what}; save the picture again and upload that")
    found = _MARKUP.search(data) or next((hit for extra in layout.extras if (hit := _MARKUP.search(extra))), None)
    found = found or next((hit for extra in layout.extras if (hit := _CONTAINERS.search(extra))), None)
    if found:
        raise BadPicture(
            f"hides a page, a program or another file ({shown(found[0].decode('latin-1'))} is in it); save the picture "
            "again, without comments and metadata"
        )


# What is said of it


def _notes(made: Made, fits: tuple[Size, ...], length_s: float) -> Iterator[str]:
    yield from made.notes
    if len(made.data) > SUGGESTED_BYTES:
        yield (
            f"It weighs {len(made.data) / 1000:,.0f} kB; {SUGGESTED_BYTES // 1000} kB or less is better for readers on "
            "the road."
        )
    if made.delays_ms:
        runs = f"{made.loops} times" if made.loops > 1 else "once" if made.loops else "without end"
        if not made.loops or made.loops > _SUGGESTED_LOOPS:
            yield f"It is played {runs}; at most {_SUGGESTED_LOOPS} times is better, as readers mean to read."
        if length_s * max(1, made.loops) > _SUGGESTED_S:
            yield f"It moves for {length_s * max(1, made.loops):,.1f} seconds; {_SUGGESTED_S} at most is better."
    if made.see_through:
        yield "It is see-through in places; look at it on a light page and on a dark one."
    if fits and made.size in fits and (made.size[0] * 2, made.size[1] * 2) not in fits:
        yield f"It would be sharper on phones with twice the pixels, {made.size[0] * 2}x{made.size[1] * 2}."
