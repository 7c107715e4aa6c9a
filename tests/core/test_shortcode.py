"""The strict reading of shortcodes: what WordPress made of it, this module makes of it."""

import json
from pathlib import Path
from urllib.parse import quote

import pytest

from adserver.shortcode import Shortcode, replace

ROWS = [
    json.loads(line)
    for line in (Path(__file__).parent.parent / "data" / "wordpress_shortcodes.jsonl").read_text("utf-8").splitlines()
]


def mark(code: Shortcode) -> str:
    parts = ["AD", code.name, *(f"{key}={quote(str(value), safe='-_.~')}" for key, value in code.attrs.items())]
    if code.content:
        parts.append("@content=" + quote(code.content, safe="-_.~"))
    return "{{" + " ".join(parts) + "}}"


@pytest.mark.parametrize("row", ROWS, ids=[f"{n}-{row['category']}" for n, row in enumerate(ROWS, 1)])
def test_reads_a_text_as_wordpress_does(row: dict[str, str]) -> None:
    """
    Each text comes out as WordPress 6.1 itself made it.
    """
    assert replace(row["content"], mark) == row["result"]
