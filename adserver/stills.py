"""The still of a picture that moves: what readers see who want less motion, and everybody once it has moved enough.

It is the frame that the picture shows longest, the last of them where several are equal: that is where the maker wants
eyes to rest. Formats that say how long a frame stays only when it is drawn are drawn whole, within the limits below.
"""

import hashlib
from io import BytesIO
from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from PIL import Image  # 2 MB that a worker does without until it is handed a picture

LONGEST_S = 30
"""Seconds that one run of an animation may take."""
_MOST_FRAMES = 600
_MOST_PIXELS = 20_000_000
_QUICKEST_MS = 20
_AS = {"GIF": ("PNG", "png"), "PNG": ("PNG", "png"), "WEBP": ("WEBP", "webp"), "AVIF": ("WEBP", "webp")}


class Still(Struct, frozen=True):
    """A picture of its own, named by its content as every image is."""

    name: str
    data: bytes


def asset_name(data: bytes, extension: str) -> str:
    """The name of an image by its content: the same bytes have the same name everywhere."""
    return f"{hashlib.blake2b(data, digest_size=16).hexdigest()}.{extension}"


def make_still(data: bytes) -> Still | None:
    """The still of a GIF, PNG, WebP or AVIF that moves; None for any other picture.

    Raises ValueError, with the rest of a sentence, for one that moves too long, has too many pixels or is damaged.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(data), formats=list(_AS)) as image:
            form, frames = str(image.format), int(getattr(image, "n_frames", 1))
            width, height = image.size
            if frames == 1:
                return None
            if frames > _MOST_FRAMES or frames * width * height > _MOST_PIXELS:
                raise ValueError(
                    f"has {frames} frames of {width} x {height} pixels; expected at most {_MOST_FRAMES} frames and "
                    f"{_MOST_PIXELS:,} pixels in all of them"
                )
            found = _longest_shown(image, frames)
    except (ValueError, UnidentifiedImageError):
        raise
    except Exception as error:  # what is left of a damaged file makes Pillow raise nearly anything
        raise ValueError(f"moves, and cannot be drawn ({error}); save it again") from None
    kind, extension = _AS[form]
    out = BytesIO()
    how: dict[str, Any] = {"quality": 85, "method": 4} if kind == "WEBP" else {"optimize": True}
    found.save(out, kind, **how)
    return Still(asset_name(out.getvalue(), extension), out.getvalue())


def _longest_shown(image: Any, frames: int) -> "Image.Image":
    longest_ms, total_ms = -1, 0
    found: Image.Image = image
    for n in range(frames):
        image.seek(n)
        image.load()
        shown_ms = int(image.info.get("duration", 0))
        shown_ms = shown_ms if shown_ms >= _QUICKEST_MS else 100  # as browsers do
        total_ms += shown_ms
        if shown_ms >= longest_ms:
            longest_ms = shown_ms
            found = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if total_ms > LONGEST_S * 1000:
        raise ValueError(f"moves for {total_ms / 1000:,.1f} seconds in one run; at most {LONGEST_S} are taken")
    found.info = {name: value for name, value in found.info.items() if name == "icc_profile"}
    return found
