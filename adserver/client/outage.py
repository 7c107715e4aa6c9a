"""When a service that failed is asked again, and what is shown meanwhile. Pure: the caller passes *now*, in seconds."""

from collections import OrderedDict
from collections.abc import Hashable, Sequence


class Outage:
    """A circuit breaker: after a failure nobody is asked for *pause_s* seconds, and then one call tries.

    Whoever `may_call` allows it tells what became of the call: `failed`, `answered`, or `left_open`.
    """

    def __init__(self, pause_s: float) -> None:
        self._pause_s = pause_s
        self._since: float | None = None
        self._until = 0.0
        self._trying = False

    def __repr__(self) -> str:
        return "<Outage: none>" if self._since is None else f"<Outage since {self._since:.1f}, {self._trying=}>"

    def may_call(self, now: float) -> bool:
        if self._since is None:
            return True
        if self._trying or now < self._until:
            return False
        self._trying = True
        return True

    def failed(self, now: float) -> bool:
        """Whether this is the first failure, of which somebody should hear."""
        first = self._since is None
        if first:
            self._since = now
        self._until, self._trying = now + self._pause_s, False
        return first

    def answered(self, began: float) -> float | None:
        """How the outage ended that a call from *began* on has ended: the second it was found at; None for none.

        An answer to a call of before the outage ends nothing.
        """
        since = self._since
        if since is None or began < since:
            return None
        self._since, self._trying = None, False
        return since

    def left_open(self) -> None:
        """The call ended without telling anything; the next may try."""
        self._trying = False


class Kept:
    """The last good answers to the *most* pages lately asked for, each for as long as it may be shown."""

    def __init__(self, most: int = 256) -> None:
        self._most = most
        self._answers: OrderedDict[Hashable, tuple[Sequence[str], float]] = OrderedDict()

    def keep(self, page: Hashable, answers: Sequence[str], until: float) -> None:
        self._answers[page] = answers, until
        self._answers.move_to_end(page)
        if len(self._answers) > self._most:
            self._answers.popitem(last=False)

    def find(self, page: Hashable, now: float) -> Sequence[str]:
        """The last good answers, or none."""
        answers, until = self._answers.get(page, ((), 0.0))
        return answers if now < until else ()
