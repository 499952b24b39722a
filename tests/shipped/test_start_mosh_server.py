"""What the first stage makes of mosh-server's words. That it starts one is tested in test_mosh_agent.py."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tunneld.shipped import start_mosh_server
from tunneld.shipped.start_mosh_server import located

KEY = b"4NeCCgvZFe2RnPgrcU1PQw"


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (b"\r\nMOSH CONNECT 60001 " + KEY + b"\r\n", (60001, KEY.decode())),
        (b"motd\nMOSH CONNECT 60001 ab+/cdefghijklmnopqrst\nmore\n", (60001, "ab+/cdefghijklmnopqrst")),
        (b"MOSH CONNECT 60001 " + KEY, None),
        (b"MOSH CONNECT 60001 " + KEY[:-1] + b"\n", None),
        (b"MOSH CONNECT 60001 " + KEY[:-1] + b'"\n', None),
        (b"MOSH CONNECT 6000x " + KEY + b"\n", None),
        (b"MOSH CONNECT 60001 " + KEY + b" more\n", None),
        (b"MOSH IP 192.0.2.1\n", None),
        (b"", None),
    ],
)
def test_the_port_and_the_key_stand_in_a_whole_line(said: bytes, found: tuple[int, str] | None) -> None:
    """Whatever login shells print around that line. The key goes into JSON unquoted, and so must be one."""
    assert start_mosh_server._connect(said) == found


@pytest.mark.parametrize(
    ("said", "pid"),
    [
        (b"[mosh-server detached, pid = 4711]\n", 4711),
        (b"[mosh-server detached, pid = 4711", None),
        (b"[mosh-server detached, pid = ]", None),
        (b"[mosh-server detached, pid = -1]", None),
        (b"[mosh-server detached, pid = 99999999999]", None),
        (b"", None),
    ],
)
def test_the_process_id_is_known_when_it_is_complete(said: bytes, pid: int | None) -> None:
    """mosh-server says it after the key."""
    assert start_mosh_server._pid(said) == pid


@pytest.mark.parametrize("text", ["plain", 'a "quoted" \\ one', "ä\n\t\x7f€", "\udc80", "😀!", ""])
def test_words_are_quoted_as_json(text: str) -> None:
    """In ASCII."""
    quoted = start_mosh_server._quoted(text)
    assert quoted.isascii()
    assert json.loads(quoted) == text.replace("😀", "?")


def test_a_name_that_path_does_not_know_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the folders of package managers, and quoted for a shell; a command with a path or options is left alone."""
    folder = tmp_path / "it's"
    folder.mkdir()
    (folder / "mosh-server").touch(mode=0o755)
    monkeypatch.setattr(start_mosh_server, "PACKAGE_FOLDERS", ("/nowhere", str(folder)))
    monkeypatch.setenv("PATH", "/nowhere")
    assert located("mosh-server") == f"'{tmp_path}/it'\\''s/mosh-server'"
    assert located("mosh-sevrer") == "mosh-sevrer"
    assert located("mosh-server -v") == "mosh-server -v"
    assert located("/opt/mosh-server") == "/opt/mosh-server"
    monkeypatch.setenv("PATH", str(folder))
    assert located("mosh-server") == "mosh-server"


def test_the_environment_is_that_of_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python adds an LC_CTYPE in the C locale (PEP 538); one that was there already stays."""
    if os.environ.get("LC_CTYPE"):
        pytest.skip("this process was started with an LC_CTYPE, so nothing tells it from Python's own")
    monkeypatch.setenv("LC_CTYPE", "C.UTF-8")
    assert "LC_CTYPE" not in start_mosh_server.environment()
    monkeypatch.setenv("LC_CTYPE", "de_DE.UTF-8")
    assert start_mosh_server.environment()["LC_CTYPE"] == "de_DE.UTF-8"
