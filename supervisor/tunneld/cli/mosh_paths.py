"""`tunneld mosh --paths`: which path each running session uses, which others it has tried, and why.

Tested in tests/cli/test_mosh.py.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from typing import Any

from tunneld.errors import UnavailableError
from tunneld.mosh import paths_socket
from tunneld.status.quantities import counted, duration

PATH_STATE_WORDS = {
    "tried": "no answer yet",
    "silent": "no answer",
    "narrow": "too narrow for full datagrams",
    "held back": "held back",
    "doubtful": "doubtful",
    "open": "open",
}
"""What the states of a path (core/pair/path.py) are called here."""

SOUND = ("open", "tried")
"""States in which a path's last fault is no news any more."""

RECENT_CHANGES = 6
"""How many of the last changes of path are shown."""


def show(args: argparse.Namespace) -> int:
    """Print what the running sessions say of their paths; gives the exit status.

    Raises:
        UnavailableError: no session runs.
    """
    sessions = list(paths_socket.running_sessions())
    if not sessions:
        raise UnavailableError("no `tunneld mosh` of yours is running")
    if args.json:
        texts, between = [json.dumps(each, separators=(",", ":")) for each in sessions], "\n"
    else:
        texts, between = ["\n".join(describe_session(each)) for each in sessions], "\n\n"
    print(between.join(texts))
    return 0


def describe_session(session: dict[str, Any]) -> Iterator[str]:
    """The lines about one session. A session of another version may say less: what it does not say is left out."""
    pair = session.get("pair", {})
    since = duration(session.get("since", 0))
    yield f"{session.get('destination')}: process {session.get('pid')}, for {since}"
    yield f"  in use    {_in_use(pair.get('in_use', {}))}"
    yield from _table("paths", map(_path, pair.get("paths", [])))
    yield from _table("streams", map(_stream, pair.get("streams", [])))
    if session.get("ssh"):
        yield f"  ssh       {_attempts(session['ssh'])}"
    if session.get("jump"):
        yield f"  jump      {session['jump'].get('host')}: {session['jump'].get('says')}"
    for name in (session.get("stun") or {}).get("unknown", []):
        yield f"  stun      {name}: no address that can be asked is known"
    if "redundancy" in pair:
        yield f"  copies    {_copies(pair['redundancy'])}"
    yield from _table("lately", (_change(each) for each in reversed(pair.get("history", [])[-RECENT_CHANGES:])))


def _table(title: str, rows: Iterable[list[str]]) -> Iterator[str]:
    """The rows as lines of aligned columns, with the title before the first."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        cells = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        yield f"  {title if number == 0 else '':8}  {cells}"


def _in_use(used: dict[str, Any]) -> str:
    why = f": {used['why']}" if used.get("why") else ""
    if used.get("carrier") == "path":
        return (
            f"UDP to {used.get('remote')} ({used.get('kind')}), {_measured(used)}, for {duration(used['since'])}{why}"
        )
    if used.get("carrier") == "stream":
        return f"SSH, {_delay(used)}{why}"
    return f"nothing: neither an SSH connection nor a path answers{why}"


def _path(path: dict[str, Any]) -> list[str]:
    state = PATH_STATE_WORDS.get(str(path.get("state")), str(path.get("state")))
    if path.get("held_for"):
        state += f" for {duration(path['held_for'])} more"
    if path.get("fault") and path.get("state") not in SOUND:
        state += f": {path['fault']}"
    heard = f"heard {duration(path['heard_ago'])} ago" if path.get("heard_ago") is not None else ""
    measured = _measured(path) if path.get("rtt") is not None else ""
    return ["*" if path.get("in_use") else " ", str(path.get("remote")), str(path.get("kind")), measured, heard, state]


def _stream(stream: dict[str, Any]) -> list[str]:
    if not stream.get("greeted"):
        return [str(stream.get("name")), "is connecting", ""]
    waits = f"NO ANSWER for {duration(stream['waited'])}" if stream.get("waited", 0) > 3 else ""
    return [str(stream.get("name")), _delay(stream), waits]


def _attempts(ssh: dict[str, Any]) -> str:
    failed = f"{counted(ssh.get('failures', 0), 'attempt')} failed; next in {duration(ssh.get('next_in', 0))}"
    return f"{failed}; ssh says: {ssh['said']}" if ssh.get("said") else failed


def _copies(redundancy: dict[str, Any]) -> str:
    copies, spent, budget = (redundancy.get(key, 0) for key in ("copies", "spent_kbit", "budget_kbit"))
    if copies <= 1:
        return "none: each datagram is sent once"
    room = redundancy.get("room_kbit")
    less = f"; the path in use has room for {room:g} only" if room is not None and room < budget else ""
    return f"each small datagram is sent {counted(copies, 'time')}; that takes {spent:g} of {budget:g} kbit/s{less}"


def _change(change: dict[str, Any]) -> list[str]:
    return [f"{duration(change.get('ago', 0))} ago", str(change.get("what"))]


def _delay(measured: dict[str, Any]) -> str:
    return f"{measured['rtt'] * 1000:.0f} ms" if measured.get("rtt") is not None else "not measured yet"


def _measured(path: dict[str, Any]) -> str:
    loss = f", {path['loss'] * 100:.1f} % lost" if path.get("loss") else ""
    return _delay(path) + loss
