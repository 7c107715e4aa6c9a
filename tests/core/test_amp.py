"""`format=amp` in an AMP page: the rules of amp.dev's pages on each element, and AMP's own validator where it is."""

import json
import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from adserver.decide import SHOWS
from adserver.model import Creative, Format, Kind
from adserver.render import compile_snippet
from tests.make import IMAGE, ad, creative, political

KINDS = sorted(SHOWS[Format.AMP], key=lambda kind: kind.value)
PUBLIC = "https://ads.courier.example"
PLAIN = "http://127.0.0.1:8000"

# The attributes of each element that a snippet is made of, the needed ones and the others it may have.
COMMON = {"class", "lang", "dir", "title", "role", "aria-label"}
LAYOUTS = {"fill", "fixed", "fixed-height", "flex-item", "intrinsic", "nodisplay", "responsive"}
RULES: dict[str, tuple[set[str], set[str]]] = {
    "amp-img": ({"src", "width", "height", "layout", "alt"}, {"srcset", "sizes", "media"}),
    "amp-pixel": ({"src"}, {"layout", "referrerpolicy"}),
    "a": ({"href"}, {"target", "rel"}),
    "aside": (set(), set()),
    "span": (set(), set()),
    "strong": (set(), set()),
    "small": (set(), set()),
}

SHOWN = [
    *(creative(kind=kind) for kind in KINDS),
    *(creative(kind=kind, political=political()) for kind in KINDS),
    creative(kind=Kind.NATIVE, image=IMAGE, image_size=(320, 180), alt="A ferry"),
    creative(kind=Kind.IMAGE, still=IMAGE),
    creative(kind=Kind.TEXT, title='"><script>alert(1)</script>', text="`onload=alert(1)"),
]


class Rules(HTMLParser):
    """What is wrong with a snippet by the rules."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.wrong: list[str] = []
        self.names: list[str] = []
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        found = {name: value or "" for name, value in attrs}
        if tag not in RULES:
            self.wrong.append(f"<{tag}> is none that AMP knows")
            return
        needed, others = RULES[tag]
        own = {name for name in found if not name.startswith("data-")}
        self.wrong += [f"<{tag}> without {name}" for name in needed - own]
        self.wrong += [f"<{tag}> with {name}" for name in own - needed - others - COMMON]
        if found.get("layout", "fixed") not in LAYOUTS:
            self.wrong.append(f"<{tag}> with the layout {found['layout']}")
        if tag == "amp-img" and not (found.get("width", "").isdigit() and found.get("height", "").isdigit()):
            self.wrong.append("<amp-img> without its size in pixels")
        if tag == "amp-pixel" and not found["src"].startswith(("https://", "//")):
            self.wrong.append("<amp-pixel> by plain HTTP")
        if "target" in found and found["target"] not in ("_blank", "_self", "_top"):
            self.wrong.append(f"<{tag}> with the target {found['target']}")


def snippet(of: Creative, public: str = PUBLIC) -> str:
    made, found = ad(of)
    return (b"T" * 48).join(compile_snippet(made, found, Format.AMP, public, eager=False)).decode()


@pytest.mark.parametrize("public", [PUBLIC, PLAIN])
@pytest.mark.parametrize("of", SHOWN, ids=lambda one: one.kind.value)
def test_a_snippet_keeps_the_rules(of: Creative, public: str) -> None:
    """
    Only elements that AMP knows, each with what it needs and nothing else; one pixel, over HTTPS or the page's scheme.
    """
    read = Rules(snippet(of, public))
    assert read.wrong == []
    assert read.names.count("amp-pixel") == 1
    assert read.names.count("amp-img") == len(of.files)


BAD = [
    ("<amp-img ", "<img "), (' layout="intrinsic"', ' layout="huge"'), (' width="300"', ""),
    (f'src="{PUBLIC}/i', f'src="{PUBLIC.replace("https", "http")}/i'), ("<a class", '<a onclick="x()" class'),
    ("<span ", '<span onmouseover="x()" '), ("<strong>", "<embed>"), ('target="_blank"', 'target="frame"'),
]  # fmt: skip


def broken(right: str, wrong: str) -> str:
    """A snippet with a picture and words in which something right is wrong."""
    markup = snippet(creative(kind=Kind.NATIVE, image=IMAGE, image_size=(300, 250), alt="A ferry"))
    markup = markup.replace('<strong class="adserver-title">', "<strong>")
    assert right in markup
    return markup.replace(right, wrong)


@pytest.mark.parametrize(("right", "wrong"), BAD)
def test_a_broken_rule_is_noticed(right: str, wrong: str) -> None:
    """
    Each of these makes a snippet that no AMP page may hold.
    """
    assert Rules(broken(right, wrong)).wrong


# With AMP's own validator

PAGE = (
    '<!doctype html><html amp lang="en"><head><meta charset="utf-8"><title>News</title>'
    '<script async src="https://cdn.ampproject.org/v0.js"></script>'
    '<link rel="canonical" href="https://www.courier.example/"><meta name="viewport" content="width=device-width">'
    "</head><body>{}</body></html>"
)
"""Without the style that every AMP page begins with: what the validator says of that it says of any body."""
CHECK = """
const fs = require('fs');
require('vm').runInThisContext(fs.readFileSync(process.argv[1], 'utf-8'));
amp.validator.init().then(() => {
  const found = amp.validator.validateString(fs.readFileSync(0, 'utf-8'), 'HTML');
  console.log(JSON.stringify(found.errors.map((one) => amp.validator.renderErrorMessage(one))));
});
"""


def validate(*bodies: str) -> list[str]:
    """What AMP's validator says of a page that holds *bodies*, beyond what it says of an empty one."""
    near = Path(sys.executable).parent.parent / "amp-validator" / "validator_wasm.js"
    file = Path(os.environ.get("ADSERVER_AMP_VALIDATOR", near))
    node = shutil.which("node")
    if not node or not file.is_file():
        pytest.skip("AMP's validator is not here; tools/fetch-amp-validator gets it")
    said: list[list[str]] = []
    for body in ("", "".join(bodies)):
        command = [node, "-e", CHECK, str(file)]
        done = subprocess.run(command, input=PAGE.format(body), capture_output=True, text=True, timeout=60, check=True)
        said.append(json.loads(done.stdout))
    empty, full = said
    assert all("boilerplate" in one for one in empty), empty
    return [one for one in full if one not in empty]


@pytest.mark.system
def test_amps_own_validator_finds_nothing() -> None:
    """
    A page with a snippet of each kind, of either scheme, passes without a warning.
    """
    assert validate(*(snippet(of, public) for of in SHOWN for public in (PUBLIC, PLAIN))) == []


@pytest.mark.system
@pytest.mark.parametrize(("right", "wrong"), BAD)
def test_amps_own_validator_would_find_it(right: str, wrong: str) -> None:
    """
    What the rules above refuse the validator refuses as well.
    """
    assert validate(broken(right, wrong))
