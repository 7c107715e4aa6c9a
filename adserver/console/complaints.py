"""What the checks complain of, in the words of the people who sell ads.

The checks speak to whoever writes the files: of fields, ids and values in quotes. On the console's pages a field is
called as its form calls it, an entry by its name, and what to do is what can be done there.
"""

import re
from collections.abc import Mapping

from msgspec import Struct

from adserver.console.drafts import TABLES, entries
from adserver.console.words import LABELS, name_of
from adserver.documents import Document
from adserver.errors import Problem

Names = Mapping[str, str]
"""What people call the entries, by id."""

_SIZE = re.compile(r"\b([0-9]+)x([0-9]+)\b")
_QUOTED = re.compile(r"'([^'\n]*)'|\"([^\"\n]*)\"")
_WHERE = re.compile(r"([a-z ]+) '?([^']+)'?")
_KINDS = {"image": "an image", "text": "a text", "native": "a native ad", "html": "HTML", "tag": "a tag"}
_GIVE = {
    "name": "Say what it is called",
    "slots": "Choose at least one place",
    "creatives": "Choose what is shown, or drop a new image",
    "sizes": "Say at least one size, such as 300x250",
    "new_advertiser": "Say what the new advertiser is called",
    "new_campaign": "Say what the new campaign is called",
    "share": "Say the per cent, above 0 and at most 100",
    "click_url": "Say where a click leads, such as https://www.example.com/spring",
    "alt": "Say in words what the image shows: readers who cannot see it hear this",
    "html": "Paste the HTML or the tag",
    "size": "Say the size, such as 300x250",
    "title": "Give it a title",
    "image": "Choose an image",
}
"""What is said of a field that is needed and was left empty."""


class Complaint(Struct, frozen=True):
    """A whole *sentence*, and the *field* it is best shown beside; empty where no single one is to blame."""

    field: str
    sentence: str


class Told(Struct, frozen=True):
    """A problem of a whole document: *where* is the entry, as people call it."""

    where: str
    what: str


def of_field(field: str, what: str) -> str:
    """*what* is the rest of a sentence about a field of one entry; a whole one of it."""
    empty = re.match(r"is (?:\[\]|empty|missing|None|'')(?:[;,]|$)", what)
    if empty and field in _GIVE:
        return _GIVE[field]
    if empty:
        return "This is empty, and it is needed"
    if match := re.fullmatch(r"has (?:impressions|viewables|clicks) (\S+); (expected .*)", what):
        return f"This is {match[1]}; {match[2]}"
    if re.match(r"is .*; expected one of ", what):
        return "This cannot be chosen; take one of the list"
    if match := re.fullmatch(r"(.+?) is not a web address; (expected .*)", what):
        return f"{_plain(match[1])} is no web address; {match[2]}"
    return _plain(f"This {what}" if re.match(r"(?:is|has|holds|names|cannot|mixes|does)\b", what) else what)


def of_entry(what: str, names: Names) -> Complaint:
    """*what* is said of an entry, by itself or beside others."""
    for pattern, field, sentence in _ENTRY:
        if match := pattern.fullmatch(what):
            given = {name: _call(text, names) for name, text in match.groupdict(default="").items()}
            found = given.get("field", "") if field == "=" else field
            filled = {**given, "label": LABELS.get(found, found), "give": _GIVE.get(found, "This is needed")}
            return Complaint(found, sentence.format(**filled))
    if match := re.fullmatch(r"field '([a-z_]+)':? (.*)", what, re.DOTALL):
        return Complaint(match[1], of_field(match[1], match[2]))
    sentence = _plain(_QUOTED.sub(lambda match: _call(match[0], names), what))
    own = sentence.partition(" ")[0] in ("ends", "has", "names", "shows")
    return Complaint("", f"It {sentence}" if own else sentence[:1].upper() + sentence[1:])


def tell(problem: Problem, names: Names) -> Told:
    """A problem of a whole document, as the page of the draft says it."""
    match = _WHERE.fullmatch(problem.where)
    id_ = match[2] if match else ""
    called = names.get(id_, id_) if id_.isdigit() else _call(repr(id_), names)
    where = f"{match[1].capitalize()} {called}" if match else problem.where
    return Told(where, of_entry(problem.what, names).sentence)


def names_of(document: Document) -> Names:
    return {
        str(one.id): name_of(table, one) if table != "slots" else f"{one.id} {one.name}"
        for table in TABLES
        for one in entries(document, table)
    }


def _call(text: str, names: Names) -> str:
    """An id, or several, by the names of what they are; sizes as people write them."""
    return _plain(_QUOTED.sub(lambda match: repr(names.get(match[1] or match[2] or "", match[1] or match[2])), text))


def _plain(text: str) -> str:
    """Quotes as in print, sizes with a cross."""
    return _SIZE.sub(r"\1 × \2", _QUOTED.sub(lambda match: f"“{match[1] or match[2] or ''}”", text))


def _on(pattern: str, field: str, sentence: str) -> tuple[re.Pattern[str], str, str]:
    return re.compile(pattern, re.DOTALL), field, sentence


_GONE = r", which does not exist(?:; did you mean .*)?"
_ENTRY = [
    _on(rf"names creative (?P<one>.+?){_GONE}", "creatives", "It shows a creative that is not there any more: {one}"),
    _on(rf"names slot (?P<one>.+?){_GONE}", "slots", "It is for a place that is not there any more: {one}"),
    _on(rf"names campaign (?P<one>.+?){_GONE}", "campaign", "Its campaign is not there any more: {one}"),
    _on(rf"names advertiser (?P<one>.+?){_GONE}", "advertiser", "Its advertiser is not there any more: {one}"),
    _on(rf"names group (?P<one>.+?){_GONE}", "", "Its group is not there any more: {one}"),
    _on(rf"names line item (?P<one>.+?){_GONE}", "line_item", "Its booking is not there any more: {one}"),
    _on(r"field '(?P<field>\w+)' has no use in kind .*", "=", "{label} is of no use here; leave it empty"),
    _on(r"field '(?P<field>share)' is missing; .*", "=", "{give}: a sponsorship is sold as a part of its places"),
    _on(r"field 'starts' is missing; a goal .*", "starts", "Say when it starts: a number is spread over its dates, "
        "unless it goes as fast as possible"),
    _on(r"field 'ends' is missing; a goal .*", "ends", "Say when it ends: a number is spread over its dates, "
        "unless it goes as fast as possible"),
    _on(r"field '(?P<field>\w+)' is missing; .*", "=", "{give}"),
    _on(r"field 'share' belongs to .*", "share", "Only a sponsorship has a share"),
    _on(r"field 'pacing' spreads a goal, .*", "pacing", "Only a number is spread over the dates: choose “evenly, with "
        "the traffic”, or book a number"),
    _on(r"field 'pacing' has no use here: .*", "pacing", "A share goes at its own pace: choose “evenly, with the "
        "traffic”"),
    _on(r"field 'weight' has no use beside 'goal'.*", "weight", "A number gets what it needs; only the rest has a "
        "weight"),
    _on(r"on_shortfall = 'run_on' goes on until .*", "on_shortfall", "Only a number can be missed: choose “stop at the "
        "end”, or book a number"),
    _on(r"on_shortfall = 'run_on' is for a whole .*", "on_shortfall",
        "A number for each day begins anew each day: choose “stop at the end”"),
    _on(r"targeting 'prefer' raises a weight.*", "target_prefer", "A sponsorship has a share of all pages: say on "
        "which pages it shows only, and leave this empty"),
    _on(r"page = 'roadblock_all' fills .* fill (?P<n>\d+) of (?P<all>\d+) slots at most.*", "page",
        "All of its places or none: what is chosen fills {n} of {all} at most, so it would never show; choose "
        "creatives that fit, or “in as many of its places as it can”"),
    _on(r"page = 'roadblock_all' shows (?P<n>\d+) ads at once, and frequency (?P<cap>.+?) allows .*", "frequency",
        "All of its places at once are {n} views, and {cap} allows fewer, so it would never show: allow {n} or more, "
        "or choose “in as many of its places as it can”"),
    _on(r"targeting 'all' asks for (?P<them>.+), and no page is both, .*", "target_all",
        "No page is both of these, so it would never show: {them}"),
    _on(r"targeting 'all' asks for (?P<one>.+), which 'none' avoids, .*", "target_all",
        "It is asked for here and ruled out under “Never on pages with any of these”, so it would never show: {one}"),
    _on(r"targeting 'any' asks for (?P<them>.+), all of which .* rules out, .*", "target_any",
        "The other rules about pages leave none of these, so it would never show: {them}"),
    _on(r"ends before it starts, .*", "ends", "It ends before it starts, so it would never show; exchange or correct "
        "the two"),
    _on(r"has no creative \(of weight above 0\) that fits slot (?P<slot>\d+) \((?P<sizes>.*)\); .*", "creatives",
        "Nothing of what is shown fits slot {slot} ({sizes}); choose something that does, or take the place out"),
    _on(r"creative (?P<one>.+?) \((?P<size>\d+x\d+)\) fits none of its slots; take it out", "creatives",
        "{one} ({size}) fits none of the places; take it out"),
    _on(r"shows creative (?P<one>.+?) of advertiser (?P<its>.+?), and its campaign is of (?P<other>.+?); .*",
        "creatives", "It shows {one} of {its}, and its campaign is of {other}; choose what is the advertiser's own"),
    _on(r"its sponsorships (?P<them>.+) run together and promise (?P<sum>\S+) %; .*", "share",
        "Its sponsorships {them} run together and promise {sum} %; at most 100 % can be sold"),
    _on(r"third-party tags are switched off; .*", "kind", "Tags of third parties are switched off on this site; an "
        "admin can allow them in its configuration"),
    _on(r"its html uses \{click_url\}, .*", "click_url", "The HTML leads to {{click_url}}: say where a click leads"),
    _on(r"when_empty = 'passback' and .*", "when_empty", "An empty place gets the other ad server's markup, or it has "
        "none: give both or neither"),
    _on(r"every weight is 0, .*", "", "Every weight is 0, so no place would ever be chosen"),
]  # fmt: skip
"""What `checks` says, the field of a form that it belongs to (`=`: the one it names), and how people say it."""
