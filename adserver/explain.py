"""Why an ad shows, or why none does, in words for whoever sold it: `decide` asked once more, with its trace kept.

Nothing is decided here, so what is explained is what would be served: same catalog, instant, page and draws.
"""

from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from msgspec import Struct

from adserver.catalog import PRIORITIES, Catalog, last_instant
from adserver.decide import UNPACED, Decision, Draws, Lost, Page, Step, Unfilled, decide
from adserver.model import LineItem, NoFill, OnShortfall, Priority
from adserver.pacing import WORDS, Pace

NOTHING = {
    NoFill.UNKNOWN_SLOT: "there is no such slot",
    NoFill.NO_BOOKING: "nobody has booked it",
    NoFill.NOT_LIVE: "no booking's flight is on",
    NoFill.OUTSIDE_SHARE: "this view fell outside the shares sold, and nothing else may show",
    NoFill.DUPLICATE_CREATIVE: "every creative that fits is on this page already",
    NoFill.FORMAT: "no creative suits this format",
    NoFill.OUTSIDE_HOURS: "no booking runs at this hour",
    NoFill.NOT_TARGETED: "no booking is for such a page",
    NoFill.PAGE_RULE: "what else is on the page, or has to be, keeps every booking away",
    NoFill.GOAL: "every booking has reached its goal",
    NoFill.PACING: "no booking's plan asks for this view",
    NoFill.FREQUENCY: "this reader has seen every booking as often as may be, or nobody can tell",
    NoFill.PAUSED: "every booking whose flight is on is paused",
    NoFill.CONSENT: "all that fits is third-party tags, and this reader has not consented to any",
    NoFill.WEIGHT: "every booking has weight 0",
}
_SELDOM_ASKED = (Step.PRIORITY, Step.WEIGHT, Step.PACING)
_MOST_NAMED = 2


class Candidate(Struct, frozen=True):
    """One booking of the slot: the *step* and *reason* that removed it, or None and why it won."""

    line_item: str
    name: str
    priority: str
    step: str | None
    reason: str


class Explanation(Struct, frozen=True):
    """One slot's answer. *at* is the instant in the newsroom's time, *reason* the no-fill reason."""

    slot: int
    at: str
    version: int
    filled: bool
    line_item: str | None
    creative: str | None
    reason: str | None
    sentence: str
    candidates: tuple[Candidate, ...]


def explain(catalog: Catalog, now: float, page: Page, draws: Draws, pace: Pace = UNPACED) -> list[Explanation]:
    """An explanation for each of the page's asks, in their order. The arguments are those of `decide`."""
    trace: list[Lost] = []
    decisions = decide(catalog, now, page, draws, pace, trace)
    return [tell(catalog, now, decision, trace) for decision in decisions]


def tell(catalog: Catalog, now: float, decision: Decision, trace: Sequence[Lost]) -> Explanation:
    """A decision that was made, in words; *trace* is what `decide` filled."""
    at = datetime.fromtimestamp(now, ZoneInfo(catalog.document.site.time_zone)).isoformat(timespec="seconds")
    slot = decision.slot if isinstance(decision, Unfilled) else decision.ad.slot.id
    told = {lost.line_item.id: lost for lost in trace if lost.slot == slot}
    if isinstance(decision, Unfilled):
        candidates = _table(told, None, "")
        sentence = f"Nothing shows in {_slot(catalog, slot)}: {NOTHING[decision.reason]}{_passed_over(told, None)}."
        reason = decision.reason.value
        return Explanation(slot, at, catalog.version, False, None, None, reason, sentence, candidates)  # noqa: FBT003
    ad = decision.ad
    why = _why(catalog, ad.line_item, told, now)
    sentence = f"Showing *{ad.line_item.name}* because {why}{_passed_over(told, ad.line_item)}."
    candidates = _table(told, ad.line_item, why)
    ids = ad.line_item.id, ad.creative.id
    return Explanation(slot, at, catalog.version, True, *ids, None, sentence, candidates)  # noqa: FBT003


def _slot(catalog: Catalog, slot: int) -> str:
    return f"*{catalog.slots[slot].name}*" if slot in catalog.slots else f"slot {slot}"


def _why(catalog: Catalog, line_item: LineItem, told: dict[str, Lost], now: float) -> str:
    if line_item.priority is Priority.SPONSORSHIP:
        last = last_instant(line_item)
        until = f" until {catalog.week.say(last, now)}" if last is not None else ""
        if line_item.goal and line_item.on_shortfall is OnShortfall.RUN_ON:
            until = f" until its goal of {line_item.goal.n:,} {WORDS[line_item.goal.of]} is reached"
        return f"it holds {line_item.share or 0:g} % of this slot{until}"
    if line_item.goal:
        return f"it has {line_item.goal.n:,} {WORDS[line_item.goal.of]} to deliver{_by(catalog, line_item, now)}"
    rivals = [lost for lost in told.values() if lost.step is Step.WEIGHT and lost.line_item.weight]
    if rivals:
        kind = f"{line_item.priority.value} bookings"
        return f"its turn came among {len(rivals) + 1} {kind} that share this slot by weight"
    return f"it is the only {line_item.priority.value} booking that may show here now"


def _by(catalog: Catalog, line_item: LineItem, now: float) -> str:
    if line_item.goal and line_item.goal.daily:
        return " today"
    return f" by {catalog.week.say(line_item.ends, now)}" if line_item.ends is not None and line_item.ends > now else ""


def _passed_over(told: dict[str, Lost], winner: LineItem | None) -> str:
    """Who would have come first, and why they did not: the highest priorities first."""
    rank = PRIORITIES.index(winner.priority) if winner else len(PRIORITIES)
    unasked = _SELDOM_ASKED if winner else _SELDOM_ASKED[:-1]  # what waits for its turn is news where nothing shows
    lost = [one for one in told.values() if one.step not in unasked and _rank(one) <= rank]
    lost.sort(key=_rank)
    return "".join(f"; *{one.line_item.name}* was passed over: {one.reason}" for one in lost[:_MOST_NAMED])


def _rank(lost: Lost) -> int:
    return PRIORITIES.index(lost.line_item.priority)


def _table(told: dict[str, Lost], winner: LineItem | None, why: str) -> tuple[Candidate, ...]:
    """Everybody asked, the winner first, then by priority."""
    found = [Candidate(winner.id, winner.name, winner.priority.value, None, why)] if winner else []
    lost = sorted(told.values(), key=_rank)
    return (
        *found,
        *(
            Candidate(one.line_item.id, one.line_item.name, one.line_item.priority.value, one.step.value, one.reason)
            for one in lost
            if one.line_item is not winner
        ),
    )
