"""What the demo clears away, and that it touches nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.until import wait_until
from tunneld.demo import leftover
from tunneld.demo.leftover import inhabitants, leftovers, private_folder
from tunneld.errors import UnavailableError

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"


@contextmanager
def living_in(
    home: Path, program: str = "print(flush=True); import time; time.sleep(60)"
) -> Iterator[subprocess.Popen[bytes]]:
    """A process with this home, which runs by now."""
    process = subprocess.Popen(
        [sys.executable, "-c", program], env={"HOME": str(home)}, stdout=subprocess.PIPE, start_new_session=True
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def test_the_folder_is_private_and_goes_with_its_processes() -> None:
    """SIGTERM first; the home of before is the home again."""
    before = os.environ["HOME"]
    with private_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert os.environ["HOME"] == str(folder)
        left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        wait_until(lambda: inhabitants(folder) == [left.pid], what="the process has its environment")
        assert leftovers(folder) == [str(folder), f"process {left.pid}"]
    assert left.wait() == -signal.SIGTERM
    assert leftovers(folder) == []
    assert os.environ["HOME"] == before


def test_a_process_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a moment, which mosh-server would use to look for its client."""
    monkeypatch.setattr(leftover, "TERM_GRACE", 0.05)
    with private_folder() as folder, living_in(folder, STUBBORN) as stubborn:
        pass
    assert stubborn.wait() == -signal.SIGKILL
    assert inhabitants(folder) == []


def test_a_neighbour_is_let_be() -> None:
    """A home whose name only begins like ours is somebody else's."""
    with private_folder() as folder, living_in(Path(f"{folder}-other")) as neighbour:
        assert inhabitants(folder) == []
    assert neighbour.returncode == -signal.SIGKILL  # by this test, not by the demo


def test_a_number_that_became_another_process_is_not_signalled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Between the look at /proc and the hold on the process, the number may have gone to a stranger."""
    with living_in(tmp_path / "stranger") as stranger:
        monkeypatch.setattr(leftover, "inhabitants", lambda folder: [stranger.pid])
        leftover._end(tmp_path / "ours", signal.SIGKILL)
        assert stranger.poll() is None


def test_a_long_tmpdir_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Unix socket below the folder has to fit into 107 bytes, 52 of which are the agent's."""
    exact = Path("/tmp") / ("x" * (leftover.LONGEST_TMPDIR - len("/tmp/")))
    for place, used in ((str(exact), str(exact)), (f"{exact}x", "/tmp")):
        monkeypatch.setattr(leftover.tempfile, "gettempdir", lambda place=place: place)  # type: ignore[attr-defined]
        made: list[str] = []

        def refuse(*, prefix: str, dir: str, made: list[str] = made) -> str:
            made.append(dir)
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(leftover.tempfile, "mkdtemp", refuse)  # type: ignore[attr-defined]
        with pytest.raises(UnavailableError, match="No space left"), private_folder():
            pass
        assert made == [used]
