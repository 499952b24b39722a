"""Two ends of a pair on a small simulated Internet with NATs, loss, delay and change, which has a clock of its own."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import inf

from tests.core.stream.simulated import Line
from tunneld.core.pair import stun
from tunneld.core.pair.candidate import Candidate, UdpAddress
from tunneld.core.pair.packet import identities
from tunneld.core.pair.pair import Deliver, Event, Gather, Pair
from tunneld.core.pair.relaying import Relaying

START = 1000.0
SECRET = bytes(range(32))
STUN = UdpAddress("198.51.100.1", 3478)
RELAY = UdpAddress("198.51.100.2", 4000)
NAT_MEMORY = 30.0  # seconds


@dataclass
class Nat:
    """`maps`: "one" port for all peers, or another for "each". `keeps_port`: it is the inside's port if that is free.

    `lets_in`: packets of "all", or only "answers" from addresses that were spoken to within NAT_MEMORY.

    A firewall is a Nat whose `public` address is the host's own.
    """

    public: str
    maps: str = "one"
    lets_in: str = "answers"
    keeps_port: bool = True
    _out: dict[object, int] = field(default_factory=dict)
    _back: dict[int, tuple[UdpAddress, dict[UdpAddress, float]]] = field(default_factory=dict)
    _next: int = 50000

    def leaves(self, source: UdpAddress, remote: UdpAddress, now: float) -> UdpAddress:
        key = (source, remote) if self.maps == "each" else source
        port = self._out.get(key)
        if port is None or max(self._back[port][1].values()) < now - NAT_MEMORY:
            wanted = source.port if self.keeps_port and self.maps == "one" and source.port not in self._back else 0
            self._next += 7
            port = self._out[key] = wanted or self._next
            self._back[port] = source, {}
        self._back[port][1][remote] = now
        return UdpAddress(self.public, port)

    def enters(self, port: int, remote: UdpAddress, now: float) -> UdpAddress | None:
        if port not in self._back:
            return None
        inside, peers = self._back[port]
        fresh = {peer for peer, when in peers.items() if when >= now - NAT_MEMORY}
        return inside if fresh and (self.lets_in == "all" or remote in fresh) else None

    def forgets(self) -> None:
        self._out.clear()
        self._back.clear()
        self._next += 1000


@dataclass
class Place:
    """Where a machine is: its own address, its LAN's name, and the NAT between that LAN and the Internet."""

    host: str
    lan: str
    nat: Nat | None = None

    @property
    def public(self) -> str:
        return self.nat.public if self.nat else self.host


@dataclass
class Weather:
    """What happens to UDP packets on the way.

    `delay` and `jitter` in seconds, `loss` a share, `mtu` in bytes of payload. `rate` in bytes a second, before which a
    `buffer` of so many bytes holds what waits. `dark`: nothing passes between each two moments.
    """

    delay: float = 0.04
    jitter: float = 0.0
    loss: float = 0.0
    mtu: int = 1472
    is_blocked: bool = False
    dark: Iterable[tuple[float, float]] = ()
    rate: float = 1e9
    buffer: float = 16_000
    _free: float = 0.0

    def queued(self, size: int, now: float) -> float:
        """Seconds until `size` bytes have left; inf when the buffer has no room for them."""
        waits = max(self._free - now, 0.0)
        if waits * self.rate > self.buffer:
            return inf
        self._free = now + waits + size / self.rate
        return self._free - now


class End:
    """One end: its pair, and what the loop around a pair does."""

    def __init__(self, net: Internet, place: Place, *, is_client: bool, budget: float) -> None:
        self.net = net
        self.place = place
        self.pair = Pair(SECRET, net.now, is_client=is_client, budget=budget)
        self.port = 41000 if is_client else 42000
        self.got: list[tuple[float, bytes]] = []
        self.gathered = 0
        self.ticks = 0
        self.spins = 0
        self.ticked = 0.0
        self.deadline = net.now
        self.was_called = True  # since `_write` took what the pair had to send
        self.pair.open("4", 4, self.port, net.now)

    def tick(self) -> None:
        """The deadline of the pair has come."""
        self.ticks += 1
        self.spins = self.spins + 1 if self.net.now == self.ticked else 0
        self.ticked = self.net.now
        assert self.spins < 20, "its deadline stands still"
        self.happens(self.pair.tick(self.net.now))

    def gathers(self) -> None:
        self.was_called = True
        candidates = [Candidate("lan", UdpAddress(self.place.host, self.port))]
        if self.net.has_relay:
            candidates.append(Candidate("relay", RELAY))
        self.pair.offer(candidates, self.net.now)

    def happens(self, events: list[Event]) -> None:
        self.was_called = True
        for event in events:
            if isinstance(event, Deliver):
                self.got.append((self.net.now, event.datagram))
            elif isinstance(event, Gather):
                self.gathered += 1
                self.gathers()


class Internet:
    """The two ends and all that is between them. `stands(seconds)` lets time pass; `at` makes something happen later.

    `lines` has each SSH connection by name: its direction from the client, and that to it.
    """

    def __init__(
        self,
        client: Place,
        far: Place,
        *,
        seed: int = 1,
        has_relay: bool = False,
        has_stun: bool = True,
        sees: bool = True,
        budget: float = 64.0,
    ) -> None:
        self.now = START
        self.chance = random.Random(seed)
        self.has_relay = has_relay
        self.relaying = Relaying(identities(SECRET), Counter())
        self.weather = {"up": Weather(), "down": Weather()}  # from the client; to it
        self.lan_weather = Weather(delay=0.001)
        self.sent_packets = 0
        self.sent_bytes = 0
        self._order = itertools.count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self.client = End(self, client, is_client=True, budget=budget)
        self.far = End(self, far, is_client=False, budget=budget)
        self.ends = (self.client, self.far)
        self.lines: dict[str, tuple[Line, Line]] = {}
        self.wiretap: deque[tuple[End, UdpAddress, bytes]] = deque(maxlen=50)
        if has_stun:
            for end in self.ends:
                end.pair.use_stun_servers([STUN], self.now)
        if sees:
            self.client.pair.sees_peer([far.public], self.now)
            self.far.pair.sees_peer([client.public], self.now)

    # What happens

    def at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._due, (when, next(self._order), act))

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        self.at(self.now + seconds, act)

    def stands(self, seconds: float) -> None:
        """Let time pass; the tests may have called either end's pair before."""
        until = self.now + seconds
        for end in self.ends:
            end.was_called = True
            end.deadline = end.pair.deadline()
        while True:
            deadline = min(end.deadline for end in self.ends)
            due = self._due[0][0] if self._due else inf
            if min(due, deadline) > until:
                break
            if due <= deadline:
                self.now, _, act = heapq.heappop(self._due)
                act()
            else:
                self.now = max(self.now, deadline)
            for end in self.ends:
                if end.deadline <= self.now:
                    end.tick()
            self._write()
        self.now = until

    def connects(self, name: str = "ssh", up: Line | None = None, down: Line | None = None) -> None:
        """An SSH connection is established."""
        self.lines[name] = up or Line(delay=0.04), down or Line(delay=0.04)
        for end in self.ends:
            end.pair.attach(name, self.now)
            end.gathers()
        self._write()

    def loses(self, name: str = "ssh") -> None:
        """The SSH connection has died, and both ends have noticed."""
        self.lines.pop(name)
        for end in self.ends:
            end.pair.detach(name)
            end.was_called = True

    def moves(self, end: End, place: Place, *, notices: bool = True) -> None:
        end.place = place
        if notices:
            end.happens(end.pair.moved(self.now))
        self._write()

    def sends(self, end: End, datagram: bytes) -> None:
        end.pair.send(datagram, self.now)
        end.was_called = True
        self._write()

    # How it travels

    def _write(self) -> None:
        """Take what the ends have to send. A pair that nobody called has nothing to send before its deadline."""
        for end, other in ((self.client, self.far), (self.far, self.client)):
            if not end.was_called:
                continue
            end.was_called = False
            for name, lines in self.lines.items():
                data = end.pair.outgoing(name, self.now)
                if data:
                    self._carry(lines[end is self.far], other, name, data)
            for packet in end.pair.packets(self.now):
                assert packet.local == "4"
                self.sent_packets += 1
                self.sent_bytes += len(packet.data) + 28
                self._leave(end, packet.remote, packet.data)
            end.deadline = end.pair.deadline()

    def _carry(self, line: Line, sink: End, name: str, data: bytes) -> None:
        def comes() -> None:
            if self.lines.get(name) and line in self.lines[name]:
                sink.happens(sink.pair.receive(name, data, self.now))

        when = line.arrival(len(data), self.now)
        if when != inf:
            self.at(when, comes)

    def _leave(self, end: End, remote: UdpAddress, data: bytes) -> None:
        other = self.far if end is self.client else self.client
        source = UdpAddress(end.place.host, end.port)
        if remote.host == other.place.host and end.place.lan == other.place.lan:
            self._travel(self.lan_weather, lambda: self._reach(other, source, data), data)
            return
        if end.place.nat:
            source = end.place.nat.leaves(source, remote, self.now)
        weather = self.weather["up" if end is self.client else "down"]
        self._travel(weather, lambda: self._arrive(source, remote, data), data)

    def _arrive(self, source: UdpAddress, remote: UdpAddress, data: bytes) -> None:
        """A packet is at the far side of the open Internet."""
        if remote == STUN:
            answer = stun.respond(data, source)
            if answer:
                self.after(0.02, lambda: self._arrive(STUN, source, answer))
            return
        if remote == RELAY:
            to = self.relaying.pass_on(data, source, self.now) if self.has_relay else None
            if to:
                self.after(0.01, lambda: self._arrive(RELAY, to, data))
            return
        for end in self.ends:
            if remote.host != end.place.public:
                continue
            inside: UdpAddress | None = remote
            if end.place.nat:
                inside = end.place.nat.enters(remote.port, source, self.now)
            if inside == UdpAddress(end.place.host, end.port):
                self._reach(end, source, data)

    def _reach(self, end: End, source: UdpAddress, data: bytes) -> None:
        self.wiretap.append((end, source, data))
        end.happens(end.pair.arrive("4", source, data, self.now))

    def _travel(self, weather: Weather, arrive: Callable[[], None], data: bytes) -> None:
        is_dark = any(begin <= self.now < end for begin, end in weather.dark)
        if is_dark or weather.is_blocked or len(data) > weather.mtu or self.chance.random() < weather.loss:
            return
        queued = weather.queued(len(data) + 28, self.now)
        if queued != inf:
            self.after(queued + weather.delay + weather.jitter * self.chance.random(), arrive)


def cone(public: str, *, keeps_port: bool = True) -> Nat:
    """A home router that keeps ports, and lets anybody use a mapping."""
    return Nat(public, "one", "all", keeps_port)


def restricted(public: str, *, keeps_port: bool = True) -> Nat:
    """The usual home router: one mapping for all peers, but only those that were spoken to get in."""
    return Nat(public, "one", "answers", keeps_port)


def symmetric(public: str) -> Nat:
    return Nat(public, "each", "answers")


CLIENT, FAR = "203.0.113.7", "192.0.2.9"


def home(nat: Nat | None, host: str = "192.168.1.7", lan: str = "home") -> Place:
    """Behind `nat`, or on the open Internet without one."""
    return Place(host if nat else CLIENT, lan, nat)


def office(nat: Nat | None, host: str = "10.0.0.9", lan: str = "office") -> Place:
    return Place(host if nat else FAR, lan, nat)
