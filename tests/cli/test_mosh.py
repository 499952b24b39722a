"""`tunneld mosh`'s command line, and what `--paths` says."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tunneld.cli import _parser, main
from tunneld.cli.mosh import NO_AGENT, order_of
from tunneld.cli.mosh_paths import describe_session
from tunneld.errors import UsageError
from tunneld.mosh import paths_socket
from tunneld.mosh.command_line import Order


def order(*words: str, prediction: str | None = None) -> Order:
    """What these words on the command line ask for, the way main() reads them."""
    end = words.index("--") if "--" in words else len(words)
    args = _parser("mosh").parse_args(["mosh", *words[:end]])
    args.command_line = list(words[end + 1 :])
    return order_of(args, prediction)


def test_a_destination_is_enough() -> None:
    """Whatever is typed after `ssh` may be typed after `tunneld mosh`."""
    assert order("pi-home") == Order("pi-home")


def test_options_for_ssh_are_handed_on() -> None:
    """Wherever they stand; -P has the meaning of ssh's -p, which is mosh's own option here."""
    made = order("-4", "pi-home", "-P", "2222", "-l", "pi", "-i", "a", "-i", "b", "-J", "relay", "--ssh-option", "X=y")
    assert made.ssh == ("-4", "-p", "2222", "-l", "pi", "-J", "relay", "-i", "a", "-i", "b", "-o", "X=y")


@pytest.mark.parametrize(
    "words", [("home", "--", "top", "-d", "5"), ("--", "home", "top", "-d", "5"), ("home", "top", "--", "-d", "5")]
)
def test_what_follows_the_dashes_is_the_command(words: tuple[str, ...]) -> None:
    """As in mosh, the dashes may stand before DEST as well."""
    assert order(*words) == Order("home", ("top", "-d", "5"))


def test_mosh_s_options_mean_what_they_mean_there() -> None:
    """People's fingers know them."""
    made = order("-a", "-p", "60001:60010", "--server", "LANG=C.UTF-8 mosh-server", "--no-init", "home")
    assert (made.prediction, made.ports, made.server, made.initialises) == (
        "always",
        "60001:60010",
        "LANG=C.UTF-8 mosh-server",
        False,
    )
    assert order("-n", "home").prediction == "never"
    assert order("--predict=adaptive", "home", prediction="nonsense").prediction == "adaptive"


def test_stun_servers_have_a_usual_port() -> None:
    """It is 3478, unless another one is written."""
    made = order("--stun", "stun.example.net", "--stun", "192.0.2.1:3479", "--stun", "[2001:db8::1]:19302", "home")
    assert made.stun == (("stun.example.net", 3478), ("192.0.2.1", 3479), ("2001:db8::1", 19302))
    assert order("--stun", "[2001:db8::1]", "home").stun == (("2001:db8::1", 3478),)


def test_the_relay_has_a_port_or_a_range_of_them() -> None:
    """It may use any port, unless some are written; a range may have a dash as well."""
    assert order("home").relay_ports == (0, 0)
    assert order("--relay-ports", "1-65535", "home").relay_ports == (1, 65535)
    assert order("--relay-ports", "60011", "home").relay_ports == (60011, 60011)
    assert order("--relay-ports", "60011:60020", "home").relay_ports == (60011, 60020)


PORT_RULE = (
    "write a port or a range such as 60001:60010, the lower port first, none above 65535 (ssh's port is -P here)"
)
RELAY_PORT_RULE = "write a port or a range such as 60011:60020, the lower port first, none above 65535"
STUN_RULE = "write HOST, HOST:PORT or [IPV6]:PORT, with a port from 1 to 65535"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "where to? `tunneld mosh DEST`, with whatever you would give to ssh as DEST"),
        (("",), "'' is no destination"),
        (("--", "-oProxyCommand=x"), "'-oProxyCommand=x' is no destination"),
        (("home", "-A"), NO_AGENT),
        (("home", "-X"), NO_AGENT),
        (("home", "--ssh-option", "ForwardAgent=yes"), NO_AGENT),
        (("home", "--ssh-option", "forwardx11 yes"), NO_AGENT),
        (("home", "-p", "ssh"), f"-p ssh: {PORT_RULE}"),
        (("home", "--stun", "a:0"), f"--stun a:0: {STUN_RULE}"),
        (("home", "--relay-ports", "x"), f"--relay-ports x: {RELAY_PORT_RULE}"),
        (("home", "--json"), "--json goes with --paths"),
    ],
)
def test_a_line_that_makes_no_sense_says_why(words: tuple[str, ...], text: str) -> None:
    """The message says what to write as well."""
    with pytest.raises(UsageError) as caught:
        order(*words)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("-p", ["", ":", "5:3", "0:5", "5:0", "70000", "65536", "1:65536", "1:2:3", "5-9", "²"]),
        ("--relay-ports", ["", "0", "0:0", "9:8", "65536", "9:65536", "1:2:3", "²"]),
        (
            "--stun",
            ["", ":1", "a:b:c", "a:", "a:0", "a:65536", "a:99999", "2001:db8::1", "[2001:db8::1]1", "[::1", "::1]"],
        ),
    ],
)
def test_ports_and_servers_have_one_grammar(option: str, values: list[str]) -> None:
    """Ports go from 1 to 65535, and an IPv6 address stands in brackets where a port may follow it."""
    for value in values:
        with pytest.raises(UsageError, match=rf"^{option} {re.escape(value)}: write "):
            order("home", *((option, value) if option == "-p" else (f"{option}={value}",)))


@pytest.mark.parametrize("ports", ["0", "1", "65535", "1:65535", "60001:60001"])
def test_mosh_s_own_ports_are_handed_on_as_they_were_typed(ports: str) -> None:
    """mosh-server reads them; 0 stands for any port."""
    assert order("home", "-p", ports).ports == ports


def test_a_wrong_prediction_in_the_environment_is_said() -> None:
    """mosh-client would end, and not say where the wrong word came from."""
    with pytest.raises(UsageError, match="MOSH_PREDICTION_DISPLAY=sometimes: there are adaptive, always"):
        order("home", prediction="sometimes")


def test_no_agent_is_forwarded_is_no_contradiction() -> None:
    """An option that switches forwarding off may be given."""
    assert order("home", "--ssh-option", "ForwardAgent=no").ssh == ("-o", "ForwardAgent=no")


def test_that_no_session_runs_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is that of something that is not available."""
    monkeypatch.setattr(paths_socket, "running_sessions", lambda: iter(()))
    assert main(["mosh", "--paths"]) == 69
    assert capsys.readouterr().err == "tunneld: no `tunneld mosh` of yours is running\n"


PATH: dict[str, Any] = {"kind": "lan", "remote": "192.168.1.7:40123", "rtt": 0.0042, "loss": 0.05, "heard_ago": 0.4}
SESSION: dict[str, Any] = {
    "pid": 4711,
    "destination": "pi-home",
    "since": 200.0,
    "ssh": {"failures": 2, "next_in": 12.3, "said": "ssh: connect to host pi port 22: Connection refused"},
    "pair": {
        "in_use": {"carrier": "path", "since": 190.0, "why": "it answers", **PATH},
        "streams": [
            {"name": "first", "greeted": True, "rtt": 0.08, "waited": 0.0},
            {"name": "stream-1", "greeted": True, "rtt": 0.081, "waited": 4.0},
            {"name": "stream-2", "greeted": False, "rtt": None, "waited": 0.0},
        ],
        "paths": [
            {**PATH, "in_use": True, "state": "open", "held_for": None, "fault": ""},
            {"kind": "visible", "remote": "203.0.113.9:40123", "rtt": None, "heard_ago": None, "state": "tried"},
            {
                **PATH,
                "kind": "relay",
                "remote": "[2001:db8::1]:5",
                "state": "held back",
                "held_for": 29.0,
                "fault": "x",
            },
        ],
        "redundancy": {"copies": 2, "budget_kbit": 64.0, "spent_kbit": 3.2},
        "history": [{"ago": 190.0, "what": "lan 192.168.1.7:40123: it answers"}],
    },
}


def test_the_paths_are_told_in_columns() -> None:
    """The output shows what is in use and why, what else there is, and what the copies cost."""
    assert "\n".join(describe_session(SESSION)) == TEXT


def test_the_jump_host_says_whether_two_nats_may_meet_there() -> None:
    """Where they may not, it says why."""
    jump = {"host": "relay.example.net", "says": "its agent is at 192.0.2.1:40111"}
    lines = list(describe_session({"pair": {"in_use": {"carrier": "none"}}, "jump": jump}))
    assert lines[2] == "  jump      relay.example.net: its agent is at 192.0.2.1:40111"


def test_a_path_with_little_room_is_told() -> None:
    """A person who wonders why few copies are sent sees the reason."""
    redundancy = {"copies": 3, "budget_kbit": 64.0, "room_kbit": 12.5, "spent_kbit": 9.1}
    told = "each small datagram is sent 3 times; that takes 9.1 of 64 kbit/s; the path in use has room for 12.5 only"
    assert told in "\n".join(describe_session({"pair": {"in_use": {"carrier": "none"}, "redundancy": redundancy}}))


def test_a_stun_server_that_nobody_knows_is_told() -> None:
    """The name may be wrong, or the name service may not answer."""
    stun = {"unknown": ["stun.example.net"]}
    lines = list(describe_session({"pair": {"in_use": {"carrier": "none"}}, "stun": stun}))
    assert lines[2] == "  stun      stun.example.net: no address that can be asked is known"


def test_a_session_that_nothing_carries_says_so() -> None:
    """The line stands there in any case; only what an older version does not say is left out."""
    assert list(describe_session({"pid": 1, "destination": "x", "pair": {"in_use": {"carrier": "none"}}})) == [
        "x: process 1, for 0 s",
        "  in use    nothing: neither an SSH connection nor a path answers",
    ]
    stream = {"in_use": {"carrier": "stream", "rtt": 0.08, "why": "no path has answered yet"}}
    assert list(describe_session({"pair": stream}))[1] == "  in use    SSH, 80 ms: no path has answered yet"


TEXT = """\
pi-home: process 4711, for 3 min 20 s
  in use    UDP to 192.168.1.7:40123 (lan), 4 ms, 5.0 % lost, for 3 min 10 s: it answers
  paths     *  192.168.1.7:40123  lan      4 ms, 5.0 % lost  heard 0 s ago  open
               203.0.113.9:40123  visible                                   no answer yet
               [2001:db8::1]:5    relay    4 ms, 5.0 % lost  heard 0 s ago  held back for 29 s more: x
  streams   first     80 ms
            stream-1  81 ms          NO ANSWER for 4 s
            stream-2  is connecting
  ssh       2 attempts failed; next in 12 s; ssh says: ssh: connect to host pi port 22: Connection refused
  copies    each small datagram is sent 2 times; that takes 3.2 of 64 kbit/s
  lately    3 min 10 s ago  lan 192.168.1.7:40123: it answers"""
