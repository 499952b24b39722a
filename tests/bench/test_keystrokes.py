"""The bench of keystrokes: it compares in the same run, and says what was meant to be reached."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from bench import cell
from bench.cell import Cell
from bench.homes import CONDITIONS, DIRECT, OURS, SSH
from bench.keystrokes import CLEAN, Found, Typed, aims, distributions, measure, wanted
from bench.moments import Moment
from bench.prompt import BY_JUMP, BY_MAPPING, MOSH
from tests.lab.conftest import able
from tests.lab.showing import showing

__all__ = ["able"]  # the lab's fixture: the bench runs where the lab does

ROOT = Path(__file__).parents[2]
LOSS = next(condition for condition in CONDITIONS if condition.name == "loss5")


@pytest.mark.lab
@pytest.mark.usefixtures("able")
def test_a_quick_run_shows_everybodys_echoes() -> None:
    """One condition, from end to end; no figure is asserted."""
    command = [sys.executable, "-m", "bench.keystrokes", "--quick", "--json", "--parts", "loss5", "--keys", "10"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    reached, *echoes = json.loads(done.stdout)["tables"]
    assert [row[0] for row in reached["rows"]] == [
        f"5 % loss each way{how}: {share}, times that of {DIRECT}"
        for how in ("", ", typing on")
        for share in ("p95", "p99")
    ]
    assert len(echoes) == 2
    for table in echoes:
        assert [row[1] for row in table["rows"]] == [DIRECT, SSH, OURS]
        assert all(row[2] > 80 for row in table["rows"])


def cells(**echoes: list[float]) -> Typed:
    names = {"direct": DIRECT, "ssh": SSH, "ours": OURS}
    mine = {names[name]: Cell(values) for name, values in echoes.items()}
    return Typed(mine, mine, "direct")


def test_a_key_is_waited_for_by_those_who_want_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is shown before the tenth key: who types on gets there, and the first keys are left out."""
    monkeypatch.setattr(cell, "PACE", (0.01, 0.012))
    monkeypatch.setattr(cell, "WARM_UP", 2)
    monkeypatch.setattr(cell, "LOST", 0.5)
    program = "kept = ''\nfor key in keys():\n    kept += key\n    if len(kept) == 10: show(kept); kept = ''\n"
    with showing(tmp_path, program) as terminal:
        late = cell.typed_on(terminal, 8, Random(1))
    assert len(late) == 8
    assert 60 < late[0] < 500  # ms: it waited for seven more
    with showing(tmp_path, program) as terminal, pytest.raises(AssertionError):
        cell.waited(terminal, 8, Random(1))


def test_a_key_that_never_comes_back_fails_its_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, with whose it was; what the others saw is shown."""
    monkeypatch.setattr(cell, "PACE", (0.01, 0.012))
    monkeypatch.setattr(cell, "LOST", 0.5)
    found = Found()
    with (
        showing(tmp_path / "loses", "for key in keys(): show(key.replace('z', ''))\n") as loses,
        showing(tmp_path / "echoes", "for key in keys(): show(key)\n") as echoes,
    ):
        seen = measure(cell.typed_on, {OURS: loses, DIRECT: echoes}, 10, found.failed, LOSS.name)
    found.typed[LOSS] = Typed(seen, seen, "direct")
    for shown in distributions(found):
        assert [(row[1], row[-2]) for row in shown.rows] == [(OURS, 0), (DIRECT, 10)]
    table = aims(found)
    assert [row[1:] for row in table.rows] == 2 * [(None, 0.8, "NO"), (None, 0.5, "NO")]
    assert table.note.startswith(f"loss5, {OURS} failed: 15 of 40 keys were not back")


def test_an_aim_is_a_ratio_to_the_peer_of_the_same_run() -> None:
    """At 5 % the 95th percentile may be 0.8 times that of mosh, and the 99th half of it, in either manner of typing."""
    peer = [100.0] * 90 + [200.0] * 8 + [1000.0] * 2
    ours = [100.0] * 90 + [150.0] * 8 + [600.0] * 2
    found = Found(typed={CLEAN: cells(direct=[92.0], ours=[94.0]), LOSS: cells(direct=peer, ours=ours)})
    rows = [row[1:] for row in aims(found).rows]
    assert rows == [*[(2.0, 3.0, "yes")] * 2, *[(0.75, 0.8, "yes"), (0.6, 0.5, "NO")] * 2]


def test_a_start_is_compared_by_its_own_way() -> None:
    """Once by a mapped port, once by a jump host; the median of each."""
    times = {(BY_MAPPING, MOSH): [1.0], (BY_MAPPING, OURS): [0.8], (BY_JUMP, MOSH): [2.0], (BY_JUMP, OURS): [2.2]}
    assert [row[1:] for row in aims(Found(prompts=times)).rows] == [(0.8, 1.0, "yes"), (1.1, 1.0, "NO")]


def test_a_lost_key_misses_the_aim() -> None:
    """However early the others were back; what happened to peers is shown, and is no aim."""
    seen = [
        Moment("the direct path dies", OURS, back=0.1, latest=0.9, keys=80, lost=1, after="relayed"),
        Moment("another address", OURS, back=1.2, latest=9.0, keys=80, lost=0, after="direct"),
        Moment("another address", DIRECT, back=9.0, latest=9.0, keys=80, lost=3, after="-"),
    ]
    assert [row[3] for row in aims(Found(moments=seen)).rows] == ["NO", "yes", "yes", "yes"]


def test_a_part_that_broke_is_named() -> None:
    """The others are shown all the same."""
    table = aims(Found(direct={BY_JUMP: [1.5]}, failed={"loss5": "no prompt"}))
    assert table.note == "loss5 failed: no prompt"
    assert len(table.rows) == 1


def test_a_part_that_is_not_known_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """The message lists those that are."""
    with pytest.raises(SystemExit):
        wanted(["--parts", "clean,flood"])
    assert "flood: not among clean, loss5" in capsys.readouterr().err


def test_the_same_figures_draw_the_same_picture(tmp_path: Path) -> None:
    """Its words are words, so that a diff of two runs is short and a reader can search."""
    pytest.importorskip("matplotlib", reason="it is an extra")
    from bench.echoes import draw

    found = {LOSS: {DIRECT: Cell([92.0, 5000.0]), OURS: Cell([94.0, 95.0])}}
    drawn = [tmp_path / name for name in ("one.svg", "other.svg")]
    for path in drawn:
        draw(path, found)
    first, second = (path.read_text() for path in drawn)
    assert first == second
    assert f">{LOSS.title}</text>" in first
