"""How AVIF files are laid out, and how large the frames are that their AV1 data asks for.

A box header may say 300x250 over AV1 data of 16,384x16,384, which a decoder unpacks before it compares the two: so the
sequence headers inside are read as well, and none may ask for more than the limits. Layouts: ISO/IEC 14496-12 and
23008-12; the sequence header: AV1 specification, 5.5.
"""

import struct
from collections.abc import Iterator
from itertools import pairwise

from adserver.console.image_files import MOST_PIXELS, Layout, check_size, damaged
from adserver.errors import BadPicture
from adserver.model import Size

_INSIDE = {b"meta": 12, b"iprp": 8, b"ipco": 8, b"moov": 8, b"trak": 8, b"edts": 8, b"mdia": 8, b"minf": 8, b"stbl": 8}
_MOST_BOXES = 20_000
_MOST_ITEMS = 1000
_MOST_SAMPLES = 2000
SLOWER = 3
"""An AVIF takes so many times the time and memory of the other formats, and gets that part of the pixels."""
_FOREVER = (0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)

Place = tuple[int, int]
"""Where something begins and ends."""


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int, int]]:
    """Each box and the ones inside: its kind, where it begins, where its content begins, where it ends."""
    while at < end:
        if at + 8 > end:
            raise damaged("it breaks off before its end")
        length, kind, head = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8], 8
        if length == 1:
            length, head = int.from_bytes(data[at + 8 : at + 16]), 16
        length = length or end - at
        if length < head or at + length > end:
            raise damaged("it breaks off before its end")
        yield kind, at, at + head, at + length
        if kind in _INSIDE:
            yield from _boxes(data, at + _INSIDE[kind], at + length)
        at += length


def read_avif(data: bytes) -> Layout:
    """The size is the largest that the file speaks of; a decoder knows which of them is the picture's."""
    found: dict[bytes, list[Place]] = {}
    extras: list[bytes] = []
    known = {b"ftyp", b"mdat", *_INSIDE}
    outer = 0
    for count, (kind, begin, content, end) in enumerate(_boxes(data, 0, len(data))):
        if count > _MOST_BOXES:
            raise damaged("it has more parts than a picture needs")
        found.setdefault(kind, []).append((content, end))
        if begin == outer:
            outer = end
            if kind not in known:
                extras.append(data[content:end])
    try:
        sizes = [struct.unpack(">II", data[at + 4 : at + 12]) for at, _ in found.get(b"ispe", ())]
        places = [*_items(data, found), *_samples(data, found)]
        if not sizes or not places:
            raise damaged("it holds no pixels")
        for size in sizes:
            check_size(size, part=SLOWER)
        for stream in places:
            _check_stream(stream)
        loops = _loops(data, found)
    except (struct.error, IndexError, ValueError):
        raise damaged("its parts do not fit together") from None
    return Layout("AVIF", max(sizes, key=lambda one: one[0] * one[1]), outer, tuple(extras), loops=loops)


class _Reader:
    """Numbers one after the other."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self._data, self._at, self._end = data, at, end

    def number(self, length: int) -> int:
        if self._at + length > self._end:
            raise damaged("its parts do not fit together")
        self._at += length
        return int.from_bytes(self._data[self._at - length : self._at])


def _items(data: bytes, found: dict[bytes, list[Place]]) -> Iterator[bytes]:
    """The AV1 data of each still picture: the picture itself, its transparency, its tiles."""
    pictures = set()
    for at, end in found.get(b"iinf", ()):
        wide = data[at]
        for kind, _, inner, last in _boxes(data, at + (8 if wide else 6), end):
            if kind == b"infe" and data[inner] >= 2:
                entry = _Reader(data, inner + 4, last)
                number = entry.number(2 if data[inner] == 2 else 4)
                entry.number(2)
                if entry.number(4) == int.from_bytes(b"av01"):
                    pictures.add(number)
    if len(pictures) > _MOST_ITEMS:
        raise damaged("it has more parts than a picture needs")
    inner_data = found.get(b"idat", [(0, 0)])[0]
    for at, end in found.get(b"iloc", ()):
        yield from _located(data, _Reader(data, at, end), pictures, inner_data)


def _located(data: bytes, box: _Reader, pictures: set[int], inner: Place) -> Iterator[bytes]:
    version = box.number(4) >> 24
    sizes = box.number(2)
    offset, length, base, index = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15, sizes & 15
    for _ in range(box.number(2 if version < 2 else 4)):
        number = box.number(2 if version < 2 else 4)
        way = box.number(2) & 15 if version else 0
        box.number(2)
        begins = box.number(base)
        parts = []
        for _ in range(box.number(2)):
            box.number(index if version else 0)
            at, long = begins + box.number(offset), box.number(length)
            if way == 1:
                at += inner[0]
            if way > 1 or at + long > len(data):
                raise damaged("its parts do not fit together")
            parts.append(data[at : at + long if long else len(data)])
            if len(parts) > _MOST_ITEMS:
                raise damaged("it has more parts than a picture needs")
        if number in pictures:
            yield b"".join(parts)


def _samples(data: bytes, found: dict[bytes, list[Place]]) -> Iterator[bytes]:
    """The AV1 data of each frame of each track."""
    offsets = [*found.get(b"stco", ()), *found.get(b"co64", ())]
    wide = 8 if b"co64" in found else 4
    if b"stco" in found and b"co64" in found:
        raise damaged("its parts do not fit together")
    for (at_sizes, sizes_end), (at_runs, runs_end), (at, end) in zip(
        found.get(b"stsz", ()), found.get(b"stsc", ()), offsets, strict=True
    ):
        sizes, runs, chunks = _Reader(data, at_sizes + 4, sizes_end), _Reader(data, at_runs + 4, runs_end), None
        each, count = sizes.number(4), sizes.number(4)
        if count > _MOST_SAMPLES:
            check_size((1, 1), count)
        lengths = [each or sizes.number(4) for _ in range(count)]
        rows = [(runs.number(4), runs.number(4), runs.number(4)) for _ in range(runs.number(4))]
        chunks = _Reader(data, at + 4, end)
        begins = [chunks.number(wide) for _ in range(chunks.number(4))]
        taken = iter(lengths)
        for row, after in pairwise([*rows, (len(begins) + 1, 0, 0)]):
            for chunk in range(row[0] - 1, min(after[0] - 1, len(begins))):
                place = begins[chunk]
                for _ in range(min(row[1], count)):
                    length = next(taken, 0)
                    yield data[place : place + length]
                    place += length


def _check_stream(stream: bytes) -> None:
    """Walk through the open bitstream units; look at each sequence header."""
    at, units = 0, 0
    while at < len(stream):
        head = stream[at]
        at += 2 if head & 4 else 1
        length = len(stream) - at
        if head & 2:
            length, at = _leb128(stream, at)
        if at + length > len(stream) or units > _MOST_BOXES:
            raise damaged("it breaks off before its end")
        if head >> 3 & 15 == 1:
            _check_sequence(stream[at : at + length])
        at += length
        units += 1


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for n in range(8):
        value |= (data[at + n] & 127) << 7 * n
        if not data[at + n] & 128:
            return value, at + n + 1
    raise damaged("its parts do not fit together")


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._bits, self._left = int.from_bytes(data), 8 * len(data)

    def take(self, n: int) -> int:
        self._left -= n
        if self._left < 0:
            raise damaged("its header is not whole")
        return self._bits >> self._left & (1 << n) - 1


def _check_sequence(header: bytes) -> None:
    bits = _Bits(header[:1024])
    bits.take(4)
    if bits.take(1):
        bits.take(5)
    else:
        _skip_timing(bits)
    wide, high = bits.take(4) + 1, bits.take(4) + 1
    size: Size = bits.take(wide) + 1, bits.take(high) + 1
    check_size(size, part=SLOWER)
    if (
        1 << wide + high > 4 * MOST_PIXELS // SLOWER
    ):  # a frame may differ from its sequence, within these numbers of bits
        raise BadPicture("leaves room for frames larger than any place needs; save it again at its own size")


def _skip_timing(bits: _Bits) -> None:
    """From timing_info_present_flag to the last operating point."""
    model, delay_bits = 0, 0
    if bits.take(1):
        bits.take(32)
        bits.take(32)
        if bits.take(1):
            zeros = 0
            while not bits.take(1):
                zeros += 1
            bits.take(min(zeros, 32))
        model = bits.take(1)
        if model:
            delay_bits = bits.take(5) + 1
            bits.take(42)
    display = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if model and bits.take(1):
            bits.take(2 * delay_bits + 1)
        if display and bits.take(1):
            bits.take(4)


def _loops(data: bytes, found: dict[bytes, list[Place]]) -> int:
    if b"elst" not in found or b"tkhd" not in found:
        return 1
    edit, track = found[b"elst"][0][0], found[b"tkhd"][0][0]
    if not data[edit + 3] & 1:
        return 1
    total, piece = _duration(data, track), _number(data, edit + 8, 8 if data[edit] else 4)
    return 0 if total in _FOREVER or not piece else -(-total // piece)


def _number(data: bytes, at: int, length: int) -> int:
    return int.from_bytes(data[at : at + length])


def _duration(data: bytes, track: int) -> int:
    return _number(data, track + 28, 8) if data[track] else _number(data, track + 20, 4)


def without_clock(data: bytes, loops: int) -> bytes:
    """What Pillow has written, without the time at which it did, and shown *loops* times (0 is without end)."""
    made = bytearray(data)
    places = {kind: content for kind, _, content, _ in _boxes(data, 0, len(data))}
    for kind in (b"mvhd", b"tkhd", b"mdhd"):
        if kind in places:
            at, wide = places[kind], 8 if data[places[kind]] else 4
            made[at + 4 : at + 4 + 2 * wide] = bytes(2 * wide)
    if loops and b"elst" in places and data[places[b"elst"]] and data[places[b"tkhd"]] and data[places[b"mvhd"]]:
        total = (_number(data, places[b"elst"] + 8, 8) * loops).to_bytes(8)
        made[places[b"tkhd"] + 28 : places[b"tkhd"] + 36] = total
        made[places[b"mvhd"] + 24 : places[b"mvhd"] + 32] = total
    return bytes(made)
