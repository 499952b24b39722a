"""`tunneld enable` and `tunneld disable`: what they change, what they keep, and what they say when they fail."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import installed
from tests.lab.service import CHECKING_RELAY, SYSTEM_PROFILES, USER_PROFILES, Home, home, profile
from tests.until import wait_until

pytestmark = pytest.mark.lab

UNITS = "/etc/systemd/system"
OURS = "find /etc/systemd /etc/sysusers.d /etc/tmpfiles.d /run/tunneld /run/systemd/units -name '*tunneld*' 2>&- || :"


@pytest.fixture(scope="module")
def place(able_to_boot: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """One machine for all tests of this file."""
    with home(tmp_path_factory.mktemp("enable"), options=CHECKING_RELAY) as made:
        yield made


@pytest.fixture
def pi(place: Home) -> Iterator[Home]:
    """With a profile `pi-home` that nobody has enabled."""
    place.machine.shell(f"rm -f {SYSTEM_PROFILES}/*")
    place.write_profile(profile(2222))
    yield place
    for words in ("pi-home", "office", "--all"):
        place.try_typing(f"tunneld disable {words}")


def test_enable_says_where_things_are_and_what_to_type_next(pi: Home) -> None:
    """One command makes a service from a profile; every path that it names exists, and every command works."""
    said = pi.type("tunneld enable pi-home").splitlines()
    assert said[0] == f"profile  {SYSTEM_PROFILES}/pi-home.toml"
    written = [line.split()[1] for line in said if line.startswith("written")]
    assert f"{UNITS}/tunneld@.service" in written
    assert all(pi.machine.path(path).is_file() for path in written)
    assert any(line.startswith("service  tunneld@pi-home.service runs as process ") for line in said)
    assert "tunnel   pi-home: up 0 s to relay; ssh 0.0.0.0:2222 to 22" in said
    commands = [line.strip().split("  ")[0] for line in said[said.index("next") + 1 :]]
    assert "tunneld status pi-home" in commands
    for command in commands:
        pi.type(command if not command.endswith(" -f") else command.removesuffix(" -f"))
    assert pi.machine.shell(OURS) == ""  # the last command that it named was `tunneld disable`


def test_a_profile_without_a_user_is_remarked_on(pi: Home) -> None:
    """By hand root logged in on the relay as root; the service would log in as the user tunneld."""
    pi.write_profile(profile(2222).replace('user = "root"\n', ""))
    assert "it names no user for relay" in pi.type("tunneld enable pi-home")
    assert "denied tunneld" in pi.type("tunneld status pi-home", code=1)


def test_enable_twice_changes_nothing(pi: Home) -> None:
    """The process and the session stay, and no file is written."""
    pi.enable()
    before = pi.property("MainPID"), pi.machine.shell(f"find {UNITS} -name '*tunneld*' -newermt 1970-01-01 -ls")
    said = pi.enable()
    assert "written" not in said
    assert before == (
        pi.property("MainPID"),
        pi.machine.shell(f"find {UNITS} -name '*tunneld*' -newermt 1970-01-01 -ls"),
    )
    assert pi.wait_up().sessions == 1


def test_enable_after_an_edit_reloads(pi: Home) -> None:
    """Only the changed forward restarts."""
    pi.enable()
    pid = pi.property("MainPID")
    pi.enable(profile(2222, 2225))
    pi.wait_passing(2225)
    assert pi.property("MainPID") == pid
    assert pi.wait_up().sessions == 1


def test_enable_after_an_upgrade_restarts_and_keeps_drop_ins(pi: Home) -> None:
    """The new program runs, from the new unit; drop-ins that the owner wrote are kept."""
    pi.enable()
    drop_in = f"{UNITS}/tunneld@pi-home.service.d/nice.conf"
    pi.machine.write(drop_in, "[Service]\nNice=5\n")
    pid = pi.property("MainPID")
    pi.machine.shell(
        f"cd {installed.SOURCE}/tunneld; sed -i 's/^__version__ = .*/__version__ = \"99.0\"/' __init__.py\n"
        "sed -i 's/^RestartSec=.*/RestartSec=4/' systemd/files/tunneld@.service"
    )
    try:
        said = pi.enable()
        assert f"written  {UNITS}/tunneld@.service" in said
        assert pi.property("MainPID") != pid
        assert pi.property("RestartUSec") == "4s"
        assert pi.property("Nice") == "5"
        assert pi.wait_up().version == "99.0"
        assert "NRestarts=0" in pi.machine.shell("systemctl show tunneld@pi-home")
    finally:
        installed.install(pi.machine)
    assert f"kept     {drop_in}, which is yours" in pi.disable()
    assert pi.machine.read(drop_in) == "[Service]\nNice=5\n"
    pi.machine.shell(f"rm -r {UNITS}/tunneld@pi-home.service.d")


def test_an_upgrade_alone_is_noticed(pi: Home) -> None:
    """No unit has changed, but the daemon is of another version than the command."""
    pi.enable()
    pid = pi.property("MainPID")
    pi.machine.shell(f"sed -i 's/^__version__ = .*/__version__ = \"99.0\"/' {installed.SOURCE}/tunneld/__init__.py")
    try:
        assert "written" not in pi.enable()
        assert pi.property("MainPID") != pid
    finally:
        installed.install(pi.machine)


def test_disable_leaves_nothing_behind(pi: Home) -> None:
    """No unit, drop-in, socket or port is left; the profile stays, and a second `disable` is no error."""
    pi.enable()
    pi.wait_up()
    pi.disable()
    assert pi.machine.shell(OURS) == ""
    assert "tunneld" not in pi.machine.shell("systemctl list-units --all --no-legend 'tunneld*'; systemctl --failed")
    assert not pi.holds(2222)
    assert pi.machine.path(f"{SYSTEM_PROFILES}/pi-home.toml").exists()
    assert "there is nothing to do" in pi.disable()


def test_disable_keeps_what_others_use(pi: Home) -> None:
    """When one of two tunnels is disabled, the other goes on in the same process."""
    pi.enable()
    pi.enable(profile(2422), name="office")
    pid = pi.property("MainPID")
    pi.disable("office")
    assert pi.machine.path(f"{UNITS}/tunneld@.service").exists()
    assert pi.property("MainPID") == pid
    assert pi.passes(2222)
    assert not pi.holds(2422)


def test_one_process_may_run_every_profile(pi: Home) -> None:
    """With `--all` one unit runs all profiles in one process; a single profile cannot be enabled beside it."""
    pi.write_profile(profile(2422), name="office")
    said = pi.type("tunneld enable --all")
    assert "service  tunneld.service runs as process" in said
    for name, port in (("pi-home", 2222), ("office", 2422)):
        pi.wait_passing(port)
        assert "tunneld.service: running, starts at boot" in pi.type(f"tunneld status {name}")
    assert "2 tunnels up: office, pi-home" in pi.shown("tunneld")
    assert "tunneld disable --all" in pi.type("tunneld enable office", code=75)
    pi.type("tunneld disable --all")
    assert pi.machine.shell(OURS) == ""


def test_a_tunnel_that_runs_already_is_not_run_twice(pi: Home) -> None:
    """A process in the foreground holds the tunnel: enable names that process, and installs nothing."""
    running = pi.machine.popen([installed.COMMAND, "run", "pi-home"])
    wait_until(lambda: pi.status() is not None, what="it runs")
    assert "pi-home is already running, in process" in pi.type("tunneld enable pi-home", code=75)
    running.terminate()
    running.wait(10)
    assert pi.machine.shell(OURS) == "/run/tunneld\n"  # the running process made it
    pi.machine.shell("rm -r /run/tunneld")


def test_a_wrong_profile_is_not_installed(pi: Home) -> None:
    """enable names each problem, exits with code 78, and changes nothing."""
    pi.write_profile("[relay]\nhots = 3\n")
    assert "relay.hots" in pi.type("tunneld enable pi-home", code=78)
    assert "there is no profile 'pi-hom' here" in pi.type("tunneld enable pi-hom", code=78)
    assert pi.machine.shell(OURS) == ""


def test_a_unit_that_somebody_else_wrote_is_not_touched(pi: Home) -> None:
    """enable says that the unit is not its own, and leaves the unit as it is."""
    theirs = f"{UNITS}/tunneld@.service"
    pi.machine.write(theirs, "[Service]\nExecStart=/usr/bin/true\n")
    assert f"{theirs} is not tunneld's own" in pi.type("tunneld enable pi-home", code=77)
    assert pi.machine.read(theirs) == "[Service]\nExecStart=/usr/bin/true\n"
    pi.machine.shell(f"rm {theirs}")


def test_root_s_home_is_meant_even_where_sudo_keeps_the_user_s(pi: Home) -> None:
    """In a service of the system, `~` is root's home, so the service gets root's keys."""
    pi.type("HOME=/home/vera XDG_CONFIG_HOME=/home/vera/.config tunneld enable pi-home")
    assert "/root/.ssh/id_ed25519" in pi.machine.read(f"{UNITS}/tunneld@pi-home.service.d/20-credentials.conf")
    pi.wait_passing()


def test_a_profile_that_the_service_cannot_read_is_said(pi: Home) -> None:
    """A profile in root's home, or without read permission: one line names the command that mends it."""
    pi.write_profile(profile(2222), name="mine", folder="/root/.config/tunneld/profiles")
    assert f"mv /root/.config/tunneld/profiles/mine.toml {SYSTEM_PROFILES}/" in pi.type("tunneld enable mine", code=64)
    pi.machine.shell(f"chmod 600 {SYSTEM_PROFILES}/pi-home.toml; rm -r /root/.config/tunneld")
    assert f"chmod a+r {SYSTEM_PROFILES}/pi-home.toml" in pi.type("tunneld enable pi-home", code=77)
    assert pi.machine.shell(OURS) == ""


def test_a_program_that_the_service_cannot_start_is_said(pi: Home) -> None:
    """A program in root's home: enable says that /root is closed, and where to install it."""
    installed.install(pi.machine, command="/root/bin/tunneld")
    said = pi.type("/root/bin/tunneld enable pi-home", code=69)
    assert "/root is closed" in said
    assert "/opt/tunneld" in said
    assert pi.machine.shell(OURS) == ""


def test_without_the_extra_one_line_says_what_to_install(pi: Home) -> None:
    """enable and disable exit with code 69; status works without the extra."""
    hide = "unshare --mount sh -c 'mount -t tmpfs none /opt/tunneld/libraries/pystemd; "
    assert "pip install '.[systemd]'" in pi.type(f"{hide} tunneld enable pi-home'", code=69)
    assert "pip install '.[systemd]'" in pi.type(f"{hide} tunneld disable pi-home'", code=69)
    assert "pi-home is not running" in pi.type(f"{hide} tunneld status pi-home'", code=69)


def test_without_a_bus_one_line_says_so(pi: Home) -> None:
    """enable exits with code 69, as root and as a user; status works without a bus."""
    pi.write_profile(profile(2322), name="mine", folder=USER_PROFILES)
    hide = "unshare --mount sh -c 'mount -t tmpfs none /run/dbus; "
    assert "no D-Bus here to reach systemd by" in pi.type(f"{hide} tunneld enable pi-home'", code=69)
    assert "pi-home is not running" in pi.type(f"{hide} tunneld status pi-home'", code=69)
    said = pi.type("env -u XDG_RUNTIME_DIR -u DBUS_SESSION_BUS_ADDRESS tunneld enable mine", user="vera", code=69)
    assert "no D-Bus here to reach your own systemd by" in said


def test_without_rights_one_line_says_so(pi: Home) -> None:
    """A user gets exit code 77 for what needs root; status shows what the user may see."""
    pi.enable()
    pi.wait_up()
    assert "is the system's: do it as root" in pi.type("tunneld disable pi-home", user="vera", code=77)
    assert "do it as root" in pi.type("tunneld enable --all", user="vera", code=77)
    said = pi.type("tunneld status", user="vera", code=1)
    assert "tunneld@pi-home.service: running, starts at boot" in said
    assert "member of the group tunneld" in said
    pi.machine.shell("usermod -aG tunneld vera")
    assert "pi-home: up for" in pi.type("tunneld status", user="vera")
    pi.machine.shell("gpasswd -d vera tunneld")


def test_where_lingering_is_denied_the_command_is_told(pi: Home) -> None:
    """Without polkit a user may not switch lingering on: the tunnel runs, and enable prints the command for root."""
    pi.write_profile(profile(2322), name="mine", folder=USER_PROFILES)
    pi.machine.shell("systemctl mask --now polkit; loginctl disable-linger vera")
    try:
        said = pi.type("tunneld enable mine", user="vera")
        assert "linger   OFF" in said
        assert "`sudo loginctl enable-linger vera`" in said
        assert "tunnel   mine: up" in said
    finally:
        pi.machine.shell("systemctl unmask polkit")
        pi.try_typing("tunneld disable mine", user="vera")
