"""The two kinds of file, Advanced Ads' own XML and the plugin's JSON: what they say, and files that are neither."""

from typing import Any

import pytest

from adserver.advanced_ads.kept import Export, read_export, read_found
from adserver.advanced_ads.markup import read_xml
from adserver.errors import BadExport

FIRST = """<?xml version="1.0" encoding="UTF-8"?>
<advads-export>
  <ads type="array">
    <item key="0" type="array">
      <ID type="string">12</ID>
      <post_date type="string">2027-07-02 03:04:05</post_date>
      <post_date_gmt type="string">2027-07-02 01:04:05</post_date_gmt>
      <post_content type="string"><![CDATA[<p><advads_import_img>https://w.example/a.png</advads_import_img></p>]]>
</post_content>
      <post_title type="string">Soup &amp; bread</post_title>
      <post_name type="string">soup</post_name>
      <post_status type="string">future</post_status>
      <guid type="string"><![CDATA[https://w.example/?post_type=advanced_ads&#038;p=12]]></guid>
      <groups type="array">
        <item key="0" type="array">
          <term_id type="numeric">5</term_id><slug type="string">rail</slug><name type="string">Rail</name>
          <type type="string">default</type><weight type="numeric">7</weight>
        </item>
      </groups>
      <attached_img_url type="string">https://w.example/a.png</attached_img_url>
      <meta_input type="array">
        <advanced_ads_ad_options type="array">
          <type type="string">plain</type><url type="string">https://soup.example/</url>
          <width type="numeric">300</width><height type="numeric">250</height>
          <expiry_date type="numeric">1893456000</expiry_date>
          <visitors type="array"><item key="3" type="array"><type type="string">mobile</type>
            <operator type="string">is</operator></item></visitors>
          <conditions type="array"/>
          <weekdays type="array"><enabled type="boolean">1</enabled>
            <day_indexes type="array"><item key="0" type="numeric">1</item></day_indexes></weekdays>
          <nothing type="null"></nothing>
        </advanced_ads_ad_options>
      </meta_input>
    </item>
  </ads>
  <groups type="array">
    <item key="0" type="array">
      <term_id type="numeric">5</term_id><slug type="string">rail</slug><name type="string">Rail</name>
      <type type="string">default</type><ad_count type="numeric">1</ad_count>
    </item>
  </groups>
  <placements type="array">
    <item key="0" type="array">
      <type type="string">header</type><name type="string">Top</name><item type="string">group_5</item>
      <options type="array"></options><key type="string">top</key>
    </item>
  </placements>
</advads-export>
"""
SECOND = """<?xml version="1.0"?>
<advads-export>
  <ads type="array"><item key="0" type="array"><ID type="string">12</ID><post_title type="string">Soup</post_title>
    <post_status type="string">publish</post_status><post_content type="string">x</post_content>
    <groups type="array"><item key="0" type="array"><term_id type="numeric">5</term_id>
      <weight type="array"><item key="12" type="numeric">4</item></weight></item></groups></item></ads>
  <groups type="array"><item key="0" type="array"><term_id type="numeric">5</term_id><name type="string">Rail</name>
    <type type="string">slider</type><ad_count type="string">all</ad_count>
    <weight type="array"><item key="12" type="numeric">4</item></weight></item></groups>
  <placements type="array"><item key="0" type="array"><ID type="string">30</ID>
    <post_name type="string">after-3</post_name>
    <post_title type="string">After the third</post_title><post_status type="string">draft</post_status>
    <meta_input type="array"><type type="string">post_content</type><item type="string">ad_12</item>
      <options type="array"><display type="array"><item key="0" type="array"><type type="string">general</type></item>
      </display></options></meta_input></item></placements>
</advads-export>
"""


def test_the_first_generations_xml_says_the_same_as_json() -> None:
    """
    Types, keys, marked pictures and instants in UTC: what comes of it is what the plugin's JSON gives.
    """
    same: dict[str, Any] = {
        "advanced_ads_export": 1,
        "site": {"url": "https://w.example"},
        "ads": [
            {
                "id": 12, "title": "Soup & bread", "status": "future", "date_gmt": "2027-07-02 01:04:05",
                "content": "<p>https://w.example/a.png</p>\n", "groups": [5], "picture": "https://w.example/a.png",
                "options": {
                    "type": "plain", "url": "https://soup.example/", "width": 300, "height": 250,
                    "expiry_date": 1893456000, "visitors": {"3": {"type": "mobile", "operator": "is"}},
                    "conditions": {}, "weekdays": {"enabled": True, "day_indexes": {"0": 1}}, "nothing": None,
                },
            }
        ],
        "groups": [{"id": 5, "name": "Rail", "options": {"type": "default", "ad_count": 1}, "weights": {"12": 7}}],
        "placements": {"top": {"type": "header", "name": "Top", "item": "group_5", "options": {}}},
    }  # fmt: skip
    assert read_export(FIRST.encode()) == read_found(same)
    assert read_export(b"\xef\xbb\xbf" + FIRST.encode()) == read_found(same)


def test_the_second_generations_xml_is_read() -> None:
    """
    Weights are with their groups, and placements are posts.
    """
    found = read_export(SECOND.encode())
    assert isinstance(found, Export)
    [group], [placement] = found.groups, found.placements
    assert (group.id, group.kind, group.shown, group.weights) == (5, "slider", 0, {12: 4})
    assert (placement.key, placement.name, placement.kind, placement.item) == (
        "after-3", "After the third", "post_content", "ad_12",
    )  # fmt: skip
    assert placement.conditions
    assert not placement.published
    assert found.clock == ""


BOMB = b"""<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><advads-export>&b;</advads-export>"""
OUTSIDE = b"""<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><advads-export>&x;</advads-export>"""


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is neither Advanced Ads' XML nor JSON"),
        (b"{", "is neither Advanced Ads' XML nor JSON"),
        (b"[1]", "is no export of Advanced Ads"),
        (b"{}", "is no export of Advanced Ads"),
        (b'{"advanced_ads_export": 2}', "is no export of Advanced Ads"),
        (b"[" * 100_000, "is neither Advanced Ads' XML nor JSON"),
        (b"<rss><channel/></rss>", "begins with <rss>; expected <advads-export>"),
        (b"<advads-export>", "is no XML that can be read"),
        (b"<advads-export>&nbsp;</advads-export>", "is no XML that can be read"),
        (BOMB, "declares a document type"),
        (OUTSIDE, "declares a document type"),
        (b'<!DOCTYPE a SYSTEM "http://127.0.0.1:1/a.dtd"><advads-export/>', "declares a document type"),
        (b"<advads-export>" + b"<a>" * 100_000, "is nested deeper than 64 elements"),
        (b'<?xml version="1.0" encoding="no-such"?><advads-export/>', "cannot be read"),
    ],
)
def test_what_is_no_export_is_refused(data: bytes, why: str) -> None:
    """
    Each file is refused in words, nothing that it names is opened, and none keeps the reader busy.
    """
    with pytest.raises(BadExport) as refused:
        read_export(data)
    assert why in str(refused.value)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("<advads-export><ads><item key='0'><ID>x</ID></item><item key='1'><ID>7</ID></item></ads></advads-export>",
         ["ads[0]: has the id 'x'; expected a number from 1 to 4,294,967,295"]),
        ('{"advanced_ads_export": 1, "ads": [{"id": 4294967296, "title": "Soup"}, {"id": true}, {}, {"id": "7"}]}',
         ['ad 4294967296 "Soup": has the id 4294967296; expected a number from 1 to 4,294,967,295',
          "ad 1: has the id True; expected a number from 1 to 4,294,967,295",
          "ads[2]: has the id None; expected a number from 1 to 4,294,967,295"]),
        ('{"advanced_ads_export": 1, "ads": [{"id": 7}], "groups": [{"id": -4}]}',
         ["group -4: has the id -4; expected a number from 1 to 4,294,967,295"]),
        ('{"advanced_ads_export": 1, "ads": [{"id": 7}, {"id": 8, "options": "a:1:{s:4:"}]}',
         ["ad 8: keeps its options as text that cannot be read, and so may not be shown to everybody"]),
    ],
)  # fmt: skip
def test_what_cannot_be_read_does_not_keep_the_rest_back(data: str, said: list[str]) -> None:
    """
    One row that somebody has damaged is left and named; all others are read.
    """
    found = read_export(data.encode())
    assert [ad.id for ad in found.ads] == [7]
    assert [str(left) for left in found.left] == said


def test_two_placements_of_one_key_are_both_there_to_be_told_apart() -> None:
    """
    A key is not lost before anybody has looked at what stands under it.
    """
    item = '<item key="{}" type="array"><key type="string">top</key><item type="string">ad_{}</item></item>'
    data = (
        f"<advads-export><placements type='array'>{item.format(0, 1)}{item.format(1, 2)}</placements></advads-export>"
    )
    assert [(one.key, one.item) for one in read_export(data.encode()).placements] == [("top", "ad_1"), ("top", "ad_2")]


def test_values_of_xml_are_of_the_types_it_says() -> None:
    """
    An element called item is a field where it has no key, as placements have one, and what is not of its type is text.
    """
    text = (
        "<advads-export><a type='numeric'>1.5</a><item>x</item><item key='2'>y</item><b type='array'/></advads-export>"
    )
    assert read_xml(text.encode()) == {"a": "1.5", "item": "x", "2": "y", "b": {}}
