"""The network watch with a real kernel: which changes of links, addresses and routes it tells."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from ipaddress import ip_address

import pytest

from tests.lab.net import Host, Lab
from tests.until import wait_until
from tunneld.core.sleep_watch import LONGEST_LATENESS
from tunneld.net.kernel_news import KernelNews, NetworkNews
from tunneld.net.network_watch import POLL, TICK, Change, NetworkWatch
from tunneld.net.routes import FAR_AWAY, Routes, current_routes

pytestmark = pytest.mark.lab

FOUR, SIX = FAR_AWAY
RELAY = "60.9.9.2"


def has_route(toward: Iterable[str] = ()) -> bool:
    """Whether any packet could leave this machine, to the Internet or toward these addresses."""
    return any(current_routes(toward).values())


class Watched:
    """A host whose network a NetworkWatch watches; `changes` are those that it has told."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.toward: tuple[str, ...] = ()
        self.changes: list[Change] = []
        self._looks = 0
        self._more = asyncio.Event()

    def changed(self, change: Change) -> None:
        self.changes.append(change)
        self._more.set()

    def look(self, toward: Iterable[str]) -> Routes:
        self._looks += 1
        self._more.set()
        return current_routes(toward)

    async def shell(self, script: str) -> None:
        await asyncio.to_thread(self.host.shell, script)

    async def tells(self, *, within: float = POLL - 1) -> None:
        """Wait until a change is told, by default sooner than polling could; no other one may have been told."""
        await self.until(lambda: bool(self.changes), within=within)
        assert self.changes == [Change.NETWORK]
        self.changes.clear()

    async def looks_and_is_silent(self, script: str) -> None:
        """Run the script, and wait until the watch has looked; it must not have told a change."""
        before = self._looks
        await self.shell(script)
        await self.until(lambda: self._looks > before)
        assert not self.changes

    async def until(self, happened: Callable[[], bool], *, within: float = POLL - 1) -> None:
        """Wait for a condition that becomes true by a look or a change."""
        async with asyncio.timeout(within):
            while not happened():
                self._more.clear()
                await self._more.wait()

    @contextlib.asynccontextmanager
    async def running(self, listen: type[KernelNews] = KernelNews) -> AsyncIterator[NetworkWatch]:
        watch = NetworkWatch(self.changed, look=self.look, listen=listen, toward=lambda: self.toward)
        with self.host.entered():
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(watch.run())
                await self.until(lambda: self._looks > 0)
                yield watch
                running.cancel()


@pytest.fixture
def pi(lab: Lab) -> Watched:
    """The host pi, once it has a route: its new interface has no carrier until a moment after the lab is built."""
    with lab.pi.entered():
        wait_until(has_route, what="the network is there")
    return Watched(lab.pi)


async def test_a_new_address_is_told(pi: Watched) -> None:
    """Another lease: the old address and its routes go, and a new address comes."""
    async with pi.running():
        await pi.looks_and_is_silent("ip address flush dev eth0")
        await pi.shell("ip address add 192.168.1.77/24 dev eth0; ip route add default via 192.168.1.1")
        await pi.tells()


async def test_a_link_that_comes_back_is_told(pi: Watched) -> None:
    """The link goes down, and up again with the same address and routes."""
    async with pi.running():
        await pi.looks_and_is_silent("ip link set eth0 down")
        await pi.shell("ip link set eth0 up; ip route add default via 192.168.1.1")
        await pi.tells()


async def test_a_link_that_is_back_before_anybody_looks_is_told(pi: Watched) -> None:
    """Both changes come in one burst: routes are as before, but the kernel's news show the change."""
    async with pi.running():
        await pi.shell("ip link set eth0 down; ip link set eth0 up; ip route add default via 192.168.1.1")
        await pi.tells()


async def test_a_cable_that_was_pulled_is_told(lab: Lab, pi: Watched) -> None:
    """The other end goes down and up: only the carrier was lost, addresses and routes stay the same."""
    gateway = lab.hosts["homegw"]
    async with pi.running():
        before = current_routes()[FOUR]
        await asyncio.to_thread(gateway.shell, "ip link set lan down")
        await pi.until(lambda: not has_route())
        assert not pi.changes
        await asyncio.to_thread(gateway.shell, "ip link set lan up")
        await pi.tells()
        assert current_routes()[FOUR] == before


async def test_a_default_route_that_comes_back_is_told(pi: Watched) -> None:
    """The default route goes and comes back within one burst."""
    async with pi.running():
        await pi.shell("ip route del default; ip route add default via 192.168.1.1")
        await pi.tells()


async def test_another_way_out_is_told(pi: Watched) -> None:
    """A telephone with a better default route is plugged in, and pulled out again."""
    await pi.shell("ip route del default; ip route add default via 192.168.1.1 metric 500")
    async with pi.running():
        await pi.shell(
            "ip link add usb0 type veth peer name phone; ip link set phone up; ip link set usb0 up;"
            "ip address add 10.7.0.2/24 dev usb0; ip route add default via 10.7.0.1"
        )
        await pi.tells()
        await pi.shell("ip link del usb0")
        await pi.tells()


async def test_a_rule_of_a_vpn_is_told(pi: Watched) -> None:
    """A rule of policy routing alone changes the route."""
    await pi.shell("ip link add wg0 type veth peer name far; ip link set far up; ip link set wg0 up")
    await pi.shell("ip address add 10.8.0.2/32 dev wg0; ip route add default dev wg0 table 51820")
    async with pi.running():
        await pi.shell("ip rule add from all lookup 51820 priority 100")
        await pi.tells()


async def test_interfaces_elsewhere_are_not_told(pi: Watched) -> None:
    """A container's veth comes, gets an address and a route, and goes."""
    async with pi.running():
        await pi.looks_and_is_silent(
            "ip link add veth9 type veth peer name inside; ip link set veth9 up; ip link set inside up"
        )
        await pi.looks_and_is_silent("ip address add 172.17.0.1/16 dev veth9; ip route add 172.18.0.0/16 dev veth9")
        await pi.looks_and_is_silent("ip link del veth9")


async def test_a_lease_that_is_renewed_is_not_told(pi: Watched) -> None:
    """The same address and route are set again, and a second address comes and goes."""
    async with pi.running():
        await pi.looks_and_is_silent(
            "ip address change 192.168.1.2/24 dev eth0 valid_lft 600 preferred_lft 600;"
            "ip route replace default via 192.168.1.1"
        )
        await pi.looks_and_is_silent("ip address add 192.168.1.50/24 dev eth0; ip address del 192.168.1.50/24 dev eth0")


async def test_a_second_family_is_told(pi: Watched) -> None:
    """An IPv6 route comes beside IPv4; it is told once the address is no longer tentative."""
    async with pi.running():
        await pi.shell(
            "echo 0 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6;"
            "ip address add 2001:db8:1::2/64 dev eth0; ip route add default via 2001:db8:1::1 dev eth0"
        )
        await pi.tells()
        route = current_routes()[SIX]
        assert route is not None
        assert route.source == ip_address("2001:db8:1::2")


async def test_the_way_to_a_relay_counts_as_well(pi: Watched) -> None:
    """A host without a default route gets a route to the relay alone: that is told."""
    pi.toward = (RELAY,)
    await pi.shell("ip route del default")
    async with pi.running():
        assert not has_route()
        assert not has_route(pi.toward)
        await pi.shell(f"ip route add {RELAY} via 192.168.1.1")
        await pi.tells()
        assert has_route(pi.toward)
        assert not has_route()


async def test_a_network_that_is_lost_is_not_told(pi: Watched) -> None:
    """A lost route is not told, since no connection can be made without it; routes that drop packets do not count."""
    async with pi.running():
        assert has_route()
        await pi.looks_and_is_silent("ip route del default")
        assert not has_route()
        for kind in ("blackhole", "unreachable", "prohibit"):
            await pi.looks_and_is_silent(f"ip route add {kind} default; ip route show")
            assert not has_route()
            await pi.looks_and_is_silent(f"ip route del {kind} default")


async def test_a_storm_of_routes_is_survived(pi: Watched) -> None:
    """The kernel sends more news than the socket holds; some are lost, but the last change is told."""
    routes = "".join(f"route add 10.{high}.{low}.0/24 dev eth0\n" for high in range(40) for low in range(250))
    (pi.host.directory / "routes").write_text(routes)
    async with pi.running():
        await pi.looks_and_is_silent(f"ip -batch {pi.host.directory / 'routes'}")
        await pi.shell(
            "ip address add 192.168.1.77/24 dev eth0; ip route change default via 192.168.1.1 src 192.168.1.77"
        )
        await pi.tells()


async def test_without_netlink_a_change_is_found(pi: Watched) -> None:
    """Where a sandbox forbids netlink, the watch polls and finds the change."""

    class Forbidden(KernelNews):
        def __init__(self) -> None:
            raise OSError("forbidden")

    async with pi.running(listen=Forbidden) as watch:
        assert watch.polls
        await pi.shell("ip address flush dev eth0; ip address add 192.168.1.77/24 dev eth0")
        await pi.shell("ip route add default via 192.168.1.1")
        await pi.tells(within=2 * POLL)


STOPPED = """
import asyncio
from tunneld.net.network_watch import NetworkWatch
async def tick(seconds):
    print("ticks", flush=True)
    await asyncio.sleep(seconds)
asyncio.run(NetworkWatch(lambda change: print(change.value, flush=True), sleep=tick).run())
"""


def test_a_process_that_was_stopped_is_told(able: None) -> None:
    """After SIGSTOP for some seconds and SIGCONT, the process tells "resume" by its next tick."""
    with subprocess.Popen([sys.executable, "-c", STOPPED], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ticks\n"
            os.kill(process.pid, signal.SIGSTOP)
            signal.sigtimedwait([], LONGEST_LATENESS + 2 * TICK)
            os.kill(process.pid, signal.SIGCONT)
            told = [process.stdout.readline().strip() for _ in range(2)]
            assert told in (["resume", "ticks"], ["ticks", "resume"])  # a tick may have come before the stop
        finally:
            process.kill()


async def test_the_news_are_the_kernels_alone(lab: Lab) -> None:
    """A netlink message from another program is ignored."""
    with lab.pi.entered():
        news: NetworkNews = KernelNews()
        with contextlib.closing(news), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as liar:
            assert news.read() is None
            liar.sendto(b"\x20\0\0\0\x11" + bytes(27), (_port_of(news), 0))
            assert news.read() is None


def _port_of(news: NetworkNews) -> int:
    assert isinstance(news, KernelNews)
    port: int = news._kernel.getsockname()[0]
    return port
