"""A host that comes back ends its own stale session on the relay, and no other session."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab import namespace
from tests.lab.net import Lab
from tests.lab.product import QUICK, Daemon, bound_ports, profile_text
from tests.lab.scene import Scene, scene
from tests.lab.sshd import Sshd, descendants
from tests.until import wait_until
from tunneld.core.supervise.failures import Failure
from tunneld.core.supervise.lifecycle import State
from tunneld.shipped.end_predecessor import Record, parse_records
from tunneld.status.snapshot import TunnelStatus

pytestmark = pytest.mark.lab

NEVER_CHECKING = {"ClientAliveInterval": "0"}  # sshd's default, with which a relay keeps a dead session for hours
TUNNEL_UID = 4711  # a user id that no machine uses


def cut_power(lab: Lab, daemon: Daemon) -> None:
    """Kill the daemon so that the relay does not learn of it."""
    lab.black_hole()
    daemon.send(signal.SIGKILL)
    daemon.process.wait()


def busy(*words: str) -> Callable[[TunnelStatus], bool]:
    """A condition: the tunnel is not up because its port is busy, and the reason contains all of `words`."""

    def holds(status: TunnelStatus) -> bool:
        failure = status.failure
        if status.state is State.UP or failure is None or failure.failure is not Failure.FORWARD_BUSY:
            return False
        return all(word in failure.text for word in words)

    return holds


def record(relay: Sshd) -> Path:
    """The only file with a session's record on this relay."""
    (found,) = (relay.directory / "state/tunneld/sessions").iterdir()
    return found


def on_record(relay: Sshd) -> Record:
    (found,) = parse_records(record(relay).read_text())
    return found


def is_alive(session: Record) -> bool:
    return Path(f"/proc/{session.pid}").exists()


@pytest.fixture
def account(lab: Lab) -> Iterator[Path]:
    """Make an account `tunnel` without root's rights on the relay, and yield its home."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        home.chmod(0o755)
        os.chown(home, TUNNEL_UID, TUNNEL_UID)
        users = Path("/etc/passwd").read_text() + f"tunnel:*:{TUNNEL_UID}:{TUNNEL_UID}::{home}:/bin/sh\n"
        (namespace.ETC_NETNS / lab.relay.namespace / "passwd").write_text(users)
        yield home


def test_an_account_without_rights_takes_its_ports_back(lab: Lab, account: Path) -> None:
    """A session has a process of root and a process of the user; the account can end its own, which holds the port."""
    keys = account / "authorized_keys"
    options = {**NEVER_CHECKING, "AuthorizedKeysFile": str(keys), "SetEnv": "LANG=C.UTF-8"}
    with scene(lab, options=options) as place:
        keys.write_text(place.keeper.key.public)
        text = profile_text(place.keeper, rest=QUICK).replace('user = "root"', 'user = "tunnel"')
        with Daemon(lab.pi, text) as daemon:
            daemon.wait_up(mosh=False)
            cut_power(lab, daemon)
            daemon.start()
            daemon.wait_up(mosh=False, timeout=10)
            assert "ended our own stale session" in daemon.log
            with place.ssh() as ssh:
                ssh.echoes(3)
        (found,) = (account / ".local/state/tunneld/sessions").iterdir()
        assert (found.stat().st_uid, found.stat().st_mode & 0o777) == (TUNNEL_UID, 0o600)


def test_a_persons_forward_of_the_same_account_keeps_the_port(lab: Lab) -> None:
    """`ssh -R` by hand leaves no record, so tunneld does not end it, but says who has the port and waits for it."""
    with scene(lab, options=NEVER_CHECKING, visitors=True) as place:
        hold = place.guest.ssh("-N", "-o", "ExitOnForwardFailure=yes", "-R", "0.0.0.0:2222:127.0.0.1:22", "relay")
        person = lab.laptop.popen(hold)
        wait_until(lambda: 2222 in bound_ports(lab.relay), what="the person's forward listens")
        with Daemon(lab.pi, profile_text(place.keeper, rest=QUICK)) as daemon:
            daemon.wait_for(busy("by user root (our own account)"), what="who holds the port is told")
            assert person.poll() is None
            person.terminate()
            daemon.wait_up(mosh=False)


def test_another_accounts_program_keeps_the_port(lab: Lab) -> None:
    """Even as root, tunneld does not end another account's program."""
    with scene(lab, options=NEVER_CHECKING) as place, lab.relay.listener(socket.SOCK_STREAM, port=2222) as other:
        os.fchown(other.fileno(), 65534, -1)
        with Daemon(lab.pi, profile_text(place.keeper, rest=QUICK)) as daemon:
            daemon.wait_for(busy("by user nobody"), what="who holds the port is told")


def test_a_process_with_a_reused_id_is_left_alone(lab: Lab) -> None:
    """The start time on record differs from that of the process with this id, so tunneld does not end that process."""
    with scene(lab, options=NEVER_CHECKING) as place, Daemon(lab.pi, profile_text(place.keeper, rest=QUICK)) as daemon:
        daemon.wait_up(mosh=False)
        cut_power(lab, daemon)
        session = on_record(place.relay)
        record(place.relay).write_text(str(Record(session.pid, session.start - 1, session.booted, session.instance)))
        daemon.start()
        daemon.wait_for(busy("by user root"), what="the port is held")
        assert is_alive(session)
        assert on_record(place.relay).pid != session.pid


def test_two_clones_end_each_other_only_once(lab: Lab) -> None:
    """A clone that starts ends the other's session once; then the clone without a port notices that, and waits."""
    with (
        scene(lab, options=NEVER_CHECKING, visitors=True) as place,
        Daemon(lab.pi, profile_text(place.keeper, rest=QUICK)) as first,
    ):
        first.wait_up(mosh=False)
        with Daemon(lab.laptop, profile_text(place.guest, rest=QUICK)) as second:
            first.wait_for(lambda status: status.attempts >= 2, what="the first is ended, and comes back")
            noticed = busy("machine id", "by user root")
            wait_until(lambda: any(noticed(_status(each)) for each in (first, second)), what="the double is noticed")
            loser, winner = (first, second) if noticed(_status(first)) else (second, first)
            assert winner.wait_up(mosh=False).sessions <= 2
            assert winner.stop() == 0
            loser.wait_up(mosh=False)


def _status(daemon: Daemon) -> TunnelStatus:
    status = daemon.status()
    assert status is not None
    return status


def _no_commands(line: str) -> str:
    return f'command="echo this account runs no commands >&2; exit 1" {line}'


def _no_python(lab: Lab) -> None:
    lab.relay.hide_programs("python3*")


def _nowhere_to_write(lab: Lab) -> None:
    own = f"/tmp/tunneld-{os.geteuid()}"
    lab.relay.prelude.append(f"mkdir -p -m 700 {own}; mount -t tmpfs -o ro,mode=700 tmpfs {own}")


@pytest.mark.parametrize(
    ("prepare", "options", "authorized", "says"),
    [
        pytest.param(lambda _: None, {}, _no_commands, "this account runs no commands", id="no commands"),
        pytest.param(_no_python, {}, str, "the relay has no python3", id="no python"),
        pytest.param(
            _nowhere_to_write, {"SetEnv": "XDG_STATE_HOME=/proc"}, str, "cannot keep a record there", id="no folder"
        ),
    ],
)
def test_where_it_cannot_be_done_the_reason_and_the_remedy_are_told(
    lab: Lab,
    prepare: Callable[[Lab], None],
    options: dict[str, str],
    authorized: Callable[[str], str],
    says: str,
) -> None:
    """Our stale session keeps the port; tunneld tries again, and says why and which setting of the relay helps."""
    prepare(lab)
    with (
        scene(lab, options=NEVER_CHECKING | options, authorized=authorized) as place,
        Daemon(lab.pi, profile_text(place.keeper, rest=QUICK)) as daemon,
    ):
        daemon.wait_up(mosh=False)
        cut_power(lab, daemon)
        daemon.start()
        daemon.wait_for(busy(says, "ClientAliveInterval"), what="the reason is told")
        end_stale_session(place)
        daemon.wait_up(mosh=False)


def end_stale_session(place: Scene) -> None:
    """End the oldest session, as the relay's owner can by hand."""
    assert place.relay.process is not None
    os.kill(min(descendants(place.relay.process.pid)), signal.SIGTERM)
