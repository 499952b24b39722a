"""The start of `tunneld mosh` as a person sees it, on a terminal, with a real ssh, sshd and mosh."""

from __future__ import annotations

import base64
import contextlib
import os
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.terminal import Terminal
from tests.mosh.place import NAME, NEEDS_MOSH, PYTHON, Place, children, exit_status, is_alive, place
from tests.sshd import descendants
from tests.until import wait_until
from tunneld.mosh import paths_socket

pytestmark = NEEDS_MOSH


def test_a_command_is_run_there_as_it_was_typed(home: Place) -> None:
    """Words with spaces stay words."""
    argv = [*home.command("--no-udp"), NAME, "--", "sh", "-c", 'echo "<$1|$2>"; read x', "sh", "a  b", "$HOME"]
    with home.run(argv) as terminal:
        terminal.wait_for("<a  b|$HOME>")


def test_a_terminal_on_which_ssh_asks_meanwhile_shows_what_is_typed(home: Place) -> None:
    """ssh may switch the echo off for its question while we are still starting; after the session it is on again."""
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", home.guest.key.path], check=True)
    code = (
        "import sys, termios, time; from tunneld.cli import main; from tunneld.mosh import start\n"
        "from tunneld.mosh.mosh_session import MoshSession\n"
        "first_ssh, begin = start.first_ssh, MoshSession._begin\n"
        "def slow(*words):\n"
        "    ssh = first_ssh(*words)\n"
        "    while termios.tcgetattr(0)[3] & termios.ECHO: time.sleep(0.01)\n"
        "    return ssh\n"
        "start.first_ssh = slow\nMoshSession._begin = lambda self: (print('begun', flush=True), begin(self))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    argv = shlex.join([sys.executable, "-c", code, *home.command()[3:], NAME])
    with home.run(["bash", "--norc", "-c", f"{argv}; echo status $?; stty -a"]) as terminal:
        terminal.wait_for("Enter passphrase")
        terminal.wait_for("begun")
        terminal.write("secret\r")
        wait_until(home.sockets, what="the session runs")
        for pid in children(terminal.process.pid, "mosh-client"):
            os.kill(pid, signal.SIGKILL)
        terminal.wait_for("status 137")
        terminal.wait_for(" echo ")


def test_a_signal_at_the_very_start_leaves_nothing(home: Place) -> None:
    """When ssh has just been started, neither ssh nor a socket stays behind."""
    code = (
        "import os, sys; from tunneld.cli import main; from tunneld.mosh import start\n"
        "first_ssh = start.first_ssh\n"
        "def interrupted(*words):\n"
        "    ssh = first_ssh(*words)\n"
        "    print('ssh is process', ssh.process.pid, flush=True)\n"
        "    os.kill(os.getpid(), 15)\n"
        "    return ssh\n"
        "start.first_ssh = interrupted\nsys.exit(main(sys.argv[1:]))"
    )
    with home.run([sys.executable, "-c", code, *home.command()[3:], NAME]) as terminal:
        assert exit_status(terminal) == 128 + signal.SIGTERM
        found = re.search(r"ssh is process (\d+)", terminal.text)
        assert found
        assert not is_alive(int(found[1]))
        assert not os.listdir(home.runtime / paths_socket.FOLDER_NAME)


def test_what_a_killed_start_left_is_removed(home: Place) -> None:
    """The next session removes the socket at which ssh would have taken its connection."""
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


def test_ssh_asks_its_questions_on_the_terminal(home: Place) -> None:
    """Here it is a host key that nobody knows yet; passwords and the touch of a security key are asked for alike."""
    home.guest.known_hosts.write_text("")
    with home.start("--ssh-option", "StrictHostKeyChecking=ask", "-l", "root") as terminal:
        terminal.wait_for("Are you sure you want to continue connecting")
        terminal.write("yes\r")
        wait_until(home.sockets, what="the session runs")


def test_an_interrupt_while_ssh_asks_ends_it(home: Place) -> None:
    """The exit status is that of a shell for SIGINT, as with ssh itself."""
    home.guest.known_hosts.write_text("")
    with home.start("--ssh-option", "StrictHostKeyChecking=ask") as terminal:
        terminal.wait_for("Are you sure you want to continue connecting")
        terminal.write("\x03")
        assert exit_status(terminal) == 130
        assert "Traceback" not in terminal.text


def test_an_interrupt_before_ssh_starts_is_no_fault_of_a_program(home: Place) -> None:
    """mosh-client, which counts colours at that moment, is ended by the interrupt as well."""
    slow = home.dest_home / "mosh-client"
    slow.write_text("#!/bin/sh\necho counting >/dev/tty\nexec sleep 60\n")
    slow.chmod(0o755)
    with home.start("--client", str(slow)) as terminal:
        terminal.wait_for("counting")
        terminal.write("\x03")
        assert exit_status(terminal) == 130
    assert "tunneld" not in terminal.text


def test_an_interrupt_while_nobody_answers_is_not_complained_of(home: Place) -> None:
    """ssh's ProxyCommand is interrupted as well, and its complaint may reach us before our own signal does."""
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
            wait_until(lambda: not takers(terminal), what="the interrupt has ended all others")
            os.kill(terminal.process.pid, signal.SIGCONT)
            assert exit_status(terminal) == 130
    assert terminal.text.strip() == "^C"


def test_what_a_login_shell_prints_is_passed_over(home: Place) -> None:
    """The greetings of start-up files are meant for people, and come before our agent speaks."""
    (home.dest_home / ".bashrc").write_text("echo welcome, dear friend\n")
    loud = {"SetEnv": f"SHLVL=0 HOME={home.dest_home}"}
    with place(home.dest_home / "loud", loud) as noisy, noisy.session() as terminal:
        terminal.echo()


@pytest.mark.parametrize("shell", ["/usr/sbin/nologin", "/nonexistent/sh"])
def test_an_account_without_a_shell_here_will_do(home: Place, shell: str) -> None:
    """A service's account has none, and ssh would run our ProxyCommand with it: then ssh connects by itself."""
    with home.start(env={"SHELL": shell}):
        wait_until(home.sockets, what="the session runs")


def test_ssh_says_itself_why_it_failed(home: Place) -> None:
    """The person sees ssh's words and gets ssh's exit status, and tunneld adds nothing."""
    with home.start("-P", "1") as terminal:
        assert exit_status(terminal) == 255
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
    """The sentence says what to install."""
    with place(tmp_path, programs=programs) as bare, bare.start() as terminal:
        assert exit_status(terminal) == 69
        assert f"tunneld: {sentence}" in flat(terminal.text)


def test_an_old_python_there_is_said(tmp_path: Path) -> None:
    """The one-liner that starts our agent runs on every Python 3, and refuses those that are too old."""
    with place(tmp_path, programs=("mosh-server",)) as bare:
        program = "import sys; sys.version = '3.6.8 (old)'; sys.version_info = (3, 6); exec(sys.argv[1])"
        old = bare.dest_home / "bin" / "python3"
        old.write_text(f'#!/bin/sh\nexec {PYTHON} -c "{program}" "$2"\n')
        old.chmod(0o755)
        with bare.start() as terminal:
            assert exit_status(terminal) == 69
            assert "tunneld: home has Python 3.6.8 as python3: install 3.9 or newer there" in flat(terminal.text)


def test_a_key_that_may_run_one_command_only_is_said(home: Place) -> None:
    """The sentence repeats the words of that command."""
    forced = (f'command="echo this key is for backups alone" {home.guest.key.public}\n',)
    (home.sshd.directory / "authorized_keys").write_text("".join(forced))
    with home.start() as terminal:
        assert exit_status(terminal) == 69
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
    """Nothing has been started on DEST by then."""
    with home.start(env=env) as terminal:
        assert exit_status(terminal) == 69
        assert f"tunneld: {sentence}" in flat(terminal.text)


def test_a_locale_that_is_only_elsewhere_will_do(home: Place) -> None:
    """Its name says that the terminal speaks UTF-8, and that is all that mosh-client needs to know."""
    with home.start(env={"LC_ALL": "xx_XX.UTF-8"}):
        wait_until(home.sockets, what="the session runs")


def test_without_mosh_client_nothing_starts(home: Place) -> None:
    """The sentence says what to install."""
    with home.start("--client", "/nonexistent/mosh-client") as terminal:
        assert exit_status(terminal) == 69
        assert "tunneld: /nonexistent/mosh-client is not installed here: install mosh" in flat(terminal.text)


def test_a_command_that_is_too_long_is_no_fault_of_ours(home: Place) -> None:
    """The system limits the length of a command line."""
    words = base64.b64encode(random.Random(1).randbytes(90_000)).decode()
    with home.run([*home.command(), NAME, "--", words]) as terminal:
        assert exit_status(terminal) == 69
        terminal.wait_for("ssh cannot be run: Argument list too long")
        assert not os.listdir(home.runtime / paths_socket.FOLDER_NAME)


def flat(text: str) -> str:
    """Without the line ends that the terminal's width has made."""
    return text.replace("\r", "").replace("\n", "")


def unanswered(silent: socket.socket, first: socket.socket) -> int:
    """A port on which nobody answers: its queue has room for one connection, which waits there already."""
    silent.bind(("127.0.0.1", 0))
    silent.listen(0)
    first.connect(silent.getsockname())
    return int(silent.getsockname()[1])


def takers(terminal: Terminal) -> list[int]:
    """Processes that wait for our connection, to pass it to ssh."""
    found = []
    for pid in descendants(terminal.process.pid):
        with contextlib.suppress(OSError):  # it has just ended
            if Path(f"/proc/{pid}/comm").read_text().startswith("python") and socket_of(pid):
                found.append(pid)
    return found


def socket_of(pid: int) -> bool:
    """Whether this process has a socket open, such as the one to us."""
    return any(str(each.readlink()).startswith("socket:") for each in Path(f"/proc/{pid}/fd").glob("[3-9]"))
