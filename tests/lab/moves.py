"""What happens to paths: NATs of every kind, UDP that is forbidden here or everywhere, and a laptop that moves.

Each is a change of a running `Lab` and needs no undoing but what its own counterpart does.
"""

from __future__ import annotations

from typing import Final, Literal

from tests.lab.net import Lab, nat_rules

Gateway = Literal["homegw", "lapgw"]
ADJACENT: Final = {"homegw": "60.1.1.1", "lapgw": "60.2.2.1"}  # the internet, as each gateway sees it
BEHIND: Final = {"homegw": ("192.168.1.0/24", "60.1.1.2"), "lapgw": ("192.168.2.0/24", "60.2.2.2")}
HOME_LAN: Final = "192.168.1.3"  # the laptop's address when it is at home

# The firewall of the patch of 2012: addresses are the hosts' own, and only what answers them comes in.
REPLIES_ONLY: Final = nat_rules(None)

# ICMPv6 passes: neighbours find each other by it.
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

# Between the two homes, as seen with NAT and without; the relay is still there for both.
_HOMES: Final = "{ 60.1.1.0/24, 60.2.2.0/24, 192.168.0.0/16 }"
BETWEEN_HOMES: Final = f"ip saddr {_HOMES} ip daddr {_HOMES}"


def route_without_nat(lab: Lab, *, firewall: bool) -> None:
    """Both hosts have addresses that everybody can route to; with a firewall, only replies reach them."""
    for gateway, (network, via) in BEHIND.items():
        lab.hosts["inet"].shell(f"ip route replace {network} via {via}")
        rules = REPLIES_ONLY if firewall else ""
        lab.hosts[gateway].shell(f"nft flush ruleset\nnft -f - <<'END'\n{rules}END\nconntrack -F")


def forbid_udp(lab: Lab, where: Literal["everywhere", "between homes"]) -> None:
    """A silent black hole for UDP in the middle of the internet, flows of before included; nobody is told."""
    which = BETWEEN_HOMES if where == "between homes" else ""
    rule = f"{which} meta l4proto udp counter drop"
    lab.hosts["inet"].shell(
        f"nft 'table ip dark {{ chain forward {{ type filter hook forward priority filter; {rule}; }}; }}'"
    )


def allow_udp(lab: Lab) -> None:
    """Mend what `forbid_udp` broke."""
    lab.hosts["inet"].shell("nft delete table ip dark")


def new_outside_address(lab: Lab, gateway: Gateway, address: str) -> None:
    """The provider gives a router another address, and the router forgets its flows; who is behind it is not told."""
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
    """A second interface of the laptop ends in the home's LAN; it is down, and the laptop is where it was."""
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
    """The laptop leaves its network for the home's LAN: another interface, address and router."""
    lab.laptop.shell(
        "ip link set eth0 down\n"
        "ip link set eth1 up\n"
        f"ip address replace {HOME_LAN}/24 dev eth1\n"
        "ip route replace default via 192.168.1.1"
    )


def go_away(lab: Lab) -> None:
    """And back: its old interface, address and router."""
    lab.laptop.shell("ip link set eth1 down\nip link set eth0 up\nip route replace default via 192.168.2.1")


def new_inside_address(lab: Lab, address: str) -> None:
    """The laptop's own network gives it another address; sockets that stand keep the old one, which nobody answers."""
    lab.laptop.shell(
        f"ip address flush dev eth0\nip address add {address}/24 dev eth0\nip route replace default via 192.168.2.1"
    )
