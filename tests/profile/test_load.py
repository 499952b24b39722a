"""From TOML to a frozen profile."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tunneld.core.supervise.backoff import Limits
from tunneld.errors import ProfileError
from tunneld.profile import (
    Canary,
    Direction,
    Forward,
    Keepalive,
    Mode,
    Mosh,
    PortRange,
    Profile,
    Relay,
    TcpAddress,
    UnixAddress,
    load,
    load_all,
)

Write = Callable[..., Path]

MINIMAL = """\
[relay]
host = "relay.example.net"

[[forward]]
listen = "127.0.0.1:2222"
to = "127.0.0.1:22"
"""


def test_a_key_that_is_not_written_has_its_default(write: Write) -> None:
    """A host and one forward are enough."""
    file = write(MINIMAL)
    assert load(str(file)) == Profile(
        name="pi",
        file=file,
        relays=(Relay("relay.example.net", None, None, (), None, (), True),),
        forward=(Forward(TcpAddress("127.0.0.1", 2222), TcpAddress("127.0.0.1", 22), Direction.REMOTE, True),),
        mosh=None,
        keepalive=Keepalive(interval=10, count=3),
        backoff=Limits(initial=1, maximum=60, stable_after=30),
        canary=Canary(interval=300),
    )


def test_each_key_counts(write: Write, tmp_path: Path) -> None:
    """Every key that a profile may have, with a value that is not its default."""
    for name in ("key", "hosts", "config"):
        (tmp_path / name).touch(0o600)
    file = write(
        """\
        mode = "all"

        [relay]
        host = "relay"
        port = 2200
        user = "tunnel"
        identity = "key"
        known_hosts = "./hosts"
        jump = "me@bastion, gate:2022"
        ssh_config = "config"

        [[forward]]
        listen = "/run/pi.sock"
        to = "sockets/sshd"
        required = false
        canary = false

        [[forward]]
        listen = "127.0.0.1:1080"
        direction = "dynamic"

        [[forward]]
        listen = "./here.sock"
        to = "/run/there.sock"
        direction = "local"

        [mosh]
        ports = "61001-61003"
        bind = "192.0.2.1"
        to = "10.0.0.7"

        [keepalive]
        interval = 2.5
        count = 2

        [backoff]
        initial = 0.5
        maximum = 8
        stable_after = 0
        return_after = 5

        [canary]
        interval = 3600
        """
    )
    folder = file.parent
    assert load(str(file)) == Profile(
        name="pi",
        file=file,
        relays=(
            Relay(
                host="relay",
                port=2200,
                user="tunnel",
                identity=(folder / "key",),
                known_hosts=folder / "hosts",
                jump=("me@bastion", "gate:2022"),
                ssh_config=folder / "config",
            ),
        ),
        forward=(
            Forward(UnixAddress("/run/pi.sock"), UnixAddress(f"{folder}/sockets/sshd"), required=False, canary=False),
            Forward(TcpAddress("127.0.0.1", 1080), None, Direction.DYNAMIC),
            Forward(UnixAddress(f"{folder}/here.sock"), UnixAddress("/run/there.sock"), Direction.LOCAL),
        ),
        mosh=Mosh(PortRange(61001, 61003), bind="192.0.2.1", to="10.0.0.7"),
        keepalive=Keepalive(interval=2.5, count=2),
        backoff=Limits(initial=0.5, maximum=8, stable_after=0, return_after=5),
        mode=Mode.ALL,
        canary=Canary(interval=3600),
    )


def test_several_relays_stand_in_the_order_in_which_they_are_written(write: Write) -> None:
    """The first is the preferred one; each has keys of its own."""
    text = MINIMAL.replace("\n\n", '\n\n[relay]\nhost = "second"\nuser = "u"\n\n').replace("[relay]", "[[relay]]")
    profile = load(str(write(text)))
    assert profile.relays == (Relay("relay.example.net"), Relay("second", user="u"))
    assert (profile.relay, profile.mode) == (Relay("relay.example.net"), Mode.FAILOVER)
    assert profile.through(profile.relays[1]).relays == (Relay("second", user="u"),)


def test_lists_of_identities_and_of_jump_hosts(write: Write, tmp_path: Path) -> None:
    """Both take one text or a list of them."""
    for name in ("one", "two"):
        (tmp_path / name).touch(0o600)
    text = MINIMAL.replace("\n\n", '\nidentity = ["one", "two"]\njump = ["a", "me@[::1]:22"]\n\n')
    relay = load(str(write(text))).relay
    assert relay.identity == (tmp_path / "one", tmp_path / "two")
    assert relay.jump == ("a", "me@[::1]:22")


def test_a_tilde_is_the_home_folder(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths on this host are expanded once, when the profile is read."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "hosts").touch()
    monkeypatch.setenv("HOME", str(home))
    text = MINIMAL.replace("\n\n", '\nknown_hosts = "~/hosts"\n\n').replace('"127.0.0.1:22"', '"~/sshd.sock"')
    profile = load(str(write(text)))
    assert profile.relay.known_hosts == home / "hosts"
    assert profile.forward[0].to == UnixAddress(f"{home}/sshd.sock")


@pytest.mark.parametrize(
    ("forwards", "host"),
    [
        ("", "127.0.0.1"),
        ('[[forward]]\nlisten = "127.0.0.1:1"\nto = "pi.lan:22"', "pi.lan"),
        ('[[forward]]\nlisten = "127.0.0.1:1"\nto = "/run/sshd"', "127.0.0.1"),
        ('[[forward]]\nlisten = "127.0.0.1:1"\nto = "db:1"\ndirection = "local"', "127.0.0.1"),
    ],
)
def test_mosh_server_is_where_the_first_remote_forward_goes(write: Write, forwards: str, host: str) -> None:
    """Where ssh arrives, mosh-server is started."""
    profile = load(str(write(f'[relay]\nhost = "r"\n{forwards}\n[mosh]\nbind = "0.0.0.0"\n')))
    assert profile.mosh == Mosh(PortRange(60001, 60010), bind="0.0.0.0", to=host)


def test_a_profile_is_frozen_and_hashable(write: Write) -> None:
    """Nobody changes a profile that is in use."""
    profile = load(str(write(MINIMAL)))
    assert hash(profile) == hash(load(str(profile.file)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        profile.relay.host = "other"  # type: ignore[misc]


def test_a_byte_order_mark_is_no_text(write: Write) -> None:
    """Some editors leave one in front."""
    assert load(str(write(b"\xef\xbb\xbf" + MINIMAL.encode()))).name == "pi"


def test_a_certificate_may_be_public(write: Write, tmp_path: Path) -> None:
    """Only private keys are secret; public keys and certificates end in .pub."""
    (tmp_path / "key-cert.pub").touch(0o644)
    load(str(write(MINIMAL.replace("\n\n", '\nidentity = "key-cert.pub"\n\n'))))


def test_a_private_key_that_others_can_read_is_refused(write: Write, tmp_path: Path) -> None:
    """OpenSSH would ignore the key, and the user would wonder why."""
    key = tmp_path / "key"
    key.touch()
    file = write(MINIMAL.replace("\n\n", '\nidentity = "key"\n\n'))
    for mode in (0o604, 0o640, 0o602, 0o610):
        key.chmod(mode)
        with pytest.raises(ProfileError, match=rf"pi.toml:3: relay.identity: .* mode is {mode:04o}\): chmod 600 {key}"):
            load(str(file))
    key.chmod(0o400)
    load(str(file))


def test_a_key_lent_to_a_group_by_another_owner_is_accepted(write: Write, tmp_path: Path) -> None:
    """root may let a service's group read its key, but not every user."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to another user")
    key = tmp_path / "key"
    key.touch()
    os.chown(key, 12345, -1)
    file = write(MINIMAL.replace("\n\n", '\nidentity = "key"\n\n'))
    key.chmod(0o640)
    load(str(file))
    key.chmod(0o644)
    with pytest.raises(ProfileError, match="0644"):
        load(str(file))


def test_several_profiles_are_judged_together(write: Write) -> None:
    """load_all() reports at once what is wrong in each profile, and where two conflict."""
    good, bad = write(MINIMAL, "a.toml"), write("[relay]\n", "b.toml")
    also = write(MINIMAL, "c.toml")
    assert [profile.name for profile in load_all([str(good)])] == ["a"]
    with pytest.raises(ProfileError) as caught:
        load_all([str(good), str(bad), str(also)])
    found = [(problem.file.name, problem.key) for problem in caught.value.problems]
    assert found == [("b.toml", ""), ("b.toml", "relay.host"), ("c.toml", "forward[1].listen")]
