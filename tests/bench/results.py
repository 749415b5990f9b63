"""What a run leaves: a table for people, JSON for machines, a plot."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

WIDTH, BAR, LEFT = 900, 22, 330
COLOURS = {"onehost": "#2a6f97", "bare": "#a9b4c2"}


@dataclass
class Row:
    """One measurement: samples by side, in one unit; `ratio` of the medians, and what it should be."""

    what: str
    unit: str
    samples: Mapping[str, Sequence[float]]
    #: The ratio's two sides, and the words of the goal: ("onehost", "bare", "at most 1.5").
    goal: tuple[str, str, str] | None = None
    note: str = ""
    medians: dict[str, float] = field(init=False)
    ratio: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.medians = {side: statistics.median(each) for side, each in self.samples.items() if each}
        if self.goal and {*self.goal[:2]} <= self.medians.keys():
            self.ratio = self.medians[self.goal[0]] / self.medians[self.goal[1]]


class Results:
    """Rows, written anew after each one: a run that is cut short leaves what it has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[Row] = []
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, row: Row) -> Row:
        self.rows.append(row)
        print(_line(row), flush=True)
        machine = {"cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version(),
                   "load": os.getloadavg(), "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}  # fmt: skip
        document = {"machine": machine, "rows": [asdict(each) for each in self.rows]}
        (self.folder / "bench.json").write_text(json.dumps(document, indent=1))
        (self.folder / "bench.txt").write_text("\n".join(map(_line, self.rows)) + "\n")
        (self.folder / "bench.svg").write_text(_plot(self.rows))
        return row


def _line(row: Row) -> str:
    sides = "  ".join(f"{side} {median:,.4g}{_spread(row.samples[side])}" for side, median in row.medians.items())
    ratio = f"  ratio {row.ratio:.2f} ({row.goal[2]})" if row.ratio is not None and row.goal else ""
    return f"{row.what:58} {row.unit:>7}  {sides}{ratio}{'  ' + row.note if row.note else ''}"


def _spread(samples: Sequence[float]) -> str:
    return f" [{min(samples):,.4g}-{max(samples):,.4g}]" if len(samples) > 1 else ""


def _plot(rows: Sequence[Row]) -> str:
    """Bars of the medians; each row has a scale of its own."""
    lines, y = [], 20
    for row in rows:
        largest = max(row.medians.values(), default=1.0) or 1.0
        lines.append(f'<text x="8" y="{y + 15}">{row.what}</text>')
        for side, median in row.medians.items():
            long = max(1.0, median / largest * (WIDTH - LEFT - 150))
            colour = COLOURS.get(side, "#7b9e87")
            lines.append(f'<rect x="{LEFT}" y="{y}" width="{long:.0f}" height="{BAR - 4}" fill="{colour}"/>')
            lines.append(f'<text x="{LEFT + long + 6:.0f}" y="{y + 14}">{side} {median:,.4g} {row.unit}</text>')
            y += BAR
        y += 8
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 10}" font-family="sans-serif"'
    return (
        f'{head} font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(lines) + "\n</svg>\n"
    )
