"""The booking form: what people type becomes a line item, or a sentence beside the field it is wrong in."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from adserver.console.booking import NEW, blank, image_creative, make_id, parse, parse_local, size_of, with_image
from adserver.console.pictures import Picture
from adserver.documents import Document
from adserver.model import Goal, LineItem, Measure, Priority, Rotation, Targeting, Terms
from adserver.stills import Still
from tests import make

ZONE = "Europe/Amsterdam"
LIVE = make.document(make.line_item("mill"), slots=[make.slot(), make.slot(889991)])
CREATIVE = LIVE.creatives[0].id
GOOD = {
    "advertiser": ["acme"],
    "name": ["Bakery spring"],
    "slots": ["889990"],
    "starts": ["2027-03-01T00:00"],
    "ends": ["2027-04-01T00:00"],
    "how": ["goal"],
    "goal_n": ["100,000"],
    "goal_of": ["impressions"],
    "creatives": [CREATIVE],
}


def book(**fields: list[str]) -> Mapping[str, str]:
    """What is wrong with the good form, changed."""
    return parse({**GOOD, **fields}, LIVE, ZONE).wrong


def test_a_filled_form_is_a_booking() -> None:
    """
    Dates are newsroom time, the number is read with its commas, and the id is made of the name.
    """
    booked = parse(GOOD, LIVE, ZONE)
    assert booked.wrong == {}
    line_item = booked.line_item
    assert line_item is not None
    assert (line_item.id, line_item.goal) == ("bakery-spring", Goal(100_000, Measure.IMPRESSIONS))
    assert line_item.starts == make.instant("2027-03-01T00:00:00+01:00")
    assert line_item.ends == make.instant("2027-04-01T00:00:00+02:00")
    assert line_item.priority is Priority.STANDARD
    assert booked.campaign is not None
    assert booked.campaign.advertiser == "acme"


def test_a_new_advertiser_comes_with_the_booking() -> None:
    """
    Name and categories are enough; the campaign is called like the booking.
    """
    fields = {**GOOD, "advertiser": [NEW], "new_advertiser": ["City Motors"], "new_categories": ["cars, garage"]}
    motors = structs.replace(LIVE.creatives[0], id="motors", advertiser="city-motors")
    document = structs.replace(LIVE, creatives=(*LIVE.creatives, motors))
    booked = parse({**fields, "creatives": ["motors"]}, document, ZONE)
    assert booked.wrong == {}
    assert booked.advertiser is not None
    assert (booked.advertiser.id, booked.advertiser.categories) == ("city-motors", ("cars", "garage"))
    assert booked.campaign is not None
    assert booked.campaign.id.startswith("city-motors")


def test_a_share_is_a_sponsorship() -> None:
    """
    Sixty per cent of a slot has a sponsorship's priority, and no weight.
    """
    booked = parse({**GOOD, "how": ["share"], "share": ["60 %"]}, LIVE, ZONE)
    assert booked.line_item is not None
    assert (booked.line_item.share, booked.line_item.priority) == (60.0, Priority.SPONSORSHIP)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("name", "", "Say what it is called"),
        ("slots", "", "Choose at least one place"),
        ("advertiser", "nobody", "Choose who advertises"),
        ("starts", "31 June", "expected a date"),
        ("starts", "2027-03-28T02:30", "clocks skip"),
        ("goal_n", "many", "say how many"),
        ("goal_n", "-5", "no number"),
        ("goal_n", "0", "expected"),
        ("hours", "someday", "expected"),
        ("frequency", "often", "expected"),
        ("target_any", "sport", "section: business"),
        ("target_none", "country: Atlantis", "expected"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field(field: str, value: str, said: str) -> None:
    """
    Each field's problem is a sentence under the field's own name, in words that say what is expected.
    """
    wrong = book(**{field: [value]})
    assert any(said in sentence for sentence in wrong.values()), wrong
    assert field in wrong or field.startswith("target_")


@pytest.mark.parametrize("text", ["²", "٣", "9" * 5000, "1e5", "-1"])
def test_what_looks_like_a_number_is_none(text: str) -> None:
    """
    Digits of other scripts, raised ones, and more than a number can have, are refused beside their field.
    """
    assert book(goal_n=[text]).keys() == {"goal_n"}
    assert book(slots=[text]).keys() == {"slots"}


@pytest.mark.parametrize(
    ("text", "n"), [("100,000", 100_000), ("100.000", 100_000), ("100 000", 100_000), ("1000000", 10**6)]
)
def test_thousands_may_stand_apart(text: str, n: int) -> None:
    """
    With a comma, a point, a blank, or nothing between them.
    """
    booked = parse({**GOOD, "goal_n": [text]}, LIVE, ZONE)
    assert booked.line_item is not None
    assert booked.line_item.goal == Goal(n, Measure.IMPRESSIONS)


@pytest.mark.parametrize("text", ["1.5", "12,5", "0.5", "1,00", "10,00,000"])
def test_a_part_of_an_impression_is_refused(text: str) -> None:
    """
    What is no whole number is said to be none, and never read as another.
    """
    assert book(goal_n=[text]).keys() == {"goal_n"}


def test_two_lines_of_a_kind_come_together() -> None:
    """
    A kind or key that stands in two lines has the words of both.
    """
    booked = parse({**GOOD, "target_any": ["section: business\nsection: sport\ntone: calm\ntone: sad"]}, LIVE, ZONE)
    assert booked.line_item is not None
    assert booked.line_item.targeting is not None
    assert booked.line_item.targeting.any == Terms(section=("business", "sport"), keys={"tone": ("calm", "sad")})


def test_a_weight_is_for_the_rest_alone() -> None:
    """
    Who takes what is left says how much of it; a goal or a share has no weight.
    """
    assert "weight" in book(how=["rest"], weight=["heavy"])
    assert book(weight=["heavy"]) == {}
    booked = parse({**GOOD, "how": ["rest"], "weight": ["2,5"]}, LIVE, ZONE)
    assert booked.line_item is not None
    assert booked.line_item.weight == 2.5


def test_every_problem_is_said_at_once() -> None:
    """
    A form with four mistakes names four fields.
    """
    assert {"name", "slots", "goal_n", "ends"} <= book(name=[""], slots=[], goal_n=["x"], ends=["x"]).keys()


def test_it_must_not_end_before_it_starts() -> None:
    """
    What is wrong between two fields is said, too; also while other fields are wrong, and nothing more for that.
    """
    assert "ends" in book(ends=["2027-02-01T00:00"])
    wrong = book(ends=["2027-02-01T00:00"], name=[""], goal_n=["many"], creatives=[], slots=[])
    assert wrong.keys() == {"ends", "name", "goal_n", "creatives", "slots"}
    assert book(advertiser=[""], pacing=["asap"], how=["goal"], goal_n=["x"]).keys() == {"advertiser", "goal_n"}


@pytest.mark.parametrize(
    ("fields", "name", "said"),
    [
        ({"how": ["rest"], "pacing": ["asap"]}, "pacing", "Only a number is spread"),
        ({"how": ["rest"], "on_shortfall": ["run_on"]}, "on_shortfall", "Only a number can be missed"),
        ({"goal_daily": ["1"], "on_shortfall": ["run_on"]}, "on_shortfall", "begins anew each day"),
        ({"slots": ["889990", "889991"], "page": ["roadblock_all"]}, "page", "fills 1 of 2 at most"),
        ({"rotation": ["backwards"]}, "rotation", "take one of the list"),
        ({"goal_of": ["likes"]}, "goal_of", "take one of the list"),
        ({"starts": [""]}, "starts", "Say when it starts"),
        ({"click_url": ["javascript:alert(1)"]}, "click_url", "no web address"),
    ],
)
def test_finer_rules_have_their_problems_beside_them(fields: dict[str, list[str]], name: str, said: str) -> None:
    """
    Each is an input of the form with a place for its sentence, and the sentence names no field of a file.
    """
    drawn = with_image({**GOOD, **fields}, LIVE, None)
    wrong = {**parse(drawn.fields, drawn.document, ZONE).wrong, **drawn.wrong}
    assert wrong.keys() == {name}
    assert said in wrong[name]


def test_a_creative_must_fit_its_slots() -> None:
    """
    A slot that none of the creatives fits is named before anything is saved.
    """
    tall = structs.replace(LIVE.slots[1], sizes=((160, 600),))
    document = structs.replace(LIVE, slots=(LIVE.slots[0], tall))
    sized = structs.replace(LIVE.creatives[0], size=(300, 250))
    document = structs.replace(document, creatives=(sized, *LIVE.creatives[1:]))
    wrong = parse({**GOOD, "slots": ["889991"]}, document, ZONE).wrong
    assert any("889991" in sentence for sentence in wrong.values()), wrong


def test_shares_of_a_slot_are_at_most_all_of_it() -> None:
    """
    A sponsorship that does not fit beside the others is refused in the share's own words.
    """
    sponsor = make.line_item("first", priority=Priority.SPONSORSHIP, share=70.0)
    document = make.document(sponsor)
    fields = {**GOOD, "how": ["share"], "share": ["40"], "creatives": [document.creatives[0].id]}
    wrong = parse(fields, document, ZONE).wrong
    assert "share" in wrong, wrong


FULL = make.line_item(
    "full",
    name="All of it",
    starts=make.instant("2027-03-01T06:30:15+01:00"),
    ends=make.instant("2027-10-31T02:30:00+01:00"),
    goal=Goal(20, Measure.CLICKS, daily=True),
    hours=("mon-fri 07:00-09:00", "sun 20:00-24:00"),
    targeting=Targeting(any=Terms(section=("sport", "town")), none=Terms(keys={"team": ("ajax",)})),
)


def test_a_booking_opened_and_saved_is_as_it_was() -> None:
    """
    The form of a line item, sent back untouched, changes nothing: also seconds and hours that no input shows.
    """
    document = make.document(FULL)
    booked = parse(blank(FULL, ZONE, document), document, ZONE, FULL)
    assert booked.wrong == {}
    assert booked.line_item == FULL


def test_numbers_and_the_order_of_a_sequence_come_back_exactly() -> None:
    """
    A share of a third, a weight of a million, and creatives in an order that is not the document's.
    """
    other = structs.replace(LIVE.creatives[0], id="other")
    for changed in (
        {"share": 33.3333333, "priority": Priority.SPONSORSHIP},
        {"weight": 1_000_000.0},
        {"creatives": ("other", CREATIVE), "rotation": Rotation.SEQUENCE},
    ):
        line_item = make.line_item("exact", slots=(make.SLOT,), **{"creatives": (CREATIVE,), **changed})
        document = structs.replace(make.document(line_item), creatives=(LIVE.creatives[0], other))
        booked = parse(blank(line_item, ZONE, document), document, ZONE, line_item)
        assert booked.wrong == {}
        assert booked.line_item == line_item


def test_a_sequence_goes_by_the_turns_that_are_given() -> None:
    """
    Those without a turn come last, as they stand; other rotations have no order.
    """
    document = structs.replace(LIVE, creatives=tuple(structs.replace(LIVE.creatives[0], id=name) for name in "abcd"))
    fields = {**GOOD, "creatives": ["a", "b", "c", "d"], "turn-a": ["3"], "turn-b": [""], "turn-c": ["1"]}
    for rotation, expected in (("sequence", ("c", "a", "b", "d")), ("even", ("a", "b", "c", "d"))):
        booked = parse({**fields, "rotation": [rotation]}, document, ZONE)
        assert booked.line_item is not None
        assert booked.line_item.creatives == expected


def test_what_would_be_regretted_is_refused() -> None:
    """
    A new booking that is over, an hour that comes twice, a second advertiser of one name. A booking that ends in such
    an hour, or is ended, is no news.
    """
    now = make.instant("2027-05-01T00:00:00+02:00")
    assert "in the past" in parse(GOOD, LIVE, ZONE, now=now).wrong["ends"]
    assert "comes twice" in book(ends=["2027-10-31T02:30"])["ends"]
    named = book(advertiser=[NEW], new_advertiser=[LIVE.advertisers[0].name.upper()])
    assert "already" in named["new_advertiser"]
    ends = make.instant("2027-10-31T02:30:00+01:00")
    line_item = make.line_item("over", slots=(make.SLOT,), ends=ends)
    document = make.document(line_item)
    again = parse(blank(line_item, ZONE, document), document, ZONE, line_item, now=ends + 1)
    assert again.line_item == line_item


def test_problems_between_entries_are_said_with_their_names() -> None:
    """
    Whole sentences, and no ids: a creative that fits nowhere, sponsorships that promise too much.
    """
    wide = structs.replace(LIVE.creatives[0], id="wide-one", alt="A wide loaf", size=(970, 250), image_size=(970, 250))
    document = structs.replace(LIVE, creatives=(*LIVE.creatives, wide))
    wrong = parse({**GOOD, "creatives": [CREATIVE, "wide-one"]}, document, ZONE).wrong
    assert wrong["creatives"] == "“A wide loaf” (970 × 250) fits none of the places; take it out"
    most = make.sponsorship("all", 80, name="All of spring", slots=(make.SLOT,))
    document = structs.replace(LIVE, line_items=(most,))
    wrong = parse({**GOOD, "how": ["share"], "share": ["60"]}, document, ZONE).wrong
    assert wrong["share"].startswith("Its sponsorships “All of spring”, “Bakery spring” run together")


@given(st.lists(st.sampled_from(["sport", "cup-2027", "ajax fc"]), min_size=1, max_size=3, unique=True), st.booleans())
def test_rules_about_pages_come_back_as_they_went(terms: list[str], keyed: bool) -> None:
    """
    Targeting is written as lines people can read, and read back to the same.
    """
    named = Terms(keys={"team": tuple(terms)}) if keyed else Terms(tag=tuple(terms))
    line_item: LineItem = structs.replace(FULL, targeting=Targeting(all=named))
    document: Document = make.document(line_item)
    assert parse(blank(line_item, ZONE, document), document, ZONE, line_item).line_item == line_item


def test_ids_are_words_nobody_has() -> None:
    """
    An id is made of the name's plain letters; a second of the same name gets a number.
    """
    assert make_id("Café Zürich & Söhne", []) == "cafe-zurich-sohne"
    assert make_id("Spring", ["spring", "spring-2"]) == "spring-3"
    assert make_id("春", []) == "entry"


def test_an_hour_that_comes_twice_is_taken_the_first_time() -> None:
    """
    In the night when clocks go back, 02:30 is the earlier one.
    """
    assert parse_local("2027-10-31T02:30", ZONE).timestamp() == make.instant("2027-10-31T02:30:00+02:00")


def test_an_image_is_for_the_slot_it_fits() -> None:
    """
    An image of a slot's size, or of twice that, is for that slot; any other for none.
    """
    assert size_of((300, 250), [(300, 250)]) == (300, 250)
    assert size_of((600, 500), [(300, 250)]) == (300, 250)
    assert size_of((601, 500), [(300, 250)]) is None


STILL = Still("still.png", b"")
PICTURE = Picture(make.IMAGE, b"", "GIF", (600, 500), ((300, 250),), 2, 1.0, 1, 9, 9, (), STILL)


def test_an_image_needs_words_and_a_place_to_go() -> None:
    """
    Without alternative text or a destination it is no creative, and both are asked for at once.
    """
    creative, wrong = image_creative(LIVE, LIVE.advertisers[0], "x", (300, 250), PICTURE, {})
    assert creative is None
    assert wrong.keys() == {"alt", "click_url"}
    fields = {"alt": ["A mill"], "click_url": ["https://mill.example/"]}
    creative, wrong = image_creative(LIVE, LIVE.advertisers[0], "x", (300, 250), PICTURE, fields)
    assert wrong == {}
    assert creative is not None
    assert (creative.image, creative.image_size, creative.alt) == (make.IMAGE, (600, 500), "A mill")
    assert creative.still == "still.png"
