"""Today: what wants a look comes in order of urgency, and none of it is left out in silence."""

import re
import time

from msgspec import structs

from adserver.console import desk as desks
from adserver.console import drafts
from adserver.console.drafts import Draft
from adserver.store import Store
from tests.console.desks import Desk
from tests.service.live import eventually

MANY = 75


def test_what_ends_first_is_told_first_and_the_rest_is_counted(desk: Desk) -> None:
    """
    Of more than have room the most urgent are shown, whatever they are called; how many more there are leads to them.
    """
    now = int(time.time())

    async def publish(store: Store) -> None:
        live = await desks.read_live(store)
        old = drafts.find(live.document, "line_items", "molenkorst-daily")
        many = [
            structs.replace(old, id=f"ending-{n}", name=f"Ending {MANY - n:02}", goal=None, starts=now - 86_400.0,
                            ends=now + 86_400.0 + 3600.0 * n)
            for n in range(MANY)
        ]  # fmt: skip
        draft = drafts.put(Draft(live.number), live.document, "line_items", *many)
        await desks.publish(store, draft, author="bob", note="", expected=live.number, now=time.time())

    desk.ask(publish)
    viewer = desk.browser("viewer")

    def board() -> str:
        page = viewer.get("/console").text
        return page if "ending-0" in page else ""

    page = eventually(board, 10, "the bookings")
    first = re.findall(r'line-items/ending-(\d+)" class="wrap">Ending \d+</a>\s+ends', page)
    assert first == [str(n) for n in range(len(first))]
    assert first
    [more] = re.findall(r'<a href="(/console\?look=2#attention)">and (\d+) more</a>', page)
    assert int(more[1]) >= MANY - len(first)
    rest = viewer.get("/console?look=2").text
    assert set(re.findall(r'line-items/ending-(\d+)" class="wrap">Ending \d+</a>\s+ends', rest)) == {
        str(n) for n in range(len(first), MANY)
    }
    assert "Those before" in rest
    assert viewer.get("/console?look=99").status_code == 200
