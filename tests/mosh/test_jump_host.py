"""The options that put a shared connection of ours in the place of ssh's own hop; a real ssh reads them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tunneld.mosh import jump_host
from tunneld.mosh.jump_host import JumpHost

pytestmark = pytest.mark.skipif(not shutil.which("ssh"), reason="ssh is not installed")

CONFIG = """
Host inner
    ProxyJump me@gate:2200
Host deep
    ProxyJump gate,second
Host by-hand
    ProxyCommand nc %h %p
Host gate
    HostName 192.0.2.1
Host second
    HostName 10.0.0.2
Host lent
    HostName 192.0.2.3
    ControlMaster auto
    ControlPath {folder}/%n
Host unlent
    ControlPath {folder}/%n
Host careful
    ControlMaster ask
    ControlPath {folder}/%n
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "a 100% odd name"
    file.write_text(CONFIG.format(folder=tmp_path))
    return str(file)


def found(config: str, destination: str, *options: str) -> JumpHost | None:
    words = ["-F", config, *options]
    return jump_host.find_jump_host(
        words, jump_host.configuration([*words, "--", destination]), jump_host.configuration
    )


def effective(words: list[str], destination: str) -> dict[str, str]:
    """What a real ssh understands."""
    said = subprocess.run(
        ["ssh", "-G", *words, destination], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
    )
    return dict(line.split(" ", 1) for line in reversed(said.stdout.splitlines()) if " " in line)


def command_run(words: list[str], host: str, port: str) -> list[str]:
    """The words of the ProxyCommand as the shell would see them when ssh goes to this host and port."""
    command = effective(words, "dest")["proxycommand"]
    return shlex.split(re.sub("%([%hp])", lambda found: {"%": "%", "h": host, "p": port}[found[1]], command))


@pytest.mark.parametrize(
    ("destination", "options", "target", "host", "others"),
    [
        ("dest", ["-J", "me@gate:2200"], ("-l", "me", "-p", "2200", "--", "gate"), "192.0.2.1", ()),
        ("dest", ["-J", "ssh://me@gate:2200"], ("-l", "me", "-p", "2200", "--", "gate"), "192.0.2.1", ()),
        ("dest", ["-J", "ssh://gate,second"], ("--", "gate"), "192.0.2.1", (("--", "second"),)),
        ("dest", ["-J", "[2001:db8::1]:22"], ("-p", "22", "--", "2001:db8::1"), "2001:db8::1", ()),
        ("dest", ["-J", "gate,second"], ("--", "gate"), "192.0.2.1", (("--", "second"),)),
        ("dest", ["-o", "ProxyJump=gate"], ("--", "gate"), "192.0.2.1", ()),
        ("dest", ["-o", "proxyjump gate"], ("--", "gate"), "192.0.2.1", ()),
        ("inner", [], ("-l", "me", "-p", "2200", "--", "gate"), "192.0.2.1", ()),
        ("deep", [], ("--", "gate"), "192.0.2.1", (("--", "second"),)),
    ],
)
def test_the_first_jump_host_is_found(
    config: str, destination: str, options: list[str], target: tuple[str, ...], host: str, others: tuple[Any, ...]
) -> None:
    """It may stand in an option or in ssh_config, and is read as ssh reads it."""
    jump = found(config, destination, *options)
    assert jump
    assert jump == JumpHost(target, others, jump.settings, ("-F", config), theirs=False, asks=False)
    assert jump.host == host


@pytest.mark.parametrize(
    ("destination", "options"),
    [
        ("gate", []),
        ("by-hand", []),
        ("inner", ["-J", "none"]),
        ("dest", ["-J", "%r@gate"]),
        ("inner", ["-o", "ProxyJump=none"]),
        ("inner", ["-o", "ProxyCommand=nc %h %p"]),
    ],
)
def test_where_ssh_makes_no_jump_there_is_none(config: str, destination: str, options: list[str]) -> None:
    """A ProxyCommand of the person's own is left alone."""
    assert found(config, destination, *options) is None


@pytest.mark.parametrize("jumps", ["gate:0", "gate:65536", "gate:99999", "gate:", "[::1", "@gate", "gate,second:0", ""])
def test_a_jump_host_that_cannot_be_read_is_left_to_ssh(jumps: str) -> None:
    """ssh makes the hop itself, or says itself what is wrong with it."""
    assert jump_host.find_jump_host([], {"proxyjump": jumps}, lambda words: {"hostname": "192.0.2.1"}) is None


@pytest.mark.parametrize(
    ("jump", "target"),
    [
        ("ssh://me@gate:2200/", ("-l", "me", "-p", "2200", "--", "gate")),
        ("me@corp@gate:65535", ("-l", "me@corp", "-p", "65535", "--", "gate")),
        ("[192.0.2.1]:1", ("-p", "1", "--", "192.0.2.1")),
        ("ssh://[2001:db8::1]", ("--", "2001:db8::1")),
    ],
)
def test_a_jump_host_is_written_as_for_ssh(jump: str, target: tuple[str, ...]) -> None:
    """ssh_config may hold it as a URI or in ssh's own form."""
    found = jump_host.find_jump_host([], {"proxyjump": f" {jump} "}, lambda words: {"hostname": "192.0.2.1"})
    assert found
    assert found.target == target


def test_the_first_hop_may_have_options_of_its_own(config: str) -> None:
    """Whatever is in them, they pass ssh and two shells unchanged."""
    jump = found(config, "dest", "-J", "gate,second")
    assert jump
    program = shlex.join(["python3", "-c", "print('100% $odd')"]).replace("%", "%%")
    first = ["-o", f"ProxyCommand={program}", "-o", "ProxyUseFdpass=yes"]
    words = command_run(jump_host.through(jump, ["-F", config], "/s", first=first), "192.0.2.9", "22")
    inner = next(word for word in words if word.startswith("ProxyCommand=")).removeprefix("ProxyCommand=")
    made = shlex.split(re.sub("%([%hp])", lambda found: {"%": "%", "h": "second", "p": "22"}[found[1]], inner))
    assert first[1] in made and first[3] in made


@pytest.mark.parametrize("option", [("-J", "me@gate:2200"), ("-o", "ProxyJump=me@gate:2200")])
def test_a_jump_is_the_same_jump_and_shared(config: str, option: tuple[str, str]) -> None:
    """ssh gets its own command with our options added; the file's odd name survives both ssh and the shell."""
    jump = found(config, "dest", *option)
    assert jump
    words = jump_host.through(jump, ["-F", config, *option, "-v"], "/tmp/x/first")
    assert command_run(words, "dest", "22") == [
        *("ssh", "-F", config, "-o", "ControlMaster=yes", "-o", "ControlPersist=no"),
        *("-o", "ControlPath=/tmp/x/first", "-W", "[dest]:22", "-l", "me", "-p", "2200", "--", "gate"),
    ]
    assert "-J" not in words
    assert words[-1] == "-v"


def test_each_further_hop_goes_through_the_one_before(config: str) -> None:
    """Only the first one is shared; each ssh fills in the `%h` of its own next machine, and no other."""
    jump = found(config, "deep")
    assert jump
    outer = command_run(jump_host.through(jump, ["-F", config], "/tmp/x/first"), "dest", "22")
    assert outer[-4:] == ["-W", "[dest]:22", "--", "second"]
    inner = command_run(outer[1:-4], "10.0.0.2", "22")
    assert inner[-4:] == ["-W", "[10.0.0.2]:22", "--", "gate"]
    assert "ControlPath=/tmp/x/first" in inner


def test_while_a_session_runs_no_jump_host_asks_anything(config: str) -> None:
    """With ssh's own -J, it would."""
    jump = found(config, "dest", "-J", "gate,second")
    assert jump
    outer = command_run(jump_host.through(jump, ["-F", config], "/tmp/x/first", unattended=True), "dest", "22")
    inner = command_run(outer[1:-4], "10.0.0.2", "22")
    for words in (outer, inner):
        assert "BatchMode=yes" in words


def test_while_a_session_runs_no_jump_host_wants_a_touch(config: str) -> None:
    """A security key would blink at night; the first connection may use it, and other keys stay what they are."""
    jump = found(config, "dest", "-J", "gate,second")
    assert jump
    for unattended in (True, False):
        outer = command_run(
            jump_host.through(jump, ["-F", config], "/tmp/x/first", unattended=unattended), "dest", "22"
        )
        inner = command_run(outer[1:-4], "10.0.0.2", "22")
        for words in (outer, inner):
            kinds = effective(words[1:-4], words[-1])["pubkeyacceptedalgorithms"]
            assert ("sk-" in kinds) is not unattended
            assert "ssh-ed25519" in kinds


@pytest.mark.parametrize(
    ("jump", "theirs", "asks"), [("lent", True, False), ("unlent", False, False), ("careful", True, True)]
)
def test_a_connection_that_people_share_anyway_is_used(config: str, jump: str, theirs: bool, asks: bool) -> None:
    """Then ssh's options are the person's own, and our command names no socket."""
    options = ["-F", config, "-J", jump]
    shared = found(config, "dest", "-J", jump)
    assert shared
    assert (shared.theirs, shared.asks) == (theirs, asks)
    assert (jump_host.through(shared, options, "/tmp/x/first") == options) is theirs
    assert any("ControlPath" in word for word in jump_host.command_there(shared, "/tmp/x/first", "true")) is not theirs


@pytest.mark.parametrize(
    ("master", "path", "theirs", "asks"),
    [
        ("ask", "none", False, False),
        ("auto", "none", False, False),
        ("false", "/nonexistent/%C", True, False),
        ("false", "/nonexistent/x", False, False),
        ("autoask", "/nonexistent/x", True, True),
    ],
)
def test_only_a_path_shares_a_connection(master: str, path: str, theirs: bool, asks: bool) -> None:
    """Older versions of ssh print it with its `%` as written: then there may be a master behind it."""
    said = {"hostname": "192.0.2.1", "controlmaster": master, "controlpath": path}
    shared = jump_host.find_jump_host(["-J", "gate"], {"proxyjump": "gate"}, lambda words: said)
    assert shared
    assert (shared.theirs, shared.asks) == (theirs, asks)


def test_no_jump_stays_in_the_options() -> None:
    """ssh refuses every `-J` beside a ProxyCommand, and people may give more than one."""
    said = {"hostname": "192.0.2.1"}
    gate = jump_host.find_jump_host([], {"proxyjump": "gate"}, lambda words: said)
    assert gate
    assert jump_host.through(gate, ["-v", "-J", "gate", "-4", "-J", "other"], "/s")[2:] == ["-v", "-4"]


def test_a_master_that_runs_is_used_whoever_started_it(config: str, tmp_path: Path) -> None:
    """With ControlPath alone, ssh uses a master that somebody else has started."""
    (tmp_path / "unlent").touch()
    jump = found(config, "dest", "-J", "unlent")
    assert jump
    assert jump.theirs


def test_a_command_there_makes_no_connection_of_its_own(config: str) -> None:
    """Nobody logs in twice: where the shared connection has gone, ssh fails at once and asks nothing."""
    jump = found(config, "dest", "-J", "gate")
    assert jump
    done = subprocess.run(
        jump_host.command_there(jump, "/nonexistent/socket", "true"),
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=10,
    )
    assert done.returncode == 255


def test_an_ssh_that_cannot_be_asked_has_no_jump(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is wrong, ssh itself will say so."""
    monkeypatch.setenv("PATH", "/nonexistent")
    assert jump_host.configuration(["dest"]) == {}
    assert jump_host.find_jump_host([], {}, jump_host.configuration) is None
