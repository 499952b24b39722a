"""The recovery bench: it does not disturb what it measures, and it hides nothing."""

from __future__ import annotations

import json
import math
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.banner import seconds_until_banner
from bench.contenders import AUTOSSH, OURS
from bench.faults import FAULTS
from bench.listening import listener
from bench.recovery import every_run, summary, wanted
from tests.lab.conftest import able
from tests.lab.machine import Machine

__all__ = ["able"]  # the lab's fixture: the bench runs where the lab does

ROOT = Path(__file__).parents[2]
KILL = FAULTS[0]


@pytest.mark.lab
@pytest.mark.usefixtures("able")
def test_a_quick_run_shows_who_is_back() -> None:
    """A session that the relay kills comes back, with tunneld and with a plain loop. No figure is asserted."""
    command = [sys.executable, "-m", "bench.recovery", "--quick", "--json", "--faults", "kill"]
    done = subprocess.run(
        [*command, "--contenders", "tunneld,loop"], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    overview, runs = json.loads(done.stdout)["tables"]
    assert overview["columns"] == ["fault", "tunneld", "loop", "aim", "met"]
    assert [row[:2] for row in runs["rows"]] == [["kill", "tunneld"], ["kill", "loop"]]
    assert all(float(row[2]) > 0 for row in runs["rows"])


@contextmanager
def saying(words: bytes | None) -> Iterator[tuple[int, list[float]]]:
    """A listener that says these words to each client and hangs up, or is silent (None).

    Yields its port, and a list of the moments at which clients came.
    """
    came: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        kept = []

        def serve() -> None:
            while True:
                try:
                    peer, _ = listening.accept()
                except OSError:
                    return
                came.append(time.monotonic())
                if words is None:
                    kept.append(peer)
                else:
                    peer.sendall(words)
                    peer.close()

        serving = threading.Thread(target=serve)
        serving.start()
        try:
            yield listening.getsockname()[1], came
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            serving.join()
            for peer in kept:
                peer.close()


def test_a_banner_ends_the_waiting(tmp_path: Path) -> None:
    """The seconds count from the moment `since`."""
    with saying(b"SSH-2.0-test\r\n") as (port, came):
        taken = seconds_until_banner(Machine("here", tmp_path), port, since=time.monotonic() - 5, patience=20)
    assert taken is not None
    assert 5 < taken < 15
    assert len(came) == 1


def test_a_silent_listener_is_asked_once(tmp_path: Path) -> None:
    """Each connection would make the relay's sshd put off its next keepalive to the dead client."""
    with saying(None) as (port, came):
        assert seconds_until_banner(Machine("here", tmp_path), port, since=time.monotonic(), patience=0.3) is None
    assert len(came) == 1


def test_a_listener_that_turns_away_is_asked_less_and_less_often(tmp_path: Path) -> None:
    """The pauses double."""
    with saying(b"") as (port, came):
        assert seconds_until_banner(Machine("here", tmp_path), port, since=time.monotonic(), patience=0.7) is None
    assert 2 <= len(came) <= 6


def test_a_lost_listener_is_not_asked_at_all(tmp_path: Path) -> None:
    """The bench knows it by its inode; the next listener on the same port has another one."""
    here = Machine("here", tmp_path)
    with saying(b"SSH-2.0-test\r\n") as (port, came):
        stale = listener(here, port)
        assert stale is not None
        assert seconds_until_banner(here, port, since=time.monotonic(), patience=0.2, stale=stale) is None
    assert not came
    assert listener(here, port) is None


def test_a_run_that_never_came_back_counts() -> None:
    """With three runs of five that did not come back, the median is such a run, and the aim is missed."""
    found = {(KILL, OURS): [0.3, math.inf, 0.4, math.inf, math.inf], (KILL, AUTOSSH): [0.7, 12.3, 0.6, 0.8, 0.9]}
    assert summary(found).rows == ((KILL.title, "> 150", "0.80", "0.50", "NO"),)
    assert every_run(found).rows[0] == ("kill", "tunneld", "0.30", "> 150", "0.30 > 150 0.40 > 150 > 150")


def test_a_fault_that_is_not_known_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """The message lists those that are."""
    with pytest.raises(SystemExit):
        wanted(["--faults", "kill,flood"])
    said = capsys.readouterr().err
    assert "flood: not among kill, reboot" in said


def test_the_same_figures_draw_the_same_picture(tmp_path: Path) -> None:
    """Its words are words, so that a diff of two runs is short and a reader can search."""
    pytest.importorskip("matplotlib", reason="it is an extra")
    from bench.picture import draw

    found = {(KILL, OURS): [0.3, 0.4], (KILL, AUTOSSH): [0.7, math.inf]}
    drawn = [tmp_path / name for name in ("one.svg", "other.svg")]
    for path in drawn:
        draw(path, found, patience=150)
    first, second = (path.read_text() for path in drawn)
    assert first == second
    assert f">{KILL.title}</text>" in first
