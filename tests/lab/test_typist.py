"""The typist counts an echo only in its own place on the screen, at the time when it was first drawn."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.client import person
from tests.lab.net import Lab
from tests.lab.screen import Screen
from tests.lab.showing import showing
from tests.lab.sshd import Sshd
from tests.lab.terminal import COLUMNS, Terminal
from tests.lab.typist import Typist
from tests.until import wait_until

QUICK = 0.02  # seconds from key to key


def typed(terminal: Terminal, keys: int, *, timeout: float = 5) -> list[float]:
    typist = Typist(terminal, pace=lambda: QUICK)
    typist.type(keys)
    return typist.finish(timeout=timeout)


def test_a_line_that_is_drawn_again_is_no_echo(tmp_path: Path) -> None:
    """Each key is shown after 100 ms; the whole alphabet, shown elsewhere at once, and the old line do not count."""
    program = (
        "line = ''\n"
        "for key in keys():\n"
        "    show(f'\\x1b[5;1Habcdefghijklmnopqrstuvwxyz\\x1b[1;6H{line}\\x1b[K')\n"
        "    time.sleep(0.1)\n"
        "    line += key\n"
        "    show(key)\n"
    )
    with showing(tmp_path, program) as terminal:
        assert min(typed(terminal, 30)) >= 0.1


def test_keys_shown_together_have_the_same_time_of_echo(tmp_path: Path) -> None:
    """Three keys are shown at once with the third, so the first has waited longest."""
    program = "kept = ''\nfor key in keys():\n    kept += key\n    if len(kept) == 3: show(kept); kept = ''\n"
    with showing(tmp_path, program) as terminal:
        late = typed(terminal, 9)
    assert all(late[place] > late[place + 1] + QUICK / 2 for place in (0, 1, 3, 4, 6, 7))


@pytest.mark.parametrize(("instead", "lost"), [("", 6), (".", 6), ("ee", 5)])
def test_a_key_that_is_not_there_is_lost(tmp_path: Path, instead: str, lost: int) -> None:
    """A key is left out, doubled or changed: only the keys before it count as echoed."""
    program = f"for key in keys(): show(key.replace('e', '{instead}'))\n"
    said = f"^{lost} of 10 keys were not back within"
    with showing(tmp_path, program) as terminal, pytest.raises(AssertionError, match=said):
        typed(terminal, 10, timeout=0.5)


def test_a_key_that_comes_too_late_is_lost(tmp_path: Path) -> None:
    """An echo after the time-out counts as lost, also when it comes while the typist types on."""
    program = "for key in keys():\n    if key == 'e': time.sleep(0.4)\n    show(key)\n"
    with showing(tmp_path, program) as terminal, pytest.raises(AssertionError, match="keys were not back within"):
        typed(terminal, 30, timeout=0.2)


def test_a_screen_cut_anywhere_is_the_same() -> None:
    """Control sequences, a line that wraps and one that is redrawn, byte by byte."""
    output = (
        b"\x1b]0;a title\x07\x1b[H\x1b[2J"
        + b"x" * COLUMNS
        + b"\r\n\x1b[1;200Hxyz\r\n\x1b[31mtwo\b\b\x1b[X\x1b[3;3H\x1b[K!"
    )
    whole, pieces = Screen(), Screen()
    whole.feed(output)
    for byte in output:
        pieces.feed(bytes([byte]))
    assert whole.cells == pieces.cells
    assert whole.cells.rstrip() == b"x" * COLUMNS + b"yz".ljust(COLUMNS) + b"t !"


@pytest.mark.parametrize("output", [b"\x1b[3M", b"\x1b[1K", b"\n" * 50])
def test_a_screen_rejects_what_it_does_not_know(output: bytes) -> None:
    """An unknown control sequence or a scroll raises, since `cells` would be wrong after it."""
    with pytest.raises(AssertionError, match=r"what does a terminal do|the screen is full"):
        Screen().feed(output)


@contextmanager
def mosh(lab: Lab) -> Iterator[Terminal]:
    guest = person(lab.laptop)
    lab.laptop_link.set(delay=0.04)
    with Sshd(lab.relay, (guest.key.public,)) as relay:
        guest.trust(relay.known_hosts("relay"))
        with guest.mosh_terminal("relay") as terminal:
            yield terminal


@pytest.mark.lab
def test_echoes_of_mosh_are_right_where_lines_wrap_and_packets_are_lost(lab: Lab) -> None:
    """mosh draws a row's last letter again at two wraps; no echo comes before the round trip is over."""
    with mosh(lab) as terminal:
        lab.laptop_link.set(loss=0.2)
        late = typed(terminal, 2 * COLUMNS + 20, timeout=20)
    assert len(late) == 2 * COLUMNS + 20
    assert min(late) >= 0.08


@pytest.mark.lab
def test_the_banner_of_mosh_is_no_echo(lab: Lab) -> None:
    """During a cut mosh writes "mosh: Last contact", just when the next keys are m, n and o."""
    with mosh(lab) as terminal:
        typist = Typist(terminal, pace=lambda: QUICK)
        typist.type(12)
        wait_until(lambda: len(typist.echoed()) == 12, what="twelve echoes")
        lab.laptop_link.cut()
        typist.type(8)
        banner = terminal.wait_for("Last contact")
        lab.laptop_link.mend()
        mended = time.monotonic()
        typist.finish()
    assert banner < mended < min(typist.echoed()[12:])
