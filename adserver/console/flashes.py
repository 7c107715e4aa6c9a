"""Whether an animation flashes so that it may harm: WCAG 2.2, 2.3.1, the general flash, on a coarse grid.

A flash is a pair of opposing changes of relative luminance by 10 % or more of the highest, the darker of the two below
0.80. More than three within one second, over 21,824 CSS pixels together (a quarter of 341 x 256), are too many.
"""

from collections.abc import Sequence

GRID = 16
"""Each frame is looked at as so many squares each way."""
_CHANGE = 0.1
_DARK = 0.8
_MOST_CHANGES = 6
_AREA = 21_824
_LUMINANCE = tuple(
    (value / 255 / 12.92) if value / 255 <= 0.04045 else ((value / 255 + 0.055) / 1.055) ** 2.4 for value in range(256)
)


def flashes(frames: Sequence[bytes], delays_ms: Sequence[int], area: int, *, again: bool) -> bool:
    """*frames* are the grey values of each frame's squares, *area* the CSS pixels of the whole; *again* where the last
    frame is followed by the first.
    """
    rounds = 2 if again else 1
    wild = 0
    for square in range(GRID * GRID):
        seen = [_LUMINANCE[frame[square]] for frame in frames]
        wild += _is_wild(seen * rounds, list(delays_ms) * rounds)
    return area * wild / (GRID * GRID) > _AREA


def _is_wild(luminances: list[float], delays_ms: list[int]) -> bool:
    """Whether there are more opposing changes within a second than three flashes have."""
    changes: list[int] = []
    low = high = luminances[0]
    rising: bool | None = None
    now = 0
    for value, delay in zip(luminances, delays_ms, strict=True):
        up = value - low >= _CHANGE and low < _DARK and rising is not True
        down = high - value >= _CHANGE and value < _DARK and rising is not False
        if up or down:
            rising, low, high = up, value, value
            changes.append(now)
            if len(changes) > _MOST_CHANGES and now - changes[-1 - _MOST_CHANGES] <= 1000:
                return True
        low, high = min(low, value), max(high, value)
        now += delay
    return False
