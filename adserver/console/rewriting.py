"""The picture of an upload written anew: its pixels, upright and in the web's colours, and nothing else of the file.

PNG and GIF keep every pixel; each frame is unpacked and packed again by itself, so that no more than one is in memory.
JPEG keeps its tables, so that writing it again changes next to nothing. WebP and AVIF do not tell how they were packed:
they are written at a quality at which no difference is seen, WebP without loss where it had none.
"""

import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from io import BytesIO
from typing import Any

from msgspec import Struct
from PIL import Image, ImageChops, ImageCms, JpegImagePlugin

from adserver.config_files import MOST_IMAGE_BYTES
from adserver.console import flashes
from adserver.console.avif_files import SLOWER, without_clock
from adserver.console.image_files import (
    Frame,
    Layout,
    check_size,
    damaged,
    png_chunk,
    png_file,
    read_gif,
    read_png,
)
from adserver.errors import BadPicture
from adserver.model import Size

_LONGEST_S = 30
_QUICKEST_MS = 20


class _Bounded(BytesIO):
    """What is written; it stops as soon as it is more than may be kept."""

    def write(self, data: Any, /) -> int:
        if self.tell() + len(data) > MOST_IMAGE_BYTES:
            raise too_heavy()
        return super().write(data)


def too_heavy() -> BadPicture:
    return BadPicture(
        f"has more than {MOST_IMAGE_BYTES:,} bytes (1 MB) once it is written anew, without anything that was hidden in "
        "it; make it smaller or simpler"
    )


class Made(Struct):
    data: bytes
    size: Size
    delays_ms: tuple[int, ...] = ()
    loops: int = 1
    notes: list[str] = []
    see_through: bool = False


def fitting(size: Size, slot_sizes: Collection[Size]) -> tuple[Size, ...]:
    width, height = size
    return tuple(one for one in dict.fromkeys(slot_sizes) if size in (one, (one[0] * 2, one[1] * 2)) and width * height)


def _check_fit(size: Size, slot_sizes: Collection[Size]) -> None:
    if slot_sizes and not fitting(size, slot_sizes):
        words = ", ".join(f"{width}x{height}" for width, height in sorted(set(slot_sizes)))
        raise BadPicture(f"is {size[0]}x{size[1]} pixels; expected one of {words}, or exactly twice that")


def _check_moving(frames: Iterator[tuple[Image.Image, int]], size: Size, loops: int, fits: tuple[Size, ...]) -> None:
    """Refuse what takes too long or flashes. *frames* come whole, each with its milliseconds."""
    squares: list[bytes] = []
    delays: list[int] = []
    for image, delay in frames:
        grey = image.convert("L") if image.mode not in ("P", "RGBA", "LA", "PA") else _on_white(image)
        squares.append(grey.resize((flashes.GRID, flashes.GRID), Image.Resampling.BOX).tobytes())
        delays.append(delay)
    _check_length(delays)
    area = min((width * height for width, height in fits), default=size[0] * size[1])
    if flashes.flashes(squares, delays, area, again=loops != 1):
        raise BadPicture(
            "flashes more than three times a second over a large area, which can cause seizures (WCAG 2.3.1); "
            "make it slower or calmer"
        )


def _check_length(delays_ms: Collection[int]) -> None:
    seconds = sum(delays_ms) / 1000
    if seconds > _LONGEST_S:
        raise BadPicture(f"moves for {seconds:,.1f} seconds in one run; at most {_LONGEST_S} are taken")


def _on_white(image: Image.Image) -> Image.Image:
    small = image.convert("RGBA").resize((flashes.GRID, flashes.GRID), Image.Resampling.BOX)
    white = Image.new("RGBA", small.size, "white")
    return Image.alpha_composite(white, small).convert("L")


def _shown_ms(delay_ms: int) -> int:
    """How long browsers show a frame: those that say next to nothing, for a tenth of a second."""
    return delay_ms if delay_ms >= _QUICKEST_MS else 100


def _open(data: bytes, form: str) -> Any:
    return Image.open(BytesIO(data), formats=[form])


def _is_see_through(image: Image.Image) -> bool:
    if image.mode in ("RGBA", "LA", "PA"):
        low, _ = image.getchannel("A").getextrema()
        return isinstance(low, int | float) and low < 255
    return "transparency" in image.info


def _bare(image: Image.Image) -> Image.Image:
    """*image* without anything that Pillow would write beside its pixels, but for what is see-through."""
    keep = image.info.get("transparency")
    bare = image.copy()
    bare.info = {} if keep is None else {"transparency": keep}
    return bare


# Colours

_SRGB = ImageCms.createProfile("sRGB")


def _to_srgb(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, str | None]:
    """*image* as a page without colour profiles shows it, and a note where its colours were carried over."""
    if image.mode == "CMYK" and not icc:
        return image.convert("RGB"), "It was in print colours (CMYK) without a profile; look whether they are right."
    if not icc:
        return image, None
    was = image.mode
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(icc))
        if "srgb" in ImageCms.getProfileDescription(profile).lower() and was != "CMYK":
            return image, None
        image = _carried(image, profile)
    except (ImageCms.PyCMSError, OSError, ValueError):
        if was == "CMYK":
            image = image.convert("RGB")
        return image, "Its colour profile could not be read and was left out; look whether its colours are right."
    return image, f"Its colours were carried over {'from print (CMYK) ' if was == 'CMYK' else ''}to those of the web."


def _carried(image: Image.Image, profile: Any) -> Image.Image:
    if image.mode == "P":
        colours = bytes(image.getpalette("RGB") or b"")
        strip = Image.frombytes("RGB", (len(colours) // 3, 1), colours)
        image.putpalette(_carried(strip, profile).tobytes(), "RGB")
        return image
    if image.mode == "RGB" and "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode == "RGBA":
        alpha = image.getchannel("A")
        image = _carried(image.convert("RGB"), profile)
        image.putalpha(alpha)
        return image
    if image.mode not in ("RGB", "CMYK") and (image.mode != "L" or "transparency" in image.info):
        return image
    found = ImageCms.profileToProfile(image, profile, _SRGB, outputMode="RGB")
    return found if found is not None else image


# PNG


def _make_png(_: bytes, layout: Layout, slot_sizes: Collection[Size]) -> Made:
    chunks = layout.chunks
    still = len(layout.frames) == 1
    icc = _png_profile(chunks.get(b"iCCP"))
    turn = _png_turn(chunks.get(b"eXIf")) if still else 1
    size = layout.size if turn < 5 else (layout.size[1], layout.size[0])
    _check_fit(size, slot_sizes)
    notes: list[str] = []
    if layout.header[8] == 16:
        notes.append("It had 16 bits for each colour; it keeps the 8 that screens show.")
    made: list[dict[bytes, bytes]] = []
    see_through, weight = False, 0
    for frame in layout.frames:
        header = struct.pack(">II", *frame.size) + layout.header[8:]
        before = [png_chunk(kind, chunks[kind]) for kind in (b"PLTE", b"tRNS") if kind in chunks]
        with _open(png_file(header, [*before, png_chunk(b"IDAT", frame.data)]), "PNG") as opened:
            opened.load()
            image, note = _to_srgb(_eight_bits(opened), icc)
        see_through = see_through or _is_see_through(image)
        if note and note not in notes:
            notes.append(note)
        made.append(_png_parts(_turned(image, turn)))
        weight += len(made[-1][b"IDAT"])
        if weight > MOST_IMAGE_BYTES:
            raise too_heavy()
    first = made[0]
    if any(one[kind] != first[kind] for one in made for kind in (b"depth", b"PLTE", b"tRNS")):
        raise damaged("its frames are of different kinds")
    kept = [] if icc or b"sRGB" in chunks else [kind for kind in (b"cHRM", b"gAMA") if kind in chunks]
    parts = [png_chunk(kind, chunks[kind]) for kind in kept if len(chunks[kind]) in (4, 32)]
    delays = tuple(map(_shown_ms, layout.delays_ms))
    if layout.delays_ms:
        parts.append(png_chunk(b"acTL", struct.pack(">II", len(delays), layout.loops)))
    parts += [png_chunk(kind, first[kind]) for kind in (b"PLTE", b"tRNS") if first[kind]]
    parts += _png_frames(layout, made) if layout.delays_ms else [png_chunk(b"IDAT", first[b"IDAT"])]
    result = png_file(struct.pack(">II", *size) + first[b"depth"], parts)
    if delays:
        with _open(result, "PNG") as opened:
            hidden = layout.frames[0].control is None
            moving = ((_at(opened, n + hidden), delay) for n, delay in enumerate(delays))
            _check_moving(moving, size, layout.loops, fitting(size, slot_sizes))
    return Made(result, size, delays, layout.loops if delays else 1, notes, see_through)


def _at(image: Any, frame: int) -> Image.Image:
    image.seek(frame)
    image.load()
    found: Image.Image = image
    return found


def _png_frames(layout: Layout, made: list[dict[bytes, bytes]]) -> Iterator[bytes]:
    count = 0
    for n, (frame, parts) in enumerate(zip(layout.frames, made, strict=True)):
        if frame.control is not None:
            yield png_chunk(b"fcTL", struct.pack(">I", count) + frame.control[4:])
            count += 1
        if n == 0:
            yield png_chunk(b"IDAT", parts[b"IDAT"])
        else:
            yield png_chunk(b"fdAT", struct.pack(">I", count) + parts[b"IDAT"])
            count += 1


def _png_parts(image: Image.Image) -> dict[bytes, bytes]:
    out = _Bounded()
    _bare(image).save(out, "PNG", compress_level=6)
    written = read_png(out.getvalue())
    chunks = {kind: written.chunks.get(kind, b"") for kind in (b"PLTE", b"tRNS")}
    return {**chunks, b"depth": written.header[8:], b"IDAT": written.frames[0].data}


def _eight_bits(image: Image.Image) -> Image.Image:
    """Pillow unpacks 16-bit colours to 8 bits by itself, and 16-bit greys not."""
    key = image.info.get("transparency")
    if image.mode != "I;16":
        return image
    raw = image.tobytes()  # little-endian
    low, high = (Image.frombytes("L", image.size, raw[n::2]) for n in (0, 1))
    if not isinstance(key, int):
        return high
    differs = [
        half.point([0 if value == key >> 8 * n & 255 else 255 for value in range(256)])
        for n, half in ((0, low), (1, high))
    ]
    return Image.merge("LA", (high, ImageChops.lighter(*differs)))


def _png_profile(chunk: bytes | None) -> bytes | None:
    if chunk is None:
        return None
    with _open(png_file(struct.pack(">II5B", 1, 1, 8, 2, 0, 0, 0), [png_chunk(b"iCCP", chunk), _PIXEL]), "PNG") as one:
        found: bytes | None = one.info.get("icc_profile")
        return found


_PIXEL = png_chunk(b"IDAT", bytes.fromhex("789c63000000010001"))


def _png_turn(exif: bytes | None) -> int:
    if not exif:
        return 1
    found = Image.Exif()
    found.load(b"Exif\0\0" + exif)
    return _turn_of(found)


def _turn_of(exif: Any) -> int:
    try:
        turn = exif.get(0x0112, 1)
    except Exception:  # damaged metadata is thrown away with the rest
        return 1
    return turn if isinstance(turn, int) and 1 <= turn <= 8 else 1


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _turned(image: Image.Image, turn: int) -> Image.Image:
    """*image* as its EXIF orientation *turn* wants it seen."""
    if turn not in _TURNS:
        return image
    turned = image.transpose(_TURNS[turn])
    turned.info = image.info
    return turned


# JPEG


def _make_jpeg(data: bytes, layout: Layout, slot_sizes: Collection[Size]) -> Made:
    with _open(data, "JPEG") as image:
        turn = _turn_of(image.getexif())
        size = layout.size if turn < 5 else (layout.size[1], layout.size[0])
        _check_fit(size, slot_sizes)
        same: dict[str, Any] = {"quality": 90, "subsampling": 0}
        if image.mode in ("L", "RGB"):
            tables, sampling = list(image.quantization.values()), JpegImagePlugin.get_sampling(image)
            same = {"qtables": tables, "subsampling": sampling if sampling in (0, 1, 2) else 0}
        image.load()
        made, note = _to_srgb(_turned(image, turn), image.info.get("icc_profile"))
    out = _Bounded()
    _bare(made).save(out, "JPEG", optimize=True, progressive=True, **same)
    return Made(out.getvalue(), size, notes=[note] if note else [])


# GIF


def _make_gif(_: bytes, layout: Layout, slot_sizes: Collection[Size]) -> Made:
    """Each frame is unpacked and packed again by itself, so that palettes, places and disposals stay as they were."""
    _check_fit(layout.size, slot_sizes)
    palette = layout.chunks[b"palette"]
    parts = [b"GIF89a", layout.header[6:12], b"\0", palette]
    if layout.loops != 1:
        again = (layout.loops - 1 if layout.loops else 0).to_bytes(2, "little")
        parts += [b"!\xff\x0bNETSCAPE2.0\3\1", again, b"\0"]
    for frame in layout.frames:
        colours = frame.palette or palette
        if not colours:
            raise damaged("it has no colours")
        if frame.control is not None:
            parts += [b"!\xf9\4", bytes([frame.control[0] & 0x1F]), frame.control[1:], b"\0"]
        flags = 0x80 | _palette_bits(frame.palette) if frame.palette else 0
        parts += [b",", struct.pack("<HHHHB", *frame.at, *frame.size, flags), frame.palette, _repacked(frame, colours)]
    result = b"".join([*parts, b";"])
    delays = tuple(map(_shown_ms, layout.delays_ms))
    see_through = any(frame.control and frame.control[0] & 1 for frame in layout.frames[:1])
    if delays:
        with _open(result, "GIF") as opened:
            moving = ((_at(opened, n), delay) for n, delay in enumerate(delays))
            _check_moving(moving, layout.size, layout.loops, fitting(layout.size, slot_sizes))
    return Made(result, layout.size, delays, layout.loops if delays else 1, see_through=see_through)


def _palette_bits(palette: bytes) -> int:
    return (len(palette) // 3).bit_length() - 2


def _repacked(frame: Frame, colours: bytes) -> bytes:
    flags = 0x80 | _palette_bits(colours)
    alone = [b"GIF89a", struct.pack("<HHBBB", *frame.size, flags, 0, 0), colours]
    alone += [b",", struct.pack("<HHHHB", 0, 0, *frame.size, 0x40 if frame.interlaced else 0), frame.data, b";"]
    with _open(b"".join(alone), "GIF") as image:
        image.load()
        if image.mode not in ("P", "L"):
            raise damaged("its colours cannot be read")
        indices = Image.frombytes("L", image.size, image.tobytes())
    out = _Bounded()
    indices.save(out, "GIF", optimize=False, interlace=0)
    return read_gif(out.getvalue()).frames[0].data


# WebP and AVIF


def _make_webp(data: bytes, layout: Layout, slot_sizes: Collection[Size]) -> Made:
    pixels = layout.size[0] * layout.size[1] * max(1, len(layout.delays_ms))
    how: dict[str, Any] = {"quality": 85, "method": 4 if pixels < _FEW_PIXELS else 2}
    if layout.lossless:
        how = {"lossless": True, "exact": False, "quality": 50, "method": 4 if pixels < _FEW_PIXELS else 0}
    return _make_modern(data, "WEBP", layout, slot_sizes, {**how, "loop": layout.loops})


def _make_avif(data: bytes, layout: Layout, slot_sizes: Collection[Size]) -> Made:
    how = {"quality": 80, "max_threads": 1}
    return _make_modern(data, "AVIF", layout, slot_sizes, how)


_FEW_PIXELS = 3_000_000
"""So many may take the encoder's time; more are written in haste."""


def _make_modern(data: bytes, form: str, layout: Layout, slot_sizes: Collection[Size], how: dict[str, Any]) -> Made:
    with _open(data, form) as image:
        frames = getattr(image, "n_frames", 1)
        check_size(image.size, frames, part=SLOWER if form == "AVIF" else 1)
        turn = _turn_of(image.getexif()) if frames == 1 else 1
        size = image.size if turn < 5 else (image.size[1], image.size[0])
        _check_fit(size, slot_sizes)
        if form == "AVIF":
            how = {**how, "speed": 8 if size[0] * size[1] * frames < _FEW_PIXELS else 10}
        icc = image.info.get("icc_profile")
        for name in ("icc_profile", "exif", "xmp"):
            image.info.pop(name, None)
        out = _Bounded()
        if frames == 1:
            image.load()
            made, note = _to_srgb(_turned(image, turn), icc)
            see_through = _is_see_through(made)
            _bare(made).save(out, form, **how)
            return Made(_settled(out.getvalue(), form, 1), size, notes=[note] if note else [], see_through=see_through)
        delays = list(map(_shown_ms, layout.delays_ms))
        _check_moving(_playing(image, delays), size, layout.loops, fitting(size, slot_sizes))
        see_through = image.mode == "RGBA"
        note, rest = None, []
        if icc:
            carried = [_to_srgb(_at(image, n).copy(), icc) for n in range(frames)]
            image, note, rest = carried[0][0], carried[0][1], [one for one, _ in carried[1:]]
        else:
            image.seek(0)
        image.save(out, form, save_all=True, append_images=rest, duration=delays, **how)
    result = _settled(out.getvalue(), form, layout.loops)
    return Made(result, size, tuple(delays), layout.loops, [note] if note else [], see_through)


def _playing(image: Any, delays: list[int]) -> Iterator[tuple[Image.Image, int]]:
    """Each frame with its milliseconds; an AVIF tells them only as it is played, and they are added to *delays*."""
    known = bool(delays)
    for n in range(image.n_frames):
        frame = _at(image, n)
        if not known:
            delays.append(_shown_ms(int(frame.info.get("duration", 0))))
        yield frame, delays[n]


def _settled(data: bytes, form: str, loops: int) -> bytes:
    return without_clock(data, loops) if form == "AVIF" else data


MAKERS: Mapping[str, Callable[[bytes, Layout, Collection[Size]], Made]] = {
    "PNG": _make_png,
    "JPEG": _make_jpeg,
    "GIF": _make_gif,
    "WEBP": _make_webp,
    "AVIF": _make_avif,
}
