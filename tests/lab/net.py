"""The made-up internet: hosts in network namespaces, and the wires between them.

    pi -- homegw(NAT) == wan1 == inet -- relay
      laptop -- lapgw(NAT) == wan2 == inet

`==` is a link whose delay, loss and rate a test may change (`lab.link`). The addresses look public, since a router that
maps ports refuses reserved ones. No packet leaves the namespaces: they have no connection to the outside.
"""

from __future__ import annotations

import contextlib
import itertools
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.lab import namespace
from tests.lab.link import Link
from tests.lab.machine import Machine

HOSTS: Final = ("pi", "homegw", "wan1", "inet", "relay", "laptop", "lapgw", "wan2")
CABLES: Final = (
    ("pi:eth0", "homegw:lan"),
    ("homegw:wan", "wan1:home"),
    ("wan1:away", "inet:home"),
    ("inet:relay", "relay:eth0"),
    ("laptop:eth0", "lapgw:lan"),
    ("lapgw:wan", "wan2:home"),
    ("wan2:away", "inet:laptop"),
)
ADDRESSES: Final = {
    "pi:eth0": "192.168.1.2",
    "homegw:lan": "192.168.1.1",
    "homegw:wan": "60.1.1.2",
    "inet:home": "60.1.1.1",
    "inet:relay": "60.9.9.1",
    "relay:eth0": "60.9.9.2",
    "inet:laptop": "60.2.2.1",
    "lapgw:wan": "60.2.2.2",
    "lapgw:lan": "192.168.2.1",
    "laptop:eth0": "192.168.2.2",
}
GATEWAYS: Final = {
    "pi": "192.168.1.1",
    "homegw": "60.1.1.1",
    "relay": "60.9.9.1",
    "laptop": "192.168.2.1",
    "lapgw": "60.2.2.1",
}
NAMES: Final = {"pi": "192.168.1.2", "relay": "60.9.9.2", "laptop": "192.168.2.2"}

CONE: Final = ""  # masquerade keeps the source port: a port-restricted cone
SYMMETRIC: Final = "random,fully-random"  # a fresh port per flow
RENUMBERING: Final = "to :10000-19999"  # a port other than the source's, but the same for every destination

# A home router: outgoing packets are masqueraded; from outside only replies and mapped ports pass.
NAT_RULES: Final = """
table ip nat {{
  chain prerouting {{ type nat hook prerouting priority dstnat; }}
  chain postrouting {{ type nat hook postrouting priority srcnat; {masquerade} }}
}}
table ip filter {{
  chain input {{ type filter hook input priority filter; jump from_outside; }}
  chain forward {{ type filter hook forward priority filter; jump from_outside; }}
  chain from_outside {{
    iifname != "wan" accept
    ct state established,related accept
    ct status dnat accept
    drop
  }}
}}
"""

# `masquerade to :PORTS` is allowed only for protocols that have ports.
MASQUERADE: Final = 'oifname "wan" meta l4proto {{ tcp, udp }} masquerade {kind}; oifname "wan" masquerade;'

_numbers = itertools.count()


def nat_rules(kind: str | None) -> str:
    """A router's nftables rules for a kind of NAT (CONE, ...). With None there is no NAT, and only replies come in."""
    return NAT_RULES.format(masquerade="" if kind is None else MASQUERADE.format(kind=kind))


class Host(Machine):
    """One namespace. `prelude` are shell lines that run before every program, in the program's own mount namespace."""

    def __init__(self, name: str, namespace_name: str, directory: Path) -> None:
        super().__init__(name, directory)
        self.namespace = namespace_name
        # The tester's own start-up files must not slow down or break commands over SSH.
        self.prelude = ["for f in ~/.bashrc ~/.profile; do [ ! -e $f ] || mount --bind /dev/null $f; done"]

    @property
    def address(self) -> str:
        """The host's first address; behind a NAT it is a private one."""
        return next(value for port, value in ADDRESSES.items() if port.startswith(f"{self.name}:"))

    def command(self, argv: Sequence[str | Path]) -> list[str]:
        inside = ["sh", "-c", "\n".join(["set -e", *self.prelude, 'exec "$@"']), "sh", *super().command(argv)]
        return ["ip", "netns", "exec", self.namespace, *inside]

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        with namespace.entered(self.namespace):
            yield

    def hide_programs(self, pattern: str) -> None:
        """Programs started from now on find neither /usr/bin/PATTERN nor what the tester installed at home."""
        upper, work = self.directory / "hidden", self.directory / "work"
        upper.mkdir()
        work.mkdir()
        self.prelude += [
            f"mount -t overlay overlay -o lowerdir=/usr/bin,upperdir={upper},workdir={work} /usr/bin",
            f"rm -f /usr/bin/{pattern}",
            "PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
        ]

    def shell(self, script: str) -> str:
        """Run a script here as root and return what it prints.

        Raises:
            AssertionError: a line of it failed.
        """
        return self.run(["sh", "-ec", script]).stdout


@dataclass(slots=True)
class Lab:
    """A running internet. At its end, also after a failure, every program is ended and every namespace removed."""

    directory: Path
    hosts: dict[str, Host] = field(default_factory=dict)
    home_link: Link = field(init=False)
    laptop_link: Link = field(init=False)
    _undo: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self._undo.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    @property
    def pi(self) -> Host:
        return self.hosts["pi"]

    @property
    def relay(self) -> Host:
        return self.hosts["relay"]

    @property
    def laptop(self) -> Host:
        return self.hosts["laptop"]

    def set_nat(self, gateway: str, kind: str) -> None:
        """Give `homegw` or `lapgw` another kind of NAT (`CONE`, for example); the router forgets every flow."""
        rules = nat_rules(kind)
        self.hosts[gateway].shell(f"nft flush ruleset\nnft -f - <<'END'\n{rules}END\nconntrack -F")

    def map_port(self, gateway: str, *, protocol: str, ports: str, to: str) -> None:
        """Map `ports` (`"60001-60010"`, `"22"`) of the router's outside to the same ports of the address `to`."""
        self.hosts[gateway].shell(f'nft add rule ip nat prerouting iifname "wan" {protocol} dport {ports} dnat to {to}')

    def black_hole(self, *ways: str) -> None:
        """Drop all packets of the relay's present SSH connections, `up` or `down` (without arguments: both).

        Neither side is told, and new connections pass, as at a router that has forgotten its flows.
        """
        lines = self.relay.run(["ss", "-Htn", "state", "established", "sport = :22"]).stdout.splitlines()
        ports = ", ".join(line.split()[3].rpartition(":")[2] for line in lines)
        field = {"up": "sport", "down": "dport"}
        rules = "; ".join(f"tcp {field[way]} {{ {ports} }} drop" for way in ways or field)
        self.hosts["inet"].shell(
            f"nft 'table ip hole {{ chain forward {{ type filter hook forward priority filter; {rules}; }}; }}'"
        )

    def _build(self) -> None:
        namespace.sweep()
        number = next(_numbers)
        for name in HOSTS:
            self.hosts[name] = Host(name, namespace.name_of(number, name), self.directory / name)
            self._undo.callback(namespace.delete, self.hosts[name].namespace)
            _write_etc(self.hosts[name].namespace)
        for host in self.hosts.values():
            self._undo.callback(host.close)
        _ip([f"netns add {host.namespace}" for host in self.hosts.values()])
        # Before any interface exists: router solicitations and address checks are noise in a measured link.
        self._in_every_host(lambda name: "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")
        _ip([self._cable(one, other) for one, other in CABLES])
        self._in_every_host(_configuration)
        for gateway in ("homegw", "lapgw"):
            self.set_nat(gateway, CONE)
        self.home_link = self._undo.enter_context(Link(self.hosts["wan1"], seed=1))
        self.laptop_link = self._undo.enter_context(Link(self.hosts["wan2"], seed=2))

    def _cable(self, one: str, other: str) -> str:
        (host, port), (far_host, far_port) = one.split(":"), other.split(":")
        near, far = self.hosts[host].namespace, self.hosts[far_host].namespace
        return f"link add {port} netns {near} type veth peer name {far_port} netns {far}"

    def _in_every_host(self, script: Callable[[str], str]) -> None:
        shells = {
            name: subprocess.Popen(
                ["ip", "netns", "exec", host.namespace, "sh", "-ec", script(name)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for name, host in self.hosts.items()
        }
        said = {name: shell.communicate()[0] for name, shell in shells.items()}
        failed = [f"{name}: {said[name]}" for name, shell in shells.items() if shell.returncode]
        if failed:
            raise AssertionError("\n".join(failed))


def _configuration(name: str) -> str:
    lines = ["ip link set lo up"]
    for place in itertools.chain.from_iterable(CABLES):
        host, _, port = place.partition(":")
        if host == name:
            # With offloads on, segments larger than the MTU would cross the wire.
            lines.append(f"ethtool -K {port} tx off rx off tso off gso off gro off sg off >/dev/null")
            lines += [f"ip address add {ADDRESSES[place]}/24 dev {port}"] if place in ADDRESSES else []
            lines.append(f"ip link set {port} up")
    if name in GATEWAYS:
        lines.append(f"ip route add default via {GATEWAYS[name]}")
    if name in ("inet", "homegw", "lapgw"):
        lines.append("echo 1 > /proc/sys/net/ipv4/ip_forward")
    return "\n".join(lines)


def _ip(lines: list[str]) -> None:
    done = subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"ip: {done.stderr}")


def _write_etc(namespace_name: str) -> None:
    """`ip netns exec` lays these over /etc, so the hosts know one another by name and ask nobody else."""
    etc = namespace.ETC_NETNS / namespace_name
    etc.mkdir(parents=True)
    known = "".join(f"{address} {name}\n" for name, address in NAMES.items())
    (etc / "hosts").write_text(f"127.0.0.1 localhost\n::1 localhost\n{known}")
    (etc / "nsswitch.conf").write_text("passwd: files\ngroup: files\nshadow: files\nhosts: files\nservices: files\n")
