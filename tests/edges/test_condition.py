"""What is told of the journals' volume before it hurts."""

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client import Gauge

from adserver import condition, metrics
from adserver.condition import LAG_S, LOW_BYTES, Condition

JOURNAL, OTHER = "00112233445566aa", "00112233445566bb"


class Shipper:
    """Counts nothing, and says how far behind it is."""

    def __init__(self, lag_s: float = 0.0, days: dict[int, str] | None = None) -> None:
        self.lag = lag_s
        self.days_set_aside = days or {}

    def waiting(self) -> int:
        return 7

    def lag_s(self, now: float) -> float:
        return self.lag


def value(gauge: Gauge) -> float:
    return next(iter(gauge.collect())).samples[0].value


def looked(root: Path, shipper: Shipper | None = None) -> Condition:
    one = Condition(root, shipper)
    asyncio.run(one.look(0.0))
    return one


def have_free(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=n // 4096, f_frsize=4096, f_bfree=1 << 40))


def test_a_volume_in_good_order_is_not_worth_a_word(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    With room, with nothing set aside and no lag there is nothing to say; the metrics have the figures.
    """
    have_free(monkeypatch, LOW_BYTES)
    (root / JOURNAL).mkdir()
    (root / JOURNAL / f"{1:020}.salvaged").touch()

    assert looked(root, Shipper(LAG_S)).words() == []

    assert value(metrics.DISK_FREE) == LOW_BYTES
    assert value(metrics.JOURNALS_SET_ASIDE) == 0
    assert value(metrics.LAG_SECONDS) == LAG_S
    assert value(metrics.WAITING) == 7


def test_little_room_is_told_before_events_are_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Below the limit the words say how much is left, counted as what is left for us and not for root alone.
    """
    have_free(monkeypatch, LOW_BYTES - 4096 * 300)

    (said,) = looked(root).words()

    assert "255 MiB free" in said
    assert "less than 256 MiB" in said


def test_segments_set_aside_are_told_by_what_ails_them(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The damaged and those too old, of however many journals; what was salvaged is no worry.
    """
    have_free(monkeypatch, LOW_BYTES)
    for name, file in ((JOURNAL, "1.corrupt"), (JOURNAL, "2.quarantined"), (OTHER, "1.quarantined"), (OTHER, "2.seg")):
        (root / name).mkdir(exist_ok=True)
        (root / name / file).touch()
    (root / "else").mkdir()
    (root / "else" / "1.corrupt").touch()

    (said,) = looked(root).words()

    assert "2 journals" in said
    assert "1 segment damaged, 2 too old" in said
    assert value(metrics.JOURNALS_SET_ASIDE) == 2


def test_counting_that_lags_is_told_in_seconds(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    How old the oldest uncounted event is, once that is more than a failover takes.
    """
    have_free(monkeypatch, LOW_BYTES)
    assert ["75 s" in said for said in looked(root, Shipper(75.0)).words()] == [True]


def test_days_that_are_not_counted_are_told_with_the_reason(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    How many, and what the store or the archive said.
    """
    have_free(monkeypatch, LOW_BYTES)

    (said,) = looked(root, Shipper(days={20514: "a foreign value stands there"})).words()

    assert said.startswith("1 day not counted")
    assert said.endswith("a foreign value stands there")
    assert value(metrics.DAYS_SET_ASIDE) == 1
    assert looked(root, Shipper()).words() == []
    assert value(metrics.DAYS_SET_ASIDE) == 0


def test_what_cannot_be_looked_at_keeps_nobody_from_serving(tmp_path: Path) -> None:
    """
    Without the directory nothing is known of it, and nothing is made up.
    """
    assert looked(tmp_path / "nowhere").words() == []


def test_it_is_looked_at_again_and_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    From the start on, until the service stops.
    """
    monkeypatch.setattr(condition, "EVERY_S", 0.001)
    looks = 0

    async def main() -> None:
        one, stopping = Condition(root, None), asyncio.Event()

        async def look(now: float) -> None:
            nonlocal looks
            looks += 1
            if looks == 3:
                stopping.set()

        monkeypatch.setattr(one, "look", look)
        async with asyncio.timeout(10):
            await one.follow(stopping)

    asyncio.run(main())
    assert looks == 3
