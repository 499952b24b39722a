"""One ssh process, as a shell that is no ssh: its stream, its words and its end."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Iterator

import pytest

from tunneld.mosh import ssh_process
from tunneld.mosh.ssh_process import MAX_STDERR, SshProcess


@contextlib.contextmanager
def shell(script: str, *, on_terminal: bool = False) -> Iterator[SshProcess]:
    made = SshProcess("first", ["sh", "-c", script], on_terminal=on_terminal)
    try:
        yield made
    finally:
        made.end()
        made.close()
        for pipe in (made.process.stdin, made.process.stdout):
            assert pipe
            pipe.close()


def hear(process: SshProcess, words: str) -> None:
    """Wait until it has said this."""
    give_up = time.monotonic() + 10
    while words not in process.said:
        assert time.monotonic() < give_up
        select.select([process.errors], [], [], 0.1)
        process.read_errors()


def test_the_stream_is_its_standard_input_and_output() -> None:
    """Whoever asks for the two ends has to close them."""
    with shell("exec cat") as process:
        source, sink = process.ends()
        os.write(sink, b"through")
        assert os.read(source, 100) == b"through"
        os.close(sink)
        assert os.read(source, 100) == b""
        os.close(source)
        assert process.end(10) == 0


def test_only_the_last_words_are_kept() -> None:
    """An ssh that talks for years fills no memory."""
    with shell(f"head -c {2 * MAX_STDERR} /dev/zero | tr '\\0' x >&2; echo last >&2") as process:
        hear(process, "last")
        assert MAX_STDERR - 4096 <= len(process.said) <= MAX_STDERR


def test_words_end_with_the_process() -> None:
    """Until then there may be more, even if there is nothing now."""
    with shell("read line; echo 'no\\r\\nway' >&2") as process:
        assert process.read_errors()
        process.drain()
        assert process.said == ""
        os.write(process.ends()[1], b"\n")
        hear(process, "way")
        process.end(10)
        assert not process.read_errors()
        assert process.said == "no\nway\n"


@pytest.mark.parametrize("on_terminal", [True, False])
def test_a_person_sees_the_words_of_an_ssh_that_may_ask(capfd: pytest.CaptureFixture[str], on_terminal: bool) -> None:
    """The words of another one would spoil mosh-client's screen; so would those of the first one later on."""
    with shell("echo shown >&2; read line; echo hidden >&2", on_terminal=on_terminal) as process:
        hear(process, "shown")
        process.is_shown = False
        os.write(process.ends()[1], b"\n")
        hear(process, "hidden")
    sys.stderr.flush()
    assert capfd.readouterr().err == ("shown\n" if on_terminal else "")


def test_only_the_first_ssh_has_our_terminal() -> None:
    """A process in a session of its own cannot open the terminal, neither to ask nor to write."""
    with shell("exec sleep 100") as later, shell("exec sleep 100", on_terminal=True) as first:
        assert os.getsid(later.process.pid) == later.process.pid
        assert os.getsid(first.process.pid) == os.getsid(0)


def test_an_ssh_that_ends_by_itself_is_not_ended() -> None:
    """Its exit status says why."""
    with shell("exit 7") as process:
        assert process.end(10) == 7


def test_an_ssh_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told first, and killed if it does not listen."""
    monkeypatch.setattr(ssh_process, "TERMINATE_TIMEOUT", 0.1)
    with shell("exec sleep 100") as process:
        assert process.end() == -signal.SIGTERM
    with shell("trap '' TERM; echo deaf >&2; while :; do sleep 0.1; done") as process:
        hear(process, "deaf")
        assert process.end() == -signal.SIGKILL


def test_a_program_that_is_not_there_leaves_no_descriptors() -> None:
    """The next attempt may find it."""
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FileNotFoundError):
        SshProcess("first", ["/nonexistent/ssh"])
    assert os.listdir("/proc/self/fd") == before
