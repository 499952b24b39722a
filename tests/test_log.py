"""The log as a person, a journal and a program read it."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest
import structlog

from tests.datagrams import inbox
from tunneld.cli.run import LOG_FORMATS
from tunneld.log import configure, logger


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process's logging as it was."""
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    monkeypatch.setattr(logging, "raiseExceptions", logging.raiseExceptions)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    for each in root.handlers:
        if each not in before:
            each.close()
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_lines_for_reading() -> None:
    """On a terminal the event comes first, in colour, with a time of day."""
    screen = Terminal()
    configure(stream=screen)
    logger().info("session_lost", tunnel="pi-home", retry_in=1.2345)
    assert "session_lost" in screen.getvalue()
    assert "\x1b[" in screen.getvalue()
    assert "1.2" in screen.getvalue()
    assert "1.23" not in screen.getvalue()


def test_a_file_gets_logfmt() -> None:
    """Anywhere else a line is key=value, in a fixed order, with a UTC time."""
    out = io.StringIO()
    configure(stream=out)
    logger().info("session_lost", reason="relay away", tunnel="pi-home")
    time, rest = out.getvalue().split(" ", 1)
    assert time.startswith("timestamp=20")
    assert time.endswith("Z")
    assert rest == 'level=info event=session_lost tunnel=pi-home reason="relay away"\n'


def test_the_journal_gets_no_second_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Under systemd the journal stamps each line itself, also in a format that was asked for."""
    with (tmp_path / "stream").open("w+") as out:
        into_the_journal(out, monkeypatch, str(tmp_path / "nobody"))
        configure("logfmt", stream=out)
        logger().info("tunnel_started", tunnel="pi-home")
        out.seek(0)
        assert out.read() == "level=info event=tunnel_started tunnel=pi-home\n"


def test_the_journal_gets_sentences_and_fields(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What goes to the journal anyway goes there as entries, other libraries' warnings and tracebacks included."""
    with inbox(tmp_path) as listening, (tmp_path / "stream").open("w+") as out:
        into_the_journal(out, monkeypatch, listening.address)
        configure(stream=out)
        with structlog.contextvars.bound_contextvars(tunnel="pi-home"):
            logging.getLogger("asyncssh").warning("Something %s", "odd")
        try:
            raise RuntimeError("two\nlines")
        except RuntimeError:
            logger().exception("tunnel_failed", tunnel="pi-home", lived=1.25)
        odd, failed = listening.take()
        assert b"MESSAGE=pi-home: Something odd\nPRIORITY=4\nSYSLOG_IDENTIFIER=tunneld\n" in odd
        assert b"TUNNELD_TUNNEL=pi-home\n" in odd
        assert failed.startswith(b"MESSAGE\n")
        assert b"pi-home: tunnel failed (lived 1.2 s)\nTraceback" in failed
        assert b"\nPRIORITY=3\n" in failed
        assert out.read() == ""


def test_a_journal_that_does_not_listen_gets_lines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is being restarted: its stream is kept by systemd, and takes what the socket does not."""
    with (tmp_path / "stream").open("w+") as out:
        into_the_journal(out, monkeypatch, str(tmp_path / "nobody"))
        configure(stream=out)
        logger().info("tunnel_started", tunnel="pi-home")
        out.seek(0)
        assert out.read() == "level=info event=tunnel_started tunnel=pi-home\n"


def into_the_journal(out: TextIO, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """As systemd sets it up for a service."""
    status = os.fstat(out.fileno())
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    monkeypatch.setattr("tunneld.systemd.journal.SOCKET", address)


def test_json_is_one_object_a_line() -> None:
    """On request every line is JSON, also on a terminal, also with a traceback."""
    screen = Terminal()
    configure("json", stream=screen)
    try:
        raise RuntimeError("two\nlines")
    except RuntimeError:
        logger().exception("tunnel_failed", tunnel="pi-home")
    line = json.loads(screen.getvalue())
    assert line["event"] == "tunnel_failed"
    assert "RuntimeError: two" in line["exception"]


@pytest.mark.parametrize("format", LOG_FORMATS)
def test_tracebacks_never_show_local_variables(format: str) -> None:
    """A key in a local variable stays out of the log, in every format."""
    out = io.StringIO()
    configure(format, stream=out)
    key_in_memory = "-----BEGIN " + "SECRET-----"
    try:
        raise RuntimeError(f"with a key of {len(key_in_memory)}")
    except RuntimeError:
        logger().exception("tunnel_failed")
    assert "RuntimeError" in out.getvalue()
    assert key_in_memory not in out.getvalue()


def test_asyncssh_speaks_in_the_same_format_and_only_warns() -> None:
    """The library's own lines carry the tunnel's name, and its chatter is left out."""
    out = io.StringIO()
    configure(stream=out)
    with structlog.contextvars.bound_contextvars(tunnel="pi-home"):
        logging.getLogger("asyncssh").info("Opening channel")
        logging.getLogger("asyncssh").warning("Something odd")
    assert "Opening" not in out.getvalue()
    assert 'level=warning event="Something odd" tunnel=pi-home' in out.getvalue()


@pytest.mark.parametrize("format", LOG_FORMATS)
def test_a_relays_words_cannot_drive_the_terminal(format: str) -> None:
    """Control characters from the other side arrive as text, in our own events and in what a library logs."""
    out = io.StringIO()
    configure(format, stream=out)
    words = "bye\x1b]0;owned\x07\nnext"
    logger().info("session_lost", reason=words)
    logging.getLogger("asyncssh").warning("the relay says %s", words)
    assert "\x1b" not in out.getvalue()
    assert out.getvalue().count("\n") == 2
    assert out.getvalue().count("owned") == 2


def test_a_closed_output_is_no_event(capsys: pytest.CaptureFixture[str]) -> None:
    """The terminal may go away. The tunnels stay, and no traceback goes anywhere."""
    out = io.StringIO()
    configure(stream=out)
    out.close()
    logger().info("session_lost")
    assert capsys.readouterr() == ("", "")


def test_debug_is_shown_on_request() -> None:
    """Retries without a line of their own are there for who looks for them."""
    quiet, full = io.StringIO(), io.StringIO()
    configure(stream=quiet)
    logger().debug("session_lost")
    configure(stream=full, debug=True)
    logger().debug("session_lost")
    assert quiet.getvalue() == ""
    assert "session_lost" in full.getvalue()
