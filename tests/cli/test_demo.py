"""`tunneld demo`, the whole of it, as a process of its own: mosh, ssh and the relay are real."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest

from tunneld.cli.demo import PACKAGES
from tunneld.demo.leftover import leftovers

ROOT = Path(__file__).parents[2]
HURRIED = Path(__file__).with_name("hurried.py")

STORY = [
    r"relay +an SSH server on 127\.0\.0\.1",
    r'listen = "127\.0\.0\.1:\d+"',
    r"tunnel +dialing demo@127\.0\.0\.1:\d+",
    r"tunnel +UP:",
    r"tunnel +mosh is ready: UDP ports \d+-\d+",
    r"person +\$ mosh -p \d+:\d+ --ssh=",
    r"person +reads: hello-(?P<before>\d+)\n",
    r"3 keys, each shown after \d+ ms",
    r"tunnel +has carried [1-9]\d* of mosh's datagrams to the host, and [1-9]\d* back",
    r"link +CUT:",
    r"person +goes on typing:",
    r"tunnel +DOWN: .* silent.*; tries again at once",
    r"tunnel +dialing again",
    r"link +whole again",
    r"tunnel +UP:",
    r"tunnel +mosh is ready",
    r"person +reads: typed-in-the-dark-(?P=before):",
    r"3 keys, each shown after \d+ ms",
    r"tunnel +stopped",
    r"relay +its ports are free again",
    r"all +every process has ended",
    r"tunneld profile check NAME",
    r"tunneld run NAME",
]


def _heed_signals() -> None:
    """Whoever runs these tests in the background may have had SIGINT and SIGHUP ignored for them."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@contextlib.asynccontextmanager
async def demo(folder: Path, **changed: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The demo, its temporary folder inside `folder`; whatever a test does, nothing of it stays."""
    environment: Mapping[str, str] = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder), **changed}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", str(HURRIED)),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=_heed_signals,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()  # upon which it clears away, which a kill would not let it
            await process.communicate()


async def told_until(process: asyncio.subprocess.Process, words: str) -> str:
    """What the demo prints, up to the line with these words."""
    assert process.stdout is not None
    text = ""
    async for line in process.stdout:
        text += line.decode()
        if words in text:
            return text
    raise AssertionError(f"{words!r} was not told: {text}")


def own_folder(text: str) -> Path:
    """The demo's folder, by what it told."""
    found = re.search(r"profile +(/.*)/pi\.toml", text)
    assert found, text
    return Path(found[1])


def nothing_left(text: str, folder: Path) -> None:
    assert leftovers(own_folder(text)) == []
    assert list(folder.iterdir()) == []


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short name: Unix sockets are made below it."""
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        yield Path(folder)


async def test_the_demo_tells_its_story(short: Path) -> None:
    """Every step is seen, in order, by the same shell before and after the cut; nothing is left."""
    async with demo(short, HOME="/nonexistent") as process:
        output, errors = await process.communicate()
    text = output.decode()
    assert (process.returncode, errors.decode()) == (0, "")
    assert re.search(".*?".join(STORY), text, re.DOTALL), text
    assert "\x1b" not in text
    nothing_left(text, short)


@pytest.mark.parametrize(
    ("moment", "number", "code"),
    [
        ("dialing", signal.SIGINT, 130),
        ("$ mosh", signal.SIGTERM, 143),  # a CI job that is cancelled
        ("reads: hello", signal.SIGHUP, 129),  # a terminal that is closed
        ("CUT", signal.SIGINT, 130),
        ("dialing again", signal.SIGTERM, 143),
        ("whole again", signal.SIGINT, 130),
    ],
)
async def test_an_interrupt_leaves_nothing(short: Path, moment: str, number: signal.Signals, code: int) -> None:
    """A signal at any time: an exit code that names it, no process, no folder, no traceback."""
    async with demo(short) as process:
        text = await told_until(process, moment)
        process.send_signal(number)
        process.send_signal(number)  # an impatient one
        _, errors = await process.communicate()
    assert process.returncode == code
    assert errors.decode().strip() == "interrupted: every process has ended, and the folder is gone"
    nothing_left(text, short)


async def test_a_reader_that_leaves_ends_it(short: Path) -> None:
    """`tunneld demo | head -3`."""
    async with demo(short) as process:
        text = await told_until(process, "pi.toml")
        assert process.stdout is not None
        process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
        await process.wait()
    assert process.returncode == 141
    nothing_left(text, short)


async def test_a_missing_mosh_is_named(tmp_path: Path) -> None:
    """Nothing is installed behind the user's back: the command to do so is told, and the exit code is 69."""
    async with demo(tmp_path, PATH=str(tmp_path)) as process:
        output, errors = await process.communicate()
    assert (process.returncode, output) == (69, b"")
    for expected in ("the demo needs mosh", "apt-get install mosh openssh-client"):
        assert expected in errors.decode()


async def test_a_mosh_that_fails_is_told(short: Path) -> None:
    """Its last words are repeated, and the demo does not claim to have succeeded."""
    programs = short / "bin"
    programs.mkdir()
    for program in PACKAGES:
        (programs / program).write_text("#!/bin/sh\necho the far side is not there\nexit 1\n")
        (programs / program).chmod(0o755)
    async with demo(short, PATH=f"{programs}:{os.environ['PATH']}") as process:
        output, errors = await process.communicate()
    assert process.returncode == 70
    assert "tunneld: the mosh session failed: it ended; its last words: the far side is not there" in errors.decode()
    assert "every process has ended" not in output.decode()
    assert leftovers(own_folder(output.decode())) == []


async def test_no_temporary_folder_is_told(tmp_path: Path) -> None:
    """A full or read-only disk is no traceback."""
    script = "import sys, tempfile; tempfile.mkdtemp = lambda **_: open('/proc/none/x'); from tunneld.cli import main; "
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script + "sys.exit(main(['demo']))"), stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    assert process.returncode == 69
    assert errors.decode().startswith("tunneld: no room for a temporary folder")
