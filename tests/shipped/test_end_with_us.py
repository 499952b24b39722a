"""A process that must not outlive us, guarded by another one."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.sshd import descendants
from tests.until import wait_until
from tunneld.shipped import end_with_us

BASH = shutil.which("bash") or ""

PROGRAM = f"""
import sys
sys.path.insert(0, {end_with_us.__file__.removesuffix("/tunneld/shipped/end_with_us.py")!r})
from tunneld.shipped import end_with_us
end_with_us.GUARDING_SHELL = sys.argv[2]
with end_with_us.guard(int(sys.argv[1])):
    print("guarded", flush=True)
    sys.stdin.readline()
print("released", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def guarded() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


@pytest.fixture
def guarding(any_python: str, guarded: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    with guards(guarded, python=any_python) as process:
        yield process


@contextlib.contextmanager
def guards(
    guarded: subprocess.Popen[bytes],
    *,
    python: str = sys.executable,
    shell: str = end_with_us.GUARDING_SHELL,
    env: dict[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that guards that one."""
    argv = [python, "-ISc", PROGRAM, str(guarded.pid), shell]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) as process:
        yield process
        process.kill()


def says(process: subprocess.Popen[bytes], word: str) -> None:
    assert process.stdout
    assert process.stdout.readline() == f"{word}\n".encode()


def test_it_ends_when_we_are_killed(guarded: subprocess.Popen[bytes], guarding: subprocess.Popen[bytes]) -> None:
    """With SIGTERM, so that it can say goodbye."""
    says(guarding, "guarded")
    guarding.kill()
    assert guarded.wait(10) == -signal.SIGTERM


def test_it_is_let_be_afterwards(guarded: subprocess.Popen[bytes], guarding: subprocess.Popen[bytes]) -> None:
    """Its number may be another process's by then."""
    says(guarding, "guarded")
    (waiting,) = descendants(guarding.pid)
    assert guarding.stdin
    guarding.stdin.write(b"\n")
    guarding.stdin.flush()
    says(guarding, "released")
    guarding.kill()
    guarding.wait()
    wait_until(lambda: not _is_alive(waiting), what="the guard ends")
    assert guarded.poll() is None


@pytest.mark.skipif(not BASH, reason="bash is not installed")
def test_it_waits_for_longer_than_a_person_may_be_idle(guarded: subprocess.Popen[bytes]) -> None:
    """Where /bin/sh is bash, as on macOS and Fedora, and administrators set TMOUT against forgotten terminals."""
    impatient = {**os.environ, "TMOUT": "1"}
    with guards(guarded, shell=BASH, env=impatient) as guarding:
        says(guarding, "guarded")
        (waiting,) = descendants(guarding.pid)
        with subprocess.Popen([BASH, "-c", "read it"], stdin=subprocess.PIPE, env=impatient) as other:
            assert other.wait(10) != 0
        assert _is_alive(waiting)
        assert guarded.poll() is None


def _is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
