"""The still of a picture that moves: one frame of it, the one that is shown longest."""

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, features

from adserver.config_files import read_config, write_config
from adserver.errors import ConfigError
from adserver.stills import LONGEST_S, make_still

COLOURS = [(200, 30, 30), (30, 160, 60), (40, 60, 200)]
FORMS = ["GIF", "PNG", "WEBP", *(["AVIF"] if features.check("avif") else [])]


def moving(form: str, delays: list[int], size: tuple[int, int] = (300, 250), **how: Any) -> bytes:
    """An animation that shows one colour after the other."""
    pictures = [Image.new("RGB", size, COLOURS[n % 3]) for n in range(len(delays))]
    out = BytesIO()
    pictures[0].save(out, form, save_all=True, append_images=pictures[1:], duration=delays, **how)
    return out.getvalue()


def colour(data: bytes) -> tuple[int, ...]:
    with Image.open(BytesIO(data)) as image:
        assert getattr(image, "n_frames", 1) == 1
        found = image.convert("RGB").getpixel((10, 10))
        assert isinstance(found, tuple)
        return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("delays", "chosen"), [([100, 900, 100], 1), ([500, 500, 500], 2), ([900, 100, 100], 0)])
def test_it_is_the_frame_that_is_shown_longest(form: str, delays: list[int], chosen: int) -> None:
    """
    Of equals the last; named by its content, the same every time, in a format that shows wherever the picture does.
    """
    data = moving(form, delays)
    still = make_still(data)

    assert still is not None
    assert all(abs(a - b) < 8 for a, b in zip(colour(still.data), COLOURS[chosen], strict=True))
    assert still.name.endswith(".png" if form in ("GIF", "PNG") else ".webp")
    assert make_still(data) == still


@pytest.mark.parametrize("form", [*FORMS, "JPEG"])
def test_what_does_not_move_has_none(form: str) -> None:
    """
    A still picture is its own.
    """
    out = BytesIO()
    Image.new("RGB", (300, 250), COLOURS[0]).save(out, form)
    assert form == "JPEG" or make_still(out.getvalue()) is None


def test_what_moves_too_long_or_is_too_much_is_refused_in_words() -> None:
    """
    A run of more than 30 seconds, more pixels than are ever drawn, and a file that breaks off.
    """
    assert make_still(moving("GIF", [LONGEST_S * 500] * 2)) is not None
    with pytest.raises(ValueError, match=r"moves for 30\.1 seconds in one run; at most 30 are taken"):
        make_still(moving("GIF", [LONGEST_S * 500, LONGEST_S * 500 + 100]))
    with pytest.raises(ValueError, match="601 frames of 300 x 250 pixels; expected at most 600"):
        make_still(moving("GIF", [20] * 601, optimize=False))
    with pytest.raises(ValueError, match="cannot be drawn"):
        make_still(moving("PNG", [100, 100, 100])[:-60])


CATALOG = """
[[slot]]
id = 889990
name = "Box"
size = "300x250"
[[advertiser]]
id = "mill"
name = "Mill"
[[campaign]]
id = "mill"
name = "Mill"
advertiser = "mill"
[[line_item]]
id = "mill"
name = "Mill"
campaign = "mill"
priority = "standard"
slots = [889990]
creatives = ["mill"]
[[creative]]
id = "mill"
advertiser = "mill"
kind = "image"
size = "300x250"
image = "mill.gif"
alt = "A mill"
click_url = "https://mill.example/"
"""


def catalog(directory: Path, image: bytes) -> Path:
    (directory / "catalog.toml").write_text(CATALOG)
    (directory / "mill.gif").write_bytes(image)
    return directory


def test_a_configuration_has_stills_beside_its_pictures(tmp_path: Path) -> None:
    """
    A creative that moves names its still, which is among the assets; what is written out and read again is the same.
    """
    (tmp_path / "in").mkdir()
    found = read_config(catalog(tmp_path / "in", moving("GIF", [100, 900, 100])))
    (creative,) = found.document.creatives

    assert creative.still is not None
    assert set(creative.files) == set(found.assets) == {creative.image, creative.still}
    assert all(abs(a - b) < 8 for a, b in zip(colour(found.assets[creative.still]), COLOURS[1], strict=True))

    write_config(tmp_path / "out", found.document, {str(creative.image): found.assets[str(creative.image)]}, 3)
    assert "still" not in (tmp_path / "out" / "catalog.toml").read_text()
    assert read_config(tmp_path / "out").document == found.document


def test_a_configuration_with_a_picture_that_moves_too_long_is_refused(tmp_path: Path) -> None:
    """
    The problem names the creative and the file, and says how long it may be.
    """
    with pytest.raises(ConfigError, match=r"'mill'.*'mill.gif' moves for 40\.0 seconds in one run; at most 30"):
        read_config(catalog(tmp_path, moving("GIF", [20_000, 20_000])))
