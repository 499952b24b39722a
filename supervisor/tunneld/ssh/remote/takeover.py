"""End our own stale session on the relay, and hold a session channel open for the new one.

sshd frees the ports of a client that vanished only when its own probes fail: after a minute or two, or never. So the
new session runs shipped/end_predecessor.py on the relay. The relay keeps a record of our last session there; where that
shows that a process is ours, the program ends it.

By a Mark the record tells whose a session is; Marks makes those of one profile. Holder runs the program, whose channel
then stays open.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import re
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh
from asyncssh.packet import PacketDecodeError

from tunneld.core.printable import LONGEST_QUOTE, one_line
from tunneld.profile import Relay, TcpAddress
from tunneld.shipped.pack import NO_PYTHON, end_predecessor_program, whole_command
from tunneld.ssh.remote.remote import RemoteProgram

# The word that begins the report: a shell's start-up files may have printed other lines before it.
REPORT_BEGINS = "tunneld-claim "

# Seconds until we give up on a relay that reports nothing. The program may take five of them (end_predecessor.py:
# LOCK_TIMEOUT, and END_TIMEOUT twice); a shell's start-up files and a slow link have the rest.
START_TIME = 10.0

# Bytes up to the end of the report: what start-up files print, as much as core/stream/frame.py allows, and then a line.
LONGEST_REPORT = 64 * 1024

# The program that holds a channel open where ours does not run: its input does not end while the channel is open, and
# it costs the relay one small process.
HOLDING_COMMAND = "exec cat"

MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))  # machine-id(5)

INSTEAD = "so a stale session of ours keeps its ports until the relay's own ClientAliveInterval finds it"
WORDS: Mapping[str, str] = {
    "alone": "",
    "ended": "ended our own stale session on the relay",
    "clone": (
        "another machine with this one's machine id holds a session of this profile on the relay, and is left alone: "
        "if one was copied from the other, give one a new id (remove /etc/machine-id, run systemd-machine-id-setup)"
    ),
    "unseen": f"the relay does not show our own sshd process (OpenSSH's, in /proc), {INSTEAD}",
    "unrecorded": f"our account on the relay cannot keep a record there (in ~/.local/state or /tmp), {INSTEAD}",
    "unable": f"our stale session on the relay cannot be ended safely (that takes Linux 5.3 there), {INSTEAD}",
    "forbidden": f"the relay does not let us end our own stale session, {INSTEAD}",
}
"""What the program on the relay has done (its report's `did`), in words for the user; empty: nothing to say."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Whose a session is. The relay keeps it on record with the session.

    A session of our own instance may be ended, and no other. But before this process is on record at a relay, sessions
    of other instances under the same key are those of the daemon that ran here before us: `displaces` says that they
    may be ended as well. Later they belong to a clone of this machine.
    """

    key: str  # names the machine and the profile
    instance: str  # random, one for each daemon process
    displaces: bool


@dataclass(frozen=True, slots=True)
class Takeover:
    """What came of a takeover."""

    ended: bool  # a stale session of ours was ended
    note: str  # for the user; empty: nothing to say
    held_by: Mapping[str, str] = field(default_factory=dict)  # who still holds a listener, by its address as text
    recorded: bool = False  # this process is on record: sessions of other instances are a clone's from now on


class Marks:
    """The marks of one profile, for as long as its tunnels run in this process."""

    def __init__(self, profile: str) -> None:
        self._profile = profile
        self._machine = machine_id()
        self._instance = secrets.token_hex(16)
        self._recorded: set[Relay] = set()

    def of(self, relay: Relay) -> Mark:
        """The mark of a session to `relay`.

        Each relay of a profile has a key of its own: two of them may be one machine, and a session to the one must not
        end the session to the other.
        """
        key = key_of(f"{self._profile} {relay.host} {relay.port or ''}", self._machine)
        return Mark(key, self._instance, displaces=relay not in self._recorded)

    def taken_over(self, relay: Relay, takeover: Takeover) -> None:
        """Note what came of a takeover at `relay`."""
        if takeover.recorded:
            self._recorded.add(relay)


def key_of(profile: str, machine: str) -> str:
    """32 hexadecimal digits that name a profile of this user on this machine, and do not tell which machine it is.

    machine-id(5) asks not to show the id itself to others, but a keyed hash of it.
    """
    text = f"tunneld {os.geteuid()} {profile}"
    return hmac.new(machine.encode(), text.encode(), hashlib.sha256).hexdigest()[:32]


def machine_id(files: Sequence[Path] = MACHINE_IDS) -> str:
    """This machine's id (machine-id(5)); its host name if it has none."""
    for file in files:
        try:
            found = file.read_text("ascii").strip()
        except (OSError, ValueError):
            continue
        if re.fullmatch("[0-9a-f]{32}", found):
            return found
    return socket.gethostname()


class Holder:
    """Holds a session channel of one connection, with our program on the relay: it takes over, reports, and stays.

    Used once.
    """

    def __init__(self, connection: asyncssh.SSHClientConnection, mark: Mark, listens: Sequence[TcpAddress]) -> None:
        """
        Args:
            connection: of the new session.
            mark: whose it is.
            listens: the listeners that it will ask for.
        """
        self._connection = connection
        self._mark = mark
        self._listens = tuple(listens)
        self._output = b""
        self._reported = asyncio.Event()  # the report is there, or will not come
        self._program = RemoteProgram(self._received, self._reported.set)
        self._stays = False

    async def start(self) -> Takeover:
        """End our own stale session, if there is one.

        This takes START_TIME at most, and raises nothing but a cancellation, which leaves nothing running on the relay.
        """
        try:
            async with asyncio.timeout(START_TIME):
                await self._run()
                await self._reported.wait()
        except TimeoutError:
            self._program.close()
            return Takeover(False, f"the relay did not run our program within {START_TIME:g} s, {INSTEAD}")
        except (asyncssh.Error, OSError, PacketDecodeError) as error:
            self._program.close()
            if isinstance(error, OSError | asyncssh.DisconnectError) or self._connection.is_closed():
                return Takeover(False, "")  # the connection is lost: its owner says so
            reason = one_line(str(error), LONGEST_QUOTE) or "refused"
            return Takeover(False, f"the relay runs no commands for us ({reason}), {INSTEAD}")
        except BaseException:
            self._program.close()
            raise
        report = _report_in(self._output)
        self._stays = report is not None
        return Takeover(False, self._why_silent()) if report is None else self._told(report)

    async def hold(self) -> None:
        """After `start`: hold the channel until it or the connection ends. If our program does not run, `cat` does."""
        try:
            await self._program.ended.wait()
            if not self._stays:
                await hold_session(self._connection)
        finally:
            self.close()

    def close(self) -> None:
        """Have the program leave; the connection stays."""
        self._program.close()

    async def _run(self) -> None:
        key, instance, displaces = self._mark.key, self._mark.instance, self._mark.displaces
        listens = [(each.host, each.port) for each in self._listens]
        command = whole_command(end_predecessor_program(REPORT_BEGINS, key, instance, displaces, listens))
        await self._connection.create_session(lambda: self._program, command, encoding=None)

    def _received(self, data: bytes) -> None:
        if not self._reported.is_set():
            self._output += data
            at = self._output.find(REPORT_BEGINS.encode())
            if (at >= 0 and b"\n" in self._output[at:]) or len(self._output) > LONGEST_REPORT:
                self._reported.set()

    def _told(self, report: Mapping[str, Any]) -> Takeover:
        did = report.get("did")
        held = report.get("held")
        return Takeover(
            ended=did == "ended",
            note=WORDS.get(did, "") if isinstance(did, str) else "",
            held_by=_held_by(self._listens, held if isinstance(held, list) else []),
            recorded=report.get("recorded") is True,
        )

    def _why_silent(self) -> str:
        if self._connection.is_closed():
            return ""  # its owner says so
        if self._program.exit_status == NO_PYTHON:
            return f"the relay has no python3, {INSTEAD}"
        said = self._program.last_words
        return f"the relay did not run our program{f' (it said: {said})' if said else ''}, {INSTEAD}"


async def hold_session(connection: asyncssh.SSHClientConnection) -> None:
    """Hold a session channel with `cat` until cancelled, or until the channel or the connection ends.

    A tunnel that has listeners alone needs a channel: sshd sets TCP_NODELAY only when a session starts, and its
    `UnusedConnectionTimeout` (OpenSSH 9.2 and newer) does not count listeners, and so may close the connection. Where
    the relay forbids sessions, this returns quietly.
    """
    try:
        process = await connection.create_process(HOLDING_COMMAND, encoding=None)
    except (asyncssh.Error, OSError, PacketDecodeError):
        return
    try:
        await process.wait_closed()
    finally:
        process.stdin.write_eof()  # not `close`, for the reason that RemoteProgram.close gives


def _report_in(output: bytes) -> Mapping[str, Any] | None:
    """The report in what the relay wrote; None if there is none."""
    line = output.partition(REPORT_BEGINS.encode())[2].partition(b"\n")[0]
    try:
        report = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return report if isinstance(report, dict) else None


def _held_by(listens: Sequence[TcpAddress], held: Sequence[Any]) -> dict[str, str]:
    """Who holds which listener, in words. The report names [whether it is our account, the user], or null, for each."""
    found = {}
    for address, owner in zip(listens, held, strict=False):
        match owner:
            case [bool(ours), str(user)]:
                found[str(address)] = f"user {one_line(user, LONGEST_QUOTE)}{' (our own account)' if ours else ''}"
    return found
