"""Entries for the journal: on the wire, and their messages."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.datagrams import inbox
from tunneld.systemd.journal import LONGEST_FIELD, Journal, encoded, is_journal
from tunneld.systemd.journal_entry import fields_of, message_of

LOST = {
    "level": "warning",
    "event": "session_lost",
    "tunnel": "pi-home",
    "failure": "network",
    "reason": "relay:22 no longer answers",
    "retry_in": 3.2,
    "times": 4,
}


def test_an_entry_on_the_wire() -> None:
    """A line for each field."""
    assert encoded({"MESSAGE": "up", "PRIORITY": "6"}) == b"MESSAGE=up\nPRIORITY=6\n"


def test_a_value_of_several_lines_has_its_length_before_it() -> None:
    """64 bits, the small end first; a value cannot forge a field."""
    assert encoded({"MESSAGE": "a\nPRIORITY=0"}) == b"MESSAGE\n" + b"\x0c" + bytes(7) + b"a\nPRIORITY=0\n"


def test_a_field_has_a_bound() -> None:
    """An entry fits a datagram, and stays UTF-8."""
    assert encoded({"MESSAGE": "é" * 100_000}).decode() == f"MESSAGE={'é' * LONGEST_FIELD}\n"


def test_an_event_becomes_a_message_and_fields() -> None:
    """`journalctl` shows the message; `journalctl TUNNELD_TUNNEL=pi-home` and `-p warning` find the entry."""
    assert fields_of(LOST) == {
        "MESSAGE": "pi-home: session lost: relay:22 no longer answers (failure network, retry in 3.2 s, times 4)",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "tunneld",
        "TUNNELD_EVENT": "session_lost",
        "TUNNELD_TUNNEL": "pi-home",
        "TUNNELD_FAILURE": "network",
        "TUNNELD_REASON": "relay:22 no longer answers",
        "TUNNELD_RETRY_IN": "3.2",
        "TUNNELD_TIMES": "4",
    }


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"event": "tunnel_stopped", "tunnel": "pi"}, "pi: tunnel stopped"),
        ({"event": "profile_rejected", "problem": "f:1: no"}, "profile rejected: f:1: no"),
        ({"event": "Something odd of asyncssh's", "tunnel": "pi"}, "pi: Something odd of asyncssh's"),
        ({"event": "tunnel_failed", "exception": "Traceback\n  KeyError"}, "tunnel failed\nTraceback\n  KeyError"),
        ({"event": "forward_opened", "to": None}, "forward opened"),
    ],
)
def test_messages(event: dict[str, object], words: str) -> None:
    """Each kind of event reads well."""
    assert message_of(event) == words


@pytest.mark.parametrize(
    ("level", "priority"), [("critical", "2"), ("error", "3"), ("warning", "4"), ("info", "6"), ("debug", "7")]
)
def test_priorities_are_syslogs(level: str, priority: str) -> None:
    """So that `journalctl -p err` shows what needs a person."""
    assert fields_of({"event": "x", "level": level})["PRIORITY"] == priority


def test_the_journal_gets_an_entry(tmp_path: Path) -> None:
    """As a real datagram; a journal that is away is no error."""
    with contextlib.closing(Journal(str(tmp_path / "socket"))) as journal:
        with inbox(tmp_path) as listening:
            assert journal.write(b"MESSAGE=up\n")
            assert listening.take() == [b"MESSAGE=up\n"]
        assert not journal.write(b"MESSAGE=up\n")


def test_the_journals_stream_is_known_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """stderr may be redirected, with the variable still set (systemd.exec(5))."""
    with (tmp_path / "stream").open("w") as stream, (tmp_path / "other").open("w") as other:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        assert is_journal(stream)
        assert not is_journal(other)
        assert not is_journal(io.StringIO())
        monkeypatch.delenv("JOURNAL_STREAM")
        assert not is_journal(stream)


def test_a_commands_complaint_has_an_errors_priority_in_the_journal(tmp_path: Path) -> None:
    """A service that does not even start says why in red, and `journalctl -p err` shows it."""
    with (tmp_path / "stream").open("w+") as stream:
        status = os.fstat(stream.fileno())
        for named in (f"{status.st_dev}:{status.st_ino}", "8:1"):
            environment = {**os.environ, "JOURNAL_STREAM": named}
            command = [sys.executable, "-m", "tunneld", "run", "/nowhere/pi.toml"]
            assert subprocess.run(command, stderr=stream, env=environment).returncode == 78
        stream.seek(0)
        first, second = stream.read().splitlines()
    assert first.startswith("<3>/nowhere/pi.toml:1: ")
    assert second == first.removeprefix("<3>")
