"""How old events are when they come, by measure and slot: gathered by each worker, added up in the store for a week.

A worker notes an age beside counting; once in a few seconds what concerns slots with goals is added to the day's hash.
"""

from collections.abc import Callable, Mapping, Sequence

from adserver.catalog import Ad
from adserver.events import Type
from adserver.lateness import EDGES_S, classify
from adserver.model import Measure
from adserver.store import Store

KEPT_DAYS = 7
_MEASURE = {Type.IMPRESSION: Measure.IMPRESSIONS, Type.VIEWABLE: Measure.VIEWABLES, Type.CLICK: Measure.CLICKS}
_ADD = """
for i = 1, #ARGV - 1, 2 do redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('EXPIRE', KEYS[1], ARGV[#ARGV])
return 1
"""

By = dict[tuple[Measure, int], list[int]]
"""Events by age class, by measure and slot."""


def key_of(day: int) -> str:
    return f"as:{{pace}}:ages:{day}"


class Ages:
    """One worker's ages that the store has not been told of."""

    def __init__(self) -> None:
        self._new: dict[tuple[Type, bytes, int], int] = {}

    def __repr__(self) -> str:
        return f"<Ages of {sum(self._new.values())} events>"

    def note(self, type_: Type, ad: bytes, age_s: float) -> None:
        """An event of the ad with that key came so long after its snippet was served."""
        if type_ in _MEASURE:  # no goal is in measured impressions
            key = type_, ad, classify(age_s)
            self._new[key] = self._new.get(key, 0) + 1

    async def flush(self, store: Store, find: Callable[[bytes], Ad | None], slots: frozenset[int], day: int) -> None:
        """Tell the store what concerns *slots*. Raises StoreUnavailable or StoreRefused; then it is told next time."""
        told: dict[str, int] = {}
        for (type_, ad_key, at), n in self._new.items():
            ad = find(ad_key)
            if ad is not None and ad.slot.id in slots:
                field = f"{_MEASURE[type_].value}:{ad.slot.id}:{at}"
                told[field] = told.get(field, 0) + n
        new, self._new = self._new, {}
        if told:
            try:
                pairs = [part for pair in told.items() for part in pair]
                await store.ask("EVAL", _ADD, 1, key_of(day), *pairs, (KEPT_DAYS + 2) * 86_400)
            except BaseException:
                for key, n in new.items():
                    self._new[key] = self._new.get(key, 0) + n
                raise


async def read_ages(store: Store, today: int, slots: frozenset[int]) -> Mapping[tuple[Measure, int], Sequence[int]]:
    """The last days' events of *slots* by age class. What is not ours in the hash is passed over."""
    found: By = {}
    measures = {measure.value: measure for measure in Measure}
    for day in range(today - KEPT_DAYS, today + 1) if slots else ():
        reply = await store.ask("HGETALL", key_of(day))
        pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
        for field, value in pairs:
            measure, _, rest = field.decode("ascii", "replace").partition(":")
            slot, _, at = rest.partition(":")
            good = measure in measures and slot.isdigit() and at.isdigit() and value.isdigit()
            if good and int(slot) in slots and int(at) < len(EDGES_S) and len(value) <= 15:
                found.setdefault((measures[measure], int(slot)), [0] * len(EDGES_S))[int(at)] += int(value)
    return found
