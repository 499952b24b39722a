"""Refusals by the relay, mistakes in the set-up, and stopping a daemon in every state."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable

import pytest

from tests.lab.net import Lab
from tests.lab.product import MOSH, QUICK, Daemon, agents, bound_ports, profile_text
from tests.lab.scene import Scene, scene
from tests.lab.sshd import make_key
from tests.until import wait_until
from tunneld.core.supervise.failures import Failure
from tunneld.core.supervise.lifecycle import State
from tunneld.status.snapshot import TunnelStatus

pytestmark = pytest.mark.lab

WEB = 'listen = "0.0.0.0:8080"\nto = "127.0.0.1:22"'
SSH = 'listen = "0.0.0.0:2222"\nto = "127.0.0.1:22"'
HUMAN_RETRY = 55  # seconds; faults that only a person can mend are tried again after a minute, of which some has passed


def test_a_busy_port_is_waited_for(lab: Lab) -> None:
    """Another program holds a required forward's port: status says so, and the tunnel is up once the port is free."""
    with (
        scene(lab) as place,
        lab.relay.listener(socket.SOCK_STREAM, port=2222) as holder,
        Daemon(lab.pi, profile_text(place.keeper, rest=QUICK)) as daemon,
    ):
        status = daemon.wait_for(_failed(Failure.FORWARD_BUSY), what="the port is busy")
        assert status.state is not State.UP
        assert status.failure is not None
        assert "2222" in status.failure.text
        holder.close()
        daemon.wait_up(mosh=False)


def test_a_half_refused_profile_leaves_nothing_listening(lab: Lab) -> None:
    """The relay forbids one of two required forwards: the attempt ends, and the other forward's port is free again."""
    with (
        scene(lab, options={"PermitListen": "0.0.0.0:2222"}) as place,
        Daemon(lab.pi, profile_text(place.keeper, forwards=(SSH, WEB), rest=QUICK)) as daemon,
    ):
        status = daemon.wait_for(_failed(Failure.FORWARD_FORBIDDEN), what="the forward is forbidden")
        assert status.failure is not None
        assert "8080" in status.failure.text
        daemon.wait_for(lambda status: status.state is State.BACKOFF, what="the attempt is over")
        wait_until(lambda: not {2222, 8080} & bound_ports(lab.relay), what="nothing listens")
        assert status.sessions == 0


def test_a_refused_forward_that_is_not_required_costs_only_itself(lab: Lab) -> None:
    """The tunnel is up and the other forward works; status says which forward was refused, and why."""
    forwards = (SSH, f"{WEB}\nrequired = false")
    with (
        scene(lab, options={"PermitListen": "0.0.0.0:2222"}) as place,
        Daemon(lab.pi, profile_text(place.keeper, forwards=forwards)) as daemon,
    ):
        good, bad = daemon.wait_up().forwards
        assert (good.state, bad.state) == ("listening", "refused")
        assert bad.failure is not None
        assert bad.failure.failure is Failure.FORWARD_FORBIDDEN
        with place.ssh() as terminal:
            terminal.echoes(3)


def test_a_relay_with_a_wrong_host_key_gets_no_login(lab: Lab) -> None:
    """Another server has the relay's name: tunneld does not log in, and the next try is a minute away."""
    with scene(lab) as place:
        other = make_key(lab.directory / "other").public.split()
        place.keeper.known_hosts.write_text(f"relay {other[0]} {other[1]}\n")
        with Daemon(lab.pi, profile_text(place.keeper)) as daemon:
            status = daemon.wait_for(_failed(Failure.HOST_KEY), what="the host key is refused")
            assert status.next_try_in is not None
            assert status.next_try_in > HUMAN_RETRY
            assert "Accepted" not in place.relay.log


def test_a_key_that_the_relay_does_not_know_waits_a_minute(lab: Lab) -> None:
    """The next try is a minute away, since a relay may ban hosts that try often; status says that the login failed."""
    with scene(lab, authorized=lambda line: f"# {line}") as place, Daemon(lab.pi, profile_text(place.keeper)) as daemon:
        status = daemon.wait_for(_failed(Failure.AUTHENTICATION), what="the login is refused")
        assert status.state is State.BACKOFF
        assert status.next_try_in is not None
        assert status.next_try_in > HUMAN_RETRY


def test_a_relay_that_is_down_is_tried_again(lab: Lab) -> None:
    """No sshd listens at the relay, and later one does; the tunnel comes up by itself."""
    with scene(lab) as place:
        place.relay.stop()
        with Daemon(lab.pi, profile_text(place.keeper, rest=MOSH + QUICK)) as daemon:
            daemon.wait_for(lambda status: status.attempts >= 2, what="a second attempt")
            place.relay.start()
            daemon.wait_up()


def _nothing(lab: Lab, place: Scene) -> None:
    """No fault: the tunnel comes up."""


def _black_hole(lab: Lab, place: Scene) -> None:
    lab.home_link.cut()


def _relay_down(lab: Lab, place: Scene) -> None:
    place.relay.stop()


def _slow(lab: Lab, place: Scene) -> None:
    lab.home_link.set(delay=0.3)


def _login_refused(lab: Lab, place: Scene) -> None:
    (place.relay.directory / "authorized_keys").write_text("")


def _starting(status: TunnelStatus) -> bool:
    return status.state is State.UP and status.mosh.state == "starting"


@pytest.mark.parametrize(
    ("fault", "reached"),
    [
        pytest.param(_black_hole, lambda status: status.state is State.DIALING, id="dialing"),
        pytest.param(_relay_down, lambda status: status.state is State.BACKOFF, id="backoff"),
        pytest.param(_login_refused, lambda status: status.state is State.BACKOFF, id="refused"),
        pytest.param(_nothing, lambda status: status.state is State.UP, id="up"),
        pytest.param(_slow, _starting, id="mosh starting"),
        pytest.param(_nothing, lambda status: status.mosh.state == "ready", id="mosh ready"),
    ],
)
def test_sigterm_stops_cleanly_in_every_state(
    lab: Lab, fault: Callable[[Lab, Scene], None], reached: Callable[[TunnelStatus], bool]
) -> None:
    """Exit code 0 within three seconds, no traceback, and the relay's ports are free at once."""
    with scene(lab) as place:
        fault(lab, place)
        with Daemon(lab.pi, profile_text(place.keeper)) as daemon:
            daemon.wait_for(reached, what="the state is reached")
            asked = time.monotonic()
            assert daemon.stop() == 0
            assert time.monotonic() - asked < 3
            assert not ({2222} | set(range(60001, 60011))) & bound_ports(lab.relay)
            assert "Traceback" not in daemon.log
            wait_until(lambda: not agents(lab.relay), what="the agents are gone", timeout=5)


def test_sigterm_stops_while_people_type(lab: Lab) -> None:
    """Open flows and channels do not keep the daemon from stopping."""
    with scene(lab) as place, Daemon(lab.pi, profile_text(place.keeper)) as daemon:
        daemon.wait_up()
        with place.mosh() as mosh, place.ssh() as ssh:
            mosh.echoes(3)
            ssh.echoes(3)
            assert daemon.stop() == 0
            assert not ({2222} | set(range(60001, 60011))) & bound_ports(lab.relay)
        assert "Traceback" not in daemon.log


def test_sigterm_at_a_relay_that_fell_silent_does_not_wait_for_it(lab: Lab) -> None:
    """A clean end needs an answer from the relay, which never comes; the daemon stops within 10 s nevertheless."""
    with scene(lab) as place, Daemon(lab.pi, profile_text(place.keeper)) as daemon:
        daemon.wait_up()
        lab.home_link.cut()
        assert daemon.stop(timeout=10) == 0


def test_a_killed_daemon_leaves_no_agent_behind(lab: Lab) -> None:
    """A daemon killed by SIGKILL cannot clean up; the end of its SSH sessions ends the agents and frees the ports."""
    with scene(lab) as place, Daemon(lab.pi, profile_text(place.keeper)) as daemon:
        daemon.wait_up()
        assert agents(lab.relay)
        daemon.send(signal.SIGKILL)
        daemon.process.wait()
        wait_until(lambda: not agents(lab.relay), what="the agents are gone", timeout=5)
        wait_until(lambda: not {2222, 60001} & bound_ports(lab.relay), what="the ports are free", timeout=5)


def test_sighup_restarts_only_what_changed(lab: Lab) -> None:
    """A forward is added while a person types: the session goes on, and so does mosh in it."""
    with scene(lab) as place, Daemon(lab.pi, profile_text(place.keeper)) as daemon:
        daemon.wait_up()
        with place.mosh() as terminal:
            terminal.echoes(3)
            daemon.write(profile_text(place.keeper, forwards=(SSH, WEB)))
            daemon.send(signal.SIGHUP)
            daemon.wait_for(lambda status: len(status.forwards) == 2, what="the new forward is known")
            status = daemon.wait_up()
            terminal.echoes(3)
        assert [forward.state for forward in status.forwards] == ["listening", "listening"]
        assert status.sessions == 1


def _failed(failure: Failure) -> Callable[[TunnelStatus], bool]:
    return lambda status: status.failure is not None and status.failure.failure is failure
