"""How PNG, JPEG, GIF and WebP files are laid out: where their frames lie, what else they carry, where they end.

Rules: only headers are read here, never a pixel; what a header asks for is compared with the limits before anything is
unpacked; every walk is linear in the file's length. Each reader raises BadPicture with the rest of a sentence about
the file.
"""

import re
import struct
import zlib
from collections.abc import Iterator, Mapping

from msgspec import Struct

from adserver.errors import BadPicture
from adserver.model import Size

MOST_PIXELS = 9_000_000
"""In one frame: a little more than 3840x2160."""
MOST_PIXELS_TOGETHER = 20_000_000
"""In all frames: 300x250 for 266 frames, 970x250 for 82."""
MOST_FRAMES = 600
_MOST_SCANS = 64
_MOST_TEXT = 1024 * 1024
_PNG = b"\x89PNG\r\n\x1a\n"


class Frame(Struct, frozen=True):
    """One picture of a file. *control* and *palette* are the bytes that say how it is shown; *data*, its pixels, still
    packed.
    """

    size: Size
    data: bytes
    at: tuple[int, int] = (0, 0)
    control: bytes | None = None
    palette: bytes = b""
    interlaced: bool = False


class Layout(Struct, frozen=True):
    """*delays_ms* has an entry for each frame of an animation, and none for a still; *loops* 0 is without end. *extras*
    are the stretches that hold no pixels, *end* is where the image is over.
    """

    form: str
    size: Size
    end: int
    extras: tuple[bytes, ...] = ()
    frames: tuple[Frame, ...] = ()
    delays_ms: tuple[int, ...] = ()
    loops: int = 1
    header: bytes = b""
    chunks: Mapping[bytes, bytes] = {}
    lossless: bool = False


def check_size(size: Size, frames: int = 1, *, part: int = 1) -> None:
    """Whether so many frames of that size may be unpacked at all: within one *part*-th of the limits, where a format
    takes so many times as long.
    """
    width, height = size
    most, together = MOST_PIXELS // part, MOST_PIXELS_TOGETHER // part
    if not width or not height:
        raise BadPicture("has no pixels at all; save the picture again")
    if width * height > most:
        raise BadPicture(
            f"is {width:,} x {height:,} pixels, more than any place needs; expected at most {most:,} pixels"
        )
    if frames > MOST_FRAMES:
        raise BadPicture(f"has more than {MOST_FRAMES} frames; make it shorter, or show fewer frames a second")
    if width * height * frames > together:
        raise BadPicture(
            f"has {frames} frames or more of {width} x {height} pixels; at most {together:,} pixels are taken in all "
            "frames together; make it smaller, shorter, or show fewer frames a second"
        )


def damaged(what: str) -> BadPicture:
    return BadPicture(f"is damaged: {what}; save the picture again and upload that")


# PNG


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def png_file(header: bytes, chunks: list[bytes]) -> bytes:
    return b"".join([_PNG, png_chunk(b"IHDR", header), *chunks, png_chunk(b"IEND", b"")])


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Each chunk with its end, up to IEND."""
    at = 8
    while True:
        if at + 12 > len(data):
            raise damaged("it breaks off before its end")
        length = int.from_bytes(data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        end = at + 12 + length
        if end > len(data):
            raise damaged("it breaks off before its end")
        if zlib.crc32(body, zlib.crc32(kind)) != int.from_bytes(data[end - 4 : end]):
            raise damaged(f"its part {kind!r} is not what was written")
        yield kind, body, end
        if kind == b"IEND":
            return
        at = end


def read_png(data: bytes) -> Layout:
    """Also a PNG that moves (APNG). Its pixels are unpacked once and thrown away, to see that they are just as many as
    the header says.
    """
    found = _Png()
    end = len(_PNG)
    for kind, body, after in _png_chunks(data):
        found.take(kind, body)
        end = after
    frames = found.finished()
    moving = found.chunks.get(b"acTL") if any(frame.control for frame in frames) else None
    shown = [frame for frame in frames if frame.control] if moving else []
    return Layout(
        "PNG",
        found.size,
        end,
        tuple(found.extras),
        tuple(frames if moving else frames[:1]),
        tuple(_apng_delay(frame.control or b"") for frame in shown) if len(shown) > 1 else (),
        int.from_bytes(moving[4:8]) if moving else 1,
        found.header,
        found.chunks,
        lossless=True,
    )


_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


class _Png:
    """What the chunks so far have said."""

    def __init__(self) -> None:
        self.header = b""
        self.size = (0, 0)
        self.chunks: dict[bytes, bytes] = {}
        self.extras: list[bytes] = []
        self._frames: list[Frame] = []
        self._control: bytes | None = None
        self._parts: list[bytes] = []
        self._text = 0

    def take(self, kind: bytes, body: bytes) -> None:
        if not self.header:
            if kind != b"IHDR" or len(body) != 13:
                raise damaged("its header is missing")
            self.header, self.size = body, struct.unpack(">II", body[:8])
            check_size(self.size)
            if body[8] not in _DEPTHS.get(body[9], ()) or body[10] or body[11] or body[12] > 1:
                raise damaged("its header says what no PNG can be")
        elif kind == b"IDAT":
            self._parts.append(body)
        elif kind == b"fdAT":
            self._parts.append(body[4:])
        elif kind == b"fcTL":
            self._close()
            if len(body) != 26:
                raise damaged("one of its frames has no proper header")
            self._control = body
        elif kind != b"IEND":
            if kind != b"PLTE":
                self.extras.append(body)
            if kind in (b"zTXt", b"iTXt", b"iCCP"):
                self.extras.append(self._unpack_text(kind, body))
            self.chunks.setdefault(kind, body)

    def finished(self) -> list[Frame]:
        self._close()
        if not self._frames:
            raise damaged("it holds no pixels")
        check_size(self.size, len(self._frames))
        return self._frames

    def _close(self) -> None:
        """The frame whose pixels have come."""
        if not self._parts:
            return
        size, at = self.size, (0, 0)
        if self._control is not None:
            size, at = struct.unpack(">II", self._control[4:12]), struct.unpack(">II", self._control[12:20])
            if at[0] + size[0] > self.size[0] or at[1] + size[1] > self.size[1] or not size[0] or not size[1]:
                raise damaged("one of its frames lies outside the picture")
        if len(self._frames) >= MOST_FRAMES:
            check_size(self.size, MOST_FRAMES + 1)
        packed = b"".join(self._parts)
        self._check_pixels(packed, size)
        self._frames.append(Frame(size, packed, at, self._control, interlaced=bool(self.header[12])))
        self._parts, self._control = [], None
        check_size(self.size, len(self._frames))

    def _check_pixels(self, packed: bytes, size: Size) -> None:
        bits = self.header[8] * _CHANNELS[self.header[9]]
        passes = _ADAM7 if self.header[12] else ((0, 0, 1, 1),)
        expected = 0
        for x, y, over, down in passes:
            width, height = -((x - size[0]) // over), -((y - size[1]) // down)
            expected += height * (1 + (width * bits + 7) // 8) if width > 0 and height > 0 else 0
        unpack, got, rest = zlib.decompressobj(), 0, packed
        try:
            while got <= expected and not unpack.eof and (rest or not got):
                piece = unpack.decompress(rest, 262_144)
                got, rest = got + len(piece), unpack.unconsumed_tail
                if not piece and not rest:
                    break
        except zlib.error:
            raise damaged("its pixels cannot be unpacked") from None
        if got > expected:
            raise BadPicture("unpacks to more than its size says, as a decompression bomb does; save the picture again")
        if got < expected:
            raise damaged("some of its pixels are missing")
        if unpack.unused_data:
            raise BadPicture(f"hides {len(unpack.unused_data):,} bytes behind its pixels; save the picture again")

    def _unpack_text(self, kind: bytes, body: bytes) -> bytes:
        name, _, rest = body.partition(b"\0")
        if kind == b"iTXt":
            packed, rest = rest[:1] == b"\1", rest[2:]
            rest = rest.partition(b"\0")[2].partition(b"\0")[2]
            if not packed:
                return b""
        else:
            rest = rest[1:]
        unpack = zlib.decompressobj()
        try:
            text = unpack.decompress(rest, _MOST_TEXT - self._text + 1)
        except zlib.error:
            return b""  # it is thrown away
        self._text += len(text)
        if self._text > _MOST_TEXT:
            raise BadPicture(
                f"carries text ({name[:40].decode('latin-1')!r}) that unpacks to more than a megabyte, as a "
                "decompression bomb does; save the picture again"
            )
        return text


def _apng_delay(control: bytes) -> int:
    top, bottom = int.from_bytes(control[20:22]), int.from_bytes(control[22:24])
    return round(1000 * top / (bottom or 100))


# JPEG

_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")


def read_jpeg(data: bytes) -> Layout:
    at, scans = 2, 0
    size: Size | None = None
    extras: list[bytes] = []
    while True:
        while data[at : at + 2] == b"\xff\xff":
            at += 1
        marker = data[at + 1 : at + 2]
        if data[at : at + 1] != b"\xff" or not marker:
            raise damaged("it breaks off before its end")
        if marker == b"\xd9":
            break
        length = int.from_bytes(data[at + 2 : at + 4])
        body, end = data[at + 4 : at + 2 + length], at + 2 + length
        if length < 2 or end > len(data):
            raise damaged("it breaks off before its end")
        code = marker[0]
        if code in (0xC0, 0xC1, 0xC2):
            size = _jpeg_size(body, size)
        elif 0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC):
            raise BadPicture("is a kind of JPEG that browsers do not show; save it as an ordinary JPEG")
        elif 0xE0 <= code <= 0xEF or code == 0xFE:
            extras.append(body)
        at = end
        if code == 0xDA:
            scans += 1
            if scans > _MOST_SCANS:
                raise BadPicture(f"is drawn in more than {_MOST_SCANS} passes, as a bomb is; save it again")
            found = _MARKER.search(data, at)
            if not found:
                raise damaged("it breaks off before its end")
            at = found.start()
    if size is None or not scans:
        raise damaged("it holds no pixels")
    return Layout("JPEG", size, at + 2, tuple(extras))


def _jpeg_size(body: bytes, known: Size | None) -> Size:
    if len(body) < 6 or known:
        raise damaged("its header is not whole")
    if body[0] != 8 or body[5] not in (1, 3, 4):
        raise BadPicture("is a kind of JPEG that browsers do not show; save it as an ordinary JPEG")
    height, width = struct.unpack(">HH", body[1:5])
    check_size((width, height))
    return width, height


# GIF


def _gif_blocks(data: bytes, at: int) -> int:
    """Where the sub-blocks that begin at *at* end."""
    while True:
        if at >= len(data):
            raise damaged("it breaks off before its end")
        length = data[at]
        at += 1 + length
        if not length:
            return at


def read_gif(data: bytes) -> Layout:
    if len(data) < 13:
        raise damaged("it breaks off before its end")
    width, height, flags = struct.unpack("<HHB", data[6:11])
    size = width, height
    check_size(size)
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    palette, control, loops = data[13:at], None, 1
    frames: list[Frame] = []
    extras: list[bytes] = []
    while data[at : at + 1] != b";":
        kind = data[at : at + 1]
        if kind == b"!":
            end = _gif_blocks(data, at + 2)
            body = data[at + 2 : end]
            if data[at + 1] == 0xF9 and len(body) == 6:
                control = body[1:5]
            else:
                extras.append(body)
                if body[1:12] in (b"NETSCAPE2.0", b"ANIMEXTS1.0") and body[12:14] == b"\3\1":
                    again = int.from_bytes(body[14:16], "little")
                    loops = again + 1 if again else 0
            at = end
        elif kind == b",":
            frame, at = _gif_frame(data, at, size, control)
            frames.append(frame)
            control = None
            check_size(size, len(frames))
        else:
            raise damaged("it breaks off before its end" if not kind else "it holds what no GIF does")
    if not frames:
        raise damaged("it holds no pixels")
    delays = tuple(10 * int.from_bytes(frame.control[1:3], "little") if frame.control else 0 for frame in frames)
    return Layout(
        "GIF",
        size,
        at + 1,
        tuple(extras),
        tuple(frames),
        delays if len(frames) > 1 else (),
        loops,
        data[:13],
        {b"palette": palette},
        lossless=True,
    )


def _gif_frame(data: bytes, at: int, canvas: Size, control: bytes | None) -> tuple[Frame, int]:
    if at + 10 > len(data):
        raise damaged("it breaks off before its end")
    left, top, width, height, flags = struct.unpack("<HHHHB", data[at + 1 : at + 10])
    if left + width > canvas[0] or top + height > canvas[1] or not width or not height:
        raise damaged("one of its frames lies outside the picture")
    begin = at + 10 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    end = _gif_blocks(data, begin + 1)
    palette = data[at + 10 : begin]
    return Frame((width, height), data[begin:end], (left, top), control, palette, bool(flags & 0x40)), end


# WebP


def _webp_chunks(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    while at + 8 <= end:
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        if at + 8 + length > end:
            raise damaged("it breaks off before its end")
        yield data[at : at + 4], data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def read_webp(data: bytes) -> Layout:
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise damaged("it breaks off before its end")
    canvas: Size | None = None
    still: Size | None = None
    lossless, loops = True, 1
    delays: list[int] = []
    extras: list[bytes] = []
    for kind, body in _webp_chunks(data, 12, end):
        if kind == b"VP8X" and len(body) >= 10:
            canvas = _uint24(body, 4) + 1, _uint24(body, 7) + 1
            check_size(canvas)
        elif kind in (b"VP8 ", b"VP8L"):
            still = still or _webp_size(kind, body)
            lossless = lossless and kind == b"VP8L"
        elif kind == b"ANIM" and len(body) >= 6:
            loops = int.from_bytes(body[4:6], "little")
        elif kind == b"ANMF" and len(body) >= 16 and canvas:
            lossless = _check_webp_frame(body, canvas) and lossless
            delays.append(_uint24(body, 12))
            check_size(canvas, len(delays))
        elif kind not in (b"ALPH", b"ANMF"):
            extras.append(body)
    size = canvas or still
    if size is None or (still is None and not delays):
        raise damaged("it holds no pixels")
    if still and size != still and not delays:
        raise damaged("its two headers do not agree on its size")
    check_size(size, len(delays) or 1)
    moving = len(delays) > 1
    return Layout(
        "WEBP", size, end, tuple(extras), (), tuple(delays) if moving else (), loops if moving else 1, lossless=lossless
    )


def _uint24(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 3], "little")


def _check_webp_frame(body: bytes, canvas: Size) -> bool:
    """Whether the frame is kept without loss. Raises BadPicture where it does not lie in *canvas*."""
    left, top, size = 2 * _uint24(body, 0), 2 * _uint24(body, 3), (_uint24(body, 6) + 1, _uint24(body, 9) + 1)
    if left + size[0] > canvas[0] or top + size[1] > canvas[1]:
        raise damaged("one of its frames lies outside the picture")
    for kind, pixels in _webp_chunks(body, 16, len(body)):
        if kind in (b"VP8 ", b"VP8L"):
            if _webp_size(kind, pixels) != size:
                raise damaged("one of its frames is not as large as it says")
            return kind == b"VP8L"
    raise damaged("one of its frames holds no pixels")


def _webp_size(kind: bytes, body: bytes) -> Size:
    if kind == b"VP8L" and body[:1] == b"\x2f" and len(body) >= 5:
        bits = int.from_bytes(body[1:5], "little")
        size = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a" and len(body) >= 10:
        size = int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    else:
        raise damaged("its header is not whole")
    check_size(size)
    return size
