"""`tunneld mosh` as a person uses it: a real ssh, sshd, mosh-server and mosh-client, and a real terminal."""

from __future__ import annotations

import base64
import contextlib
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.machine import wait_until
from tests.lab.terminal import Terminal
from tests.mosh.place import NAME, PYTHON, Place, children, place
from tests.sshd import descendants
from tunneld.mosh import paths_socket

pytestmark = [
    pytest.mark.skipif(not shutil.which("mosh-server"), reason="mosh is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="sshd needs root to set an environment for its sessions"),
]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Place]:
    with place(tmp_path) as made:
        yield made


def status(terminal: Terminal, *, timeout: float = 15) -> int:
    return terminal.process.wait(timeout)


def test_a_session_lives_until_its_program_ends(home: Place) -> None:
    """The screen is mosh's alone, and the exit status mosh-client's."""
    with home.session() as terminal:
        terminal.echoes(3)
        terminal.write("\r\x04")
        assert status(terminal) == 0
        assert "[mosh is exiting.]" in terminal.text
        assert "tunneld" not in terminal.text
        assert not home.windows()


def test_a_command_is_run_there_as_it_was_typed(home: Place) -> None:
    """Words with spaces stay words."""
    argv = [*home.command("--no-udp"), NAME, "--", "sh", "-c", 'echo "<$1|$2>"; read x', "sh", "a  b", "$HOME"]
    with home.run(argv) as terminal:
        terminal.wait_for("<a  b|$HOME>")


def test_a_session_outlives_its_ssh_connections(home: Place) -> None:
    """All of them die at once, with UDP or without; others are made beside the running session."""
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
    """Nobody tells that a connection is dead: another one is made beside it, and carries on."""
    with home.session("--no-udp") as terminal:
        wait_until(lambda: home.streams(terminal) == 2, what="a second connection")
        frozen = ssh_of(terminal)
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        try:
            wait_until(lambda: not frozen & ssh_of(terminal), what="the silent ones go", timeout=20)
            terminal.echoes(3)
        finally:
            for pid in frozen:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)


def test_a_session_whose_mosh_server_was_killed_ends(home: Place) -> None:
    """mosh-client alone would wait for ever."""
    with home.session() as terminal:
        for pid in servers(home):
            os.kill(pid, signal.SIGKILL)
        assert status(terminal) == 69
        terminal.wait_for("mosh-server on home was ended")


def test_a_session_that_its_host_forgot_ends(home: Place) -> None:
    """After a reboot there is neither agent nor mosh-server: the next connection finds out."""
    with home.session("--no-udp") as terminal:
        for pid in [*agents(home), *servers(home)]:
            os.kill(pid, signal.SIGKILL)
        assert status(terminal, timeout=30) == 69
        terminal.wait_for("home does not have this session any more")


def test_a_session_whose_agent_has_no_door_goes_on(tmp_path: Path) -> None:
    """No further connection can join, and none is made: that the session is gone would be a wrong guess."""
    with (
        place(tmp_path, {"SetEnv": f"SHLVL=2 HOME={tmp_path}/far TMPDIR=/nonexistent"}) as home,
        home.session("--no-udp") as terminal,
    ):
        wait_until(lambda: "Accepted" in home.sshd.log, what="the login")
        wait_until(lambda: home.pair(terminal).get("in_use", {}).get("since", 0) > 6, what="six seconds")
        terminal.echoes(3)
        assert home.sshd.log.count("Accepted publickey") == 1


def test_a_session_whose_door_was_removed_goes_on(home: Place) -> None:
    """Somebody tidied up there: as long as anything leads to its agent, the session lives."""
    with home.session("--no-udp") as terminal:
        for pid in agents(home):
            for door in Path("/tmp").glob(f"tunneld-far-{pid}-*"):
                shutil.rmtree(door)
        wait_until(lambda: home.sshd.log.count("Accepted publickey") == 2, what="a second connection")
        wait_until(lambda: home.pair(terminal).get("in_use", {}).get("since", 0) > 6, what="six seconds")
        terminal.echoes(3)
        assert home.sshd.log.count("Accepted publickey") == 2


def test_a_further_connection_that_is_refused_is_not_tried_again(home: Place) -> None:
    """Even where ssh_config keeps ssh quiet: a host takes many refused logins for an attack."""
    home.guest.config.write_text(f"LogLevel QUIET\n{home.guest.config.read_text()}")
    with home.session("--no-udp") as terminal:
        home.guest.key.path.unlink()
        wait_until(lambda: "Connection closed by authenticating user" in home.sshd.log, what="a refused login")
        wait_until(lambda: home.pair(terminal).get("in_use", {}).get("since", 0) > 8, what="eight seconds")
        assert home.sshd.log.count("Connection from") == 2


def test_a_fault_of_ours_leaves_a_usable_terminal(home: Place) -> None:
    """mosh-client does not stay on it with nobody to talk to."""
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
    """SIGTERM, or a terminal that is closed: mosh-client says goodbye, and nothing stays behind."""
    with home.session() as terminal:
        there = servers(home)
        os.kill(terminal.process.pid, signal.SIGTERM)
        status(terminal)
        wait_until(lambda: not any(map(is_alive, there)), what="mosh-server ends")
        wait_until(lambda: not agents(home), what="the agent ends")


def test_a_killed_mosh_client_leaves_a_usable_terminal(home: Place) -> None:
    """The line discipline is what it was, and the exit status a shell's."""
    argv = " ".join([*home.command(), NAME])
    with home.run(["bash", "--norc", "-c", f"{argv}; echo status $?; stty -a"]) as terminal:
        wait_until(lambda: children(terminal.process.pid, "mosh-client"), what="mosh-client runs")
        wait_until(home.windows, what="the session runs")
        for pid in children(terminal.process.pid, "mosh-client"):
            os.kill(pid, signal.SIGKILL)
        terminal.wait_for("status 137")
        terminal.wait_for(" icanon ")


def test_a_terminal_on_which_ssh_asks_meanwhile_shows_what_is_typed(home: Place) -> None:
    """ssh may ask while we are still starting; what it hides is not hidden for ever."""
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", home.guest.key.path], check=True)
    code = (
        "import sys, termios, time; from tunneld.cli import main; from tunneld.mosh import start\n"
        "from tunneld.mosh.mosh_session import MoshSession\n"
        "first_line, begin = start.first_ssh, MoshSession._begin\n"
        "def slow(*words):\n"
        "    line = first_line(*words)\n"
        "    while termios.tcgetattr(0)[3] & termios.ECHO: time.sleep(0.01)\n"
        "    return line\n"
        "start.first_ssh = slow\nMoshSession._begin = lambda self: (print('begun', flush=True), begin(self))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    argv = shlex.join([sys.executable, "-c", code, *home.command()[3:], NAME])
    with home.run(["bash", "--norc", "-c", f"{argv}; echo status $?; stty -a"]) as terminal:
        terminal.wait_for("Enter passphrase")
        terminal.wait_for("begun")
        terminal.write("secret\r")
        wait_until(home.windows, what="the session runs")
        for pid in children(terminal.process.pid, "mosh-client"):
            os.kill(pid, signal.SIGKILL)
        terminal.wait_for("status 137")
        terminal.wait_for(" echo ")


def test_a_signal_at_the_very_start_leaves_nothing(home: Place) -> None:
    """ssh has just been started; neither it nor a socket stays."""
    code = (
        "import os, sys; from tunneld.cli import main; from tunneld.mosh import start\n"
        "first_line = start.first_ssh\n"
        "def last_line(*words):\n"
        "    line = first_line(*words)\n"
        "    print('ssh is process', line.process.pid, flush=True)\n"
        "    os.kill(os.getpid(), 15)\n"
        "    return line\n"
        "start.first_ssh = last_line\nsys.exit(main(sys.argv[1:]))"
    )
    with home.run([sys.executable, "-c", code, *home.command()[3:], NAME]) as terminal:
        assert status(terminal) == 128 + signal.SIGTERM
        found = re.search(r"ssh is process (\d+)", terminal.text)
        assert found
        assert not is_alive(int(found[1]))
        assert not os.listdir(home.runtime / paths_socket.FOLDER_NAME)


def test_what_a_killed_start_left_is_removed(home: Place) -> None:
    """Its socket for ssh, by the next session."""
    home.guest.known_hosts.write_text("")
    folder = home.runtime / paths_socket.FOLDER_NAME
    with home.start("--ssh-option", "StrictHostKeyChecking=ask") as terminal:
        terminal.wait_for("Are you sure you want to continue connecting")
        os.kill(terminal.process.pid, signal.SIGKILL)
    left = os.listdir(folder)
    assert len(left) == 1
    with home.start("--ssh-option", "StrictHostKeyChecking=ask") as terminal:
        terminal.wait_for("Are you sure you want to continue connecting")
        assert not set(left) & set(os.listdir(folder))


def test_a_killed_tunneld_leaves_no_mosh_client(home: Place) -> None:
    """It would paint over the shell's screen for ever, and read what is typed there."""
    with home.run(["bash", "--norc", "-i"]) as terminal:
        terminal.write(f"{' '.join([*home.command(), NAME])}\r")
        wait_until(home.windows, what="the session runs")
        (client,), ssh = children(terminal.process.pid, "mosh-client"), ssh_of(terminal)
        os.kill(int(home.windows()[0].partition("-")[0]), signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, [client, *ssh])), what="mosh-client and ssh end", timeout=20)
        terminal.write("echo still $((6 * 7)) here\r")
        terminal.wait_for("still 42 here")
        for pid in servers(home):  # it waits for its client, as with mosh
            os.kill(pid, signal.SIGKILL)


def test_ssh_asks_its_questions_on_the_terminal(home: Place) -> None:
    """A host key that nobody knows yet, here; passwords and the touch of a security key are the same to us."""
    home.guest.known_hosts.write_text("")
    with home.start("--ssh-option", "StrictHostKeyChecking=ask", "-l", "root") as terminal:
        terminal.wait_for("Are you sure you want to continue connecting")
        terminal.write("yes\r")
        wait_until(home.windows, what="the session runs")


def test_an_interrupt_while_ssh_asks_ends_it(home: Place) -> None:
    """As with ssh itself."""
    home.guest.known_hosts.write_text("")
    with home.start("--ssh-option", "StrictHostKeyChecking=ask") as terminal:
        terminal.wait_for("Are you sure you want to continue connecting")
        terminal.write("\x03")
        assert status(terminal) == 130
        assert "Traceback" not in terminal.text


def test_an_interrupt_before_ssh_starts_is_no_fault_of_a_program(home: Place) -> None:
    """mosh-client, which counts colours then, ends of it as well."""
    slow = home.far / "mosh-client"
    slow.write_text("#!/bin/sh\necho counting >/dev/tty\nexec sleep 60\n")
    slow.chmod(0o755)
    with home.start("--client", str(slow)) as terminal:
        terminal.wait_for("counting")
        terminal.write("\x03")
        assert status(terminal) == 130
    assert "tunneld" not in terminal.text


def test_an_interrupt_while_nobody_answers_is_not_complained_of(home: Place) -> None:
    """What holds ssh's connection gets it as well, and the system may tell of its words first."""
    code = (
        "import sys; from selectors import DefaultSelector; from tunneld.cli import main\n"
        "select = DefaultSelector.select\n"
        "DefaultSelector.select = lambda *words: sorted(select(*words), key=lambda found: -found[0].fd)\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    with socket.socket() as silent, socket.socket() as first:
        port = str(unanswered(silent, first))
        with home.run([sys.executable, "-c", code, *home.command("-P", port)[3:], NAME]) as terminal:
            wait_until(lambda: takers(terminal), what="ssh waits for its connection")
            os.kill(terminal.process.pid, signal.SIGSTOP)
            terminal.write("\x03")
            wait_until(lambda: not takers(terminal), what="all others have heard of it")
            os.kill(terminal.process.pid, signal.SIGCONT)
            assert status(terminal) == 130
    assert terminal.text.strip() == "^C"


def test_what_a_login_shell_prints_is_passed_over(home: Place) -> None:
    """Start-up files greet people, not programs."""
    (home.far / ".bashrc").write_text("echo welcome, dear friend\n")
    loud = {"SetEnv": f"SHLVL=0 HOME={home.far}"}
    with place(home.far / "loud", loud) as noisy, noisy.session() as terminal:
        terminal.echo()


def test_the_running_sessions_show_their_paths(home: Place) -> None:
    """`--paths` in another terminal; the session's own screen is not touched."""
    with home.session() as terminal:
        wait_until(lambda: home.pair(terminal).get("in_use", {}).get("carrier") == "path", what="a path is in use")
        shown = next(part for part in home.paths().split("\n\n") if f"process {terminal.process.pid}," in part)
        assert re.match(rf"{NAME}: process \d+, for \d+ s\n  in use    UDP to ", shown)
        assert "UDP" not in terminal.text


@pytest.mark.parametrize("shell", ["/usr/sbin/nologin", "/nonexistent/sh"])
def test_an_account_without_a_shell_here_will_do(home: Place, shell: str) -> None:
    """Such as a service's: ssh would run a command of ours with it."""
    with home.start(env={"SHELL": shell}):
        wait_until(home.windows, what="the session runs")


def test_ssh_says_itself_why_it_failed(home: Place) -> None:
    """Its words, its exit status, and none of ours."""
    with home.start("-P", "1") as terminal:
        assert status(terminal) == 255
        assert "Connection refused" in terminal.text
        assert "tunneld" not in terminal.text


@pytest.mark.parametrize(
    ("programs", "sentence"),
    [
        (("mosh-server",), "home has no python3: install it there, 3.9 or newer"),
        (("python3",), "home has no mosh-server: install mosh there"),
    ],
)
def test_what_is_missing_there_is_said(tmp_path: Path, programs: tuple[str, ...], sentence: str) -> None:
    """With what to install."""
    with place(tmp_path, programs=programs) as bare, bare.start() as terminal:
        assert status(terminal) == 69
        assert f"tunneld: {sentence}" in flat(terminal.text)


def test_an_old_python_there_is_said(tmp_path: Path) -> None:
    """The one-liner that starts everything runs on any Python 3, and refuses."""
    with place(tmp_path, programs=("mosh-server",)) as bare:
        program = "import sys; sys.version = '3.6.8 (old)'; sys.version_info = (3, 6); exec(sys.argv[1])"
        old = bare.far / "bin" / "python3"
        old.write_text(f'#!/bin/sh\nexec {PYTHON} -c "{program}" "$2"\n')
        old.chmod(0o755)
        with bare.start() as terminal:
            assert status(terminal) == 69
            assert "tunneld: home has Python 3.6.8 as python3: install 3.9 or newer there" in flat(terminal.text)


def test_a_key_that_may_run_one_command_only_is_said(home: Place) -> None:
    """With the words of that command."""
    forced = (f'command="echo this key is for backups alone" {home.guest.key.public}\n',)
    (home.sshd.directory / "authorized_keys").write_text("".join(forced))
    with home.start() as terminal:
        assert status(terminal) == 69
        words = "home does not let our agent run (exit status 0); it says: this key is for backups alone"
        assert words in flat(terminal.text)


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ({"LC_ALL": "C"}, "mosh-client needs a UTF-8 locale, and the character set is ANSI_X3.4-1968 (LC_ALL=C)"),
        ({"LC_ALL": "xx_XX.ISO-8859-1"}, "mosh-client needs a UTF-8 locale, and LC_ALL=xx_XX.ISO-8859-1 is not"),
        ({"TERM": "nonsense"}, "mosh-client cannot work on this terminal: 'nonsense': unknown terminal type."),
    ],
)
def test_what_is_missing_here_is_said(home: Place, env: dict[str, str], sentence: str) -> None:
    """Before anything is started there."""
    with home.start(env=env) as terminal:
        assert status(terminal) == 69
        assert f"tunneld: {sentence}" in flat(terminal.text)


def test_a_locale_that_is_only_elsewhere_will_do(home: Place) -> None:
    """Its name says that the terminal speaks UTF-8, and that is all that mosh-client needs to know."""
    with home.start(env={"LC_ALL": "xx_XX.UTF-8"}):
        wait_until(home.windows, what="the session runs")


def test_without_mosh_client_nothing_starts(home: Place) -> None:
    """The sentence says what to install."""
    with home.start("--client", "/nonexistent/mosh-client") as terminal:
        assert status(terminal) == 69
        assert "tunneld: /nonexistent/mosh-client is not installed here: install mosh" in flat(terminal.text)


def test_a_command_that_is_too_long_is_no_fault_of_ours(home: Place) -> None:
    """The system takes so much on one command line, and no more."""
    words = base64.b64encode(random.Random(1).randbytes(90_000)).decode()
    with home.run([*home.command(), NAME, "--", words]) as terminal:
        assert status(terminal) == 69
        terminal.wait_for("ssh cannot be run: Argument list too long")
        assert not os.listdir(home.runtime / paths_socket.FOLDER_NAME)


def flat(text: str) -> str:
    """Without the line ends that the terminal's width has made."""
    return text.replace("\r", "").replace("\n", "")


def unanswered(silent: socket.socket, first: socket.socket) -> int:
    """A port on which nobody answers: another one waits there already, and there is room for no more."""
    silent.bind(("127.0.0.1", 0))
    silent.listen(0)
    first.connect(silent.getsockname())
    return int(silent.getsockname()[1])


def takers(terminal: Terminal) -> list[int]:
    """Processes that wait to give ssh its connection."""
    found = []
    for pid in descendants(terminal.process.pid):
        with contextlib.suppress(OSError):  # it has just ended
            if Path(f"/proc/{pid}/comm").read_text().startswith("python") and socket_of(pid):
                found.append(pid)
    return found


def socket_of(pid: int) -> bool:
    """Whether it has connected to us."""
    return any(str(each.readlink()).startswith("socket:") for each in Path(f"/proc/{pid}/fd").glob("[3-9]"))


def ssh_of(terminal: Terminal) -> set[int]:
    return set(children(terminal.process.pid, "ssh"))


def servers(home: Place) -> list[int]:
    return far_processes(home, b"mosh-server\0")


def agents(home: Place) -> list[int]:
    return far_processes(home, b"python3\0-ISc")


def far_processes(home: Place, begin: bytes) -> list[int]:
    """What runs on the far machine with such a command line: its sessions alone see its home."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            is_ours = folder.name.isdigit() and (folder / "cmdline").read_bytes().startswith(begin)
            if is_ours and f"HOME={home.far}\0".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
