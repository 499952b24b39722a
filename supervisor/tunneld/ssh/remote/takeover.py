"""Ending our own stale session on the relay, and holding a session channel open for the new one.

sshd frees the ports of a client that vanished only when its own probes fail: after a minute or two, or never. The new
session runs shipped/end_predecessor.py there, which ends the old one's process where the relay's record shows that it
is ours.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh
from asyncssh.packet import PacketDecodeError

from tunneld.profile import TcpAddress
from tunneld.shipped.pack import NO_PYTHON, end_predecessor_program, whole_command
from tunneld.ssh.connect.failure import safe
from tunneld.ssh.remote.holder import hold_session
from tunneld.ssh.remote.remote import RemoteProgram

# Begins the report; start-up files of a shell may have printed other lines before it.
SYNC = "tunneld-claim "

# Seconds until a relay that says nothing is left alone. The program may take five (end_predecessor.py: LOCK_TIMEOUT,
# END_TIMEOUT twice); a shell's start-up files and a slow link have the rest.
START_TIME = 10.0

# Bytes before and in the report: what start-up files print, as in core/frame.py, and then one line.
LONGEST_ANSWER = 64 * 1024

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
"""What tunneld.shipped.end_predecessor did, in words for the user."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Whose a session is. `key` names the machine and its profile; `instance` is random, one for each daemon process.

    Sessions of our own `instance` may be ended. `displaces` says that sessions of others under the same key may be as
    well: while this process has not been on record there, they are our predecessor's. Later they are a clone's.
    """

    key: str
    instance: str
    displaces: bool


@dataclass(frozen=True, slots=True)
class Takeover:
    """What came of it. `note` is for the user, empty where there is nothing to say.

    `held_by` tells of each listener that somebody held afterwards, by its address as text, who that is.
    """

    ended: bool
    note: str
    held_by: Mapping[str, str] = field(default_factory=dict)
    recorded: bool = False  # from now on, sessions of other instances are not our predecessor's


def key_of(profile: str, machine: str) -> str:
    """Names a profile of this user on this machine; it does not tell which machine that is (machine-id(5))."""
    text = f"tunneld {os.geteuid()} {profile}"
    return hmac.new(machine.encode(), text.encode(), hashlib.sha256).hexdigest()[:32]


def machine_id(files: Sequence[Path] = MACHINE_IDS) -> str:
    """This machine's id; its name where it has none."""
    for file in files:
        try:
            found = file.read_text("ascii").strip()
        except (OSError, ValueError):
            continue
        if re.fullmatch("[0-9a-f]{32}", found):
            return found
    return socket.gethostname()


class Holder:
    """The program on the relay, on one connection: it takes over, reports, and stays. Used once."""

    def __init__(self, connection: asyncssh.SSHClientConnection, mark: Mark, listens: Sequence[TcpAddress]) -> None:
        self._connection = connection
        self._mark = mark
        self._listens = tuple(listens)
        self._answer = b""
        self._spoken = asyncio.Event()
        self._program = RemoteProgram(self._received, self._spoken.set)
        self._stays = False

    async def start(self) -> Takeover:
        """End our own stale session, if there is one. Takes START_TIME at most, and raises nothing but a cancellation.

        Raises:
            asyncio.CancelledError: and nothing is left running on the relay.
        """
        try:
            async with asyncio.timeout(START_TIME):
                await self._run()
                await self._spoken.wait()
        except TimeoutError:
            self._program.close()
            return Takeover(False, f"the relay did not run our program within {START_TIME:g} s, {INSTEAD}")
        except (asyncssh.Error, OSError, PacketDecodeError) as error:
            self._program.close()
            if isinstance(error, OSError | asyncssh.DisconnectError) or self._connection.is_closed():
                return Takeover(False, "")  # the connection is lost, which is news that others tell
            return Takeover(False, f"the relay runs no commands for us ({safe(str(error)) or 'refused'}), {INSTEAD}")
        except BaseException:
            self._program.close()
            raise
        report = _read(self._answer)
        self._stays = report is not None
        return Takeover(False, self._why_silent()) if report is None else self._told(report)

    async def hold(self) -> None:
        """After `start`: until the channel or the connection ends. Where our program does not run, `cat` has to do."""
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
        command = whole_command(end_predecessor_program(SYNC, key, instance, displaces, listens))
        await self._connection.create_session(lambda: self._program, command, encoding=None)

    def _received(self, data: bytes) -> None:
        if not self._spoken.is_set():
            self._answer += data
            at = self._answer.find(SYNC.encode())
            if (at >= 0 and b"\n" in self._answer[at:]) or len(self._answer) > LONGEST_ANSWER:
                self._spoken.set()

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
            return ""  # which is news that others tell
        if self._program.exit_status == NO_PYTHON:
            return f"the relay has no python3, {INSTEAD}"
        said = self._program.last_words
        return f"the relay did not run our program{f' (it said: {said})' if said else ''}, {INSTEAD}"


def _read(answer: bytes) -> Mapping[str, Any] | None:
    """The report in what the relay wrote; None where there is none."""
    line = answer.partition(SYNC.encode())[2].partition(b"\n")[0]
    try:
        report = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return report if isinstance(report, dict) else None


def _held_by(listens: Sequence[TcpAddress], held: Sequence[Any]) -> dict[str, str]:
    """Who holds which of these, in words."""
    found = {}
    for address, holder in zip(listens, held, strict=False):
        match holder:
            case [bool(ours), str(user)]:
                found[str(address)] = f"user {safe(user)}{' (our own account)' if ours else ''}"
    return found
