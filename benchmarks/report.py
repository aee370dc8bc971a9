"""Results: kept as they come, written as JSON lines, shown as tables with targets.

Defined here and only here: `Results` and `Target`. Main thread only.
"""

import json
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import NamedTuple


class Target(NamedTuple):
    """One thing that is to be reached."""

    what: str
    got: float
    at_most: bool
    limit: float

    @property
    def hit(self) -> bool:
        return self.got <= self.limit if self.at_most else self.got >= self.limit

    def line(self) -> str:
        word = "hit   " if self.hit else "MISSED"
        sign = "<=" if self.at_most else ">="
        return f"{word}  {self.what}: {_number(self.got)} (target {sign} {_number(self.limit)})"


class Results:
    """Every figure of a run."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._values: dict[tuple[str, str], list[float]] = defaultdict(list)
        if path:
            path.write_text("")

    def add(self, name: str, measure: str, value: float) -> None:
        """One figure of one round."""
        self._values[name, measure].append(value)
        self.record({"name": name, "measure": measure, "value": value})

    def record(self, line: dict[str, str | float | bool]) -> None:
        """One line of the file of results."""
        if self._path:
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")

    def median(self, name: str, measure: str) -> float:
        return median(self._values[name, measure])

    def best(self, names: list[str], measure: str) -> float:
        """The highest median of several."""
        return max(self.median(name, measure) for name in names)

    def pairs(self, name: str, other: str, measure: str) -> float:
        """The median of the ratios of the rounds that were taken beside each other."""
        values = zip(self._values[name, measure], self._values[other, measure], strict=True)
        return median(first / second for first, second in values)

    def table(self, title: str, names: list[str], measures: list[str]) -> None:
        """Print medians, with the lowest and the highest where there are several."""
        print(f"\n{title}")
        cells = [["", *measures]]
        cells += [[name, *(self._cell(name, measure) for measure in measures)] for name in names]
        widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
        for row in cells:
            first, *rest = (
                cell.ljust(widths[0]) if at == 0 else cell.rjust(widths[at])
                for at, cell in enumerate(row)
            )
            print("  ".join([first, *rest]))

    def _cell(self, name: str, measure: str) -> str:
        values = self._values.get((name, measure))
        if not values:
            return "-"
        middle = _number(median(values))
        if len(values) == 1:
            return middle
        return f"{middle} ({_number(min(values))}..{_number(max(values))})"

    def targets(self, targets: list[Target]) -> int:
        """Print what was reached and what not; answers how many were missed."""
        print("\nTargets")
        for target in targets:
            print(target.line())
            self.record(
                {
                    "target": target.what,
                    "got": target.got,
                    "limit": target.limit,
                    "at_most": target.at_most,
                    "hit": target.hit,
                }
            )
        return sum(not target.hit for target in targets)


def _number(value: float) -> str:
    size = abs(value)
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.3f}"
