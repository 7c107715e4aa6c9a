"""Every row of the table of what WordPress makes of shortcodes, through a real WordPress with the plugin."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.service.live import Service
from tests.wordpress.site import WordPress, quote

ROWS = [
    json.loads(line)
    for line in (Path(__file__).parent.parent / "data" / "wordpress_shortcodes.jsonl").read_text("utf-8").splitlines()
]
CALLED = re.compile(r"\{\{AD (the_ad|the_ad_group|the_ad_placement)((?: [^ {}]+)*)\}\}")
BOX = re.compile(r'<div class="adserver adserver-placeholder" data-adserver-(slot|group)="([^"]*)".*?</div>', re.DOTALL)
OPAQUE = re.compile(r"<(script|style|textarea|title)[\s>].*?(</\1|\Z)", re.DOTALL | re.IGNORECASE)
TAG = re.compile(r"""</?[a-zA-Z](?:=\s*(?:"[^"]*"|'[^']*')|=(?!\s*["'])|[^>=])*>""")


def asked(called: re.Match[str]) -> tuple[str, str]:
    """What the handler was called for: a name and an id, "" where there is none."""
    attributes = dict(pair.partition("=")[::2] for pair in called[2].split())
    return called[1], unquote(attributes.get("id", "")).strip(" \t\n\v\f\r")


ASKED = sorted({asked(called) for row in ROWS for called in CALLED.finditer(row["result"])})
NUMBERS = sorted({one for name, one in ASKED if name == "the_ad" and re.fullmatch(r"[1-9][0-9]{0,9}", one, re.ASCII)})
NAMES = {
    kind: sorted({one for name, one in ASKED if name == kind and re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", one)})
    for kind in ("the_ad_group", "the_ad_placement")
}


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that has whatever the table asks for and that can be."""

    def write(config: Path) -> None:
        text = '[site]\nname = "News"\n'
        for number in NUMBERS:
            text += f'[[slot]]\nid = {number}\nname = "Slot {number}"\nsize = "300x250"\n'
        for kind, more in (("group", f"slots = [{{ slot = {NUMBERS[0]}, weight = 1.0 }}]"), ("placement", "")):
            for name in NAMES[f"the_ad_{kind}"]:
                text += f'[[{kind}]]\nid = "{name}"\nname = "{name}"\n{more or f"slot = {NUMBERS[-1]}"}\n'
        for file in config.glob("*.toml"):
            file.unlink()
        (config / "all.toml").write_text(text)

    made = Service(tmp_path_factory.mktemp("all"), workers=1, configure=write)
    made.start()
    yield made
    with suppress(ProcessLookupError):
        made.stop()


def in_markup(text: str, place: int) -> bool:
    """Whether *place* is in a tag, an attribute, or an element that holds no HTML: there the plugin puts no ad."""
    before = CALLED.sub("", text[:place])
    if re.search(r"<[a-zA-Z/]", TAG.sub("", before)):
        return True
    return any(found.start() < place < found.end() for found in OPAQUE.finditer(text))


def expected(result: str) -> str:
    """*result* with what is shown in the place of each call of the handler: each box once, of 100 asks at most."""
    left = iter(range(100))
    shown_before: set[str] = set()

    def once(box: str) -> str:
        if box in shown_before:
            return ""
        shown_before.add(box)
        return box

    def shown(called: re.Match[str]) -> str:
        name, one = asked(called)
        if in_markup(result, called.start()) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", one):
            return ""
        if next(left, None) is None:
            return ""
        if name == "the_ad":
            return once(f"{{slot {one}}}") if one in NUMBERS else ""
        if one not in NAMES[name]:
            return ""
        return once(f"{{group {one}}}" if name == "the_ad_group" else f"{{slot {NUMBERS[-1]}}}")

    return CALLED.sub(shown, result)


def test_every_text_comes_out_as_wordpress_reads_it(site: WordPress, everything: Service) -> None:
    """
    Where WordPress 6.1 called an ad plugin's handler there is the ad of that id, and everything else is as it made it.
    """
    assert len(ROWS) > 500
    assert len(NUMBERS) > 5
    site.set(url=everything.url, public_url=everything.url, mode="placeholder")
    made = site.php(
        f"return array_map( function ( $text ) {{ return Adserver\\Page::fill_alone( do_shortcode( $text ) ); }},"
        f" {quote([row['content'] for row in ROWS])} );"
    )
    for number, (row, html) in enumerate(zip(ROWS, made, strict=True), 1):
        assert BOX.sub(r"{\1 \2}", html) == expected(row["result"]), f"row {number}: {row['content']!r:.300}"
    assert sum(bool(BOX.search(html)) for html in made) > 200
