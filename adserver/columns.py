"""Tables for the terminal."""

from typing import Any


def columns(titles: list[str], rows: list[list[Any]]) -> str:
    """A table: numbers to the right, `-` for what is not known."""
    shown = [
        ["-" if cell is None else f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows
    ]
    widths = [max(len(line[n]) for line in [titles, *shown]) for n in range(len(titles))]
    numeric = [
        bool(rows) and all(cell is None or isinstance(cell, int) for cell in column)
        for column in zip(*rows, strict=True)
    ]
    lines = [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, numeric or [False] * len(titles), strict=True)
        )
        for line in [titles, ["-" * width for width in widths], *shown]
    ]
    return "".join(f"{line.rstrip()}\n" for line in lines)
