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
    NoFill.DUPLICATE_CREATIVE: "{no} has a creative that is not on this page already",
    NoFill.FORMAT: "{no} has a creative that suits this format",
    NoFill.OUTSIDE_HOURS: "{no} runs at this hour",
    NoFill.NOT_TARGETED: "{no} is for such a page",
    NoFill.PAGE_RULE: "what else is on the page, or has to be, keeps {every} away",
    NoFill.GOAL: "{every} has reached its goal",
    NoFill.PACING: "{no} has a plan that asks for this view",
    NoFill.FREQUENCY: "{every} has a frequency cap that keeps it from this reader",
    NoFill.PAUSED: "every booking whose flight is on is paused",
    NoFill.CONSENT: "{every} has third-party tags only, and this reader has not consented to any",
    NoFill.WEIGHT: "{every} has weight 0",
}
"""What is the matter with a slot that stays empty, where it is the matter with all of its bookings whose flight is on:
a decision's reason is that of the one which was tried last.
"""
_MIXED = "{no} may show here now"
_MATTERS = {
    NoFill.NOT_LIVE: {Step.LIVE_WINDOW},
    NoFill.OUTSIDE_HOURS: {Step.HOURS},
    NoFill.NOT_TARGETED: {Step.TARGETING},
    NoFill.PAGE_RULE: {Step.PAGE_RULE},
    NoFill.GOAL: {Step.GOAL},
    NoFill.PACING: {Step.GOAL, Step.PACING},
    NoFill.FREQUENCY: {Step.FREQUENCY},
    NoFill.PAUSED: {Step.PAUSED},
    NoFill.WEIGHT: {Step.WEIGHT},
}
"""The steps that a reason is true of. The others hold where all were removed in the same words."""
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
    return tell(catalog, now, decisions, trace)


def tell(catalog: Catalog, now: float, decisions: Sequence[Decision], trace: Sequence[Lost]) -> list[Explanation]:
    """The decisions that were made of a page, in words; *trace* is what `decide` filled."""
    return [_tell(catalog, now, place, decision, trace) for place, decision in enumerate(decisions)]


def _tell(catalog: Catalog, now: float, place: int, decision: Decision, trace: Sequence[Lost]) -> Explanation:
    at = datetime.fromtimestamp(now, ZoneInfo(catalog.document.site.time_zone)).isoformat(timespec="seconds")
    slot = decision.slot if isinstance(decision, Unfilled) else decision.ad.slot.id
    told = {lost.line_item.id: lost for lost in trace if (lost.place, lost.slot) == (place, slot)}
    if isinstance(decision, Unfilled):
        candidates = _table(told, None, "")
        why = _why_none(decision.reason, list(told.values()))
        sentence = f"Nothing shows in {_slot(catalog, slot)}: {why}{_passed_over(told, None)}."
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


def _why_none(reason: NoFill, lost: Sequence[Lost]) -> str:
    """What is true of everybody who could have shown."""
    on = [one for one in lost if one.step is not Step.LIVE_WINDOW]
    every, no = "every booking", "no booking"
    if len(on) < len(lost):
        every, no = f"{every} whose flight is on", f"{no} whose flight is on"
    true = next((NOTHING[one] for one in (reason, *_MATTERS) if _holds(one, on or lost)), _MIXED)
    return true.format(every=every, no=no)


def _holds(reason: NoFill, lost: Sequence[Lost]) -> bool:
    if reason is NoFill.OUTSIDE_SHARE:
        return any(one.step is Step.SHARE for one in lost)
    if steps := _MATTERS.get(reason):
        return all(one.step in steps for one in lost)
    return len({one.reason for one in lost}) <= 1


def _why(catalog: Catalog, line_item: LineItem, told: dict[str, Lost], now: float) -> str:
    if line_item.priority is Priority.SPONSORSHIP:
        last = last_instant(line_item)
        until = f" until {catalog.week.say(last, now)}" if last is not None else ""
        if line_item.goal and line_item.on_shortfall is OnShortfall.RUN_ON:
            until = f" until its goal of {line_item.goal.n:,} {WORDS[line_item.goal.of]} is reached"
        return f"it holds {line_item.share or 0:g} % of this slot{until}"
    if line_item.goal:
        goal = f"{line_item.goal.n:,} {WORDS[line_item.goal.of]}"
        return f"it has a goal of {goal} to reach{_by(catalog, line_item, now)}"
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
    if winner:
        rank = PRIORITIES.index(winner.priority)
        lost = [one for one in told.values() if one.step not in _SELDOM_ASKED and _rank(one) <= rank]
        lost.sort(key=_rank)
    else:  # what waits for its turn is news where nothing shows, and what is over is none where something is on
        lost = sorted(told.values(), key=lambda one: (one.step is Step.LIVE_WINDOW, _rank(one)))
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
