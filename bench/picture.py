"""The recovery bench as an SVG: a row for each fault, a dot at each contender's median, a line from least to most.

Tested in tests/bench/test_recovery.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure

from bench.contenders import AUTOSSH, LOOP, OURS
from bench.drawing import BLUE, GREY, RED, Look, legend, mark, name, rows, save, scale, span
from bench.faults import Fault
from bench.numbers import median

LOOKS: Final = {OURS: Look(BLUE, "o", -0.22, 6.5), AUTOSSH: Look(RED, "s", 0.0), LOOP: Look(GREY, "D", 0.22)}
NAMES: Final = {OURS: "tunneld", AUTOSSH: "autossh", LOOP: "ssh, Restart=always"}
AIM: Final[Mapping[str, Any]] = {"color": "#009e73", "alpha": 0.55}
TICKS: Final = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)  # seconds
MEANING: Final = "seconds from the fault's end until the forwarded port answers; dot: median, line: all runs"


def draw(path: Path, found: Mapping[tuple[Fault, str], Sequence[float]], *, patience: float) -> None:
    save(path, picture(found, patience))


def picture(found: Mapping[tuple[Fault, str], Sequence[float]], patience: float) -> Figure:
    """Seconds on a logarithmic axis. A contender that was not back after `patience` seconds stands at its end."""
    faults = list(dict.fromkeys(fault for fault, _ in found))
    figure, axes = rows([fault.title for fault in faults], height=0.44, around=1.1)
    scale(axes, {**{at: f"{at:g}" for at in TICKS}, patience: f">{patience:g}"}, MEANING)
    for row, fault in enumerate(faults):
        axes.plot([fault.aim] * 2, [row - 0.38, row + 0.38], linewidth=2.5, zorder=1, **AIM)
    for (fault, contender), runs in found.items():
        row, taken = faults.index(fault), [min(seconds, patience) for seconds in runs]
        span(axes, row, LOOKS[contender], min(taken), max(taken))
        mark(axes, row, LOOKS[contender], median(taken))
    for contender, look in LOOKS.items():
        name(axes, look, NAMES[contender])
    axes.plot([], [], "|", markersize=11, markeredgewidth=2.5, label="tunneld's aim", **AIM)
    legend(axes, columns=len(LOOKS) + 1)
    return figure
