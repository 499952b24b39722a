"""The keystroke bench as an SVG: one row for each condition, one line for each subject, from its median to its p99."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from matplotlib.figure import Figure

from bench.cell import Cell
from bench.drawing import BLUE, GREY, RED, Look, legend, mark, name, rows, save, scale, span, tick
from bench.homes import DIRECT, OURS, SSH, Condition

LOOKS: Final = {OURS: Look(BLUE, "o", -0.24, 6.5), DIRECT: Look(RED, "s", 0.0), SSH: Look(GREY, "D", 0.24)}
NAMES: Final = {OURS: "tunneld mosh", DIRECT: "mosh, port forward by hand", SSH: "ssh"}
TICKS: Final = (80, 100, 150, 200, 300, 500, 1000, 2000)  # ms
MEANING: Final = "milliseconds from a key to its echo; mark: median, tick: 95th percentile, end of line: 99th"


def draw(path: Path, found: Mapping[Condition, Mapping[str, Cell]]) -> None:
    """Write the picture to `path`; `found` has the echoes by condition and subject."""
    save(path, picture(found))


def picture(found: Mapping[Condition, Mapping[str, Cell]]) -> Figure:
    """Milliseconds on a logarithmic axis. An echo later than the axis's end is drawn at the end."""
    figure, axes = rows([condition.title for condition in found], height=0.62, around=1.2)
    scale(axes, {at: f"{'≥' if at == TICKS[-1] else ''}{at:g}" for at in TICKS}, MEANING)
    for row, cells in enumerate(found.values()):
        for who, cell in cells.items():
            middle, late, latest = (min(ms, TICKS[-1]) for ms in (cell.median, cell.part(0.95), cell.part(0.99)))
            span(axes, row, LOOKS[who], middle, latest)
            tick(axes, row, LOOKS[who], late)
            mark(axes, row, LOOKS[who], middle)
    for who, look in LOOKS.items():
        name(axes, look, NAMES[who])
    legend(axes, columns=len(LOOKS))
    return figure
