"""What is wrong between the entries of a catalog: names that lead nowhere, what could never show, what is sold twice.

Each entry by itself is right when it comes here; `documents` has read it.
"""

from collections.abc import Iterable, Mapping
from math import inf

from adserver import hours
from adserver.catalog import ad_key, ad_name, fits, last_instant
from adserver.documents import Document, Known
from adserver.errors import Problem
from adserver.fields import say_cap
from adserver.hours import Spans
from adserver.model import (
    PAUSED,
    Advertiser,
    Campaign,
    Creative,
    Kind,
    LineItem,
    OnShortfall,
    Pacing,
    PageRule,
    Priority,
    Slot,
    WhenEmpty,
)
from adserver.targeting import why_never

# What each kind of creative needs, and what would be silently ignored and is therefore refused.
_NEEDS: Mapping[Kind, tuple[str, ...]] = {
    Kind.IMAGE: ("image", "size", "alt", "click_url"),
    Kind.TEXT: ("title", "click_url"),
    Kind.NATIVE: ("title", "click_url"),
    Kind.HTML: ("html", "size"),
    Kind.TAG: ("html", "size"),
}
_TAKES: Mapping[Kind, tuple[str, ...]] = {
    Kind.IMAGE: (),
    Kind.TEXT: ("text", "sponsor"),
    Kind.NATIVE: ("text", "sponsor", "image", "alt"),
    Kind.HTML: ("click_url",),
    Kind.TAG: ("click_url",),
}
_OF_A_KIND = ("image", "size", "alt", "click_url", "title", "text", "sponsor", "html")


def check(document: Document, known: Known) -> list[Problem]:
    """Every problem between entries: names that lead nowhere, shares over 100 %, creatives that fit nowhere."""
    return [
        *_check_slots(document, known),
        *_check_groups(document, known),
        *_check_placements(document, known),
        *_check_owners(document, known),
        *_check_creatives(document, known),
        *_check_line_items(document, known),
        *_check_shares(document, known),
        *_check_pauses(document, known),
        *_check_keys(document, known),
    ]


def _check_slots(document: Document, known: Known) -> Iterable[Problem]:
    for slot in document.slots:
        where = known.where("slot", slot.id)
        if (slot.when_empty is WhenEmpty.PASSBACK) != bool(slot.passback):
            yield Problem(where, "when_empty = 'passback' and the field 'passback' go together; give both or neither")


def _check_groups(document: Document, known: Known) -> Iterable[Problem]:
    for group in document.groups:
        where = known.where("group", group.id)
        for member in group.slots:
            if missing := known.missing("slot", member.slot):
                yield Problem(where, f"names {missing}")
        if len({member.slot for member in group.slots}) < len(group.slots):
            yield Problem(where, "names a slot twice; give it once, with the sum of the weights")
        if not any(member.weight for member in group.slots):
            yield Problem(where, "every weight is 0, so no slot would ever be chosen; give one a weight above 0")


def _check_placements(document: Document, known: Known) -> Iterable[Problem]:
    for placement in document.placements:
        where = known.where("placement", placement.id)
        if (placement.slot is None) == (placement.group is None):
            yield Problem(where, "expected exactly one of the fields 'slot' and 'group'")
        if placement.slot is not None and (missing := known.missing("slot", placement.slot)):
            yield Problem(where, f"names {missing}")
        if placement.group is not None and (missing := known.missing("group", placement.group)):
            yield Problem(where, f"names {missing}")


def _check_owners(document: Document, known: Known) -> Iterable[Problem]:
    for campaign in document.campaigns:
        if missing := known.missing("advertiser", campaign.advertiser):
            yield Problem(known.where("campaign", campaign.id), f"names {missing}")
    for creative in document.creatives:
        if missing := known.missing("advertiser", creative.advertiser):
            yield Problem(known.where("creative", creative.id), f"names {missing}")


def _check_creatives(document: Document, known: Known) -> Iterable[Problem]:
    for creative in document.creatives:
        where = known.where("creative", creative.id)
        needs = _NEEDS[creative.kind]
        for field in _OF_A_KIND:
            given = bool(getattr(creative, field))
            if field in needs and not given:
                yield Problem(where, f"field {field!r} is missing; a creative of kind {creative.kind.value!r} needs it")
            elif given and field not in needs and field not in _TAKES[creative.kind]:
                yield Problem(where, f"field {field!r} has no use in kind {creative.kind.value!r}; take it out")
        if creative.image and creative.kind is Kind.NATIVE and not creative.alt:
            yield Problem(where, "field 'alt' is missing; an image needs words for readers who cannot see it")
        if creative.kind is Kind.TAG and not document.site.tags:
            yield Problem(where, "third-party tags are switched off; allow them with 'tags = true' in [site]")
        if creative.kind in (Kind.HTML, Kind.TAG) and "{click_url}" in creative.html and not creative.click_url:
            yield Problem(where, "its html uses {click_url}, and the field 'click_url' is missing")


def _check_line_items(document: Document, known: Known) -> Iterable[Problem]:
    creatives = {creative.id: creative for creative in document.creatives}
    slots = {slot.id: slot for slot in document.slots}
    campaigns = {campaign.id: campaign for campaign in document.campaigns}
    advertisers = {advertiser.id: advertiser for advertiser in document.advertisers}
    for line_item in document.line_items:
        where = known.where("line_item", line_item.id)
        if missing := known.missing("campaign", line_item.campaign):
            yield Problem(where, f"names {missing}")
        for slot_id in line_item.slots:
            if missing := known.missing("slot", slot_id):
                yield Problem(where, f"names {missing}")
        for name in line_item.creatives:
            if missing := known.missing("creative", name):
                yield Problem(where, f"names {missing}")
        if line_item.starts is not None and line_item.ends is not None and line_item.ends <= line_item.starts:
            yield Problem(where, "ends before it starts, so it would never show; exchange or correct the two dates")
        if line_item.priority is Priority.SPONSORSHIP and line_item.share is None:
            yield Problem(where, "field 'share' is missing; a sponsorship is sold as a percentage of its slots")
        if line_item.priority is not Priority.SPONSORSHIP and line_item.share is not None:
            yield Problem(where, "field 'share' belongs to priority 'sponsorship'; use 'weight' here")
        if line_item.priority is Priority.SPONSORSHIP and line_item.targeting and line_item.targeting.prefer:
            yield Problem(
                where, "targeting 'prefer' raises a weight, and a sponsorship has a share; use 'any' or 'all'"
            )
        if line_item.targeting and (why := why_never(line_item.targeting)):
            yield Problem(where, f"targeting {why}, so it would never show; take one of them out")
        yield from _check_goal(where, line_item)
        campaign = campaigns.get(line_item.campaign)
        if line_item.page is PageRule.ROADBLOCK_ALL:
            owners = (line_item, campaign, campaign and advertisers.get(campaign.advertiser))
            yield from _check_capped_block(where, len(line_item.slots), owners)
        mine = [creatives[name] for name in line_item.creatives if name in creatives]
        if campaign:
            for creative in mine:
                if creative.advertiser != campaign.advertiser:
                    yield Problem(
                        where,
                        f"shows creative {creative.id!r} of advertiser {creative.advertiser!r}, and its campaign "
                        f"is of {campaign.advertiser!r}; use the advertiser's own creatives",
                    )
        if len(mine) == len(line_item.creatives):
            yield from _check_fit(where, line_item, mine, [slots[one] for one in line_item.slots if one in slots])


def _check_goal(where: str, line_item: LineItem) -> Iterable[Problem]:
    goal, sponsorship = line_item.goal, line_item.priority is Priority.SPONSORSHIP
    if goal is None:
        if line_item.pacing is not Pacing.EVEN:
            yield Problem(where, "field 'pacing' spreads a goal, and there is none; add 'goal' or take it out")
        if line_item.on_shortfall is OnShortfall.RUN_ON:
            yield Problem(where, "on_shortfall = 'run_on' goes on until a goal is reached; add 'goal' or take it out")
        return
    if sponsorship and line_item.pacing is not Pacing.EVEN:
        yield Problem(where, "field 'pacing' has no use here: a sponsorship's share is its pace, its goal an end")
    if not sponsorship and line_item.weight != 1:
        yield Problem(where, "field 'weight' has no use beside 'goal': it gets what the goal asks for; take one out")
    spread = not sponsorship and not goal.daily and line_item.pacing is not Pacing.ASAP
    for name in ("starts", "ends"):
        if spread and getattr(line_item, name) is None:
            yield Problem(where, f"field {name!r} is missing; a goal is spread over a flight (or give pacing = 'asap')")
    if goal.daily and line_item.on_shortfall is OnShortfall.RUN_ON:
        yield Problem(where, "on_shortfall = 'run_on' is for a whole flight's goal; this one begins anew each day")


def _check_fit(where: str, line_item: LineItem, mine: list[Creative], slots: list[Slot]) -> Iterable[Problem]:
    for slot in slots:
        if not any(creative.weight and fits(creative, slot) for creative in mine):
            sizes = ", ".join(f"{width}x{height}" for width, height in slot.sizes)
            what = (
                f"has no creative (of weight above 0) that fits slot {slot.id} ({sizes}); add one or take the slot out"
            )
            yield Problem(where, what)
    if line_item.page is PageRule.ROADBLOCK_ALL:
        yield from _check_block(where, mine, slots)
    for creative in mine:
        if len(slots) == len(line_item.slots) and not any(fits(creative, slot) for slot in slots) and creative.size:
            width, height = creative.size
            yield Problem(where, f"creative {creative.id!r} ({width}x{height}) fits none of its slots; take it out")


def _check_block(where: str, mine: list[Creative], slots: list[Slot]) -> Iterable[Problem]:
    """A creative is once on a page, so each slot of a roadblock needs one of its own."""
    choices = [[one.id for one in mine if one.weight and fits(one, slot)] for slot in slots]
    choices = [each for each in choices if each]  # where none fits is told already
    filled = _most_filled(choices)
    if filled < len(choices):
        yield Problem(
            where,
            f"page = 'roadblock_all' fills all of its slots on a page or none, and a creative is once on a page: its "
            f"creatives fill {filled} of {len(choices)} slots at most, so it would never show; add creatives that fit, "
            "or use page = 'roadblock_any'",
        )


def _check_capped_block(
    where: str, slots: int, owners: Iterable[LineItem | Campaign | Advertiser | None]
) -> Iterable[Problem]:
    """A roadblock is seen in all of its slots at once, and each counts."""
    for owner in owners:
        for cap in owner.frequency if owner else ():
            if cap.most < slots:
                whose = "" if isinstance(owner, LineItem) else f" of its {type(owner).__name__.lower()}"
                yield Problem(
                    where,
                    f"page = 'roadblock_all' shows {slots} ads at once, and frequency {say_cap(cap)!r}{whose} allows "
                    f"fewer, so it would never show; allow {slots} or more, or use page = 'roadblock_any'",
                )


def _most_filled(choices: list[list[str]]) -> int:
    """How many of the slots can have a creative of their own at once; *choices* are those that fit each."""
    owners: dict[str, int] = {}
    chosen: dict[int, str] = {}
    for start in range(len(choices)):
        came: dict[str, int] = {}  # the slot that would rather have this creative
        asking = [start]
        while asking:
            slot = asking.pop()
            free = None
            for name in choices[slot]:
                if name not in came:
                    came[name] = slot
                    if name not in owners:
                        free = name
                        break
                    asking.append(owners[name])
            while free is not None:  # each hands its own on to the one that asked
                owner = came[free]
                handed = chosen.get(owner)
                owners[free], chosen[owner] = owner, free
                free, asking = handed, []
    return len(owners)


def _check_shares(document: Document, known: Known) -> Iterable[Problem]:
    """At no instant may the sponsorship shares of a slot exceed 100 %: swept from flight edge to flight edge.

    Sponsorships whose hours of the week never meet may share the same percent; those for different pages may not, as a
    page can be of both kinds.
    """
    edges: dict[int, list[tuple[float, float, str]]] = {}
    spans: dict[str, Spans] = {}
    for line_item in document.line_items:
        if line_item.share is None:
            continue
        spans[line_item.id] = hours.spans_of(line_item.hours)
        starts = -inf if line_item.starts is None else line_item.starts
        ends = inf if (last := last_instant(line_item)) is None else last
        for slot_id in line_item.slots if starts < ends else ():
            edges.setdefault(slot_id, []).extend(
                [(starts, line_item.share, line_item.id), (ends, -line_item.share, line_item.id)]
            )
    for slot, changes in edges.items():
        live: dict[str, float] = {}
        most = 0.0
        for _, change, name in sorted(changes):  # at the same instant what ends goes first: its change is below 0
            live[name] = live.get(name, 0.0) + change
            most += change
            if change < 0 and live[name] < 1e-9:
                del live[name]
            if change < 0 or most <= 100 + 1e-9:
                continue
            together = _most_together(live, spans)
            total = sum(live[one] for one in together)
            if total > 100 + 1e-9:
                names = ", ".join(map(repr, sorted(together)))
                yield Problem(
                    known.where("slot", slot),
                    f"its sponsorships {names} run together and promise {total:g} %; at most 100 % can be sold",
                )
                break


def _most_together(shares: Mapping[str, float], spans: Mapping[str, Spans]) -> list[str]:
    """Of line items whose flights meet, those that hold the largest sum of shares in some hour of the week."""
    if not any(spans[name] for name in shares):
        return list(shares)
    minutes = hours.edges(spans[name] for name in shares if spans[name])[:-1]
    open_ = ([name for name in shares if not spans[name] or hours.holds(spans[name], at)] for at in {0, *minutes})
    return max(open_, key=lambda names: sum(shares[name] for name in names))


def _check_pauses(document: Document, known: Known) -> Iterable[Problem]:
    """A category may be paused that no advertiser has yet: the next one may."""
    for pause in document.pauses:
        where = known.where("pause", pause.id)
        if sum(getattr(pause, kind) is not None for kind in PAUSED) != 1:
            *most, last = map(repr, PAUSED)
            yield Problem(where, f"expected exactly one of the fields {', '.join(most)} and {last}")
        for table, name in (("line_item", pause.line_item), ("advertiser", pause.advertiser)):
            if name is not None and (missing := known.missing(table, name)):
                yield Problem(where, f"names {missing}")
        if pause.ends <= pause.starts:
            yield Problem(where, "ends before it starts, so it would pause nothing; exchange or correct the two dates")


def _check_keys(document: Document, known: Known) -> Iterable[Problem]:
    taken: dict[bytes, str] = {}
    for line_item in document.line_items:
        for slot_id in line_item.slots:
            for creative in line_item.creatives:
                name = ad_name(slot_id, line_item.id, creative)
                other = taken.setdefault(ad_key(name), name)
                if other != name:
                    yield Problem(
                        known.where("line_item", line_item.id), f"ad {name} has the key of {other}; rename one"
                    )
