"""The two homes of the keystroke bench: which NATs they are behind, which faults their links have, and who types.

    laptop -- NAT == internet == NAT -- pi        80 ms from laptop to pi and back, half of it on either `==`
                       |
                     relay, with a tunnel from pi

All faults are on the laptop's link, in each direction.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.lab.client import FAR_END, ready
from tests.lab.homeward import Homeward, Snapshot, homeward, is_direct, is_on_stream, is_relayed
from tests.lab.link import Link
from tests.lab.moves import forbid_udp
from tests.lab.net import CONE, SYMMETRIC, Lab
from tests.lab.terminal import Terminal

ONE_WAY: Final = 0.02  # seconds, on each of the two links
DIRECT_UDP: Final = 60011
DARK: Final = 0.2  # seconds of a burst of loss
LIGHT: Final = 4.8  # seconds from its end to the next
SETTLE: Final = 10.0  # seconds for the best path to come into use; measured is what is in use then

DIRECT, SSH, OURS = "mosh, port forward", "ssh by the relay", "tunneld mosh"


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """`link`: faults of the laptop's link, as Link.set takes them; `path`: the kind that tunneld mosh should use.

    `nat`: the kind of both NATs; `bursts`: the link is dark for DARK seconds, again and again; `udp`: UDP passes.
    """

    name: str
    title: str
    path: str
    link: Mapping[str, float] = field(default_factory=dict)
    nat: str = CONE
    bursts: bool = False
    udp: bool = True

    @property
    def subjects(self) -> tuple[str, ...]:
        return (DIRECT, SSH, OURS) if self.udp else (SSH, OURS)


CONDITIONS: Final = (
    Condition("clean", "two port-keeping NATs, no loss", "direct"),
    Condition("loss5", "5 % loss each way", "direct", {"loss": 0.05}),
    Condition("loss15", "15 % loss each way", "direct", {"loss": 0.15}),
    Condition("bursts", "200 ms dark every 5 s", "direct", bursts=True),
    Condition("symmetric", "two symmetric NATs, 5 % loss", "relayed", {"loss": 0.05}, nat=SYMMETRIC),
    Condition("blocked", "no UDP anywhere, 5 % loss", "stream", {"loss": 0.05}, udp=False),
)


@dataclass(frozen=True, slots=True)
class Homes:
    """All that runs: `terminals` by subject; `used` is the kind of path that tunneld mosh had before the first key."""

    home: Homeward
    terminals: Mapping[str, Terminal]
    used: str


@contextmanager
def homes(folder: Path, condition: Condition) -> Iterator[Homes]:
    """All subjects are at the prompt, and the condition's faults have not begun."""
    with between_homes(folder, condition) as home, ExitStack() as stack:
        terminals = {name: stack.enter_context(terminal(home, name)) for name in condition.subjects}
        yield Homes(home, terminals, settled(home, condition.path))


@contextmanager
def between_homes(folder: Path, condition: Condition) -> Iterator[Homeward]:
    """The servers and the tunnel run; nobody types yet."""
    with Lab(folder) as lab:
        for gateway in ("homegw", "lapgw"):
            lab.set_nat(gateway, condition.nat)
        for link in (lab.home_link, lab.laptop_link):
            link.set(delay=ONE_WAY)
        lab.map_port("homegw", protocol="udp", ports=str(DIRECT_UDP), to=lab.pi.address)
        if not condition.udp:
            forbid_udp(lab, "everywhere")
        with homeward(lab) as home:
            yield home


def terminal(home: Homeward, name: str) -> Terminal:
    """Start the subject's program and wait for its prompt."""
    if name == OURS:
        return home.mosh(timeout=60)
    if name == SSH:
        return home.ssh()
    said = home.lab.pi.run(["mosh-server", "new", "-p", str(DIRECT_UDP), "--", *FAR_END]).stdout
    connect = re.search(r"MOSH CONNECT (\d+) (\S+)", said)
    assert connect is not None, said
    return ready(Terminal(home.lab.laptop, ["mosh-client", "60.1.1.2", connect[1]], env={"MOSH_KEY": connect[2]}))


def settled(home: Homeward, wanted: str) -> str:
    """Wait until the wanted kind of path is in use, or SETTLE seconds have passed; the kind in use then."""
    seen: list[Snapshot] = []

    def is_there(snapshot: Snapshot) -> bool:
        seen[:] = [snapshot]
        return kind_of(snapshot) == wanted

    with suppress(AssertionError):
        home.wait_for(is_there, what=wanted, timeout=SETTLE)
    return kind_of(seen[0]) if seen else "unknown"


def kind_of(snapshot: Snapshot) -> str:
    """What carries the datagrams, in a word: direct, relayed, stream or nothing."""
    named = {"direct": is_direct, "relayed": is_relayed, "stream": is_on_stream}
    return next((name for name, holds in named.items() if holds(snapshot)), "nothing")


@contextmanager
def faults(link: Link, condition: Condition) -> Iterator[None]:
    """Cause the condition's faults until the end of the block."""
    link.set("both", **condition.link)
    ending = threading.Event()

    def darken() -> None:
        while not ending.wait(LIGHT):
            link.set("both", loss=1.0)
            ending.wait(DARK)
            link.set("both", loss=0.0)

    thread = threading.Thread(target=darken) if condition.bursts else None
    try:
        if thread:
            thread.start()
        yield
    finally:
        ending.set()
        if thread:
            thread.join()
        link.set("both", loss=0.0)
