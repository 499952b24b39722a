"""What a hop is called, and the commands that a person is told about its host key."""

from __future__ import annotations

import pytest

from tunneld.ssh.connect.hop import Hop

FILES = "/home/pi/.ssh/known_hosts, /etc/ssh/ssh_known_hosts"
AFTERWARDS = "; then restart the service, which has a copy of that file"


@pytest.mark.parametrize(
    ("hop", "address"),
    [
        (Hop("relay"), "relay:22"),
        (Hop("relay", 2022), "relay:2022"),
        (Hop("relay", 0), "relay"),
        (Hop("2001:db8::1", 22), "[2001:db8::1]:22"),
        (Hop("2001:db8::1", 0), "[2001:db8::1]"),
    ],
)
def test_an_address_reads_as_it_is_written(hop: Hop, address: str) -> None:
    """IPv6 in brackets, and no port that nobody knows."""
    assert hop.address == address


def test_a_key_is_added_by_what_can_reach_the_host() -> None:
    """ssh-keyscan from here, and ssh itself through a jump host; the first file is the one to add it to."""
    assert Hop("relay", known_hosts=FILES).add_key == "ssh-keyscan -p 22 relay >> /home/pi/.ssh/known_hosts"
    assert Hop("relay", 2022, via="me@bastion", known_hosts=FILES).add_key == "ssh -J me@bastion -p 2022 relay"


def test_an_old_key_is_removed_by_the_name_that_ssh_gives_it() -> None:
    """In brackets, with its port, unless that is 22 (ssh-keygen(1), -R)."""
    assert Hop("relay", known_hosts=FILES).remove_key == "ssh-keygen -f /home/pi/.ssh/known_hosts -R relay"
    assert Hop("relay", 2022, known_hosts="k").remove_key == "ssh-keygen -f k -R '[relay]:2022'"


def test_whoever_has_a_copy_is_told_to_restart() -> None:
    """A service reads what known_hosts was when it started."""
    for hop in (Hop("relay", is_copy=True), Hop("relay", via="bastion", is_copy=True)):
        assert hop.add_key.endswith(AFTERWARDS)
        assert hop.remove_key.endswith(AFTERWARDS)
