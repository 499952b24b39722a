"""Changes of a running `Lab`: routers without NAT, forbidden UDP, new addresses, and a laptop that moves.

A change needs no undoing at the end of a test. Where a test undoes it earlier, a function here does so.
"""

from __future__ import annotations

from typing import Final, Literal

from tests.lab.net import Lab, nat_rules

Gateway = Literal["homegw", "lapgw"]
ADJACENT: Final = {"homegw": "60.1.1.1", "lapgw": "60.2.2.1"}  # the internet, as each gateway sees it
BEHIND: Final = {"homegw": ("192.168.1.0/24", "60.1.1.2"), "lapgw": ("192.168.2.0/24", "60.2.2.2")}
HOME_LAN: Final = "192.168.1.3"  # the laptop's address when it is at home

# No NAT: hosts keep their own addresses, and only replies to them come in (the firewall of mosh's patch of 2012).
REPLIES_ONLY: Final = nat_rules(None)

# ICMPv6 passes, since IPv6 needs it to find neighbours.
IPV6_RULES: Final = REPLIES_ONLY.replace("table ip ", "table ip6 ").replace(
    "    drop\n", "    meta l4proto icmpv6 accept\n    drop\n"
)
IPV6: Final = {
    "pi": {"eth0": "2a00:1:1::2"},
    "homegw": {"lan": "2a00:1:1::1", "wan": "2a00:0:1::2"},
    "inet": {"home": "2a00:0:1::1", "laptop": "2a00:0:2::1"},
    "lapgw": {"wan": "2a00:0:2::2", "lan": "2a00:1:2::1"},
    "laptop": {"eth0": "2a00:1:2::2"},
}
BEHIND_IPV6: Final = {"pi": "2a00:1:1::1", "laptop": "2a00:1:2::1"}
GATEWAYS_IPV6: Final = {"homegw": ("2a00:1:1::/64", "2a00:0:1::1"), "lapgw": ("2a00:1:2::/64", "2a00:0:2::1")}

# Packets between the two homes, with NAT or without; the relay can still be reached from both.
_HOMES: Final = "{ 60.1.1.0/24, 60.2.2.0/24, 192.168.0.0/16 }"
BETWEEN_HOMES: Final = f"ip saddr {_HOMES} ip daddr {_HOMES}"


def route_without_nat(lab: Lab, *, firewall: bool) -> None:
    """Take NAT away: pi and the laptop can be reached at their own addresses; with a firewall, only by replies."""
    for gateway, (network, via) in BEHIND.items():
        lab.hosts["inet"].shell(f"ip route replace {network} via {via}")
        rules = REPLIES_ONLY if firewall else ""
        lab.hosts[gateway].shell(f"nft flush ruleset\nnft -f - <<'END'\n{rules}END\nconntrack -F")


def forbid_udp(lab: Lab, where: Literal["everywhere", "between homes"]) -> None:
    """Drop UDP silently in the middle of the internet, in existing flows too."""
    which = BETWEEN_HOMES if where == "between homes" else ""
    rule = f"{which} meta l4proto udp counter drop"
    lab.hosts["inet"].shell(
        f"nft 'table ip dark {{ chain forward {{ type filter hook forward priority filter; {rule}; }}; }}'"
    )


def allow_udp(lab: Lab) -> None:
    """Undo `forbid_udp`."""
    lab.hosts["inet"].shell("nft delete table ip dark")


def new_outside_address(lab: Lab, gateway: Gateway, address: str) -> None:
    """Give a router another outside address; it forgets its flows, and the hosts behind it are not told."""
    lab.hosts[gateway].shell(
        "ip address flush dev wan\n"
        f"ip address add {address}/24 dev wan\n"
        f"ip route replace default via {ADJACENT[gateway]}\n"
        "conntrack -F"
    )


def give_ipv6(lab: Lab) -> None:
    """Global addresses for the two hosts, and firewalls that let only replies in; `forbid_udp` is about IPv4."""
    for host, ports in IPV6.items():
        lab.hosts[host].shell(
            "cd /proc/sys/net/ipv6/conf\n"
            "for each in */accept_dad; do echo 0 > $each; done\n"
            + "".join(
                f"echo 0 > {port}/disable_ipv6\nip address add {address}/64 dev {port}\n"
                for port, address in ports.items()
            )
        )
    for host, gateway in BEHIND_IPV6.items():
        lab.hosts[host].shell(f"ip route add default via {gateway}")
    for gateway, (network, adjacent) in GATEWAYS_IPV6.items():
        lab.hosts[gateway].shell(
            "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding\n"
            f"ip route add default via {adjacent}\n"
            f"nft -f - <<'END'\n{IPV6_RULES}END"
        )
        lab.hosts["inet"].shell(
            f"echo 1 > /proc/sys/net/ipv6/conf/all/forwarding\nip route add {network} via {adjacent[:-1]}2"
        )


def wire_laptop_to_home(lab: Lab) -> None:
    """Give the laptop a second interface, in the home's LAN. It is down, so the laptop stays where it is."""
    gateway, laptop = lab.hosts["homegw"], lab.laptop
    gateway.shell(
        f"ip link add lan2 type veth peer name eth1 netns {laptop.namespace}\n"
        "ip link add bridge0 type bridge\n"
        "ip address delete 192.168.1.1/24 dev lan\n"
        "ip link set lan master bridge0\n"
        "ip link set lan2 master bridge0\n"
        "ip address add 192.168.1.1/24 dev bridge0\n"
        "for port in lan2 bridge0; do ip link set $port up; done\n"
        "ethtool -K lan2 tx off rx off tso off gso off gro off sg off >/dev/null"
    )
    laptop.shell("ethtool -K eth1 tx off rx off tso off gso off gro off sg off >/dev/null")


def go_home(lab: Lab) -> None:
    """Move the laptop into the home's LAN: another interface, address and router. Needs `wire_laptop_to_home`."""
    lab.laptop.shell(
        "ip link set eth0 down\n"
        "ip link set eth1 up\n"
        f"ip address replace {HOME_LAN}/24 dev eth1\n"
        "ip route replace default via 192.168.1.1"
    )


def go_away(lab: Lab) -> None:
    """Undo `go_home`: the laptop has its old interface, address and router again."""
    lab.laptop.shell("ip link set eth1 down\nip link set eth0 up\nip route replace default via 192.168.2.1")


def new_inside_address(lab: Lab, address: str) -> None:
    """Give the laptop another address in its network; open sockets keep the old one, which gets no answers."""
    lab.laptop.shell(
        f"ip address flush dev eth0\nip address add {address}/24 dev eth0\nip route replace default via 192.168.2.1"
    )
