"""The bench of recovery as an SVG: a row for each fault, a dot at each contender's median, a line over its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.contenders import AUTOSSH, LOOP, OURS
from bench.faults import Fault
from bench.numbers import median

# Told apart by position and shape as well, for eyes and printers without colours (the palette of Okabe and Ito).
LOOKS: Final = {OURS: ("#0072b2", "o", -0.22), AUTOSSH: ("#d55e00", "s", 0.0), LOOP: ("#7a7a7a", "D", 0.22)}
NAMES: Final = {OURS: "tunneld", AUTOSSH: "autossh", LOOP: "ssh, Restart=always"}
TICKS: Final = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)  # seconds
INK: Final = "#333333"


def draw(path: Path, found: Mapping[tuple[Fault, str], Sequence[float]], *, patience: float) -> None:
    save(path, picture(found, patience))


def save(path: Path, figure: Figure) -> None:
    # The same figures give the same file, and its words stay words.
    matplotlib.rcParams.update({"svg.hashsalt": "tunneld", "svg.fonttype": "none"})
    figure.savefig(path, metadata={"Date": None})
    # matplotlib ends lines with spaces, and Git says so.
    path.write_text("".join(f"{line.rstrip()}\n" for line in path.read_text().splitlines()))


def picture(found: Mapping[tuple[Fault, str], Sequence[float]], patience: float) -> Figure:
    """Seconds on a logarithmic axis; who was not back after `patience` stands at its end."""
    faults = list(dict.fromkeys(fault for fault, _ in found))
    figure = Figure(figsize=(9.5, 1.1 + 0.44 * len(faults)), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    _scale(axes, faults, patience)
    for row, fault in enumerate(faults):
        axes.plot([fault.aim] * 2, [row - 0.38, row + 0.38], color="#009e73", linewidth=2.5, alpha=0.55, zorder=1)
    for (fault, contender), taken in found.items():
        _mark(axes, faults.index(fault), contender, [min(seconds, patience) for seconds in taken])
    _legend(axes)
    return figure


def _mark(axes: Axes, row: int, contender: str, taken: Sequence[float]) -> None:
    color, shape, beside = LOOKS[contender]
    y, middle = row + beside, median(taken)
    axes.plot([min(taken), max(taken)], [y, y], color=color, linewidth=1.6, alpha=0.6, solid_capstyle="round", zorder=2)
    axes.plot(middle, y, shape, color=color, markersize=6.5 if contender == OURS else 5, clip_on=False, zorder=3)


def _scale(axes: Axes, faults: Sequence[Fault], patience: float) -> None:
    axes.set_xscale("log")
    axes.set_xlim(TICKS[0], patience)
    axes.set_xticks([*TICKS, patience], [*(f"{tick:g}" for tick in TICKS), f">{patience:g}"])
    axes.minorticks_off()
    axes.set_ylim(len(faults) - 0.5, -0.5)
    axes.set_yticks(range(len(faults)), [fault.title for fault in faults])
    axes.set_xlabel("seconds from the fault's end until the forwarded port answers; dot: median, line: all runs")
    axes.tick_params(colors=INK, length=0, labelsize=9.5)
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.8)
    for row in range(1, len(faults)):
        axes.axhline(row - 0.5, color="#f0f0f0", linewidth=0.8, zorder=0)
    axes.spines[:].set_visible(False)
    axes.set_axisbelow(True)


def _legend(axes: Axes) -> None:
    for contender, (color, shape, _) in LOOKS.items():
        axes.plot([], [], shape, color=color, markersize=6, label=NAMES[contender])
    axes.plot([], [], "|", color="#009e73", markersize=11, markeredgewidth=2.5, alpha=0.55, label="tunneld's aim")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=4, frameon=False, fontsize=9.5, labelcolor=INK)
