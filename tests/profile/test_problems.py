"""What is said about a profile that is wrong: where it is wrong, what is, and what to write."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.profile.said import FORWARD, RELAY, assert_said, problems
from tunneld.errors import ProfileError
from tunneld.profile import load

Write = Callable[..., Path]


def test_everything_that_is_wrong_is_said_at_once(write: Write) -> None:
    """Each problem on its line, sorted, with the line of the value or of the table that lacks it."""
    file = write(
        """\
        hots = 1
        keepalive = { interval = "5", count = 0 }

        [relay]
        hst = "x"
        port = "22"
        user = 3
        jump = [
          "me@bastion",
          3,
        ]

        [[forward]]
        listen = ":2222"
        to = "22"

        [[forward]]
        listen = "127.0.0.1:2022"
        to = "nonsense"
        direction = "remot"
        requird = 1

        [[forward]]
        listen = "127.0.0.1:2022"

        [[forward]]
        listen = "0.0.0.0:2022"
        to = 22

        [mosh]
        ports = "60010-60001"

        [backoff]
        initial = 100
        stable_after = 1979-05-27
        """
    )
    assert problems(file) == [
        "1: hots: unknown key: remove it; known here are mode, relay, forward, mosh, keepalive, backoff, canary",
        "2: keepalive.count: 0 is too small: write at least 1",
        '2: keepalive.interval: "5" is text, and a number is needed: write for example interval = 10',
        '4: relay.host: is missing: write for example host = "relay.example.net"',
        "5: relay.hst: unknown key: did you mean host?",
        '6: relay.port: "22" is text, and a whole number is needed: write port = 22',
        '7: relay.user: 3 is a number, and text is needed: write for example user = "tunnel"',
        '10: relay.jump[2]: 3 is a number, and text is needed: write for example jump = "me@bastion"',
        "14: forward[1].listen: ':2222' names no host and would be public on the relay: "
        'write "127.0.0.1:2222", or "0.0.0.0:2222" if public is meant',
        "15: forward[1].to: '22' names no host: write \"127.0.0.1:22\"",
        "20: forward[2].direction: \"remot\" is not a choice: write 'remote', 'local' or 'dynamic'",
        "21: forward[2].requird: unknown key: did you mean required?",
        '23: forward[3].to: is missing: write for example to = "127.0.0.1:22"',
        "27: forward[4].listen: 0.0.0.0:2022 overlaps with forward[3].listen, 127.0.0.1:2022, on the relay: "
        "choose another port, or 0 to have one chosen",
        '28: forward[4].to: 22 is a number, and text is needed: write for example to = "127.0.0.1:22"',
        "30: mosh.bind: is missing, and not guessed since it makes ports public: "
        'write bind = "0.0.0.0" for the whole world',
        "31: mosh.ports: '60010-60001' ends before it starts: write \"60001-60010\"",
        "34: backoff.initial: 100 s is longer than the longest wait, 60 s: swap or change them",
        '35: backoff.stable_after: "1979-05-27" is a date or a time, and a number is needed: '
        "write for example stable_after = 30",
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("port = 0", "relay.port: 0 is too small: write at least 1"),
        ("port = 65536", "relay.port: 65536 is too large: write at most 65535"),
        ("port = 22.5", "relay.port: 22.5 is a number, and a whole number is needed: write for example port = 22"),
        ("port = true", "relay.port: true is true or false, and a whole number is needed"),
        ('user = ""', "relay.user: '' is not a user name"),
        ('identity = "missing"', "relay.identity: there is no file"),
        ('identity = ["missing"]', r"relay.identity\[1\]: there is no file"),
        ('identity = "."', "relay.identity: .* is a folder"),
        ('identity = ""', "relay.identity: '' leads nowhere"),
        ('identity = "~nobody-has-this-name/x"', "relay.identity: .* leads nowhere"),
        ("identity = 1", "relay.identity: 1 is a number, and text or a list of texts is needed"),
        ('known_hosts = "missing"', "relay.known_hosts: there is no file"),
        ('ssh_config = "missing"', "relay.ssh_config: there is no file"),
        ("ssh_config = 1", "relay.ssh_config: 1 is a number, and text is needed"),
        ('user = "a b"', "relay.user: 'a b' is not a user name"),
        ('user = "-oProxyCommand=x"', "relay.user: '-oProxyCommand=x' is not a user name"),
        ('jump = "a b"', "relay.jump: 'a b' names no host: write \"USER@HOST:PORT\""),
        ('jump = "-oProxyCommand=x"', "relay.jump: '-oProxyCommand=x' names no host"),
        ('jump = "a, "', "relay.jump: '' names no host"),
        ('jump = "a:b"', "relay.jump: 'b' is not a port"),
        ('jump = ["a:0"]', r"relay.jump\[1\]: '0' is not a port: write a number from 1 to 65535"),
        ('jump = ["a,b"]', r"relay.jump\[1\]: 'a,b' is several jump hosts: write each as a text of its own"),
        ('listen = "x"', r"relay.listen: unknown key here: it belongs in \[\[forward\]\]"),
        ("interval = 3", r"relay.interval: unknown key here: it belongs in \[keepalive\] or \[canary\]"),
    ],
)
def test_a_wrong_line_about_the_relay(write: Write, line: str, said: str) -> None:
    """One wrong line gives one problem, at that line."""
    (problem,) = problems(write(f"{RELAY}{line}\n{FORWARD}"))
    assert_said(problem, 3, said)


def test_a_wrong_line_about_one_of_several_relays(write: Write) -> None:
    """The message counts the relays from 1."""
    relays = RELAY.replace("[relay]", "[[relay]]") + '[[relay]]\nhost = "me@s"\nprt = 1\n[[relay]]\n'
    assert [problem.split(": ")[:2] for problem in problems(write(relays + FORWARD))] == [
        ["4", "relay[2].host"],
        ["5", "relay[2].prt"],
        ["6", "relay[3].host"],
    ]


@pytest.mark.parametrize(
    ("relays", "said"),
    [
        ("[[relay]]\n" * 2, ["2: relay[1].host", "3: relay[2].host"]),
        ("[[relay]]\nhost = 1\n" * 2, ["3: relay[1].host", "5: relay[2].host"]),
        ("relay = [1, 1]\n", ["2: relay[1]", "2: relay[2]"]),
    ],
)
def test_relays_without_a_host_are_not_called_the_same(write: Write, relays: str, said: list[str]) -> None:
    """Each is wrong by itself, and that is all that is said."""
    file = write('mode = "all"\n' + relays + FORWARD)
    assert [": ".join(problem.split(": ")[:2]) for problem in problems(file)] == said


TWO = '[[relay]]\nhost = "r"\n[[relay]]\nhost = "R."\nport = 22\n'
TWICE = '[[relay]]\nhost = "r"\n' * 2
OTHER_USER = '[[relay]]\nhost = "r"\n[[relay]]\nhost = "r"\nuser = "u"\n'
LOCAL = '[[forward]]\nlisten = "127.0.0.1:80"\nto = "web:80"\ndirection = "local"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TWICE, r"4: relay\[2\].host: is the same as in relay\[1\], and the first is tried again anyway"),
        (TWICE + "ssh_config = true\n", r"4: relay\[2\].host: is the same as in relay\[1\], and the first"),
        ('mode = "all"\n' + TWO, r"5: relay\[2\].host: is the same as in relay\[1\], and both would need"),
        ('mode = "all"\n' + OTHER_USER, r"5: relay\[2\].host: is the same as in relay\[1\], and both would need"),
        (
            'mode = "all"\n' + TWO.replace("R.", "s") + LOCAL,
            r'8: forward\[1\].listen: 127.0.0.1:80 on this host leads to one relay, and mode = "all" has 2:',
        ),
    ],
)
def test_relays_that_conflict(write: Write, text: str, said: str) -> None:
    """One relay is named once, and a listener on this host leads to one relay."""
    (problem,) = problems(write(text + FORWARD))
    assert re.match(said, problem)


@pytest.mark.parametrize(
    "text",
    [
        OTHER_USER,  # a second way to it, when the first is refused
        TWO.replace("R.", "s") + LOCAL,
        'mode = "all"\n' + TWO.replace("R.", "s") + LOCAL.replace("127.0.0.1:80", "127.0.0.1:0"),
        'mode = "all"\n' + RELAY + LOCAL,
        'mode = "all"\n' + RELAY.replace("[relay]", "[[relay]]") + LOCAL,
    ],
)
def test_relays_that_do_not_conflict(write: Write, text: str) -> None:
    """One is used after the other, or each has a listener of its own."""
    load(str(write(text + FORWARD)))


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("", "is not a host"),
        ("a b", "is not a host"),
        ("-oProxyCommand=x", "is not a host"),
        ("me@relay", 'holds a user: write host = "relay" and user = "me"'),
        ("relay:2200", 'holds a port: write host = "relay" and port = 2200'),
        ("[::1]:2200", 'holds a port: write host = "::1" and port = 2200'),
        ("[::1]", "is not a host"),
        (":22", "is not a host"),
        ("relay[", "is not a host"),
        ("relay]", "is not a host"),
        ("relay:99999", "'99999' is not a port: write a number from 1 to 65535"),
        ("relay:0", "'0' is not a port"),
    ],
)
def test_a_wrong_relay(write: Write, host: str, said: str) -> None:
    """Where a user or a port stands in the host, the message says which two keys to write."""
    (problem,) = problems(write(f'[relay]\nhost = "{host}"\n{FORWARD}'))
    assert_said(problem, 2, f"relay.host: .*{said}")


@pytest.mark.parametrize(
    "host", ["relay.example.net", "alias", "192.0.2.1", "2001:db8::1", "fe80::1%eth0", "odd:alias"]
)
def test_a_right_relay(write: Write, host: str) -> None:
    """A name, an alias from ssh_config, or an address without brackets."""
    assert load(str(write(f'[relay]\nhost = "{host}"\n{FORWARD}'))).relay.host == host


@pytest.mark.parametrize(
    ("listen", "direction", "said"),
    [
        ("2222", "remote", 'would be public on the relay: write "127.0.0.1:2222", or "0.0.0.0:2222"'),
        (":2222", "remote", "would be public on the relay"),
        (":2222", "local", "would be public on this host"),
        (":2222", "dynamic", "would be public on this host"),
        ("*:2222", "remote", "listens on IPv4 or on IPv6, whichever is free"),
        ("*:2222", "local", "listens on IPv4 or on IPv6, whichever is free"),
        ("*", "remote", "is not an address"),
        ("localhost", "remote", "is not an address"),
        ("localhost:2222", "remote", "listens on 127.0.0.1 or on ::1, whichever is free"),
        ("", "remote", "is not an address"),
        (":70000", "remote", "is not a port"),
        ("127.0.0.1:70000", "remote", "is not a port"),
        ("run/x.sock", "remote", "is a path on the relay, which must be absolute"),
        ("~/x.sock", "remote", "is a path on the relay, which must be absolute"),
        ("/run/x.sock", "dynamic", "a SOCKS listener is no Unix socket"),
    ],
)
def test_a_wrong_listen_address(write: Write, listen: str, direction: str, said: str) -> None:
    """A listener is public, or listens for one family of two, only where the user has written so."""
    to = "" if direction == "dynamic" else 'to = "127.0.0.1:22"\n'
    (problem,) = problems(write(f'{RELAY}[[forward]]\n{to}direction = "{direction}"\nlisten = "{listen}"\n'))
    assert_said(problem, 5 + bool(to), rf"forward\[1\].listen: .*{said}")


@pytest.mark.parametrize("listen", ["0.0.0.0:2222", "[::]:2222", "127.0.0.1:0", "relay.example.net:80", "/run/x.sock"])
def test_a_public_address_that_is_written_out_is_accepted(write: Write, listen: str) -> None:
    """It is the user's decision."""
    load(str(write(f'{RELAY}[[forward]]\nlisten = "{listen}"\nto = "127.0.0.1:22"\n')))


def test_localhost_may_listen_on_this_host(write: Write) -> None:
    """asyncio binds both families or none."""
    load(str(write(f'{RELAY}[[forward]]\nlisten = "localhost:80"\nto = "web:80"\ndirection = "local"\n')))


@pytest.mark.parametrize(
    ("to", "direction", "said"),
    [
        ("127.0.0.1:0", "remote", "nothing can connect to port 0"),
        ("0.0.0.0:22", "remote", "0.0.0.0 is for listening"),
        ("[::]:22", "local", ":: is for listening"),
        (":22", "remote", 'names no host: write "127.0.0.1:22"'),
        ("x/y.sock", "local", "is a path on the relay, which must be absolute"),
        ("127.0.0.1:22", "dynamic", "has no target of its own: remove the line"),
    ],
)
def test_a_wrong_target(write: Write, to: str, direction: str, said: str) -> None:
    """A target is an address to which something can connect."""
    file = write(f'{RELAY}[[forward]]\nlisten = "127.0.0.1:1"\ndirection = "{direction}"\nto = "{to}"\n')
    (problem,) = problems(file)
    assert_said(problem, 6, rf"forward\[1\].to: .*{said}")


@pytest.mark.parametrize(("direction", "to"), [("local", 'to = "a:1"'), ("dynamic", "")])
def test_only_a_remote_forward_has_a_canary(write: Write, direction: str, to: str) -> None:
    """Targets of the others are beyond the relay, where nobody could see what became of a connection."""
    file = write(f'{RELAY}[[forward]]\ncanary = false\nlisten = "127.0.0.1:1"\ndirection = "{direction}"\n{to}\n')
    (problem,) = problems(file)
    assert_said(problem, 4, r"forward\[1\].canary: only a remote forward has a canary: remove the line")


def test_listeners_on_the_relay_and_here_do_not_overlap(write: Write) -> None:
    """The same port on both sides is two ports, and port 0 is a new port each time."""
    local = FORWARD + 'direction = "local"\n'
    free = FORWARD.replace("2222", "0")
    load(str(write(RELAY + FORWARD + local + free + free)))
    dynamic = '[[forward]]\nlisten = "127.0.0.1:2222"\ndirection = "dynamic"\n'
    (problem,) = problems(write(RELAY + local + dynamic))
    assert_said(problem, 8, r"forward\[2\].listen: .* on this host")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('ports = "80-90"', "needs root on the relay"),
        ('ports = "1023-1030"', "needs root on the relay: start at 1024 or above"),
        ('ports = "60001-60101"', "is 101 ports, and 100 are allowed: write .60001-60010."),
        ('ports = "60001:60010"', "is not a range of ports"),
        ('ports = "65530-65540"', "is not a port"),
        ("ports = 60001", "60001 is a number, and text is needed"),
        ('bind = "*"', "is not an IP address"),
        ('bind = ""', "is not an IP address"),
        ('bind = "localhost"', "is not an IP address"),
        ('bind = "[::]"', "is not an IP address"),
        ('to = "0.0.0.0"', "is for listening"),
        ('to = "a:1"', "neither a host name nor an IP address"),
    ],
)
def test_a_wrong_line_about_mosh(write: Write, line: str, said: str) -> None:
    """Ports and addresses that cannot work."""
    bind = "" if line.startswith("bind") else '\nbind = "0.0.0.0"'
    (problem,) = problems(write(f"{RELAY}[mosh]\n{line}{bind}\n"))
    assert_said(problem, 4, f"mosh.{line.split()[0]}: .*{said}")


@pytest.mark.parametrize(
    ("table", "line", "said"),
    [
        ("keepalive", "interval = 0", "0 is too small: write at least 0.1"),
        ("keepalive", "interval = 3601", "3601 is too large: write at most 3600"),
        ("keepalive", "interval = inf", "is no length of time"),
        ("keepalive", "interval = nan", "is no length of time"),
        ("keepalive", "count = 0", "0 is too small: write at least 1"),
        ("keepalive", "count = 1.0", "a whole number is needed"),
        ("backoff", "initial = -1", "-1 is too small"),
        ("backoff", "maximum = 86401", "86401 is too large: write at most 86400"),
        ("backoff", "stable_after = -1", "-1 is too small: write at least 0"),
        ("backoff", "return_after = 0.5", "0.5 is too small: write at least 1"),
        ("keepalive", "count = 101", "101 is too large: write at most 100"),
        ("canary", "interval = -1", "-1 is too small: write at least 0"),
        ("canary", "interval = 59", "59 s is too short: write at least 60, or 0 for no canary"),
        ("backoff", "initial = 61", "61 s is longer than the longest wait, 60 s"),
    ],
)
def test_a_wrong_number(write: Write, table: str, line: str, said: str) -> None:
    """The message names the bound that the number exceeds."""
    (problem,) = problems(write(f"{RELAY}{FORWARD}[{table}]\n{line}\n"))
    assert_said(problem, 7, f"{table}.{line.split()[0]}: .*{said}")


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("keepalive", "interval = 0.1"),
        ("keepalive", "interval = 3600"),
        ("keepalive", "count = 1"),
        ("keepalive", "count = 100"),
        ("backoff", "initial = 60"),
        ("backoff", "maximum = 1"),
        ("backoff", "maximum = 86400"),
        ("backoff", "stable_after = 0"),
        ("backoff", "return_after = 1"),
        ("canary", "interval = 0"),
        ("canary", "interval = 60"),
    ],
)
def test_a_number_at_its_bound_is_right(write: Write, table: str, line: str) -> None:
    """The bounds themselves are allowed; so is an `initial` that is the `maximum`."""
    load(str(write(f"{RELAY}{FORWARD}[{table}]\n{line}\n")))


def test_a_default_can_be_the_one_that_is_wrong(write: Write) -> None:
    """A `maximum` below the default of `initial` is reported at the table's line."""
    (problem,) = problems(write(f"{RELAY}{FORWARD}[backoff]\nmaximum = 0.5\n"))
    assert_said(problem, 6, "backoff.initial: 1 s is longer than the longest wait, 0.5 s")


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", 1, "holds neither a forward nor mosh"),
        ("forward = []\n" + RELAY, 1, "holds neither a forward nor mosh"),
        (FORWARD, 1, r"relay: is missing: write \[relay\]"),
        ('relay = "x"\n' + FORWARD, 1, r'relay: "x" is text, and a table is needed: write \[relay\]'),
        (RELAY + FORWARD.replace("[[", "[").replace("]]", "]"), 3, r"forward: .*: write \[\[forward\]\]"),
        ("relay = []\n" + FORWARD, 1, r"relay: is missing: write \[relay\]"),
        ("relay = [1]\n" + FORWARD, 1, r"relay\[1\]: 1 is a number, and a table is needed: write \[\[relay\]\]"),
        ("mode = 'both'\n" + RELAY + FORWARD, 1, "mode: \"both\" is not a choice: write 'failover' or 'all'"),
        (
            RELAY + "mode = 'all'\n" + FORWARD,
            3,
            "relay.mode: unknown key here: move the line above the first",
        ),
        (
            RELAY + FORWARD + "[[keepalive]]\n",
            6,
            r"keepalive: is a list of tables, and a single one .*: write \[keepalive\]",
        ),
        (
            RELAY + 'user = ["u"]\n' + FORWARD,
            3,
            r'relay.user: \["u"\] is a list, and text is needed: write for example',
        ),
        (
            RELAY + FORWARD + "[keepalive]\nintervall = 3\n",
            7,
            "keepalive.intervall: unknown key: did you mean interval",
        ),
        (
            RELAY + FORWARD.replace('"127.0.0.1:2222"', "2222"),
            4,
            r"forward\[1\].listen: 2222 is a number, and text is needed",
        ),
        (RELAY + "[[forward]]\nto = 'a:1'\n", 3, r"forward\[1\].listen: is missing"),
        ("forward = [1]\n" + RELAY, 1, r"forward\[1\]: 1 is a number, and a table is needed: write \[\[forward\]\]"),
        (RELAY + "[relay.mosh]\n" + FORWARD, 3, r"relay.mosh: unknown key here: write \[mosh\]"),
        (RELAY + FORWARD + '"a b\\n" = 1\n', 6, r'forward\[1\]."a b\\n": unknown key'),
        (RELAY + FORWARD + "[extra.table]\nx = 1\n", 6, "extra: unknown key"),
    ],
)
def test_a_wrong_shape(write: Write, text: str, line: int, said: str) -> None:
    """Tables that are missing, single instead of a list, a list instead of single, or unknown."""
    assert_said(problems(write(text))[0], line, said)


def test_mosh_ports_at_their_bounds(write: Write) -> None:
    """From 1024 on, and 100 of them."""
    mosh = load(str(write(f'{RELAY}[mosh]\nports = "1024-1123"\nbind = "::"\n'))).mosh
    assert mosh is not None
    assert len(mosh.ports) == 100


def test_a_file_that_may_not_be_read_is_said(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root, who runs the tests in the lab, may read every file, so the kernel's answer is the test's."""
    (tmp_path / "hosts").touch()
    monkeypatch.setattr(os, "access", lambda *_: False)
    (problem,) = problems(write(f'{RELAY}known_hosts = "hosts"\n{FORWARD}'))
    assert_said(problem, 3, "relay.known_hosts: .*/hosts cannot be read by this user")


def test_an_identity_that_is_a_pipe_does_not_block(write: Write, tmp_path: Path) -> None:
    """The file is not opened, since a FIFO would wait for a writer."""
    os.mkfifo(tmp_path / "key", 0o600)
    load(str(write(f'{RELAY}identity = "key"\n{FORWARD}')))


VALUES = st.recursive(
    st.one_of(st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)
TABLES = {
    "relay": ["host", "port", "user", "identity", "known_hosts", "jump", "ssh_config"],
    "forward": ["listen", "to", "direction", "required", "canary"],
    "mosh": ["ports", "bind", "to"],
    "keepalive": ["interval", "count"],
    "backoff": ["initial", "maximum", "stable_after"],
    "mode": [],
    "canary": ["interval"],
    "other": [],
}
NAMES = st.sampled_from([*TABLES, *(key for keys in TABLES.values() for key in keys)])
TABLE = st.dictionaries(NAMES, VALUES)
DOCUMENTS = st.dictionaries(NAMES, st.one_of(VALUES, TABLE, st.lists(TABLE)))


def toml(value: object) -> str:
    """A value as inline TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(character):08x}" for character in value) + '"'
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(part)}" for key, part in value.items()) + "}"
    return repr(value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(DOCUMENTS)
def test_whatever_is_written_is_a_profile_or_a_list_of_problems(write: Write, data: dict[str, object]) -> None:
    """Whatever value stands anywhere, load() raises nothing but problems of one line each."""
    file = write("".join(f"{name} = {toml(value)}\n" for name, value in data.items()))
    try:
        load(str(file))
    except ProfileError as error:
        assert str(error).splitlines() == [str(problem) for problem in error.problems]
        assert all(problem.text.isprintable() and "pydantic" not in problem.text for problem in error.problems)
