"""A name that is markup, or a formula, is a name: on every page, in every snippet format, and nowhere more."""

import re
import time

import pytest
from msgspec import structs

from adserver import versions
from adserver.console.desk import read_live
from adserver.console.drafts import Draft, apply, put
from adserver.store import Store
from tests.console.desks import Desk

HOSTILE = '"><script>alert(1)</script>'
FORMULA = "=1+1"
SLOT = 889981
PATHS = [
    "/console", "/console/line-items", "/console/line-items/{line_item}", "/console/book", "/console/creatives",
    "/console/creatives/{creative}", "/console/draft", "/console/history", "/console/history/{version}",
    "/console/pauses", "/console/people", "/console/audit", "/console/preview/page?at=2027-03-10T09:00",
    "/console/calendar", "/console/calendar?weeks=13&q=script", "/console/slots", "/console/slots/889981",
]  # fmt: skip


async def poison(store: Store) -> dict[str, str]:
    """Publish a catalog whose every free text is markup, past the checks of the forms."""
    live = await read_live(store)
    document = live.document
    line_item = next(one for one in document.line_items if SLOT in one.slots)
    text = next(one for one in document.creatives if one.id in line_item.creatives)
    changed = structs.replace(text, alt=HOSTILE, title=HOSTILE if text.title else "")
    draft = put(Draft(live.number), document, "line_items", structs.replace(line_item, name=HOSTILE))
    draft = put(draft, document, "creatives", changed)
    draft = put(draft, document, "advertisers", *(structs.replace(one, name=HOSTILE) for one in document.advertisers))
    draft = put(draft, document, "campaigns", *(structs.replace(one, name=FORMULA) for one in document.campaigns))
    draft = put(draft, document, "slots", *(structs.replace(one, name=HOSTILE) for one in document.slots))
    made = structs.replace(apply(document, draft), site=structs.replace(document.site, name=HOSTILE))
    number = live.number + 1
    version = versions.Version(number=number, author=HOSTILE, at=time.time(), note=HOSTILE, document=made)
    await versions.publish(store, version, {}, live.number)
    return {"line_item": line_item.id, "creative": text.id, "version": str(number)}


@pytest.fixture(scope="module")
def names(desk: Desk) -> dict[str, str]:
    found = desk.ask(poison)
    deadline = time.monotonic() + 10
    while desk.http.get(f"/ads?id={SLOT}").json()["version"] < int(found["version"]):
        assert time.monotonic() < deadline, "the version was never served"
    return found


@pytest.mark.parametrize("path", PATHS)
def test_a_name_is_text_on_every_page(desk: Desk, names: dict[str, str], path: str) -> None:
    """
    Wherever it stands, the markup in a name is escaped; nothing on the page could run it.
    """
    answer = desk.browser("admin").get(path.format(**names))
    assert answer.status_code == 200, answer.text
    assert "<script>alert" not in answer.text
    assert not re.search(r"""<[^>]*"><script""", answer.text)


@pytest.mark.parametrize("form", ["html", "placeholder", "email", "amp", "native"])
def test_a_name_is_text_in_every_snippet(desk: Desk, names: dict[str, str], form: str) -> None:
    """
    The same in what pages embed, whatever the format.
    """
    assert names
    for slot in (889977, 889979, SLOT, 889990):
        assert "<script>alert" not in desk.http.get(f"/ads/{slot}?format={form}").text
