"""The table a benchmark prints: each figure beside what it is measured against and what it is to reach."""

from msgspec import Struct

_TITLES = ["figure", "measured against", "ours", "baseline", "ratio", "to reach"]
_NUMBERS = range(2, 5)


class Row(Struct, frozen=True):
    """A rate beside its baseline, to be at least *to_reach* of it; *pairs* are the ratios of its single rounds."""

    figure: str
    against: str
    ours: float
    baseline: float
    to_reach: float | None
    pairs: list[float]

    def cells(self) -> list[str]:
        ratio = self.ours / self.baseline
        goal = "-" if self.to_reach is None else f"≥ {self.to_reach:.2f}{'' if ratio >= self.to_reach else ' missed'}"
        return [self.figure, self.against, f"{self.ours:,.0f}", f"{self.baseline:,.0f}", f"{ratio:.2f}", goal]


class Bound(Struct, frozen=True):
    """A figure that stands for itself, to be at most *most*."""

    figure: str
    condition: str
    ours: float
    most: float | None

    def cells(self) -> list[str]:
        goal = "-" if self.most is None else f"≤ {self.most:g}{'' if self.ours <= self.most else ' missed'}"
        return [self.figure, self.condition, f"{self.ours:,.2f}", "-", "-", goal]


def table(rows: list[Row | Bound]) -> str:
    lines = [_TITLES, *(row.cells() for row in rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(_TITLES))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(
            cell.rjust(width) if n in _NUMBERS else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
