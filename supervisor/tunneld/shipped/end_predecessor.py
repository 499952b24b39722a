"""What a session runs first on its relay: it ends our own stale session there, and says who holds which port.

After a power cut or a change of address the relay's sshd goes on holding our ports for a session whose other end is
gone. So each session of a profile leaves a record of its own sshd process, and the next one ends exactly that process.
The record and the rules are in docs/protocol.md.

It runs from its source text (tunneld.shipped.pack) on Python 3.9 or newer with the standard library alone, and then
becomes `cat`. What stands on the way to a free port imports little: `json` alone would double the time.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import stat
import sys
import time

from tunneld.shipped.private_folder import is_private, make_private

VERSION = "1"
"""First word of a record."""

SSHD = ("sshd", "sshd-session")
"""Names of the process that holds a session's listeners: before OpenSSH 9.8, and since."""

NO_SESSION = (b"[listener]", b"[priv]")
"""In the titles of sshd's other processes (sshd.c, monitor.c). root may end those as well, and never must."""

DEPTH = 4
"""Ancestors looked at: a shell that does not replace itself, or a wrapper, may stand between sshd and us."""

TEMPORARY = "/tmp"
"""Where records go whose home cannot be written to; not TMPDIR, which may be a session's own."""

MOST_RECORDS = 8
"""Sessions in one file: ours, and those of clones of our machine."""

LONGEST_RECORD = 4096
"""Bytes read of a record's file; ours have a hundred for each session."""

PATIENCE = 1.0
"""Seconds for a process to end by SIGTERM, and again by SIGKILL. A live sshd takes 2 ms; one that is stopped needs the
second."""

LOCK_TIME = 3.0
"""Seconds to wait for another session of the same profile, which may need PATIENCE twice."""

LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp, which lists listeners first (tcp_ipv4.c)


class Process:
    """A process as proc(5) shows it. PID and start time together are never given twice in one boot."""

    def __init__(self, pid: int) -> None:
        """Raises OSError, ValueError or IndexError where there is no such process, or nothing can be seen of it."""
        with open(f"/proc/{pid}/stat", "rb") as file:
            before, _, after = file.read().rpartition(b")")  # a name may hold spaces, and brackets
        fields = after.split()
        self.pid = pid
        self.name = before.partition(b"(")[2].decode("ascii", "replace")
        self.parent = int(fields[1])
        self.start = int(fields[19])  # clock ticks since boot; field 22 of the line
        with open(f"/proc/{pid}/status", "rb") as file:
            # Not the owner of the folder: that is root's for a process that has changed its user.
            self.uids = next(set(map(int, line.split()[1:])) for line in file if line.startswith(b"Uid:"))
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            self.title = file.read(4096)  # empty for one that has just ended, or is about to begin

    @property
    def is_session(self) -> bool:
        """Whether it is an sshd of our user that serves one connection."""
        if self.pid <= 1 or self.uids != {os.geteuid()} or self.name not in SSHD:
            return False
        return bool(self.title) and not any(mark in self.title for mark in NO_SESSION)


def look(pid: int) -> Process | None:
    """The process of that number, as far as we can see one."""
    try:
        return Process(pid)
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def own_session() -> Process | None:
    """The sshd process that serves the connection through which we were started."""
    pid = os.getppid()
    for _ in range(DEPTH):
        process = look(pid)
        if process is None or process.is_session:
            return process
        pid = process.parent
    return None


def boot() -> str:
    """Names this boot of this kernel and our view of its processes; a home folder may be shared by several."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip() + "/" + os.readlink("/proc/self/ns/pid")


# The record


class Record:
    """A line of the file: `1 PID START BOOT INSTANCE`. `instance` is random, one for each run of a daemon."""

    def __init__(self, pid: int, start: int, booted: str, instance: str) -> None:
        self.pid, self.start, self.booted, self.instance = pid, start, booted, instance

    def __str__(self) -> str:
        return f"{VERSION} {self.pid} {self.start} {self.booted} {self.instance}\n"

    def fits(self, booted: str) -> bool:
        """Whether the process that it names still runs, and is the same one."""
        if self.booted != booted:
            return False
        process = look(self.pid)
        return process is not None and process.is_session and process.start == self.start


def parse(text: str) -> list[Record]:
    """The records in a file, as far as they make sense."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) == 5 and words[0] == VERSION and words[1].isdigit() and words[2].isdigit():
            found.append(Record(int(words[1]), int(words[2]), words[3], words[4]))
    return found


def folders() -> list[str]:
    """Where records may lie, the best place first."""
    state = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        state = os.path.expanduser("~/.local/state")
    found = [state + "/tunneld/sessions"] if os.path.isabs(state) else []
    return [*found, f"{TEMPORARY}/tunneld-{os.geteuid()}"]


def open_record(key: str) -> int:
    """The profile's file, locked, as a descriptor; it is made where there is none.

    Raises:
        OSError: there is no folder for it that is ours alone, or another session has held it for LOCK_TIME.
    """
    os.umask(0o077)
    error = OSError("nowhere")
    for folder in folders():
        try:
            make_private(folder)
            file = os.open(f"{folder}/{key}", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as failed:
            error = failed
            continue
        try:
            if not is_private(os.fstat(file), stat.S_IFREG):
                raise PermissionError("somebody else could have written the record")
            lock(file)
        except OSError as failed:
            os.close(file)
            error = failed
            continue
        return file
    raise error


def lock(file: int) -> None:
    """One session of a profile at a time. Raises OSError after LOCK_TIME."""
    until = time.monotonic() + LOCK_TIME
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise
        time.sleep(0.005)


# The takeover


def claim(key: str, instance: str, displaces: bool) -> tuple[str, bool]:
    """End what is ours and stale, and leave our own record; what was done, and whether we are on record."""
    own = own_session()
    if own is None:
        return "unseen", False
    try:
        booted = boot()
        file = open_record(key)
    except OSError:
        return "unrecorded", False
    try:
        mine = Record(own.pid, own.start, booted, instance)
        alive = [
            record
            for record in parse(os.read(file, LONGEST_RECORD).decode("ascii", "replace"))
            if record.fits(booted) and (record.pid, record.start) != (mine.pid, mine.start)
        ]
        mayend = [record for record in alive if displaces or record.instance == instance]
        others = [record for record in alive if record not in mayend]
        done = [end(record) for record in mayend]
        left = [record for record, how in zip(mayend, done) if how != "ended"]
        text = "".join(map(str, [mine, *left, *others][:MOST_RECORDS])).encode()
        os.pwrite(file, text, 0)
        os.ftruncate(file, len(text))
    except OSError:
        return "unrecorded", False
    finally:
        os.close(file)
    worst = next((how for how in done if how != "ended"), "")
    return worst or ("ended" if done else "clone" if others else "alone"), True


def end(record: Record) -> str:
    """End the process that a record names, and no other: a descriptor holds on to it while it is looked at."""
    if not hasattr(os, "pidfd_open") or not hasattr(signal, "pidfd_send_signal"):
        return "unable"
    try:
        process = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return "ended"
    except OSError:
        return "unable"
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            # It ran before the descriptor was opened and still does after that: the descriptor is of no other.
            if not record.fits(record.booted):
                return "ended"
            signal.pidfd_send_signal(process, number)
            if select.select([process], [], [], PATIENCE)[0]:
                return "ended"
        return "unable"
    except ProcessLookupError:
        return "ended"
    except OSError:
        return "forbidden"
    finally:
        os.close(process)


# Who listens


def holders(listens: list[tuple[str, int]]) -> list[list[object] | None]:
    """For each address: whether our own user listens there, and the user's name. None where nobody does."""
    taken = list(listeners())
    found: list[list[object] | None] = []
    for host, port in listens:
        wanted = addresses(host)
        uid = next((uid for address, at, uid in taken if at == port and clash(address, wanted)), None)
        found.append(None if uid is None else [uid == os.geteuid(), name_of(uid)])
    return found


def listeners() -> list[tuple[bytes, int, int]]:
    """Address, port and user of each TCP socket that listens; none where /proc does not tell."""
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table) as file:
                next(file)
                for line in file:
                    fields = line.split()
                    if fields[3] != LISTENING:
                        break
                    address, _, port = fields[1].partition(":")
                    words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
                    packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
                    found.append((packed, int(port, 16), int(fields[7])))
        except (OSError, StopIteration):
            continue
    return found


def addresses(host: str) -> set[bytes]:
    """What a forward's host may mean to sshd, packed; nothing where it means every address, or a name."""
    import socket

    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return {socket.inet_pton(family, host)}
        except OSError:
            continue
    if host != "localhost":
        return set()
    return {socket.inet_pton(socket.AF_INET, "127.0.0.1"), socket.inet_pton(socket.AF_INET6, "::1")}


def clash(address: bytes, wanted: set[bytes]) -> bool:
    """Whether a socket on this address is in the way of one on any of those."""
    return not wanted or address in wanted or not any(address) or not all(any(each) for each in wanted)


def name_of(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def main(sync: str, key: str, instance: str, displaces: bool, listens: list[tuple[str, int]]) -> None:
    """Claim, report in one line that begins with `sync`, and stay for as long as the session does."""
    did, recorded = claim(key, instance, displaces)
    import json

    report = {"did": did, "recorded": recorded, "held": holders(listens)}
    sys.stdout.write(sync + json.dumps(report) + "\n")
    sys.stdout.flush()
    os.execvp("cat", ["cat"])
