"""The fleet bench as an SVG: each fault has a row with the connections and the returned hosts in each half second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.crowd import Return
from bench.drawing import INK, WIDTH, bare, save
from bench.numbers import by_step

STEP: Final = 0.5  # seconds
LONGEST: Final = 40.0  # seconds that are shown, from the moment at which sshd listens
HIGHEST: Final = 220  # connections in a step; a higher column is cut off, and its figure stands beside it

# They differ in lightness too, for eyes and printers without colours (the palette of Okabe and Ito).
CAME, BACK, SHARE = "#f2c695", "#0072b2", "#333333"


def draw(path: Path, returns: Sequence[Return]) -> None:
    save(path, picture(returns))


def picture(returns: Sequence[Return]) -> Figure:
    figure = Figure(figsize=(WIDTH, 0.9 + 1.65 * len(returns)), layout="constrained", facecolor="white")
    rows = figure.subplots(len(returns), sharex=True, squeeze=False)[:, 0]
    for axes, each in zip(rows, returns, strict=True):
        _row(axes, each)
    rows[-1].set_xlabel("seconds after sshd listens and can be reached", color=INK, fontsize=9.5)
    shown, words = rows[0].get_legend_handles_labels()
    figure.legend(shown, words, loc="outside upper left", ncols=3, frameon=False, fontsize=9.5, labelcolor=INK)
    return figure


def _row(axes: Axes, each: Return) -> None:
    edges = [place * STEP for place in range(round(LONGEST / STEP) + 1)]
    came, back = (by_step(seen, STEP, until=LONGEST) for seen in (each.came, each.back))
    axes.stairs([min(HIGHEST, many) for many in came], edges, fill=True, color=CAME, label=f"connections in {STEP:g} s")
    axes.stairs(back, edges, fill=True, color=BACK, label=f"hosts that are back, in {STEP:g} s")
    for place, many in enumerate(came):
        if many > HIGHEST:
            axes.annotate(f"{many} ", (edges[place], 0.96 * HIGHEST), ha="right", va="top", fontsize=8.5, color=INK)
    share = axes.twinx()
    hosts = len(each.back)
    share.plot([0, *each.back], [100 * place / hosts for place in range(hosts + 1)], color=SHARE, linewidth=1.4)
    axes.plot([], [], color=SHARE, linewidth=1.4, label="hosts that are back, in all")
    _scale(axes, share)
    axes.set_title(each.fault.title, loc="left", fontsize=9.5, color=INK, pad=3)


def _scale(axes: Axes, share: Axes) -> None:
    axes.set_xlim(-1.5, LONGEST)
    axes.set_ylim(0, HIGHEST)
    axes.set_yticks((0, 100, 200))
    share.set_ylim(0, 110)  # as far above the ticks as on the left
    share.set_yticks((0, 50, 100), ("0", "50 %", "100 %"))
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in (axes, share):
        bare(side, size=9)
