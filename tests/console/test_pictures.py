"""Uploaded pictures: told by their bytes, refused in words, and kept without anything but what is seen."""

import struct
import zlib
from io import BytesIO
from typing import Any

import pytest
from PIL import Image, ImageCms

from adserver.config_files import MOST_IMAGE_BYTES
from adserver.console.image_files import MOST_FRAMES, png_chunk, png_file, read_gif, read_png, read_webp
from adserver.console.pictures import BadPicture, Picture, take
from adserver.model import Size
from adserver.stills import asset_name

BOX = [(300, 250)]
SCRIPT = b"<script>alert(1)</script>"
FORMS = {"PNG": "loaf.png", "JPEG": "loaf.jpg", "GIF": "loaf.gif", "WEBP": "loaf.webp", "AVIF": "loaf.avif"}


def saved(image: Image.Image, form: str, **how: Any) -> bytes:
    out = BytesIO()
    image.save(out, form, **how)
    return out.getvalue()


def drawn(size: Size = (300, 250), mode: str = "RGB", shift: int = 0) -> Image.Image:
    """A picture in which each corner looks different."""
    across, down = Image.linear_gradient("L").rotate(90).resize(size), Image.linear_gradient("L").resize(size)
    image = Image.merge("RGB", (across, down, Image.new("L", size, 40 + shift)))
    image.paste((250, 250, 20), (10 + shift, 10, 60 + shift, 40))
    return image.convert(mode)


def moving(form: str, *, frames: int = 3, ms: int = 500, loop: int = 2, **how: Any) -> bytes:
    pictures = [drawn(shift=9 * n) for n in range(frames)]
    more = {} if form == "AVIF" else {"loop": loop}
    return saved(pictures[0], form, save_all=True, append_images=pictures[1:], duration=ms, **more, **how)


def opened(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data))
    image.load()
    return image


def refusal(data: bytes, name: str, sizes: list[Size] | None = None) -> str:
    with pytest.raises(BadPicture) as raised:
        take(data, name, BOX if sizes is None else sizes)
    told = str(raised.value)
    assert told.startswith(repr(name))
    return told


def furthest(one: Image.Image, other: Image.Image) -> int:
    """The largest difference of any channel of any pixel."""
    return max(abs(a - b) for a, b in zip(one.tobytes(), other.tobytes(), strict=True))


def alike(form: str, one: Image.Image, other: Image.Image) -> bool:
    """The same pixels where the format keeps them; else less than 1.5 of 255 apart on the average."""
    before, after = one.convert("RGBA").tobytes(), other.convert("RGBA").tobytes()
    if form in ("PNG", "GIF"):
        return before == after
    return sum(abs(a - b) for a, b in zip(before, after, strict=True)) < 1.5 * len(before)


def png(size: Size, data: bytes, *extra: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG by hand, around what its pixels are packed in."""
    header = struct.pack(">II5B", *size, depth, colour, 0, 0, 0)
    return png_file(header, [*extra, png_chunk(b"IDAT", data)])


# What is taken


@pytest.mark.parametrize("form", FORMS)
def test_each_format_is_taken_and_named_by_its_content(form: str) -> None:
    """
    A picture of each format is kept in that format, under the hash of what is kept; the same upload has the same name.
    """
    data = saved(drawn((600, 500)), form)

    found = take(data, FORMS[form].upper(), BOX)
    image = opened(found.data)

    assert found == take(data, FORMS[form], BOX)
    assert found.name == asset_name(found.data, FORMS[form].partition(".")[2])
    assert (found.format, found.size, found.fits, found.frames) == (form, (600, 500), ((300, 250),), 1)
    assert (image.format, image.size) == (form, (600, 500))
    assert (found.bytes_before, found.bytes_after) == (len(data), len(found.data))
    assert found.still is None
    assert alike(form, opened(data), image)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "JPEG"])
def test_what_moves_keeps_its_frames_durations_and_loops(form: str) -> None:
    """
    An animation of each format still has its frames, how long each is shown, and how often it is played.
    """
    data = moving(form)

    found = take(data, FORMS[form], BOX)
    before, after = Image.open(BytesIO(data)), Image.open(BytesIO(found.data))

    assert (found.frames, found.duration_s) == (3, 1.5)
    assert found.still is not None
    assert found.still_name == asset_name(found.still.data, "png" if form in ("PNG", "GIF") else "webp")
    assert getattr(opened(found.still.data), "n_frames", 1) == 1
    assert found.loops == {"PNG": 2, "GIF": 3, "WEBP": 2, "AVIF": 0}[form]
    assert found == take(data, FORMS[form], BOX)
    for n in range(3):
        before.seek(n)
        after.seek(n)
        assert alike(form, before, after)
        assert after.info["duration"] == 500


def test_an_avif_that_plays_once_plays_once() -> None:
    """
    Pillow writes every AVIF to be played without end, with the time of writing; what is kept says neither.
    """
    from adserver.console.avif_files import read_avif, without_clock

    once = without_clock(moving("AVIF"), 1)

    found = take(once, "loaf.avif", BOX)

    assert (read_avif(once).loops, found.loops, read_avif(found.data).loops) == (1, 1, 1)
    assert read_avif(take(moving("AVIF"), "loaf.avif", BOX).data).loops == 0


def test_a_lossless_webp_stays_lossless() -> None:
    """
    What was packed without loss is packed without loss again.
    """
    data = saved(drawn(), "WEBP", lossless=True)

    found = take(data, "loaf.webp", BOX)

    assert read_webp(found.data).lossless
    assert furthest(opened(data), opened(found.data)) == 0


def test_a_jpeg_keeps_its_tables() -> None:
    """
    A JPEG is written with the quality it came with: neither worse, nor several times as heavy.
    """
    data = saved(drawn(), "JPEG", quality=60)

    found = take(data, "loaf.jpeg", BOX)

    assert found.bytes_after < 1.05 * found.bytes_before
    assert alike("JPEG", opened(data), opened(found.data))


def test_a_picture_fits_at_once_or_at_twice_its_size() -> None:
    """
    A slot of 300x250 takes 300x250 and 600x500 and nothing else; without slots, any size will do.
    """
    assert take(saved(drawn((300, 250)), "PNG"), "a.png", BOX).notes[-1].endswith("600x500.")
    assert take(saved(drawn((600, 500)), "PNG"), "a.png", [*BOX, (600, 500)]).fits == ((300, 250), (600, 500))
    assert take(saved(drawn((123, 45)), "PNG"), "a.png").fits == ()
    told = refusal(saved(drawn((300, 251)), "PNG"), "a.png", [(728, 90), (300, 250)])
    assert told == "'a.png' is 300x251 pixels; expected one of 300x250, 728x90, or exactly twice that"


def test_transparency_is_kept_and_told() -> None:
    """
    See-through places of a PNG, a palette PNG, a GIF, a WebP and an AVIF stay see-through, and a note says to look.
    """
    clear = drawn(mode="RGBA")
    clear.paste((0, 0, 0, 0), (100, 100, 200, 200))
    palette = drawn().quantize(30)
    palette.paste(7, (100, 100, 200, 200))
    uploads = {
        "a.png": saved(clear, "PNG"),
        "b.png": saved(palette, "PNG", transparency=7),
        "c.gif": saved(palette, "GIF", transparency=7),
        "d.webp": saved(clear, "WEBP"),
        "e.avif": saved(clear, "AVIF"),
        "f.png": saved(drawn(), "PNG", transparency=(250, 250, 20)),
    }
    for name, data in uploads.items():
        found = take(data, name, BOX)
        spot = (20, 20) if name == "f.png" else (150, 150)
        pixel, other = (opened(found.data).convert("RGBA").getpixel(at) for at in (spot, (250, 50)))
        assert isinstance(pixel, tuple)
        assert isinstance(other, tuple)
        assert (pixel[3], other[3]) == (0, 255), name
        assert any("see-through" in note for note in found.notes), name


def test_odd_kinds_of_png_look_the_same() -> None:
    """
    16-bit colours and greys become 8-bit ones, and that is said; interlaced, two-coloured and grey ones stay as seen.
    """
    deep = Image.new("I;16", (300, 250), 0x8040)
    found = take(saved(deep, "PNG"), "deep.png", BOX)
    assert opened(found.data).getpixel((5, 5)) == 0x80
    assert any("16 bits" in note for note in found.notes)

    row = b"\0" + bytes([0x12, 0x34, 0xFF, 0xFF, 0, 0]) * 300
    found = take(png((300, 250), zlib.compress(row * 250), depth=16), "deep.png", BOX)
    assert opened(found.data).getpixel((299, 249)) == (0x12, 0xFF, 0)

    keyed = png((300, 250), zlib.compress((b"\0" + b"\x12\x34" * 300) * 250), depth=16, colour=0)
    clear = keyed.replace(keyed[33:], png_chunk(b"tRNS", b"\x12\x34") + keyed[33:])
    shade = opened(take(clear, "keyed.png", BOX).data).convert("LA").getpixel((0, 0))
    assert shade == (0x12, 0)

    for mode in ("1", "L", "LA"):
        data = saved(drawn(mode=mode), "PNG")
        assert furthest(opened(take(data, "a.png", BOX).data).convert("RGBA"), opened(data).convert("RGBA")) == 0


def test_an_interlaced_png_is_told_and_kept() -> None:
    """
    Adam7: seven passes over the picture hold as many pixels as its header says.
    """
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    grey = drawn(mode="L")
    rows = b""
    for x, y, over, down in passes:
        rows += b"".join(
            b"\0" + bytes(int(grey.getpixel((column, row)) or 0) for column in range(x, 300, over))  # type: ignore[arg-type]
            for row in range(y, 250, down)
        )
    header = struct.pack(">II5B", 300, 250, 8, 0, 0, 0, 1)
    data = png_file(header, [png_chunk(b"IDAT", zlib.compress(rows))])

    assert furthest(opened(take(data, "a.png", BOX).data), grey) == 0
    assert "pixels are missing" in refusal(png_file(header, [png_chunk(b"IDAT", zlib.compress(rows[:-1]))]), "a.png")


def test_print_colours_become_web_colours() -> None:
    """
    A CMYK JPEG is written in RGB, close to what it was, and a note asks to look at it.
    """
    found = take(saved(drawn(mode="CMYK"), "JPEG", quality=95), "print.jpg", BOX)

    image = opened(found.data)
    assert image.mode == "RGB"
    assert furthest(image, drawn()) < 40
    assert any("CMYK" in note for note in found.notes)


def wide_profile() -> bytes:
    """A profile in which red is another red: sRGB with its red and green primaries exchanged."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    data = bytearray(bytes(data).replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be")))
    at = {}
    for n in range(int.from_bytes(data[128:132])):
        entry = 132 + 12 * n
        at[bytes(data[entry : entry + 4])] = entry
    red, green = at[b"rXYZ"], at[b"gXYZ"]
    data[red + 4 : red + 12], data[green + 4 : green + 12] = data[green + 4 : green + 12], data[red + 4 : red + 12]
    return bytes(data)


@pytest.mark.parametrize(
    ("form", "mode"), [("JPEG", "RGB"), ("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("WEBP", "RGB")]
)
def test_colours_of_a_profile_are_carried_over(form: str, mode: str) -> None:
    """
    A picture with a colour profile of its own is kept in the web's colours, without the profile, and that is said.
    """
    red = Image.new("RGB", (300, 250), (200, 0, 0)).convert(mode)

    found = take(saved(red, form, icc_profile=wide_profile()), FORMS[form], BOX)

    image = opened(found.data)
    pixel = image.convert("RGB").getpixel((9, 9))
    assert isinstance(pixel, tuple)
    assert max(pixel[0], abs(pixel[1] - 200), pixel[2]) < 12
    assert "icc_profile" not in image.info
    assert any("carried over" in note for note in found.notes)


def test_a_profile_that_cannot_be_read_is_left_out() -> None:
    """
    Damage in what is thrown away anyway is no reason to refuse a picture; a note asks to look at it.
    """
    found = take(saved(drawn(), "PNG", icc_profile=b"no profile" * 20), "a.png", BOX)

    assert "icc_profile" not in opened(found.data).info
    assert any("colour profile could not be read" in note for note in found.notes)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_nobody_learns_where_it_was_taken(form: str) -> None:
    """
    Orientation is applied, and then the place, the camera, the comment and all other metadata are gone.
    """
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise
    exif[0x010E] = "KEEP-OUT description"
    exif.get_ifd(0x8825)[2] = (52.0, 22.0, 12.0)
    more: dict[str, Any] = {"xmp": b"<x:xmpmeta>KEEP-OUT</x:xmpmeta>"} if form in ("WEBP", "AVIF") else {}
    if form == "JPEG":
        more = {"comment": b"KEEP-OUT"}
    data = saved(drawn((250, 300)), form, exif=exif, **more)
    assert b"KEEP-OUT" in data

    found = take(data, FORMS[form], BOX)

    image = opened(found.data)
    assert found.size == image.size == (300, 250)
    assert [word for word in (b"KEEP-OUT", b"Exif", b"eXIf") if word in found.data] == []
    assert dict(image.getexif()) == {}
    upright = drawn((250, 300)).transpose(Image.Transpose.ROTATE_270)
    assert alike(form, upright, image)


def test_a_png_keeps_no_chunk_but_what_is_seen() -> None:
    """
    Of a PNG's chunks those remain that change what is seen.
    """
    from PIL.PngImagePlugin import PngInfo

    words = PngInfo()
    words.add_text("Author", "KEEP-OUT")
    words.add_itxt("XML:com.adobe.xmp", "KEEP-OUT", zip=True)
    data = saved(drawn(), "PNG", pnginfo=words, dpi=(300, 300))
    gamma = png_chunk(b"gAMA", struct.pack(">I", 100_000))

    found = take(data[:33] + gamma + data[33:], "a.png", BOX)

    assert set(read_png(found.data).chunks) == {b"gAMA"}


# What is said of it


def test_what_could_be_better_is_told() -> None:
    """
    Heavy, long and endless pictures are accepted, each with a sentence.
    """
    noise = Image.effect_noise((300, 250), 90)
    heavy = saved(Image.merge("RGB", (noise, noise.rotate(90), noise.rotate(180))), "PNG")
    assert any("200 kB or less" in note for note in take(heavy, "a.png", BOX).notes)
    long = take(moving("GIF", frames=4, ms=5000, loop=0), "a.gif", BOX)
    assert any("without end" in note for note in long.notes)
    assert any("moves for 20.0 seconds" in note for note in long.notes)
    calm = take(moving("GIF", frames=3, ms=1000, loop=1), "a.gif", BOX)
    assert not any("moves" in note or "played" in note for note in calm.notes)


def test_what_goes_on_for_too_long_is_refused() -> None:
    """
    One run of at most 30 seconds; a frame that says it takes no time is shown for a tenth of a second.
    """
    assert take(moving("WEBP", frames=3, ms=10_000), "a.webp", BOX).duration_s == 30
    assert "moves for 30.3 seconds" in refusal(moving("GIF", frames=3, ms=10_100), "a.gif")
    assert take(moving("GIF", frames=3, ms=0), "a.gif", BOX).duration_s == 0.3


@pytest.mark.parametrize("form", [form for form in FORMS if form != "JPEG"])
def test_what_flashes_is_refused(form: str) -> None:
    """
    Black and white by turns, five times a second over the whole picture: WCAG 2.3.1. Slowly, or in a corner, it may.
    """

    def blinking(ms: int, box: tuple[int, int, int, int] = (0, 0, 300, 250)) -> bytes:
        frames = [Image.new("RGB", (300, 250)) for _ in range(10)]
        for frame in frames[::2]:
            frame.paste("white", box)
        for n, frame in enumerate(frames):
            frame.putpixel((n, 0), (255, 0, 0))
        return saved(frames[0], form, save_all=True, append_images=frames[1:], duration=ms)

    assert "flashes more than three times a second" in refusal(blinking(100), FORMS[form])
    assert take(blinking(500), FORMS[form], BOX).frames == 10
    assert take(blinking(100, (0, 0, 80, 80)), FORMS[form], BOX).frames == 10


# What is refused


OTHERS = {
    "an SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "an SVG drawing": b'<?xml version="1.0"?>\n<!-- made by hand -->\n<svg onload="alert(1)"/>',
    "an HTML page": b"<!DOCTYPE html><title>x</title>",
    "a PHP program": b"<?php system($_GET['c']);",
    "a script": b"alert(document.cookie)",
    "a PDF": b"%PDF-1.7\n%\xe2\xe3",
    "a ZIP or an Office file": b"PK\x03\x04" + bytes(40),
    "a program": b"\x7fELF" + bytes(60),
    "a TIFF": b"II*\0" + bytes(60),
    "a BMP": b"BM" + bytes(60),
    "a HEIC photograph": b"\0\0\0\x18ftypheic\0\0\0\0",
    "a film": b"\0\0\0\x18ftypisom\0\0\0\0",
    "a text": b"Just words.\n",
    "no image that is known": b"\x01\x02\x03\x04" * 9,
    "empty": b"",
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_is_no_picture_is_called_by_its_name(what: str) -> None:
    """
    SVG, HTML, scripts, PDFs and the rest are refused in words that say what it is and what is expected.
    """
    told = refusal(OTHERS[what], "loaf.png")

    assert f"is {what}" in told
    assert told.endswith("expected a PNG, JPEG, GIF, WebP or AVIF image")


def test_a_wrong_name_is_told() -> None:
    """
    A JPEG named .png is a JPEG, and the sentence says how to name it; so is one with no ending, or a program's.
    """
    data = saved(drawn(), "JPEG")

    assert refusal(data, "loaf.png").endswith(
        "is a JPEG, and is named like a PNG; if it is the right file, rename it 'loaf.jpg'"
    )
    assert "its name does not say so; rename it 'loaf.jpg'" in refusal(data, "loaf")
    assert "its name ends in '.php'" in refusal(data, "loaf.php")
    assert take(data, "C:\\Users\\an\\Loaf of Bread.JPG", BOX).format == "JPEG"
    assert "\x1b" not in refusal(data, "\x1b[31mloaf‮gnp.exe")


def test_too_many_bytes_are_refused() -> None:
    """
    More than 1 MB is refused before anything of it is looked at.
    """
    assert f"at most {MOST_IMAGE_BYTES:,} (1 MB)" in refusal(bytes(MOST_IMAGE_BYTES + 1), "a.png")


HUGE = {
    "a.png": png((30_000, 30_000), zlib.compress(bytes(99))),
    "a.gif": b"GIF89a" + struct.pack("<HHBBB", 30_000, 30_000, 0x80, 0, 0) + bytes(6) + b";",
    "a.jpg": b"\xff\xd8\xff\xc0\0\x11\x08" + struct.pack(">HH", 30_000, 30_000) + b"\3" + bytes(9) + b"\xff\xd9",
    "a.webp": b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + (29_999).to_bytes(3, "little") * 2,
}


@pytest.mark.parametrize("name", HUGE)
def test_thirty_thousand_by_thirty_thousand_is_refused_by_its_header(name: str) -> None:
    """
    A file of some bytes that asks for 900 million pixels is refused before one of them is made.
    """
    assert "30,000 x 30,000 pixels, more than any place needs" in refusal(HUGE[name], name)


def test_an_avif_that_is_larger_inside_is_refused() -> None:
    """
    A header of 300x250 over AV1 data of 4,000x4,000, which a decoder would unpack before it compares the two.
    """
    data = saved(Image.new("RGB", (4000, 4000)), "AVIF", speed=10)
    at = data.index(b"ispe") + 8
    lying = data[:at] + struct.pack(">II", 300, 250) + data[at + 8 :]
    assert opened(saved(drawn(), "AVIF")).size == (300, 250)

    assert "4,000 x 4,000 pixels, more than any place needs" in refusal(lying, "a.avif")


def test_bombs_are_refused_before_they_go_off() -> None:
    """
    Pixels that unpack to far more than the header says, text that unpacks to hundreds of megabytes, and frames by the
    thousand: refused within the limits.
    """
    zeros = zlib.compress(bytes(100_000_000), 9)
    text = b"Comment\0\1\0\0\0" + zeros
    pixels = zlib.compress(bytes(250 * 901))
    assert "decompression bomb" in refusal(png((300, 250), zeros), "a.png")
    assert "text ('Comment') that unpacks to more than a megabyte" in refusal(
        png((300, 250), pixels, png_chunk(b"iTXt", text)), "a.png"
    )
    assert "text" in refusal(png((300, 250), pixels, png_chunk(b"zTXt", b"Comment\0\0" + zeros)), "a.png")

    one = saved(Image.new("P", (1, 1)), "GIF")
    frame = one[one.index(b",") : -1]
    assert f"more than {MOST_FRAMES} frames" in refusal(one[:-1] + frame * 60_000 + b";", "a.gif", [(1, 1)])
    wide = b"GIF89a" + struct.pack("<HHBBB", 2000, 2000, 0x80, 0, 0) + bytes(6)
    assert "in all frames together" in refusal(wide + frame * 6 + b";", "a.gif", [(2000, 2000)])


def test_a_jpeg_in_thousands_of_passes_is_refused() -> None:
    """
    A progressive JPEG may draw the same picture over and over; each pass costs as much as a picture.
    """
    data = saved(drawn(), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]

    assert "more than 64 passes" in refusal(data[:-2] + last * 100 + data[-2:], "a.jpg")


def with_comment(data: bytes, words: bytes) -> bytes:
    """A GIF's comment extension or a JPEG's comment, right after the header."""
    if data[:3] == b"GIF":
        at = data.index(b"!") if b"!" in data else data.index(b",")
        return data[:at] + b"!\xfe" + bytes([len(words)]) + words + b"\0" + data[at:]
    return data[:2] + b"\xff\xfe" + struct.pack(">H", len(words) + 2) + words + data[2:]


PHP = b"<?php system($_GET['c']); ?>"
ZIP = b"PK\x03\x04\x14\0\0\0\0\0" + bytes(40) + b"PK\x05\x06" + bytes(18)


def polyglots() -> dict[str, bytes]:
    png_, jpeg, gif, webp, avif = (saved(drawn(), form) for form in FORMS)
    behind = len(webp) + 8 + len(ZIP) - 8
    return {
        "script-behind.gif": gif + b"/*" + SCRIPT + b"*/",
        "script-in-comment.gif": with_comment(gif, SCRIPT),
        "javascript.gif": b"GIF89a/*" + gif[8:] + b"*/=1;alert(1)",
        "html-behind.png": png_ + b"<html><body onload=alert(1)>",
        "html-in-text.png": png_[:33] + png_chunk(b"tEXt", b"Comment\0<HTML>") + png_[33:],
        "packed-html.png": png_[:33] + png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(SCRIPT)) + png_[33:],
        "zip-in-chunk.png": png_[:33] + png_chunk(b"haCk", ZIP) + png_[33:],
        "php-in-comment.jpg": with_comment(jpeg, PHP),
        "pdf-in-comment.jpg": with_comment(jpeg, b"%PDF-1.4 1 0 obj"),
        "zip-behind.jpg": jpeg + ZIP,
        "zip-behind.webp": webp + ZIP,
        "zip-in-chunk.webp": b"RIFF"
        + (behind).to_bytes(4, "little")
        + webp[8:]
        + b"XtRa"
        + len(ZIP).to_bytes(4, "little")
        + ZIP,
        "script-behind.avif": avif + b"\0\0\0\x40free" + SCRIPT.ljust(56),
        "html-behind.avif": avif + b"\0\0\0\x20uuid" + b"<html></html>".ljust(24),
    }


@pytest.mark.parametrize("name", polyglots())
def test_what_is_two_things_at_once_is_refused(name: str) -> None:
    """
    A picture that is also a program, a page, a PDF or a ZIP is refused in words, wherever the other part hides.
    """
    told = refusal(polyglots()[name], name)

    assert "behind" not in name or "goes on after the picture's end" in told or "hides" in told
    assert any(word in told for word in ("hides", "goes on after", "12,079", "damaged")), told
    assert "save the picture again" in told or name == "javascript.gif"


def test_bytes_after_the_last_pixel_are_refused() -> None:
    """
    What hides inside the packed pixels, behind the last of them, is found as well.
    """
    pixels = zlib.compress(bytes(250 * 901))

    assert "hides 9 bytes behind its pixels" in refusal(png((300, 250), pixels + b"alert(1);"), "a.png")


@pytest.mark.parametrize("form", FORMS)
def test_what_breaks_off_is_refused(form: str) -> None:
    """
    Cut anywhere, a picture is refused in words; with a bit turned it is refused or shows no error.
    """
    data = saved(drawn((30, 25)), form)
    for cut in {*range(12, len(data), max(1, len(data) // 60)), len(data) - 1}:
        refusal(data[:cut], FORMS[form], [])
    for at in range(0, len(data), max(1, len(data) // 80)):
        turned = data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
        try:
            found: Picture | None = take(turned, FORMS[form])
        except BadPicture:
            found = None
        assert found is None or opened(found.data).size == found.size


@pytest.mark.parametrize("form", ["PNG", "GIF", "WEBP", "AVIF"])
def test_animations_with_turned_bits_do_no_harm(form: str) -> None:
    """
    Of an animation, too: refused in words, or kept as one that can be played.
    """
    pictures = [drawn((60, 50), shift=n) for n in range(3)]
    data = saved(pictures[0], form, save_all=True, append_images=pictures[1:], duration=200)
    for at in range(0, len(data), max(1, len(data) // 150)):
        turned = data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :]
        try:
            found = take(turned, FORMS[form])
        except BadPicture:
            continue
        image = Image.open(BytesIO(found.data))
        for n in range(getattr(image, "n_frames", 1)):
            image.seek(n)
            image.load()


def test_a_gif_keeps_palettes_places_and_disposals() -> None:
    """
    Frames of a GIF that have their own colours, their own place and their own way to go, keep them.
    """
    frames = [drawn(shift=n).quantize(16 + n) for n in range(3)]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=300, disposal=2, loop=1)

    before, after = read_gif(data), read_gif(take(data, "a.gif", BOX).data)

    assert [(one.size, one.at, one.palette, one.control) for one in before.frames] == [
        (one.size, one.at, one.palette, one.control) for one in after.frames
    ]
    assert before.chunks == after.chunks


def test_an_apng_with_a_hidden_first_picture_keeps_it_apart() -> None:
    """
    A PNG that moves may show another picture where nothing moves; it is no frame, before and after.
    """
    pictures = [drawn(shift=n) for n in (0, 9, 18)]
    data = saved(
        pictures[0], "PNG", save_all=True, default_image=True, append_images=pictures[1:], duration=500, loop=1
    )

    found = take(data, "a.png", BOX)

    assert (found.frames, found.loops) == (2, 1)
    image = Image.open(BytesIO(found.data))
    for n, picture in enumerate(pictures):
        image.seek(n)
        assert furthest(image.convert("RGB"), picture) == 0
