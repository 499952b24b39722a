"""The command lines that `tunneld mosh` makes of an order."""

from __future__ import annotations

import shutil

import pytest

from tunneld.mosh.command_line import (
    Order,
    agent_request,
    client_command,
    client_environment,
    ssh_command,
    without_touch,
)
from tunneld.mosh.jump_host import configuration

ORDER = Order("pi@home", ssh=("-p", "2222", "-o", "Compression=yes"))


def test_ssh_gets_the_destination_behind_all_options() -> None:
    """What a person typed as DEST can become neither an option nor the command."""
    assert ssh_command(ORDER, "exec agent")[-7:] == [
        "-p",
        "2222",
        "-o",
        "Compression=yes",
        "--",
        "pi@home",
        "exec agent",
    ]


def test_ssh_is_told_nothing_that_a_person_may_not_overrule() -> None:
    """ssh takes an option's first value: what the stream needs stands before what a person says."""
    words = ssh_command(Order("x", ssh=("-o", "RemoteCommand=top")), "agent")
    assert words.index("RemoteCommand=none") < words.index("RemoteCommand=top")
    words = ssh_command(Order("x", ssh=("-o", "LogLevel=QUIET")), "agent", ("-o", "User=me"), unattended=True)
    assert words.index("LogLevel=ERROR") < words.index("User=me") < words.index("LogLevel=QUIET")


def test_the_first_connection_may_ask_and_use_a_master() -> None:
    """It is the person's own login; only later ones must not ask, and need a TCP connection of their own."""
    first, later = ssh_command(ORDER, "agent"), ssh_command(ORDER, "agent", unattended=True)
    assert not {"BatchMode=yes", "ControlPath=none"} & set(first)
    assert {"BatchMode=yes", "ControlPath=none"} <= set(later)


@pytest.mark.skipif(not shutil.which("ssh"), reason="OpenSSH is not installed")
@pytest.mark.parametrize("options", [[], ["-o", "PubkeyAcceptedKeyTypes=+ssh-rsa"]])
def test_no_later_connection_waits_for_a_touch(options: list[str]) -> None:
    """All other key types stay as ssh_config says."""
    before = configuration([*options, "-F", "none", "home"])
    after = configuration([*without_touch(before), *options, "-F", "none", "home"])
    name = next(name for name in ("pubkeyacceptedalgorithms", "pubkeyacceptedkeytypes") if name in before)
    assert "sk-" in before[name]
    assert after[name] == ",".join(kind for kind in before[name].split(",") if "sk-" not in kind)


def test_where_only_security_keys_are_allowed_no_key_is_offered() -> None:
    """ssh takes an empty list for an error."""
    assert without_touch({"pubkeyacceptedalgorithms": "sk-ssh-ed25519@openssh.com"}) == (
        "-o",
        "PubkeyAuthentication=no",
    )
    assert without_touch({}) == without_touch({"pubkeyacceptedalgorithms": "ssh-ed25519"}) == ()


def test_nothing_else_is_forwarded() -> None:
    """A connection that may be replaced at any time carries only the stream."""
    assert {"-a", "-x", "ClearAllForwardings=yes"} <= set(ssh_command(ORDER, "agent"))


def test_mosh_server_hears_of_the_locale_and_of_nothing_else() -> None:
    """The variables are those of the `mosh` script."""
    environment = {"LANG": "de_DE.UTF-8", "LC_TIME": "C", "SECRET": "x", "TERM": "xterm"}
    assert agent_request(ORDER, colors=256, environment=environment) == {
        "command": None,
        "colors": 256,
        "locale": {"LANG": "de_DE.UTF-8", "LC_TIME": "C"},
        "ports": None,
        "server": "mosh-server",
        "udp": True,
    }


def test_the_key_is_in_the_environment_alone() -> None:
    """Every user of the machine can read command lines."""
    environment = client_environment(ORDER, "4NeCCgvZFe2RnPgrcU1PQw", {"LANG": "C.UTF-8"})
    assert environment == {"LANG": "C.UTF-8", "MOSH_KEY": "4NeCCgvZFe2RnPgrcU1PQw"}
    assert client_command(ORDER, "::1", 60001) == ["mosh-client", "-#", "tunneld mosh pi@home |", "::1", "60001"]


def test_what_a_person_says_of_predictions_wins_over_the_environment() -> None:
    """It is so with the `mosh` script as well; what no option says is left as it is."""
    order = Order("x", prediction="never", overwrites=True, initialises=False)
    made = client_environment(order, "k", {"MOSH_PREDICTION_DISPLAY": "always", "MOSH_TITLE_NOPREFIX": "1"})
    assert made == {
        "MOSH_KEY": "k",
        "MOSH_PREDICTION_DISPLAY": "never",
        "MOSH_PREDICTION_OVERWRITE": "yes",
        "MOSH_NO_TERM_INIT": "1",
        "MOSH_TITLE_NOPREFIX": "1",
    }
    assert client_environment(Order("x"), "k", {"MOSH_PREDICTION_DISPLAY": "always"})["MOSH_PREDICTION_DISPLAY"]


def test_the_host_is_named_without_user_and_scheme() -> None:
    """Messages name it so: `pi-home has no python3`."""
    assert [Order(dest).host for dest in ("pi-home", "pi@home", "ssh://pi@home:2222")] == [
        "pi-home",
        "home",
        "home:2222",
    ]
