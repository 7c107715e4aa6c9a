"""What Advanced Ads keeps, as a catalog: field by field, what has no equal, and whatever a file may hold."""

import tomllib
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from adserver.advanced_ads.kept import read_found
from adserver.advanced_ads.move import Moved, NothingMoved, move
from adserver.catalog import Catalog
from adserver.config_files import read_config
from adserver.documents import Document

BERLIN = {"url": "https://www.courier.example", "name": "The Courier", "timezone": "Europe/Berlin"}
PLAIN = {"type": "plain", "width": 300, "height": 250}


def export(*ads: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"advanced_ads_export": 1, "site": BERLIN, "ads": list(ads), **more}


def ad(options: Any = PLAIN, content: str = "<p>Soup</p>", **more: Any) -> dict[str, Any]:
    return {"id": 12, "title": "Soup", "status": "publish", "content": content, "options": options, **more}


def moved(*ads: dict[str, Any], **more: Any) -> Moved:
    return move(read_found(export(*ads, **more)))


def tables(found: Moved) -> dict[str, Any]:
    return {name: value for text in found.files.values() for name, value in tomllib.loads(text).items()}


def said(found: Moved) -> list[str]:
    return [str(left) for left in found.left]


def read_back(found: Moved, directory: Path) -> Document:
    """What `adserver check` reads of it."""
    (directory / "assets").mkdir()
    for name, text in found.files.items():
        (directory / name).write_text(text, "utf-8")
    for name, data in found.pictures.items():
        (directory / "assets" / name).write_bytes(data)
    return read_config(directory).document


def test_an_ad_becomes_a_slot_of_its_number_a_booking_and_a_creative(tmp_path: Path) -> None:
    """
    The whole of it, as files: `[the_ad id="12"]` in old articles is answered, and the link is counted.
    """
    found = moved(ad(content='<a class="x" href="https://soup.example/?a=1&amp;b=2"><b>Soup</b></a>'))
    assert said(found) == []
    assert found.files == {
        "site.toml": """# Moved from Advanced Ads of https://www.courier.example.

[site]
name = "The Courier"
time_zone = "Europe/Berlin"
home_url = "https://www.courier.example/"
""",
        "slots.toml": """# Moved from Advanced Ads of https://www.courier.example.

[[slot]]
id = 12
name = "Soup"
size = "300x250"
""",
        "bookings.toml": """# Moved from Advanced Ads of https://www.courier.example.

[[advertiser]]
id = "from-advanced-ads"
name = "The Courier"
several = true

[[campaign]]
id = "from-advanced-ads"
name = "From Advanced Ads"
advertiser = "from-advanced-ads"

[[line_item]]
id = "ad-12"
name = "Soup"
campaign = "from-advanced-ads"
priority = "standard"
slots = [
    12,
]
creatives = [
    "ad-12",
]

[[creative]]
id = "ad-12"
advertiser = "from-advanced-ads"
size = "300x250"
kind = "html"
html = "<a class=\\"x\\" href=\\"{click_url}\\"><b>Soup</b></a>"
click_url = "https://soup.example/?a=1&b=2"
""",
    }
    document = read_back(found, tmp_path)
    assert [slot.id for slot in document.slots] == [12]
    assert Catalog(document, 1).slots[12]


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({}, {}),
        ({"expiry_date": 1893456000}, {"ends": datetime(2030, 1, 1, tzinfo=UTC)}),
        ({"expiry_date": "1893456000"}, {"ends": datetime(2030, 1, 1, tzinfo=UTC)}),
        ({"weekdays": {"enabled": 1, "day_indexes": [0, "6"]}}, {"hours": ["sun 00:00-24:00", "sat 00:00-24:00"]}),
        ({"weekdays": {"enabled": "on", "day_indexes": list(range(7))}}, {}),
        ({"weekdays": {"enabled": False, "day_indexes": []}}, {}),
        ({"visitors": [{"type": "mobile", "operator": "is"}]},
         {"targeting": {"any": {"device": ["mobile", "tablet"]}}}),
        ({"visitors": [{"type": "mobile", "operator": "is_not"}]}, {"targeting": {"all": {"device": ["desktop"]}}}),
        ({"visitors": [{"type": "mobile", "value": ["tablet", "desktop"]}]},
         {"targeting": {"any": {"device": ["desktop", "tablet"]}}}),
        ({"visitors": [{"type": "mobile", "value": ["tablet", "desktop", "mobile"]}]}, {}),
        ({"visitor": {"0": {"type": "geo_targeting", "operator": "is", "country": "DE", "region": "", "city": ""}}},
         {"targeting": {"all": {"country": ["de"]}}}),
        ({"visitors": [{"type": "geo_targeting", "operator": "is_not", "country": "AT"},
                       {"type": "mobile", "operator": "is_not", "connector": "and"}]},
         {"targeting": {"none": {"country": ["at"]}, "all": {"device": ["desktop"]}}}),
        ({"visitors": [{"type": "geo_targeting", "operator": "is", "country": "AT"},
                       {"type": "geo_targeting", "operator": "is", "country": "CH", "connector": "or"}]},
         {"targeting": {"any": {"country": ["at", "ch"]}}}),
        ({"conditions": [{"type": "request_uri", "operator": "start", "value": "/sport/"}],
          "visitors": [{"type": "mobile", "operator": "is"}]},
         {"targeting": {"all": {"url": ["/sport/"]}, "any": {"device": ["mobile", "tablet"]}}}),
        ({"conditions": [{"type": "request_uri", "operator": "start_not", "value": "/sport/"}]},
         {"targeting": {"none": {"url": ["/sport/"]}}}),
    ],
)  # fmt: skip
def test_when_and_for_whom_it_shows_is_kept(options: dict[str, Any], fields: dict[str, Any]) -> None:
    """
    Schedules and conditions that mean the same here are said exactly; of them only what pages have to say is reported.
    """
    found = moved(ad({**PLAIN, **options}))
    [line_item] = tables(found)["line_item"]
    assert {name: line_item[name] for name in line_item if name in ("starts", "ends", "hours", "targeting")} == fields
    assert "weight" not in line_item
    told = [
        kind for kind in ("country", "url") if any(kind in terms for terms in line_item.get("targeting", {}).values())
    ]
    assert [left.what for left in found.left] == [f"1 ad by {'address' if kind == 'url' else kind}" for kind in told]


def test_who_has_to_say_what_is_targeted_is_said_once() -> None:
    """
    One line for all ads by country, one for all by address: who says these, and what happens where nobody does.
    """
    by_country = {**PLAIN, "visitors": [{"type": "geo_targeting", "operator": "is_not", "country": "AT"}]}
    by_both = {**by_country, "conditions": [{"type": "request_uri", "operator": "start", "value": "/sport/"}]}
    otherwise = "; where nobody says it, an ad for some is not shown, and one that excludes some is"
    assert said(moved(ad(by_country), ad(by_both, id=13), ad(by_country, id=14, status="draft"))) == [
        'ad 14 "Soup": is not published there (draft)',
        "2 ads by country: adserver knows a reader's country by ADSERVER_COUNTRY_HEADER or ADSERVER_COUNTRY_FILE alone"
        + otherwise,
        "1 ad by address: WordPress and Django say a page's address; other templates and proxies have to pass url="
        + otherwise,
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"conditions": [{"type": "taxonomy_category", "operator": "is", "value": ["12"]}]},
        {"visitors": [{"type": "loggedin", "operator": "is"}]},
        {"visitors": [{"type": "mobile", "value": []}]},
        {"visitors": [{"type": "geo_targeting", "country": "DE", "city": "Ulm"}]},
        {"visitors": [{"type": "geo_targeting", "country": "Bavaria"}]},
        {"visitors": [{"type": "geo_targeting", "country": "UK"}]},
        {"visitors": [{"type": "geo_targeting", "country": "AT"}, {"type": "geo_targeting", "country": "CH"}]},
        {"visitors": [{"type": "geo_targeting", "operator": "is_not", "country": "EU"}]},
        {"tracking": {"impression_limit": "1,000"}},
        {"tracking": {"impression_limit": 1000, "click_limit": [5]}},
        {"conditions": [{"type": "request_uri", "operator": "regex", "value": "/sport/"}]},
        {"conditions": [{"type": "request_uri", "operator": "start", "value": "/søk?a"}]},
        {"visitors": [{"type": "mobile", "operator": "is"}, {"type": "loggedin", "connector": "or"}]},
        {"visitors": [{"type": "geo_targeting", "operator": "is_not", "country": "AT"},
                      {"type": "mobile", "operator": "is", "connector": "or"}]},
        {"weekdays": {"enabled": 1, "day_indexes": []}},
        {"conditions": {"posttypes": {"include": ["post"]}}},
        {"visitor": {"mobile": "only"}},
        {"conditions": "a:1:{i:0;s:5:"},
        {"expiry_date": "2027-01-01"},
        {"conditions": [{"type": "request_uri", "operator": "start", "value": "/a/"},
                        {"type": "request_uri", "operator": "start", "value": "/b/", "connector": "or"}],
         "visitors": [{"type": "mobile", "operator": "is", "connector": "or"}]},
    ],
)  # fmt: skip
def test_an_ad_whose_conditions_cannot_be_said_never_shows(options: dict[str, Any]) -> None:
    """
    It is moved with weight 0 and reported: shown everywhere it would stand where its advertiser forbade it.
    """
    found = moved(ad({**PLAIN, **options}))
    [line_item] = tables(found)["line_item"]
    assert line_item["weight"] == 0
    assert "targeting" not in line_item
    assert len(found.left) == 1
    assert "weight 0" in found.left[0].why


def test_a_planned_ad_without_an_instant_does_not_show() -> None:
    """
    It is planned, and for when cannot be told: at once would be wrong.
    """
    for date in ("", "0000-00-00 00:00:00"):
        found = moved(ad(status="future", date=date))
        assert tables(found)["line_item"][0]["weight"] == 0
        assert "cannot be read" in found.left[0].why


def test_what_begins_later_begins_by_the_sites_clock() -> None:
    """
    A planned ad keeps its instant: by the site's zone, by an offset where it has no zone, by UTC where that is given.
    """
    later = {"status": "future", "date": "2027-07-02 03:04:05"}
    [line_item] = tables(moved(ad(**later)))["line_item"]
    assert line_item["starts"] == datetime.fromisoformat("2027-07-02T03:04:05+02:00")
    offset = moved(ad(**later), site={**BERLIN, "timezone": "-03:30"})
    assert tables(offset)["line_item"][0]["starts"] == datetime.fromisoformat("2027-07-02T03:04:05-03:30")
    assert said(offset) == [
        "the time zone: the site keeps -03:30, which no zone has: UTC is written, correct it in site.toml"
    ]
    for clock, zone, why in (
        ("+02:00", "Etc/GMT-2", "the site keeps +02:00, without summer time: Etc/GMT-2 is written, or say --time-zone"),
        ("", "UTC", "the export does not name the newsroom's: UTC is written, correct it in site.toml"),
        ("Mars/Base", "UTC", "the export does not name the newsroom's: UTC is written, correct it in site.toml"),
    ):
        found = moved(ad(**later), site={**BERLIN, "timezone": clock})
        assert tables(found)["site"]["time_zone"] == zone
        assert said(found) == [f"the time zone: {why}"]
    [line_item] = tables(moved(ad(**later), site={**BERLIN, "timezone": "+02:00"}))["line_item"]
    assert line_item["starts"] == datetime.fromisoformat("2027-07-02T03:04:05+02:00")
    exact = moved(ad(**later, date_gmt="2027-07-02 00:00:00"))
    assert tables(exact)["line_item"][0]["starts"] == datetime(2027, 7, 2, tzinfo=UTC)
    assert "starts" not in tables(moved(ad(date="2027-07-02 03:04:05")))["line_item"][0], "it is published already"
    assert said(moved(ad(id=1), ad(status="future", date="2027-13-02"))) == [
        "ad 12 \"Soup\": says '2027-13-02' as its date; expected such as '2026-01-02 03:04:05'"
    ]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"status": "draft"}, "is not published there (draft)"),
        ({"status": "archived"}, "is not published there (archived)"),
        ({"status": "advanced_ads_expired"}, "has expired"),
        ({"options": {**PLAIN, "type": "adsense"}}, "is an AdSense unit: AdSense's own code can be booked as a tag"),
        ({"options": {**PLAIN, "type": "rabbit"}}, "is of the type 'rabbit', which is not known here"),
        ({"content": "<?php echo 1;"}, "runs PHP when it is shown"),
        ({"content": "Buy [product id='4']"}, "as a shortcode of WordPress it would show as it is written here"),
        ({"content": "[gallery]"}, "holds '[gallery]'"),
        ({"content": "[box]Soup[/box]"}, "holds '[box]'"),
        ({"content": " \n"}, "is empty"),
        ({"options": {"type": "image"}}, "is a picture whose file Advanced Ads does not name"),
        ({"content": "x" * 70_000}, "has 70,000 characters of HTML; at most 65,536"),
        ({"options": {**PLAIN, "width": 99_999}}, "expected width x height in pixels"),
    ],
)
def test_what_cannot_be_moved_is_left_and_said(changes: dict[str, Any], why: str) -> None:
    """
    Nothing of it is in the files, and the list says why in words.
    """
    found = moved({**ad(), **changes}, ad(id=13))
    assert [slot["id"] for slot in tables(found)["slot"]] == [13]
    [left] = found.left
    assert left.what == 'ad 12 "Soup"'
    assert why in left.why


@pytest.mark.parametrize(
    ("options", "content", "creative", "notes"),
    [
        ({"url": "https://soup.example/"}, "<b>Soup</b>",
         {"html": '<a href="{click_url}"><b>Soup</b></a>', "click_url": "https://soup.example/"}, []),
        ({"url": "https://soup.example/"}, '<a href="%link%">Soup</a>',
         {"html": '<a href="{click_url}">Soup</a>', "click_url": "https://soup.example/"}, []),
        ({"tracking": {"link": "https://soup.example/"}}, "Soup",
         {"html": '<a href="{click_url}">Soup</a>', "click_url": "https://soup.example/"}, []),
        ({"url": "javascript:alert(1)"}, "Soup", {"html": "Soup"}, ["leads nowhere now"]),
        ({"url": "https://soup.example/?ad=[AD_ID]"}, "Soup", {"html": "Soup"}, ["has placeholders"]),
        ({}, '<a href="https://a.example/">A</a><a href="https://b.example/">B</a>',
         {"html": '<a href="https://a.example/">A</a><a href="https://b.example/">B</a>'},
         ["has 2 links, and one is counted: clicks on these are not"]),
        ({}, '<a href="/soup">Soup</a>', {"html": '<a href="/soup">Soup</a>'}, ["clicks on it are not counted"]),
        ({}, "<a data-href='x' HREF=https://soup.example/ >Soup</a>",
         {"html": "<a data-href='x' href=\"{click_url}\" >Soup</a>", "click_url": "https://soup.example/"}, []),
        ({}, '<map><area href="https://soup.example/"></map><!-- <a href="https://b.example/"> -->',
         {"html": '<map><area href="{click_url}"></map><!-- <a href="https://b.example/"> -->'}, []),
        ({"url": "https://soup.example/"}, "<article>Soup</article>",
         {"html": '<a href="{click_url}"><article>Soup</article></a>'}, []),
        ({}, '<a href="%link%">Soup</a> %link%', {"html": "<a >Soup</a> "}, ["has no link to stand for"]),
        ({"url": "https://soup.example/"}, "<script>run()</script>", {"kind": "tag"},
         ["counted only where its code uses {click_url}", "third-party tag"]),
        ({"output": {"custom-code": "<hr>"}}, "Soup", {"html": "Soup"}, ["the code that is to follow it is left out"]),
        ({}, "[Anzeige] <p class='[x y]'>Soup [1]</p>", {"html": "[Anzeige] <p class='[x y]'>Soup [1]</p>"}, []),
        ({}, "<script>run([1])</script>", {"kind": "tag", "html": "<script>run([1])</script>"}, ["third-party tag"]),
        ({}, "<b onclick='x'>Soup</b>", {"kind": "tag"}, ["third-party tag"]),
        ({}, '<p style="color:red">Soup</p>', {"kind": "html"}, ["its own styles are taken out"]),
        ({"type": "content"}, "Hot\n\nsoup", {"html": "<p>Hot</p>\n<p>soup</p>"}, []),
        ({"width": 0}, "Soup", {"size": "300x250"}, ["300x250 is assumed"]),
        ({"width": "", "height": None}, '<img src="https://x.example/a.png" width="160px" height=600>',
         {"size": "160x600"}, []),
    ],
)  # fmt: skip
def test_what_it_shows_is_kept(
    options: dict[str, Any], content: str, creative: dict[str, Any], notes: list[str]
) -> None:
    """
    Links become counted ones, code becomes a tag, paragraphs stay; what is different then is said.
    """
    found = moved(ad({**PLAIN, **options}, content))
    [made] = tables(found)["creative"]
    assert {name: made[name] for name in creative} == creative
    assert made.get("click_url") == creative.get("click_url", made.get("click_url"))
    assert len(found.left) == len(notes)
    assert all(note in left.why for note, left in zip(notes, found.left, strict=True))
    assert tables(found)["site"].get("tags", False) == (made["kind"] == "tag")


def png(width: int, height: int) -> bytes:
    out = BytesIO()
    Image.new("RGB", (width, height), "red").save(out, "PNG")
    return out.getvalue()


PICTURE = {"id": 17, "url": "https://www.courier.example/wp-content/uploads/2026/soup.png", "width": 600, "height": 500,
           "alt": 'A "hot" soup'}  # fmt: skip


def test_pictures_are_shown_from_the_site_or_taken_along(tmp_path: Path) -> None:
    """
    Without the file it is markup that names the picture where it is; with it, it is a picture of ours, in its size.
    """
    options = {
        "type": "image",
        "url": "https://soup.example/",
        "output": {"image_id": "17"},
        "width": 300,
        "height": 250,
    }
    given_ = export(ad(options, ""), media=[PICTURE])
    [there] = tables(move(read_found(given_)))["creative"]
    assert there["html"] == (
        f'<a href="{{click_url}}"><img src="{PICTURE["url"]}" width="300" height="250"'
        ' alt="A &quot;hot&quot; soup"></a>'
    )
    asked: list[str] = []

    def read(url: str) -> bytes:
        asked.append(url)
        return png(600, 500)

    along = move(read_found(given_), read)
    assert asked == [PICTURE["url"]]
    assert said(along) == []
    [creative] = read_back(along, tmp_path).creatives
    assert (creative.kind.value, creative.size, creative.image_size) == ("image", (300, 250), (600, 500))
    assert creative.alt == 'A "hot" soup'

    broken = move(read_found(given_), lambda _: b"GIF89a")
    assert tables(broken)["creative"][0]["kind"] == "html"
    assert "it is shown from the site instead" in broken.left[0].why


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"width": 300, "height": 250}, "300x250"),
        ({"width": 300}, "300x250"),
        ({"height": 1000}, "1200x1000"),
        ({}, "600x500"),
    ],
)
def test_a_slot_keeps_the_size_it_has_on_the_page(options: dict[str, Any], size: str) -> None:
    """
    Width and height are of one source, and a file of other dimensions does not change them: it is shown from the site.
    """
    given_ = export(
        ad({"type": "image", "url": "https://soup.example/", "image_id": 17, **options}, ""), media=[PICTURE]
    )
    found = move(read_found(given_), lambda _: png(1000, 830))
    assert tables(found)["slot"][0]["size"] == tables(found)["creative"][0]["size"] == size
    assert tables(found)["creative"][0]["kind"] == "html"
    [left] = found.left
    assert left.why.startswith(f"its picture has 1000x830 pixels; expected {size}, or twice as many each way; ")


@pytest.mark.parametrize("piece", ["<a ", '<a "', "<!--", "<script", "<a x='", "[a ", "<p on", '<a href="'])
def test_markup_that_never_closes_holds_nobody_up(piece: str) -> None:
    """
    The longest ads of pieces that begin something take as long as any: expressions that look at each character once for
    each piece take 3 to 26 seconds an ad, and with sixty of them longer than the time that any test is given.
    """
    content = piece * (65_000 // len(piece))
    found = moved(*(ad(content=content, id=n) for n in range(1, 61)))
    assert found.files


def test_groups_and_placements_keep_their_names_and_weights() -> None:
    """
    Members by weight, 10 where none is kept; who has none, or was not moved, is not in it.
    """
    found = moved(
        *(ad(id=n, groups=[5]) for n in (12, 13, 14)),
        ad(id=15, status="draft", groups=[5]),
        groups=[
            {"id": 5, "name": "Side & rail", "options": {"type": "ordered", "ad_count": "all"},
             "weights": {"12": "3", "13": 0, "15": 4}},
            {"id": 6, "name": "Empty", "options": [], "weights": []},
        ],
        placements={
            "top": {"type": "default", "name": "Top", "item": "ad_12", "options": []},
            "rail": {"type": "sidebar_widget", "name": "Rail", "item": "group_5", "options": {"display": ["x"]}},
            "gone": {"type": "default", "name": "Gone", "item": "ad_15"},
            "none": {"type": "default", "name": "None", "item": "ad_" + "1" * 5000},
            "Loud": {"type": "default", "name": "Loud", "item": "ad_12"},
            "hidden": {"type": "default", "name": "Hidden", "item": "ad_12", "status": "draft"},
            "some": {"name": "Some", "item": "ad_12", "options": {"placement_conditions": {"display": ["x"]}}},
            "\x1b[2J": {"name": "Red\nthen", "item": "ad_12"},
        },
    )  # fmt: skip
    all_of_it = tables(found)
    assert all_of_it["group"] == [
        {"id": "5", "name": "Side & rail", "slots": [{"slot": 12, "weight": 3}, {"slot": 14, "weight": 10}]}
    ]
    assert all_of_it["placement"] == [
        {"id": "top", "name": "Top", "slot": 12},
        {"id": "rail", "name": "Rail", "group": "5"},
    ]
    assert [left.what for left in found.left] == [
        'ad 15 "Soup"',
        'group 5 "Side & rail"', 'group 5 "Side & rail"', 'group 6 "Empty"',
        'placement rail "Rail"', 'placement rail "Rail"', 'placement gone "Gone"', 'placement none "None"',
        'placement Loud "Loud"', 'placement hidden "Hidden"', 'placement some "Some"', 'placement \ufffd[2J "Red then"',
    ]  # fmt: skip
    assert "it stands in pages by itself, so it is left out" in found.left[-2].why
    assert '[the_ad_placement id="rail"]' in found.left[4].why


def test_of_two_with_one_id_the_first_is_kept() -> None:
    """
    The other is left and said, and does not take the first with it.
    """
    group = {"id": 5, "name": "Rail", "options": [], "weights": {"12": 3}}
    top = {"key": "top", "name": "Top", "item": "ad_12"}
    found = moved(ad(), groups=[group, group], placements=[top, {**top, "name": "Again"}])
    assert [one["id"] for one in tables(found)["group"]] == ["5"]
    assert [one["name"] for one in tables(found)["placement"]] == ["Top"]
    assert said(found) == [
        'group 5 "Rail": another group has the same id',
        'placement top "Again": another placement has the same id',
    ]


def test_a_title_that_cannot_be_a_name_is_said() -> None:
    """
    It is called by its number then, or by as much as fits; one without a title is called so without a word.
    """
    found = moved(ad(title="\u202e"), ad(id=13, title="x" * 201), ad(id=14, title=""))
    assert [one["name"] for one in tables(found)["slot"]] == ["Ad 12", "x" * 200, "Ad 14"]
    assert [left.what.split()[1] for left in found.left] == ["12", "13"]
    assert "it is 'Ad 12' now" in found.left[0].why


def test_limits_become_goals() -> None:
    """
    The tracking add-on's limit of impressions or clicks is a goal, counted from 0; a second one has no equal.
    """
    both = {"impression_limit": "5000", "click_limit": 9}
    found = moved(ad({**PLAIN, "expiry_date": 1893456000, "tracking": both}, date="2026-01-02 03:04:05"))
    [line_item] = tables(found)["line_item"]
    assert (line_item["goal"], line_item["pacing"]) == ({"impressions": 5000}, "even")
    assert line_item["starts"] == datetime.fromisoformat("2026-01-02T03:04:05+01:00"), "when it was published"
    assert len(found.left) == 2
    [soon] = tables(moved(ad({**PLAIN, "tracking": {"click_limit": 9, "impression_limit": ""}})))["line_item"]
    assert (soon["goal"], soon["pacing"]) == ({"clicks": 9}, "asap")


def test_there_may_be_nothing() -> None:
    """
    An export of no ads is no catalog, nor one whose ads all have no equal; the second of two ads with one id is left.
    """
    with pytest.raises(NothingMoved, match=r"^holds no ads$"):
        moved()
    with pytest.raises(NothingMoved) as refused:
        moved(*(ad(content="", id=n, title="") for n in range(1, 9)), groups=[{"id": 5}])
    assert str(refused.value) == (
        "holds nothing that could be moved: ad 1: is empty; ad 2: is empty; ad 3: is empty; ad 4: is empty; "
        "ad 5: is empty; and 3 more"
    )
    assert len(refused.value.left) == 8
    twice = moved(ad(), ad(title="Again"))
    assert said(twice) == ['ad 12 "Again": another ad has the same id']


_WORDS = st.sampled_from(
    [
        "",
        "x",
        "<b>x</b>",
        "[x]",
        "%link%",
        "https://a.example/",
        "{click_url}",
        '"""',
        "7",
        "\\ud800",
        "\\0",
        "é\\u202e",
    ]
)
_LOOSE = st.one_of(st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(), _WORDS)
_VALUES = st.one_of(_LOOSE, st.lists(_LOOSE, max_size=2), st.dictionaries(_WORDS, _LOOSE, max_size=2))
_CONDITIONS = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["mobile", "tablet", "geo_targeting", "request_uri", "loggedin", ""])},
        optional={
            "operator": st.sampled_from(["is", "is_not", "start"]),
            "value": _VALUES,
            "country": st.sampled_from(["de", "AT", "x"]),
            "connector": st.sampled_from(["and", "or"]),
        },
    ),
    max_size=3,
)
_OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["plain", "content", "image", "adsense"]),
        "conditions": _CONDITIONS,
        "visitors": st.one_of(_CONDITIONS, _VALUES),
        **dict.fromkeys(("url", "width", "height", "expiry_date", "weekdays", "tracking", "output"), _VALUES),
    },
)
_ADS = st.lists(
    st.fixed_dictionaries(
        {"id": st.integers(1, 5)},
        optional={
            "title": _WORDS,
            "content": _WORDS,
            "status": st.sampled_from(["publish", "draft", "future"]),
            "date": st.just("2027-01-02 03:04:05"),
            "options": st.one_of(_OPTIONS, _VALUES),
            "groups": st.lists(st.integers(1, 5), max_size=2),
        },
    ),
    max_size=4,
)
_GROUPS = st.lists(
    st.fixed_dictionaries({"id": st.integers(1, 5)}, optional={"weights": _VALUES, "options": _VALUES, "name": _WORDS}),
    max_size=3,
)
_PLACEMENTS = st.dictionaries(
    _WORDS,
    st.fixed_dictionaries({}, optional={"item": st.sampled_from(["ad_1", "group_1", "x"]), "options": _VALUES}),
    max_size=3,
)
_EXPORTS = st.fixed_dictionaries(
    {"advanced_ads_export": st.just(1), "ads": _ADS},
    optional={"groups": _GROUPS, "placements": st.one_of(_PLACEMENTS, _VALUES), "site": _VALUES, "media": _VALUES},
)


@given(_EXPORTS)
def test_whatever_it_holds_what_is_written_is_good(tmp_path_factory: pytest.TempPathFactory, found: Any) -> None:
    """
    Every export becomes files that `check` finds good, or none; each ad is in them or in the list.
    """
    try:
        made = move(read_found(found))
    except NothingMoved as error:
        slots, left = set[int](), error.left
    else:
        slots, left = {slot["id"] for slot in tables(made)["slot"]}, made.left
        document = read_back(made, tmp_path_factory.mktemp("moved"))
        assert {slot.id for slot in document.slots} == slots
    for one in found["ads"]:
        assert one["id"] in slots or any(it.what.startswith(f"ad {one['id']}") for it in left)
