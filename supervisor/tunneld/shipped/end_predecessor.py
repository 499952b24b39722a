"""The program that a session runs first on its relay: it ends our own stale session there, and says who holds a port.

After a power cut or a change of address, the relay's sshd goes on holding our ports for a session whose other end is
gone. So each session of a profile leaves a record of its own sshd process on the relay, and the next session ends
exactly that process. docs/protocol.md has the record and the rules.

The program runs from its source text (tunneld.shipped.pack) on Python 3.9 or newer, with the standard library alone,
and then becomes `cat`. The ports are not free before it has run, so it imports little: `json` alone would double its
time.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import stat
import sys
import time

from tunneld.shipped.port_holders import holders
from tunneld.shipped.private_folder import is_private, make_private

RECORD_VERSION = "1"
"""The first word of a record."""

SSHD_NAMES = ("sshd", "sshd-session")
"""Names of the process that holds a session's listeners: before OpenSSH 9.8, and since."""

OTHER_TITLES = (b"[listener]", b"[priv]")
"""What the titles of sshd's other processes contain (sshd.c, monitor.c). root could end those too, and never must."""

MOST_ANCESTORS = 4
"""How many of our ancestors are looked at: a shell that does not replace itself, or a wrapper, may stand between sshd
and us."""

FALLBACK_PLACE = "/tmp"
"""Where records go when the home folder cannot be written to. Not TMPDIR, which may be another for each session."""

MOST_RECORDS = 8
"""Sessions in one file: ours, and those of clones of our machine."""

LONGEST_RECORD = 4096
"""Bytes that are read of a record's file; a record of ours has about a hundred."""

END_TIMEOUT = 1.0
"""Seconds for a process to end after SIGTERM, and again after SIGKILL. A live sshd takes 2 ms; one that is stopped
does not end before SIGKILL."""

LOCK_TIMEOUT = 3.0
"""Seconds to wait for another session of the same profile, which may need END_TIMEOUT twice."""


class Process:
    """A process as proc(5) shows it. No two processes of one boot share both the PID and the start time."""

    def __init__(self, pid: int) -> None:
        """
        Raises:
            OSError, ValueError, IndexError, StopIteration: there is no such process, or we may not see it.
        """
        with open(f"/proc/{pid}/stat", "rb") as file:
            before, _, after = file.read().rpartition(b")")  # a name may hold spaces, and brackets
        fields = after.split()
        self.pid = pid
        self.name = before.partition(b"(")[2].decode("ascii", "replace")
        self.parent = int(fields[1])
        self.start = int(fields[19])  # clock ticks since boot; field 22 of the line
        with open(f"/proc/{pid}/status", "rb") as file:
            # Not the owner of the folder: that is root when a process has changed its user.
            self.uids = next(set(map(int, line.split()[1:])) for line in file if line.startswith(b"Uid:"))
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            self.title = file.read(4096)  # empty when it has just ended, or is about to begin

    @property
    def is_session(self) -> bool:
        """Whether this is an sshd process of our user that serves one SSH connection."""
        if self.pid <= 1 or self.uids != {os.geteuid()} or self.name not in SSHD_NAMES:
            return False
        return bool(self.title) and not any(mark in self.title for mark in OTHER_TITLES)


def process_of(pid: int) -> Process | None:
    """The process of that number; None where there is none, or we may not see it."""
    try:
        return Process(pid)
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def own_session() -> Process | None:
    """The sshd process that serves the SSH connection through which we were started; None where we cannot see it."""
    pid = os.getppid()
    for _ in range(MOST_ANCESTORS):
        process = process_of(pid)
        if process is None or process.is_session:
            return process
        pid = process.parent
    return None


def boot() -> str:
    """Names this boot of this kernel and our namespace of processes: several machines may share a home folder.

    Raises:
        OSError: /proc does not tell.
    """
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip() + "/" + os.readlink("/proc/self/ns/pid")


# The record


class Record:
    """A line of the file: `1 PID START BOOT INSTANCE`. `start` is in clock ticks since boot, `booted` as of `boot`, and
    `instance` is random, another for each daemon process."""

    def __init__(self, pid: int, start: int, booted: str, instance: str) -> None:
        self.pid, self.start, self.booted, self.instance = pid, start, booted, instance

    def __str__(self) -> str:
        return f"{RECORD_VERSION} {self.pid} {self.start} {self.booted} {self.instance}\n"

    def still_runs(self, booted: str) -> bool:
        """Whether the process on record runs now, in the boot that `booted` names, and is an sshd session of ours.

        Another process that was given the same number since does not count.
        """
        if self.booted != booted:
            return False
        process = process_of(self.pid)
        return process is not None and process.is_session and process.start == self.start


def parse_records(text: str) -> list[Record]:
    """The records in a file. A line that is no record of RECORD_VERSION is left out."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) == 5 and words[0] == RECORD_VERSION and words[1].isdigit() and words[2].isdigit():
            found.append(Record(int(words[1]), int(words[2]), words[3], words[4]))
    return found


def record_folders() -> list[str]:
    """Where records may be, the best place first."""
    state = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        state = os.path.expanduser("~/.local/state")
    found = [state + "/tunneld/sessions"] if os.path.isabs(state) else []
    return [*found, f"{FALLBACK_PLACE}/tunneld-{os.geteuid()}"]


def open_record(key: str) -> int:
    """Open the record's file for the profile that `key` names, make it where there is none, and lock it.

    Returns:
        Its file descriptor; whoever closes that releases the lock.

    Raises:
        OSError: no folder for it is ours alone, or another session has held the lock for LOCK_TIMEOUT.
    """
    os.umask(0o077)
    error = OSError("nowhere")
    for folder in record_folders():
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
    """Let one session of a profile look at its record at a time.

    Raises:
        OSError: another session has held the lock for LOCK_TIMEOUT.
    """
    until = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise
        time.sleep(0.005)


# The takeover


def take_over(key: str, instance: str, displaces: bool) -> tuple[str, bool]:
    """End our own stale sessions, and leave a record of this session.

    Sessions of `instance` are ours. `displaces` says that those of other instances under the same key are our
    predecessor's as well; otherwise they are a clone's.

    Returns:
        What was done, as `did` in docs/protocol.md, and whether this session is on record.
    """
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
            for record in parse_records(os.read(file, LONGEST_RECORD).decode("ascii", "replace"))
            if record.still_runs(booted) and (record.pid, record.start) != (mine.pid, mine.start)
        ]
        stale = [record for record in alive if displaces or record.instance == instance]
        clones = [record for record in alive if record not in stale]
        done = [end_process(record) for record in stale]
        left = [record for record, how in zip(stale, done) if how != "ended"]
        text = "".join(map(str, [mine, *left, *clones][:MOST_RECORDS])).encode()
        os.pwrite(file, text, 0)
        os.ftruncate(file, len(text))
    except OSError:
        return "unrecorded", False
    finally:
        os.close(file)
    worst = next((how for how in done if how != "ended"), "")
    return worst or ("ended" if done else "clone" if clones else "alone"), True


def end_process(record: Record) -> str:
    """End the process on record, and no other one.

    While its pidfd (pidfd_open(2)) is open, a signal through that can reach no process but this one.

    Returns:
        "ended"; "unable" where the kernel has no pidfds (they came with Linux 5.3) or the process does not end;
        "forbidden" where the signal is refused.
    """
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
            # Its number may have been given to another process before pidfd_open. The process on record still runs
            # now, with the descriptor open: so the descriptor is of that process.
            if not record.still_runs(record.booted):
                return "ended"
            signal.pidfd_send_signal(process, number)
            if select.select([process], [], [], END_TIMEOUT)[0]:
                return "ended"
        return "unable"
    except ProcessLookupError:
        return "ended"
    except OSError:
        return "forbidden"
    finally:
        os.close(process)


def main(sync: str, key: str, instance: str, displaces: bool, listens: list[tuple[str, int]]) -> None:
    """Take over, report in one line that begins with `sync`, and stay for as long as the session does.

    `key` names the profile, `instance` and `displaces` are as of `take_over`, `listens` are the hosts and ports about
    whose holders the session wants to know.
    """
    did, recorded = take_over(key, instance, displaces)
    import json

    report = {"did": did, "recorded": recorded, "held": holders(listens)}
    sys.stdout.write(sync + json.dumps(report) + "\n")
    sys.stdout.flush()
    os.execvp("cat", ["cat"])
