"""A session of `tunneld mosh` that runs, on a terminal, with a real ssh, sshd and mosh."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import sys
from pathlib import Path

from tests.lab.terminal import Terminal
from tests.mosh.place import NAME, NEEDS_MOSH, Place, children, exit_status, is_alive, place
from tests.until import wait_until
from tunneld.mosh.pool_policy import SHORTEST_DENIED

pytestmark = NEEDS_MOSH


def test_a_session_lives_until_its_program_ends(home: Place) -> None:
    """Only mosh writes on the screen, and the exit status is mosh-client's."""
    with home.session() as terminal:
        terminal.echoes(3)
        terminal.write("\r\x04")
        assert exit_status(terminal) == 0
        assert "[mosh is exiting.]" in terminal.text
        assert "tunneld" not in terminal.text
        assert not home.sockets()


def test_a_session_outlives_its_ssh_connections(home: Place) -> None:
    """All of them die at once; others are made while the session goes on."""
    with home.session("--no-udp") as terminal:
        wait_until(lambda: home.streams(terminal) == 2, what="a second connection")
        before = ssh_of(terminal)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        terminal.echoes(3)
        wait_until(lambda: home.streams(terminal) == 2 and not before & ssh_of(terminal), what="two new connections")
        terminal.echoes(3)
        assert "ssh" not in terminal.text


def test_an_ssh_connection_that_went_silent_is_replaced(home: Place) -> None:
    """No error tells that a connection is dead: other connections are made, and carry the session on."""
    with home.session("--no-udp") as terminal:
        wait_until(lambda: home.streams(terminal) == 2, what="a second connection")
        frozen = ssh_of(terminal)
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        terminal.write("x")  # nothing answers it
        try:
            wait_until(lambda: not frozen & ssh_of(terminal), what="the silent ones are dropped", timeout=20)
            terminal.echoes(3)
        finally:
            for pid in frozen:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)


def test_a_session_whose_mosh_server_was_killed_ends(home: Place) -> None:
    """mosh-client would wait for ever."""
    with home.session() as terminal:
        for pid in home.servers():
            os.kill(pid, signal.SIGKILL)
        assert exit_status(terminal) == 69
        terminal.wait_for("mosh-server on home was ended")


def test_a_session_that_dest_has_lost_ends(home: Place) -> None:
    """After a restart there is neither our agent nor mosh-server: the next connection finds that out."""
    with home.session("--no-udp") as terminal:
        for pid in [*home.agents(), *home.servers()]:
            os.kill(pid, signal.SIGKILL)
        assert exit_status(terminal, timeout=30) == 69
        terminal.wait_for("home does not have this session any more")


def test_a_session_whose_agent_has_no_join_socket_goes_on(tmp_path: Path) -> None:
    """No further connection can join, and none is made; that DEST had lost the session would be a wrong guess."""
    with (
        place(tmp_path, {"SetEnv": f"SHLVL=2 HOME={tmp_path}/dest TMPDIR=/nonexistent"}) as home,
        home.session("--no-udp") as terminal,
    ):
        wait_until(lambda: "Accepted" in home.sshd.log, what="the login")
        wait_until(lambda: home.age(terminal) > 1, what="a second in which another connection would have been made")
        terminal.echoes(3)
        assert home.sshd.log.count("Accepted publickey") == 1


def test_a_session_whose_join_socket_was_removed_goes_on(home: Place) -> None:
    """Somebody tidied up on DEST: as long as anything leads to our agent there, the session lives."""
    with home.session("--no-udp") as terminal:
        wait_until(lambda: home.streams(terminal) == 2, what="a second connection")
        for pid in home.agents():
            for folder in Path("/tmp").glob(f"tunneld-far-{pid}-*"):
                shutil.rmtree(folder)
        (later,) = (pid for pid in ssh_of(terminal) if b"BatchMode=yes" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(later, signal.SIGKILL)
        wait_until(lambda: home.ssh_attempts(terminal), what="a third connection fails")
        failed_at = home.age(terminal)
        wait_until(lambda: home.age(terminal) > failed_at + 1, what="a second in which the session would have ended")
        terminal.echoes(3)
        assert home.ssh_attempts(terminal)["next_in"] > SHORTEST_DENIED / 4
        assert home.sshd.log.count("Accepted publickey") == 3


def test_a_further_connection_that_is_refused_is_not_tried_again(home: Place) -> None:
    """A server takes many refused logins for an attack. We see a refusal even where ssh_config keeps ssh quiet."""
    home.guest.config.write_text(f"LogLevel QUIET\n{home.guest.config.read_text()}")
    with home.session("--no-udp") as terminal:
        home.guest.key.path.unlink()
        wait_until(lambda: "Connection closed by authenticating user" in home.sshd.log, what="a refused login")
        wait_until(lambda: home.ssh_attempts(terminal), what="the session sees the refusal")
        assert home.ssh_attempts(terminal)["next_in"] > SHORTEST_DENIED / 4
        assert home.sshd.log.count("Connection from") == 2


def test_a_fault_of_ours_leaves_a_usable_terminal(home: Place) -> None:
    """mosh-client does not stay on it."""
    code = (
        "import sys; from tunneld.cli import main; from tunneld.mosh.mosh_session import MoshSession\n"
        "MoshSession._open_paths = lambda self: 1 // 0\nsys.exit(main(sys.argv[1:]))"
    )
    argv = shlex.join([sys.executable, "-c", code, *home.command()[3:], NAME])
    with home.run(["bash", "--norc", "-c", f"{argv}; echo status $?; stty -a"]) as terminal:
        terminal.wait_for("status 70")
        terminal.wait_for(" icanon ")
        assert not children(terminal.process.pid, "mosh-client")


def test_a_signal_ends_the_session_there_as_well(home: Place) -> None:
    """After SIGTERM mosh-client tells mosh-server, and nothing stays behind on DEST."""
    with home.session() as terminal:
        there = home.servers()
        os.kill(terminal.process.pid, signal.SIGTERM)
        exit_status(terminal)
        wait_until(lambda: not any(map(is_alive, there)), what="mosh-server ends")
        wait_until(lambda: not home.agents(), what="the agent ends")


def test_a_killed_mosh_client_leaves_a_usable_terminal(home: Place) -> None:
    """It has its former settings, and the exit status is that of a shell."""
    argv = " ".join([*home.command(), NAME])
    with home.run(["bash", "--norc", "-c", f"{argv}; echo status $?; stty -a"]) as terminal:
        wait_until(lambda: children(terminal.process.pid, "mosh-client"), what="mosh-client runs")
        wait_until(home.sockets, what="the session runs")
        for pid in children(terminal.process.pid, "mosh-client"):
            os.kill(pid, signal.SIGKILL)
        terminal.wait_for("status 137")
        terminal.wait_for(" icanon ")


def test_a_killed_tunneld_leaves_no_mosh_client(home: Place) -> None:
    """It would paint over the shell's screen for ever, and read what is typed there."""
    # The real mosh-client ends on SIGTERM as well, but first it tries for nine seconds to reach mosh-server.
    client = home.dest_home / "mosh-client"
    client.write_text('#!/bin/sh\n[ "$1" = -c ] && exec mosh-client "$@"\nread line </dev/tty\n')
    client.chmod(0o755)
    with home.run(["bash", "--norc", "-i"]) as terminal:
        terminal.write(f"{' '.join([*home.command('--client', str(client)), NAME])}\r")
        wait_until(home.sockets, what="the session runs")
        (client_pid,), ssh = children(terminal.process.pid, "mosh-client"), ssh_of(terminal)
        os.kill(int(home.sockets()[0].partition("-")[0]), signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, [client_pid, *ssh])), what="mosh-client and ssh end")
        terminal.write("echo still $((6 * 7)) here\r")
        terminal.wait_for("still 42 here")
        terminal.write("exit\r")
        for pid in home.servers():  # as with mosh, it waits for a client that may come back
            os.kill(pid, signal.SIGKILL)


def test_the_running_sessions_show_their_paths(home: Place) -> None:
    """`--paths` prints them in another terminal, and the session's own screen is not touched."""
    with home.session() as terminal:
        wait_until(lambda: home.pair(terminal).get("in_use", {}).get("carrier") == "path", what="a path is in use")
        shown = next(part for part in home.paths().split("\n\n") if f"process {terminal.process.pid}," in part)
        assert re.match(rf"{NAME}: process \d+, for \d+ s\n  in use    UDP to ", shown)
        assert "UDP" not in terminal.text


def ssh_of(terminal: Terminal) -> set[int]:
    return set(children(terminal.process.pid, "ssh"))
