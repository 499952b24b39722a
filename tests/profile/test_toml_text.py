"""A profile's text: what cannot be read at all, and what a Profile looks like when written."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.profile.said import FORWARD, RELAY, assert_said, problems
from tunneld.core.supervise.backoff import Limits
from tunneld.profile import Canary, Keepalive, Mosh, PortRange, Relay, UnixAddress, as_toml, load
from tunneld.profile.toml_text import toml_value

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.recursive(st.one_of(TEXTS, st.booleans(), st.integers(-(2**63), 2**63 - 1)), st.lists, max_leaves=5)

Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("[relay]\nhost = relay.example.net\n", 2, "Invalid value at column 8: text stands in quotes"),
        ('[relay]\nhost = "r\n', 2, "Illegal character .*: close the quotes"),
        ("[relay]\nport = 1\nport = 2\n", 3, "Cannot overwrite a value .*: write each key once"),
        ("[relay]\n[relay]\n", 2, "Cannot declare .*: write each table once"),
        ("[relay]\njump = [\n", 2, "at the end of the file"),
        ("[relay]\nhost\n", 2, "Expected '=' after a key"),
        ("[relay]\n\nhost = 'r' port = 2\n", 3, "one key per line"),
        ("x = " + "[" * 100_000, 1, "nested too deeply"),
        ("x = " + "9" * 5000, 1, "not TOML that can be read"),
    ],
)
def test_a_text_that_is_not_toml(write: Write, text: str, line: int, said: str) -> None:
    """A fault in the TOML itself is a problem with a line as well."""
    (problem,) = problems(write(text))
    assert_said(problem, line, f".*{said}")


def test_text_that_is_not_utf_8(write: Write) -> None:
    """The message has the line of the first wrong byte."""
    assert problems(write(b"[relay]\n# caf\xe9\n")) == ["2: is not UTF-8: save it in that encoding"]


def test_a_file_that_is_too_large(write: Write) -> None:
    """A file of more than 1 MiB is no profile; a file of 1 MiB is read."""
    assert problems(write("#" * (1 << 20) + "\n")) == ["1: is larger than 1 MiB: a profile is a short text"]
    rest = RELAY + FORWARD
    load(str(write("#" * ((1 << 20) - len(rest) - 1) + "\n" + rest)))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A path is taken as it is."""
    (problem,) = problems(tmp_path / "gone.toml")
    assert_said(problem, 1, "there is no such file")


def test_a_path_that_is_no_regular_file(tmp_path: Path) -> None:
    """A folder is no profile, and a FIFO does not keep us waiting."""
    (tmp_path / "folder.toml").mkdir()
    os.mkfifo(tmp_path / "pipe.toml")
    for name in ("folder.toml", "pipe.toml"):
        (problem,) = problems(tmp_path / name)
        assert_said(problem, 1, "is not a regular file")


@pytest.mark.parametrize("name", ["my pi.toml", "-pi.toml", "pi@home.toml", "x" * 65 + ".toml", "é.toml"])
def test_a_file_whose_name_cannot_be_a_tunnels(write: Write, name: str) -> None:
    """The file's name is the tunnel's, and becomes part of the names of sockets and units."""
    (problem,) = problems(write(RELAY + FORWARD, name))
    assert_said(problem, 1, ".* cannot be a profile's name: a name has letters, digits")


def test_a_profile_reads_back_as_itself(write: Write, tmp_path: Path) -> None:
    """as_toml() writes a profile that is equal to the first, and leaves nothing to defaults."""
    for name in ("key", "other key", "hosts"):
        (tmp_path / name).touch(0o600)
    relay = 'user = "u"\nport = 2200\nidentity = ["key", "other key"]\nknown_hosts = "hosts"\njump = "a,b"\n'
    dynamic = '[[forward]]\nlisten = "[::1]:1080"\ndirection = "dynamic"\nrequired = false\n'
    profile = load(str(write(RELAY + relay + FORWARD + dynamic)))
    profile = replace(
        profile,
        relays=(replace(profile.relay, ssh_config=False), Relay("other", user="u")),
        forward=(
            *profile.forward,
            replace(
                profile.forward[0],
                canary=False,
                to=UnixAddress('/run/a "b" \\ é.sock'),
                listen=profile.forward[1].listen,
            ),
        ),
        mosh=Mosh(PortRange(60001, 60010), bind="::", to="pi.lan"),
        keepalive=Keepalive(interval=12.345678, count=7),
        backoff=Limits(initial=0.25, maximum=12345.678, stable_after=0, return_after=7.5),
        canary=Canary(interval=0),
    )
    again = load(str(write(as_toml(profile), "again.toml")))
    assert replace(again, name=profile.name, file=profile.file) == profile


def test_a_value_that_ssh_decides_is_a_comment(write: Write) -> None:
    """tunneld does not know such a value, and does not invent one."""
    file = write(RELAY + FORWARD)
    assert (
        as_toml(load(str(file)))
        == f'''\
# pi, from "{file}"

mode = "failover"

[relay]
host = "r"
# port: ssh_config's, else 22
# user: ssh_config's, else this user's name
# identity: the SSH agent and the usual files
# known_hosts: ssh_config's, else ~/.ssh/known_hosts
# jump: ssh_config's, else none
ssh_config = true

[[forward]]
listen = "127.0.0.1:2222"
to = "127.0.0.1:22"
direction = "remote"
required = true
canary = true

[keepalive]
interval = 10
count = 3

[backoff]
initial = 1
maximum = 60
stable_after = 30
return_after = 60

[canary]
interval = 300
'''
    )


@given(VALUES)
def test_a_value_reads_back_as_itself(value: object) -> None:
    """It is TOML, whatever is in it, and stays on one line of a terminal."""
    assert tomllib.loads(f"key = {toml_value(value)}")["key"] == value
    assert toml_value(value).isprintable()


def test_what_a_terminal_does_not_print_is_escaped() -> None:
    """With TOML's escapes: DEL, which TOML forbids, a C1 control and a mark that turns the line around."""
    assert toml_value("a\x7f\x9b\u202e\n") == '"a\\U0000007f\\U0000009b\\U0000202e\\n"'
