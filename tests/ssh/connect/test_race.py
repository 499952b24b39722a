"""Reaching one of several addresses: who is asked when, who wins, and what is said when nobody answers."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.leaping import Leaping, run
from tests.ssh.peers import echo, listening
from tests.until import until
from tunneld.core.happy_eyeballs import ATTEMPT_DELAY, SocketAddress
from tunneld.ssh.connect import race
from tunneld.ssh.connect.race import ATTEMPT_TIMEOUT, MOST_ATTEMPTS, DirectTunnel, Race, verdict
from tunneld.ssh.connect.resolver import NameCache

V4 = SocketAddress(socket.AF_INET, ("192.0.2.1", 22))
V6 = SocketAddress(socket.AF_INET6, ("2001:db8::1", 22, 0, 0))

REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
SILENT = TimeoutError()
UNREACHABLE = OSError(errno.EHOSTUNREACH, "no host")
NO_NETWORK = OSError(errno.ENETUNREACH, "no network")

Answer = Callable[[float], tuple[float, OSError | None]]  # when it is asked -> how much later what happens


def silence(now: float) -> tuple[float, OSError | None]:
    return 1e9, None


def answers(after: float = 0.04) -> Answer:
    return lambda now: (after, None)


def fails(error: OSError, after: float = 0.04) -> Answer:
    return lambda now: (after, error)


def silent_until(back: float) -> Answer:
    """A link that swallows what is sent before that second."""
    return lambda now: answers()(now) if now >= back else silence(now)


class Network(Leaping):
    """Connects as the table says, and notes who was asked when."""

    def __init__(self, table: dict[SocketAddress, Answer]) -> None:
        super().__init__()
        self._table = {address.where: answer for address, answer in table.items()}
        self.asked: list[tuple[float, str]] = []
        self.under_way = 0
        self.most_under_way = 0
        self.connected: list[socket.socket] = []

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        self.asked.append((round(self.now, 6), address[0]))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            after, error = self._table[address](self.now)
            await asyncio.sleep(after)
            if error is not None:
                raise error
            self.connected.append(sock)
        finally:
            self.under_way -= 1

    def race(self, *addresses: SocketAddress, within: float = 15.0, interval: float = 1.0, chance: float = 1.0) -> str:
        """Race until one has won; returns its address."""

        async def main() -> str:
            async with asyncio.timeout(within):
                plain = await Race(addresses, interval=interval, chance=lambda: chance).won()
            assert plain is self.connected[0]
            assert all(other.fileno() == -1 for other in self.connected[1:])
            plain.close()
            return next(where for when, where in reversed(self.asked))

        try:
            return run(main(), self)
        finally:
            assert self.under_way == 0


def test_one_address_that_answers_is_asked_once() -> None:
    """Nothing else is sent, and nothing is waited for."""
    network = Network({V4: answers()})
    network.race(V4)
    assert network.asked == [(0, "192.0.2.1")]
    assert network.now == pytest.approx(0.04)


def test_a_silent_address_delays_the_other_by_a_quarter_of_a_second() -> None:
    """An IPv6 that this network drops costs nobody more."""
    network = Network({V6: silence, V4: answers()})
    network.race(V6, V4)
    assert network.asked == [(0, "2001:db8::1"), (ATTEMPT_DELAY, "192.0.2.1")]


def test_a_refusal_brings_the_next_address_forward() -> None:
    """There is nothing to wait for."""
    network = Network({V6: fails(REFUSED), V4: answers()})
    network.race(V6, V4)
    assert network.asked == [(0, "2001:db8::1"), (0.04, "192.0.2.1")]


def test_while_nothing_answers_a_fresh_attempt_starts_each_second() -> None:
    """The attempt that gets through leaves within a second of the link's return."""
    network = Network({V4: silent_until(9.5)})
    network.race(V4)
    assert [when for when, _ in network.asked] == pytest.approx(range(11))
    assert network.now == pytest.approx(10.04)


def test_the_fresh_attempts_of_a_fleet_do_not_keep_step() -> None:
    """Each pause is up to a quarter shorter than the interval, never longer."""
    network = Network({V4: silent_until(9.5)})
    network.race(V4, chance=0.0)
    gaps = [later - earlier for (earlier, _), (later, _) in itertools.pairwise(network.asked)]
    assert gaps == pytest.approx([0.75] * len(gaps))


def test_several_addresses_share_the_second() -> None:
    """Each gets its turn about once a second, as one alone would."""
    network = Network({V6: silence, V4: silent_until(5)})
    network.race(V6, V4)
    when = [when for when, where in network.asked if where == "192.0.2.1"]
    assert when == pytest.approx([0.25, 1.25, 2.25, 3.25, 4.5, 5.5])  # the fifth waits: eight are under way


def test_an_outage_of_hours_is_asked_every_quarter_of_a_minute() -> None:
    """The interval is what the caller says."""
    network = Network({V4: silent_until(31)})
    network.race(V4, within=60, interval=15)
    assert [when for when, _ in network.asked] == pytest.approx([0, 15, 30, 45])


@pytest.mark.parametrize(
    ("outage", "interval"), [(0, 1), (60, 1), (90, 1.5), (600, 10), (900, 15), (901, 15), (86400, 15)]
)
def test_the_interval_follows_the_outage(outage: float, interval: float) -> None:
    """A 60th of it, within a second and a quarter of a minute."""
    assert DirectTunnel(outage=outage).interval == pytest.approx(interval)


def test_many_addresses_are_not_retried_in_a_burst() -> None:
    """Their turns stay a quarter of a second apart, although their share of the interval is shorter."""
    others = [SocketAddress(socket.AF_INET, (f"192.0.2.{number}", 22)) for number in range(2, 9)]
    network = Network({V4: silence, **dict.fromkeys(others, fails(REFUSED, 0))})
    with pytest.raises(ConnectionRefusedError):
        network.race(V4, *others)
    retries = [when for when, _ in network.asked][len(others) + 1 :]
    gaps = [later - earlier for earlier, later in itertools.pairwise(retries)]
    assert gaps == pytest.approx([ATTEMPT_DELAY] * len(gaps))
    assert len(gaps) > 8


def test_an_attempt_that_is_slow_still_wins() -> None:
    """A round trip of three seconds is rare, and no reason to give up; the later ones are given up for it."""
    network = Network({V4: answers(ATTEMPT_TIMEOUT - 0.5)})
    network.race(V4)
    assert network.now == pytest.approx(ATTEMPT_TIMEOUT - 0.5)


def test_many_silent_addresses_do_not_pile_up() -> None:
    """There are never more attempts under way than the bound says."""
    many = [SocketAddress(socket.AF_INET, (f"192.0.2.{number}", 22)) for number in range(1, 30)]
    network = Network(dict.fromkeys(many, silence))
    with pytest.raises(TimeoutError):
        network.race(*many, within=30)
    assert network.most_under_way == MOST_ATTEMPTS


def test_two_that_connect_in_the_same_moment_leave_one() -> None:
    """The loser is closed at once."""
    network = Network({V6: answers(ATTEMPT_DELAY + 0.04), V4: answers(0.04)})
    network.race(V6, V4)
    assert len(network.connected) == 2


def test_cancelling_closes_whoever_has_just_won() -> None:
    """In every step between the connection and its being handed over."""
    for steps in range(12):
        network = Network({V4: answers(0), V6: silence})

        async def main(network: Network, steps: int) -> bool:
            async with asyncio.TaskGroup() as group:
                racing = group.create_task(Race([V4, V6], interval=1, chance=lambda: 1.0).won())
                for _ in range(steps):
                    await asyncio.sleep(0)
                racing.cancel()
            if not racing.cancelled():
                racing.result().close()
            return racing.cancelled()

        cancelled = run(main(network, steps), network)
        assert all(plain.fileno() == -1 for plain in network.connected), steps
        assert network.under_way == 0
        assert cancelled or steps > 4


def test_when_every_address_refuses_it_is_said_at_once() -> None:
    """Nobody is asked twice."""
    network = Network({V6: fails(NO_NETWORK, 0), V4: fails(REFUSED)})
    with pytest.raises(ConnectionRefusedError):
        network.race(V6, V4)
    assert len(network.asked) == 2
    assert network.now == pytest.approx(0.04)


def test_a_refusal_is_said_when_the_other_address_has_had_its_time() -> None:
    """It tells more than a time-out."""
    network = Network({V6: silence, V4: fails(REFUSED)})
    with pytest.raises(ConnectionRefusedError):
        network.race(V6, V4)
    assert network.now == pytest.approx(ATTEMPT_TIMEOUT)


def test_an_sshd_that_starts_while_the_other_address_is_silent_is_reached() -> None:
    """A refused address gets its further turns."""
    network = Network({V6: silence, V4: lambda now: answers()(now) if now > 1 else fails(REFUSED)(now)})
    assert network.race(V6, V4) == "192.0.2.1"
    assert network.now < 2


def test_no_ipv6_here_is_no_reason_to_give_up_on_a_silent_relay() -> None:
    """The link may come back."""
    network = Network({V6: fails(NO_NETWORK, 0), V4: silent_until(8)})
    network.race(V6, V4)
    assert network.now < 9.1


def test_an_address_that_comes_to_light_is_tried_at_once() -> None:
    """It does not wait for its turn; one that is known already changes nothing."""
    network = Network({V4: silence, V6: answers()})

    async def main() -> None:
        race = Race([V4], interval=15, chance=lambda: 1.0)
        found: asyncio.Future[tuple[SocketAddress, ...]] = network.create_future()
        found.add_done_callback(race.learn)
        network.call_later(2, found.set_result, (V4, V6))
        (await race.won()).close()

    run(main(), network)
    assert network.asked == [(0, "192.0.2.1"), (2, "2001:db8::1")]


@pytest.mark.parametrize(
    ("heard", "says"),
    [
        ([], None),
        ([None], None),
        ([REFUSED], REFUSED),
        ([REFUSED, None], None),
        ([SILENT], None),
        ([SILENT, REFUSED], REFUSED),
        ([SILENT, UNREACHABLE, NO_NETWORK], None),
        ([NO_NETWORK, UNREACHABLE], UNREACHABLE),
        ([NO_NETWORK, NO_NETWORK], NO_NETWORK),
        ([UNREACHABLE, REFUSED], REFUSED),
    ],
)
def test_the_plainest_word_ends_it(heard: list[OSError | None], says: OSError | None) -> None:
    """A refusal beats silence, silence goes on, and an error of this machine is said when there is nothing else."""
    assert verdict(heard) is says


@contextlib.contextmanager
def swallowing() -> Iterator[tuple[str, int]]:
    """An address on loopback that swallows SYNs: its backlog is full."""
    with socket.socket() as full, contextlib.ExitStack() as clients:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(8):
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        yield full.getsockname()


Sockaddr = tuple[str, int]

_getaddrinfo: Callable[..., list[Any]] = socket.getaddrinfo


class NameServer:
    """What `relay` means here; while it `is_silent`, whoever asks waits."""

    def __init__(self) -> None:
        self.addresses: list[Sockaddr] = []
        self.error: OSError | None = None
        self.asked = 0
        self._speaks = threading.Event()
        self._speaks.set()

    def is_silent(self, silent: bool) -> None:
        self._speaks.clear() if silent else self._speaks.set()

    def getaddrinfo(self, host: str, port: int, **settings: Any) -> list[Any]:
        if host != "relay":
            return _getaddrinfo(host, port, **settings)
        self.asked += 1
        self._speaks.wait(20)
        if self.error is not None:
            raise self.error
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in self.addresses]


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> NameServer:
    """Nothing is remembered from other tests."""
    server = NameServer()
    monkeypatch.setattr(race, "NAMES", NameCache())
    monkeypatch.setattr(race, "NAME_SERVER_TIMEOUT", 0.05)
    monkeypatch.setattr(socket, "getaddrinfo", server.getaddrinfo)
    return server


class Speaker(asyncio.Protocol):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard = b""

    def data_received(self, data: bytes) -> None:
        self.heard += data


async def reached(names: NameServer) -> int:
    """The port at which a dial of `relay` arrives."""
    transport, _ = await DirectTunnel().create_connection(Speaker, "relay", 22)
    port: int = transport.get_extra_info("peername")[1]
    transport.abort()
    await until(lambda: transport.get_extra_info("socket").fileno() == -1)
    return port


async def test_a_silent_name_server_delays_nobody_who_has_been_there(names: NameServer) -> None:
    """The last answer serves, and the question is not asked again before it is answered."""
    async with listening(echo) as port:
        names.addresses = [("127.0.0.1", port)]
        await reached(names)
        names.is_silent(True)
        async with asyncio.timeout(5):
            assert [await reached(names) for _ in range(3)] == [port] * 3
        names.is_silent(False)  # the event loop waits for its threads
        assert names.asked == 2


async def test_a_relay_that_has_moved_is_not_looked_for_where_it_was(names: NameServer) -> None:
    """The old address still answers, and the name server is slow: its answer is waited for."""
    async with listening(echo) as old, listening(echo) as new:
        names.addresses = [("127.0.0.1", old)]
        assert await reached(names) == old
        names.addresses = [("127.0.0.1", new)]
        race.NAMES.forget("relay")
        names.is_silent(True)
        asyncio.get_running_loop().call_later(4 * race.NAME_SERVER_TIMEOUT, names.is_silent, False)
        assert await reached(names) == new


async def test_an_answer_that_comes_late_is_tried_too(names: NameServer) -> None:
    """The relay has moved, and the name server takes its time to say so."""
    async with listening(echo) as old, listening(echo) as new:
        with swallowing() as silent:
            names.addresses = [silent, ("127.0.0.1", old)]
            assert await reached(names) == old
            names.addresses = [silent]
            assert await _gives_up(names)  # remembered as the only address
            names.addresses = [("127.0.0.1", new)]
            names.is_silent(True)
            async with asyncio.timeout(5), asyncio.TaskGroup() as group:
                reaching = group.create_task(reached(names))
                await until(lambda: names.asked == 3)
                asyncio.get_running_loop().call_later(0.1, names.is_silent, False)
            assert reaching.result() == new


async def _gives_up(names: NameServer) -> bool:
    """Whether a dial does not arrive."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.1):
            await reached(names)
            return False
    return True


@pytest.mark.parametrize("kind", [socket.EAI_AGAIN, socket.EAI_FAIL])
async def test_a_name_server_that_cannot_say_is_no_reason_to_stop(names: NameServer, kind: int) -> None:
    """The last answer serves; without one it is an error."""
    names.error = socket.gaierror(kind, "not now")
    with pytest.raises(socket.gaierror):
        await reached(names)
    async with listening(echo) as port:
        names.error, names.addresses = None, [("127.0.0.1", port)]
        await reached(names)
        names.error = socket.gaierror(kind, "not now")
        assert await reached(names) == port


async def test_a_name_that_is_gone_is_said(names: NameServer) -> None:
    """A name server that knows better beats what is remembered."""
    async with listening(echo) as port:
        names.addresses = [("127.0.0.1", port)]
        await reached(names)
        names.error = socket.gaierror(socket.EAI_NONAME, "no such name")
        with pytest.raises(socket.gaierror, match="no such name"):
            await reached(names)


async def test_a_real_address_that_swallows_everything_is_passed_by(names: NameServer) -> None:
    """The protocol is made once, for the connection that stands."""
    with swallowing() as silent:
        async with listening(echo) as port:
            names.addresses = [silent, ("127.0.0.1", port)]
            made: list[Speaker] = []

            def factory() -> Speaker:
                made.append(Speaker())
                return made[-1]

            transport, protocol = await DirectTunnel().create_connection(factory, "relay", 22)
            transport.write(b"hello")
            await until(lambda: protocol.heard == b"hello")
            assert made == [protocol]
            transport.close()
            await until(lambda: transport.get_extra_info("socket").fileno() == -1)


async def test_the_address_to_come_from_is_used() -> None:
    """ssh_config's BindAddress; an address of another family is passed by."""
    async with listening(echo) as port:
        direct = DirectTunnel(local=("127.0.0.9", 0))
        transport, _ = await direct.create_connection(Speaker, "127.0.0.1", port)
        assert transport.get_extra_info("sockname")[0] == "127.0.0.9"
        transport.close()
    with pytest.raises(OSError, match="another family"):
        await direct.create_connection(Speaker, "::1", port)


async def test_a_protocol_that_cannot_be_made_leaves_no_socket_behind() -> None:
    """The error is the caller's to see."""
    async with listening(echo) as port:
        with pytest.raises(ZeroDivisionError):
            await DirectTunnel().create_connection(lambda: 1 // 0, "127.0.0.1", port)
        gc.collect()


async def test_cancelling_leaves_no_socket_behind(names: NameServer) -> None:
    """Wherever it strikes; a socket left open would be a warning, and so a failure."""
    async with listening(echo) as port:
        with swallowing() as silent:
            names.addresses = [("127.0.0.1", port), silent]
            for steps in range(40):
                async with asyncio.TaskGroup() as group:
                    dialling = group.create_task(DirectTunnel().create_connection(Speaker, "relay", 22))
                    for _ in range(steps):
                        await asyncio.sleep(0)
                    dialling.cancel()
                if not dialling.cancelled():
                    dialling.result()[0].close()
            gc.collect()
