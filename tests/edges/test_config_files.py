"""Configuration on real files: read whole or refused with every problem, and written so that it reads back the same."""

import os
import struct
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs
from PIL import Image

from adserver.config_files import MOST_IMAGE_BYTES, Files, read_config, write_config
from adserver.documents import Document
from adserver.errors import ConfigError
from adserver.model import Counts, Kind, WhenEmpty
from tests import make

ROOT = Path(__file__).parent.parent.parent
SLOT = '[[slot]]\nid = 889990\nname = "Top"\nsize = "300x250"\n'
SHOWN = """
[[advertiser]]
id = "acme"
name = "Acme"
[[campaign]]
id = "spring"
name = "Spring"
advertiser = "acme"
[[line_item]]
id = "sale"
name = "Sale"
campaign = "spring"
priority = "standard"
slots = [889990]
creatives = ["loaf"]
[[creative]]
id = "loaf"
advertiser = "acme"
kind = "image"
size = "300x250"
alt = "A loaf"
click_url = "https://acme.example/"
"""


def png(width: int = 300, height: int = 250, form: str = "PNG") -> bytes:
    out = BytesIO()
    Image.new("RGB", (width, height), "teal").save(out, form)
    return out.getvalue()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A directory named config with one slot."""
    path = tmp_path / "config"
    path.mkdir()
    (path / "slots.toml").write_text(SLOT)
    return path


def problems(directory: Path) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        read_config(directory)
    return [str(problem) for problem in raised.value.problems]


def with_image(config: Path, image: str = "assets/loaf.png", data: bytes | None = None) -> Path:
    (config / "assets").mkdir(exist_ok=True)
    if data is not None:
        (config / "assets" / "loaf.png").write_bytes(data)
    (config / "ads.toml").write_text(SHOWN + f"image = {image!r}\n")
    return config


def test_the_sample_is_good() -> None:
    """
    What comes with the repository can be served as it is, with all eight ad ids and an image for each that shows one.
    """
    found = read_config(ROOT / "config")

    assert {slot.id for slot in found.document.slots} >= set(range(889977, 889995)) & {889990, 889991, 889992}
    assert {creative.image for creative in found.document.creatives if creative.image} == set(found.assets)
    assert found.exported_from is None


def test_what_is_written_reads_back_the_same(tmp_path: Path) -> None:
    """
    Export and read again: documents and images are equal, and the files name the version they were written from.
    """
    found = read_config(ROOT / "config")

    written = write_config(tmp_path / "out", found.document, found.assets, 7)
    again = read_config(tmp_path / "out")

    assert again == Files(found.document, found.assets, 7)
    assert all(path.is_file() for path in written)
    assert write_config(tmp_path / "out2", again.document, again.assets, 7)
    assert (tmp_path / "out2/catalog.toml").read_bytes() == (tmp_path / "out/catalog.toml").read_bytes()


NAMES = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs")), max_size=30)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    prose=st.lists(NAMES.map(str.strip), min_size=3, max_size=3),
    html=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60),
    instants=st.tuples(st.floats(0, 2e9), st.floats(2.1e9, 4e9)),
    weight=st.floats(0.001, 1e6),
    share=st.floats(0.001, 100),
)
def test_any_document_reads_back_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    prose: list[str],
    html: str,
    instants: tuple[float, float],
    weight: float,
    share: float,
) -> None:
    """
    Quotes, line breaks, scripts of any kind, and every digit of a number survive the way through TOML.
    """
    from adserver.fields import parse_markup, parse_prose

    clean = [parse_prose(text) for text in prose]
    one = make.creative(
        "loaf", Kind.HTML, click_url="https://acme.example/", html=parse_markup(html + "x"), weight=weight
    )
    two = make.creative("bun", Kind.TEXT, title=clean[0] or "t", text=clean[1], sponsor=clean[2])
    starts, ends = (round(at, 3) for at in instants)
    item = make.sponsorship("sale", share, starts=starts, ends=ends, creatives=("loaf", "bun"))
    shape = make.slot(
        counts=Counts.VIEWABLE, when_empty=WhenEmpty.PASSBACK, passback="<b>\r\n\t\"'''\\</b>", refresh_s=30
    )
    document = make.document(item, slots=[shape], creatives=[one, two], groups=[make.group(889990)])
    pauses = (
        make.pause("a", line_item="sale", starts=starts, ends=ends, reason=clean[0]),
        make.pause("b", section="sport", by="ann"),
    )
    document = structs.replace(document, pauses=pauses)
    directory = tmp_path_factory.mktemp("out")

    write_config(directory, document, {}, 3)

    assert read_config(directory).document == document


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP"])
def test_an_image_is_named_by_its_content(config: Path, form: str) -> None:
    """
    Whatever the file is called, its kind and size come from its bytes, and its name is their hash.
    """
    data = png(600, 500, form)
    found = read_config(with_image(config, data=data))

    (creative,) = found.document.creatives
    assert creative.image_size == (600, 500)
    assert found.assets == {creative.image: data}
    assert str(creative.image).endswith({"JPEG": ".jpg"}.get(form, f".{form.lower()}"))


@pytest.mark.parametrize(
    "image",
    [
        "../outside.png",
        "assets/../../outside.png",
        "/etc/hostname",
        "assets/link.png",
        "linked/loaf.png",
        "assets/loaf.png\0.txt",
        "assets\\..\\..\\outside.png",
        "assets/missing.png",
        "assets",
        "assets/pipe",
        "assets/" + "x" * 190,
        "x" * 4096,
        "",
        ".",
        "//",
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(config: Path, image: str) -> None:
    """
    Out of the directory, over a link, to a directory or a pipe, with NUL or longer than a name may be: a problem.
    """
    (config.parent / "outside.png").write_bytes(png())
    with_image(config, data=png())
    (config / "assets" / "link.png").symlink_to(config.parent / "outside.png")
    (config / "linked").symlink_to(config / "assets")
    os.mkfifo(config / "assets" / "pipe")
    (config / "ads.toml").write_text(
        SHOWN + f'image = "{image.encode("unicode_escape").decode()}"\n'.replace("\\x00", "\\u0000")
    )

    found = problems(config)

    assert any("image" in problem for problem in found)
    assert all(len(problem) < 500 for problem in found)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


BOMB = (
    b"\x89PNG\r\n\x1a\n"
    + _chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    + _chunk(b"IDAT", zlib.compress(bytes(1000)))
    + _chunk(b"IEND", b"")
)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"just some text\n" * 20, "not a readable"),
        (b"", "not a readable"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a readable"),
        (png(301, 250), "301x250 pixels; expected 300x250"),
        (png()[:60], "not a readable"),
        (png()[:40] + b"\xff" * 30, "not a readable"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 200, "not a readable"),
        (b"GIF89a" + b"\xff" * 20, "not a readable"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 30, "not a readable"),
        (b"RIFF\x10\0\0\0WEBPVP8 " + b"\0" * 10, "not a readable"),
        (BOMB, "not a readable"),
        (b"\0" * (MOST_IMAGE_BYTES + 1), "larger than"),
    ],
)
def test_an_image_that_is_none_is_refused(config: Path, data: bytes, says: str) -> None:
    """
    Text in an image's clothes, a cut or damaged file, one of another size, a bomb, one of a megabyte and a byte.
    """
    (problem,) = problems(with_image(config, data=data))

    assert "creative 'loaf'" in problem
    assert "field 'image'" in problem
    assert says in problem


def test_no_bytes_make_the_image_reader_fail(config: Path) -> None:
    """
    Any damage to any byte of an image ends in a good image or a problem, never in anything else.
    """
    with_image(config)
    for form in ("PNG", "GIF", "JPEG", "WEBP"):
        whole = png(form=form)
        for at in range(min(len(whole), 120)):
            (config / "assets" / "loaf.png").write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
            with suppress(ConfigError):
                read_config(config)


def write(config: Path, text: str | bytes) -> Path:
    (config / "more.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return config


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id = 1\nid = 2\n", "cannot be read"),
        ("[site]\nname='a'\n[site]\nname='b'\n", "cannot be read"),
        (b"name = '\xff\xfe'\n", "cannot be read"),
        (b"\xef\xbb\xbf[site]\n", "cannot be read"),
        (b"name = 'a\0b'\n", "cannot be read"),
        ("x = " + "[" * 100_000, "nested too deeply"),
        ("x = " + "{a=" * 5_000, "nested too deeply"),
        ("version = " + "9" * 5000 + "\n", "cannot be read"),
        ("version = '7'\n", "'version'"),
        ("version = true\n", "'version'"),
        ("[slots]\nid = 1\n", "'slots' does not exist"),
        ("[slot]\nid = 1\n", "double brackets"),
        ("slot = [1, 2]\n", "expected a table"),
        ("site = 5\n", "expected a table"),
        ("[[slot]\n", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(config: Path, text: str | bytes, says: str) -> None:
    """
    Duplicate keys, not UTF-8, too deep, not TOML, tables that do not exist: the file is named, and what is wrong.
    """
    found = problems(write(config, text))

    assert any(problem.startswith("config/more.toml") and says in problem for problem in found)
    assert all(len(problem) < 600 for problem in found)


def test_a_huge_file_is_refused(config: Path) -> None:
    """
    A sparse file of 65 MiB is not read whole.
    """
    with (config / "huge.toml").open("wb") as file:
        file.truncate(65 * 1024 * 1024)

    assert any("huge.toml" in problem and "larger" in problem for problem in problems(config))


def test_files_that_are_none_are_refused(config: Path) -> None:
    """
    A link, a pipe and a directory named like configuration are problems; a hidden file is none of our business.
    """
    os.mkfifo(config / "pipe.toml")
    (config / "folder.toml").mkdir()
    (config.parent / "real.toml").write_text("[site]\nname = 'Elsewhere'\n")
    (config / "link.toml").symlink_to(config.parent / "real.toml")
    (config / ".hidden.toml").write_text("nonsense")
    before = len(os.listdir("/proc/self/fd"))

    found = problems(config)

    assert len(found) == 3
    for name in ("pipe", "folder", "link"):
        assert any(problem.startswith(f"config/{name}.toml") for problem in found)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_name_that_is_not_utf_8_can_be_told(config: Path) -> None:
    """
    Its problem can be printed.
    """
    (Path(os.fsdecode(os.fsencode(config) + b"/bad\xff.toml"))).write_text("nonsense")

    (problem,) = problems(config)

    assert problem.encode().startswith(b"config/bad\\udcff.toml")


@pytest.mark.parametrize("what", ["missing", "empty", "a file"])
def test_a_directory_that_holds_nothing_is_told(tmp_path: Path, what: str) -> None:
    """
    What is named, and what was expected.
    """
    path = tmp_path / "config"
    if what == "empty":
        path.mkdir()
    if what == "a file":
        path.write_text("")

    (problem, *_) = problems(path)

    assert str(path) in problem


def test_a_directory_without_a_slot_is_told(config: Path) -> None:
    """
    No page could ask for anything.
    """
    (config / "slots.toml").write_text("[site]\nname = 'The Courier'\n")

    (problem,) = problems(config)

    assert "names no [[slot]]" in problem


def test_every_problem_is_told_at_once(config: Path) -> None:
    """
    Ten slips in four files make ten sentences, each with its file; the good parts are not complained about.
    """
    (config / "slots.toml").write_text(
        SLOT + '[[slot]]\nid = 889990\nname = "Again"\nsize = "300x250"\n[[slot]]\nid = -1\nname = ""\nsize = "big"\n'
    )
    (config / "ads.toml").write_text(SHOWN.replace('campaign = "spring"', 'campaign = "sprung"') + 'image = "a.png"\n')
    (config / "more.toml").write_text('[[group]]\nid = "g"\nname = "G"\nslots = [{slot = 1}, {slot = 889990, w = 2}]\n')
    (config / "site.toml").write_text('[site]\ntime_zone = "Mars/Olympus"\nhome_url = "javascript:alert(1)"\n')

    found = problems(config)

    assert found == sorted(found)
    for part in (
        "config/slots.toml: slot 889990: the id is taken already",
        "'id'", "'name'", "'sizes'", "'sprung'", "did you mean 'spring'", "'image'", "w", "Mars/Olympus", "home_url",
    ):  # fmt: skip
        assert any(part in problem for problem in found), part


def test_a_very_large_catalog_is_read_in_bounded_time(config: Path) -> None:
    """
    20,000 line items of one and the same id are 19,999 problems, not a quadratic afternoon.
    """
    one = SHOWN[SHOWN.index("[[line_item]]") : SHOWN.index("[[creative]]")]
    with_image(config, data=png())
    (config / "many.toml").write_text(one * 3000)

    assert len(problems(config)) <= 3001


def test_a_document_without_images_needs_no_assets(tmp_path: Path) -> None:
    """
    An empty catalog is written as a version and a site, and refused on reading for having no slot.
    """
    write_config(tmp_path / "config", Document(), {}, 1)

    (problem,) = problems(tmp_path / "config")
    assert "names no [[slot]]" in problem
