"""What the pictures of the benches have in common: rows, marks, a logarithmic axis, and the file.

Tested in tests/bench/test_recovery.py and test_keystrokes.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH: Final = 9.5  # inches
INK: Final = "#333333"


class Look(NamedTuple):
    """How a subject is drawn. Subjects differ in place and shape too, for eyes and printers without colours."""

    color: str
    shape: str
    beside: float  # how far below the middle of its row, in rows
    size: float = 5


BLUE, RED, GREY = "#0072b2", "#d55e00", "#7a7a7a"  # the palette of Okabe and Ito


def save(path: Path, figure: Figure) -> None:
    # The same figures give the same file. Words stay words, so that a reader can search them.
    matplotlib.rcParams.update({"svg.hashsalt": "tunneld", "svg.fonttype": "none"})
    figure.savefig(path, metadata={"Date": None})
    # matplotlib leaves spaces at the ends of lines, and Git complains about them.
    path.write_text("".join(f"{line.rstrip()}\n" for line in path.read_text().splitlines()))


def rows(titles: Sequence[str], *, height: float, around: float) -> tuple[Figure, Axes]:
    """An empty row for each title. `height` is that of a row, `around` that of all the rest, in inches."""
    figure = Figure(figsize=(WIDTH, around + height * len(titles)), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.set_ylim(len(titles) - 0.5, -0.5)
    axes.set_yticks(range(len(titles)), titles)
    for row in range(1, len(titles)):
        axes.axhline(row - 0.5, color="#f0f0f0", linewidth=0.8, zorder=0)
    return figure, axes


def scale(axes: Axes, ticks: Mapping[float, str], meaning: str) -> None:
    """The logarithmic axis below the rows, from the first tick to the last."""
    axes.set_xscale("log")
    axes.set_xlim(min(ticks), max(ticks))
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.minorticks_off()
    axes.set_xlabel(meaning)
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    bare(axes, size=9.5)


def bare(axes: Axes, *, size: float) -> None:
    """No frame, and only words at the ticks."""
    axes.tick_params(colors=INK, length=0, labelsize=size)
    axes.spines[:].set_visible(False)


def span(axes: Axes, row: int, look: Look, first: float, last: float) -> None:
    y = row + look.beside
    axes.plot([first, last], [y, y], color=look.color, linewidth=1.6, alpha=0.6, solid_capstyle="round", zorder=2)


def tick(axes: Axes, row: int, look: Look, x: float) -> None:
    axes.plot(x, row + look.beside, "|", color=look.color, markersize=9, markeredgewidth=2, zorder=3)


def mark(axes: Axes, row: int, look: Look, x: float) -> None:
    axes.plot(x, row + look.beside, look.shape, color=look.color, markersize=look.size, clip_on=False, zorder=3)


def name(axes: Axes, look: Look, words: str) -> None:
    """Name a subject in the legend."""
    axes.plot([], [], look.shape, color=look.color, markersize=6, label=words)


def legend(axes: Axes, *, columns: int) -> None:
    """Above the rows: all that was named."""
    place: Mapping[str, Any] = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1)}
    axes.legend(**place, ncols=columns, frameon=False, fontsize=9.5, labelcolor=INK)
