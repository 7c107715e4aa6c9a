"""Finding one thing among thousands, and the way back after signing in."""

from urllib.parse import parse_qs, urlsplit

from msgspec import structs

from adserver.config_files import read_config
from adserver.console.bookings import _boxes
from adserver.console.pausing import _booking
from tests import make
from tests.console.desks import Desk
from tests.service.live import REPOSITORY

BAKERY, LATE, OTHER = (
    make.line_item("spring", name="Bakery spring"),
    make.line_item("late", name="Bakery late"),
    make.line_item("bakery", name="Motors"),
)
SOLD = make.document(BAKERY, LATE, OTHER)


def test_a_booking_is_found_by_its_id_its_name_or_a_part_of_it() -> None:
    """
    Whatever the case; an id goes before a part of a name, and of several nobody is guessed.
    """
    for text, found in (("spring", "spring"), ("BAKERY LATE", "late"), ("motors", "bakery"), ("bakery", "bakery")):
        assert _booking(SOLD, text) == (found, "")
    _, several = _booking(SOLD, "Baker")
    assert several.endswith("type the id of one: Bakery spring (spring); Bakery late (late)")
    for text in ("", "sausage"):
        assert "No booking is called so" in _booking(SOLD, text)[1]
    many = structs.replace(SOLD, line_items=tuple(make.line_item(f"n-{n}", name=f"Name {n}") for n in range(9)))
    assert _booking(many, "name")[1].endswith(" and 4 more")


def test_slots_are_drawn_where_the_sample_article_has_them() -> None:
    """
    From its top to its end, the rails beside the text, all of them on the page.
    """
    document = read_config(REPOSITORY / "config").document
    boxes = _boxes(document)
    assert boxes.keys() == {one.id for one in document.slots}
    for box in boxes.values():
        assert 0 <= box.x <= box.x + box.width <= 100
        assert 0 <= box.y <= box.y + box.height <= 70
    assert len({box.y for box in boxes.values()}) > 4
    rails = [one.id for one in document.slots if one.sizes[0] == (160, 600)]
    assert rails
    assert all(boxes[slot].x > 65 for slot in rails)


def test_signing_in_leads_back_to_the_very_page(desk: Desk) -> None:
    """
    With its query; what was sent without a session was not saved, and that is said.
    """
    asked = desk.stranger().get("/console/line-items?q=bread&page=2").headers["location"]
    assert parse_qs(urlsplit(asked).query) == {"next": ["/console/line-items?q=bread&page=2"]}
    sent = desk.stranger().post("/console/book", {"name": "Spring"}).headers["location"]
    assert "Your session has ended" in desk.stranger().get(sent).text
