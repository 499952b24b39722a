"""The first stage of the mosh agent: it starts mosh-server and says its key, while the second stage is still under way.

A person waits for this, so the module imports next to nothing: signal, typing, re and json take half as long to import
as mosh-server takes to start, each of them. So what it says is put together by hand, in the form that
tunneld.core.stream.frame describes.
"""

from __future__ import annotations

import io
import os
import select
import sys
import time

LOOPBACK_HOSTS = {4: "127.0.0.1", 6: "::1"}

SERVER_SHELL = "/bin/sh"

PACKAGE_FOLDERS = (
    *("/usr/local/bin", "/opt/homebrew/bin", "/opt/local/bin", "/usr/pkg/bin"),
    *("~/.nix-profile/bin", "~/.local/bin"),
)
"""Where package managers put mosh-server (Homebrew, MacPorts, pkgsrc, Nix). A command that sshd starts without a login
shell seldom has these folders in its PATH."""

COERCED_CTYPES = ("C.UTF-8", "C.utf8", "UTF-8")
"""What Python puts into LC_CTYPE when it finds the C locale (PEP 538); mosh-server must see what sshd gave us."""

COMMON_LOCALES = ("C.UTF-8", "en_US.UTF-8")
"""UTF-8 locales of which most machines have at least one; macOS has the second. They are tried where the machine has no
UTF-8 locale by default, and not the client's locale either."""

IGNORED_SIGNALS = (13, 25)
"""SIGPIPE and SIGXFSZ (which has another number on MIPS alone). Python ignores them, and a person's shell must not."""

SIGKILL, SIGTERM = 9, 15

KEY_TIMEOUT = 15.0
"""Seconds for mosh-server, or a wrapper before it, to say its key. It takes 10 ms."""

PID_TIMEOUT = 0.2
"""Seconds for mosh-server to say its process id, after the key."""

LONGEST_OUTPUT = 64 * 1024
"""Bytes to read of what mosh-server says."""

SECRET_LENGTH = 32
"""Bytes of the secret that both ends of a pair share (see tunneld.core.pair.pair)."""

GREETING = b'\0tunneld\x01\0\x10\0\0\0\0\0\0\0\0{"versions":[1]}'
"""How a stream begins: the preamble and HELLO."""

SERVING = 8
"""The kind of the frame that answers the client (frame.SERVING)."""


class Wanted:
    """What the client wants.

    `server` is mosh-server as a shell's words, `command` what is to run in the terminal (None: a login shell), `colors`
    the number of the client's, `locale` its LANG and LC_ variables. `ports` is "60001" or "60001:60010", and `udp` says
    whether to try UDP paths.
    """

    def __init__(
        self,
        *,
        server: str | None = None,
        command: list[str] | None = None,
        colors: int = 256,
        locale: dict[str, str] | None = None,
        ports: str | None = None,
        udp: bool = True,
    ) -> None:
        self.server = server or "mosh-server"
        self.command = command
        self.colors = colors
        self.locale = locale or {}
        self.ports = ports
        self.udp = udp


class Running:
    """A mosh-server that runs, on the loopback of `family`. `pid` is None where mosh-server did not say it; `keeper` is
    what `detach` gave."""

    def __init__(self, wanted: Wanted, *, keeper: int, family: int, port: int, pid: int | None) -> None:
        self.wanted = wanted
        self.keeper = keeper
        self.family = family
        self.port = port
        self.pid = pid


class Refused(Exception):
    """mosh-server does not run. `code` is for programs, and the text is a sentence for the person."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def begin(wanted: Wanted) -> Running:
    """Start mosh-server, greet the client, and say SERVING. When mosh-server does not start, say why and exit."""
    keeper = detach()
    family, locales = 6, [wanted.locale, *({"LC_CTYPE": charset} for charset in COMMON_LOCALES)]
    while True:
        try:
            port, key, pid = _hear(wanted, *_spawn(wanted, LOOPBACK_HOSTS[family], locales[0]))
        except Refused as refused:
            if refused.code == "no-utf8" and len(locales) > 1:
                del locales[0]
            elif refused.code == "mosh-server" and family == 6 and not _has_ipv6():
                family = 4
            else:
                _say(f'{{"error":{_quoted(str(refused))},"code":{_quoted(refused.code)}}}')
                sys.exit()
        else:
            connection = _quoted(os.environ.get("SSH_CONNECTION", ""))
            _say(f'{{"key":"{key}","pid":{pid or "null"},"family":{family},"ssh_connection":{connection}}}')
            return Running(wanted, keeper=keeper, family=family, port=port, pid=pid)


def detach() -> int:
    """Go on in a process and a session of our own, which the end of the SSH session does not reach.

    The process that sshd started stays behind and becomes `cat`, the smallest program that waits for the end of its
    input.

    Returns:
        The file descriptor whose end that is: close it with the first stream.
    """
    there, here = os.pipe()
    if os.fork():
        os.dup2(there, 0)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.execvp("cat", ["cat"])
    os.close(there)
    os.setsid()
    return here


def rest(running: Running) -> tuple[bytes, bytes]:
    """Read the secret and the second stage from standard input: SECRET_LENGTH bytes, a length in four bytes, and so
    many bytes of text. Not a byte more is read, since frames follow.

    When the client is gone before all has come, mosh-server is ended and this exits.
    """
    source = io.BufferedReader(io.FileIO(0, closefd=False), 1)
    secret = source.read(SECRET_LENGTH)
    length = int.from_bytes(source.read(4), "big")
    text = source.read(length)
    if not text or len(text) < length:
        if running.pid:
            os.kill(running.pid, SIGTERM)
        sys.exit()
    return secret, text


def located(server: str) -> str:
    """mosh-server as a shell's words. A bare name that no folder of PATH has is looked for in PACKAGE_FOLDERS."""
    if server.strip("abcdefghijklmnopqrstuvwxyz0123456789-.") or any(
        os.access(f"{folder}/{server}", os.X_OK) for folder in os.get_exec_path()
    ):
        return server
    places = [os.path.expanduser(f"{folder}/{server}") for folder in PACKAGE_FOLDERS]
    return next(("'" + place.replace("'", "'\\''") + "'" for place in places if os.access(place, os.X_OK)), server)


def environment() -> dict[str, str]:
    """Our environment, without what Python itself put into it."""
    ours = dict(os.environ)
    if ours.get("LC_CTYPE") in COERCED_CTYPES:
        try:
            with open("/proc/self/environ", "rb") as file:
                was_there = any(line.startswith(b"LC_CTYPE=") for line in file.read().split(b"\0"))
        except OSError:
            was_there = False  # the client's own locale comes first anyway
        if not was_there:
            del ours["LC_CTYPE"]
    return ours


def _spawn(wanted: Wanted, host: str, locale: dict[str, str]) -> tuple[int, int]:
    """Start mosh-server for that loopback address.

    Returns:
        The process id of the shell that becomes mosh-server, and the reading end of a pipe with what mosh-server says.
        It leaves our process tree as soon as it has said its key.
    """
    arguments = ["new", "-i", host, "-c", str(wanted.colors)]
    for name, value in locale.items():
        arguments += ["-l", f"{name}={value}"]
    if wanted.ports:
        arguments += ["-p", wanted.ports]
    if wanted.command:
        arguments += ["--", *wanted.command]
    ours, theirs = os.pipe()
    process = os.posix_spawn(
        SERVER_SHELL,
        [SERVER_SHELL, "-c", f'{located(wanted.server)} "$@"', SERVER_SHELL, *arguments],
        environment(),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, theirs, 1),
            (os.POSIX_SPAWN_DUP2, theirs, 2),
        ],
        setsigdef=IGNORED_SIGNALS,
    )
    os.close(theirs)
    return process, ours


def _hear(wanted: Wanted, process: int, pipe: int) -> tuple[int, str, int | None]:
    """Read mosh-server's port, its key, and the id of the process that goes on (None if that is not said in time).

    Raises:
        Refused: mosh-server said something else, or nothing.
    """
    end = time.monotonic() + KEY_TIMEOUT
    said = b""
    connect, pid = None, None
    while len(said) < LONGEST_OUTPUT and not (connect and pid):
        if not select.select([pipe], [], [], max(0.0, end - time.monotonic()))[0]:
            break
        data = os.read(pipe, 4096)
        said += data
        if not data:
            break
        if connect is None and (connect := _connect(said)):
            end = time.monotonic() + PID_TIMEOUT
        pid = _pid(said)
    os.close(pipe)
    if connect is None:
        raise _refusal(wanted.server, said.decode("utf-8", "replace"), _status(process))
    return (*connect, pid)


def _connect(said: bytes) -> tuple[int, str] | None:
    """The port and the key in a whole line `MOSH CONNECT 60001 4NeCCgvZFe2RnPgrcU1PQw`."""
    for line in said.split(b"\n")[:-1]:
        words = line.split()
        if words[:2] == [b"MOSH", b"CONNECT"] and len(words) == 4 and words[2].isdigit() and len(words[3]) == 22:
            key = words[3].decode("ascii", "replace")
            return (int(words[2]), key) if key.replace("+", "0").replace("/", "0").isalnum() else None
    return None


def _pid(said: bytes) -> int | None:
    """The process id in the line `[mosh-server detached, pid = 4711]`, once that is complete."""
    digits, bracket, _ = said.partition(b"mosh-server detached, pid = ")[2].partition(b"]")
    return int(digits) if bracket and digits.isdigit() and len(digits) < 11 else None


def _status(process: int) -> int | None:
    """The exit status of a process that says no more; None if it did not end within a second and was killed."""
    for _ in range(100):
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(process, SIGKILL)
    os.waitpid(process, 0)
    return None


def _refusal(server: str, said: str, status: int | None) -> Refused:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if status is None:
        return Refused("mosh-server", f"{server} there does not say its key")
    if status in (126, 127):  # how a shell says that something cannot be run
        return Refused("no-mosh-server", f"{server} cannot be run there: install mosh on that machine")
    if "UTF-8 native locale" in said:
        return Refused(
            "no-utf8", "that machine has no UTF-8 locale, which mosh-server needs: generate one there (C.UTF-8 will do)"
        )
    return Refused("mosh-server", f"{server} there: {lines[-1][:200] if lines else f'exit status {status}'}")


def _say(serving: str) -> None:
    body = serving.encode()
    words = GREETING + bytes([SERVING]) + len(body).to_bytes(2, "big") + bytes(8) + body
    try:
        while words:
            words = words[os.write(1, words) :]
    except OSError:
        sys.exit()  # nobody listens any more


def _quoted(text: str) -> str:
    """A string as JSON, in ASCII. A character beyond the first 65,536 becomes a question mark."""
    plain = (each if " " <= each <= "~" and each not in '"\\' else f"\\u{min(ord(each), 0x10000):04x}" for each in text)
    return '"' + "".join(plain).replace("\\u10000", "?") + '"'


def _has_ipv6() -> bool:
    import socket  # rarely asked

    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind((LOOPBACK_HOSTS[6], 0))
    except OSError:
        return False
    return True
