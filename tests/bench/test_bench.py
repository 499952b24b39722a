"""The cheapest bench from end to end, so that benches do not rot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.numbers import by_step, quantile, ratio, rotated
from bench.report import Column, Table
from tests.lab.conftest import able

__all__ = ["able"]  # the lab's fixture: the bench runs where the lab does

ROOT = Path(__file__).parents[2]


@pytest.mark.lab
@pytest.mark.usefixtures("able")
def test_a_quick_bulk_run_compares_every_subject() -> None:
    """Real tunnels copy and echo; each of ours has a ratio, and no figure is asserted."""
    command = [sys.executable, "-m", "bench.bulk", "--quick", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["bench"] == "bulk"
    assert said["environment"]["OpenSSH"].startswith("OpenSSH")
    for table in said["tables"]:
        ours = [row for row in table["rows"] if row[0].startswith("tunneld")]
        assert len(ours) == 2
        assert all(row[1] > 0 for row in ours)


def test_a_ratio_is_made_round_by_round() -> None:
    """A machine that is ten times slower for one round slows both, and changes nothing."""
    found = ratio([2.0, 20.0, 2.2], [1.0, 10.0, 1.0])
    assert (found.middle, found.least, found.most) == (2.0, 2.0, 2.2)


def test_a_quantile_is_a_value_that_was_measured() -> None:
    """By the nearest rank, whatever the order."""
    assert quantile([3, 1, 2, 5, 4], 0.95) == 5
    assert quantile(range(1, 101), 0.95) == 95


def test_a_step_begins_with_its_first_moment() -> None:
    """What is too late for the last one is left out."""
    assert by_step([0.0, 0.4, 0.5, 1.4, 1.5], 0.5, until=1.5) == [2, 1, 1]


def test_nobody_always_goes_first() -> None:
    """Each round begins with the next one, and leaves none out."""
    begins = [rotated({"a": 1, "b": 2, "c": 3}, number) for number in range(3)]
    assert [order[0][0] for order in begins] == ["a", "b", "c"]
    assert all(sorted(order) == [("a", 1), ("b", 2), ("c", 3)] for order in begins)


def test_a_table_is_markdown() -> None:
    """Numbers stand to the right in the column's form, and what was not measured is a dash."""
    table = Table("T", (Column("subject"), Column("x"), Column("ms", ".0f")), (("one", 1.234, 5.6), ("two", None, 7)))
    assert table.markdown() == "\n".join(
        [
            "### T",
            "",
            "| subject |    x | ms |",
            "|---------|-----:|---:|",
            "| one     | 1.23 |  6 |",
            "| two     |    - |  7 |",
            "",
        ]
    )
