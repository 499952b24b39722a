"""The bench of keystrokes as an SVG: a row for each condition, each subject from its median to its 99th percentile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.homes import DIRECT, OURS, SSH, Condition

# Told apart by position and shape as well, for eyes and printers without colours (the palette of Okabe and Ito).
LOOKS: Final = {OURS: ("#0072b2", "o", -0.24), DIRECT: ("#d55e00", "s", 0.0), SSH: ("#7a7a7a", "D", 0.24)}
NAMES: Final = {OURS: "tunneld mosh", DIRECT: "mosh, port forward by hand", SSH: "ssh"}
TICKS: Final = (80, 100, 150, 200, 300, 500, 1000, 2000)  # ms
INK: Final = "#333333"


class Echoes(Protocol):
    """Milliseconds from a key to its echo."""

    @property
    def median(self) -> float: ...

    def part(self, part: float) -> float: ...


def draw(path: Path, found: Mapping[Condition, Mapping[str, Echoes]]) -> None:
    # The same figures give the same file, and its words stay words.
    matplotlib.rcParams.update({"svg.hashsalt": "tunneld", "svg.fonttype": "none"})
    picture(found).savefig(path, metadata={"Date": None})
    # matplotlib ends lines with spaces, and Git says so.
    path.write_text("".join(f"{line.rstrip()}\n" for line in path.read_text().splitlines()))


def picture(found: Mapping[Condition, Mapping[str, Echoes]]) -> Figure:
    """Milliseconds on a logarithmic axis; who is later than its end stands there."""
    conditions = list(found)
    figure = Figure(figsize=(9.5, 1.2 + 0.62 * len(conditions)), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    _scale(axes, conditions)
    for row, cells in enumerate(found.values()):
        for name, cell in cells.items():
            _mark(axes, row, name, [min(ms, TICKS[-1]) for ms in (cell.median, cell.part(0.95), cell.part(0.99))])
    _legend(axes)
    return figure


def _mark(axes: Axes, row: int, name: str, parts: Sequence[float]) -> None:
    color, shape, beside = LOOKS[name]
    y = row + beside
    axes.plot([parts[0], parts[-1]], [y, y], color=color, linewidth=1.6, alpha=0.6, solid_capstyle="round", zorder=2)
    axes.plot(parts[1:2], [y], "|", color=color, markersize=9, markeredgewidth=2, zorder=3)
    axes.plot(parts[:1], [y], shape, color=color, markersize=6.5 if name == OURS else 5, clip_on=False, zorder=3)


def _scale(axes: Axes, conditions: Sequence[Condition]) -> None:
    axes.set_xscale("log")
    axes.set_xlim(TICKS[0], TICKS[-1])
    axes.set_xticks(TICKS, [*(f"{tick:g}" for tick in TICKS[:-1]), f"≥{TICKS[-1]:g}"])
    axes.minorticks_off()
    axes.set_ylim(len(conditions) - 0.5, -0.5)
    axes.set_yticks(range(len(conditions)), [condition.title for condition in conditions])
    axes.set_xlabel("milliseconds from a key to its echo; mark: median, tick: 95th percentile, end of line: 99th")
    axes.tick_params(colors=INK, length=0, labelsize=9.5)
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.8)
    for row in range(1, len(conditions)):
        axes.axhline(row - 0.5, color="#f0f0f0", linewidth=0.8, zorder=0)
    axes.spines[:].set_visible(False)
    axes.set_axisbelow(True)


def _legend(axes: Axes) -> None:
    for name, (color, shape, _) in LOOKS.items():
        axes.plot([], [], shape, color=color, markersize=6, label=NAMES[name])
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=3, frameon=False, fontsize=9.5, labelcolor=INK)
