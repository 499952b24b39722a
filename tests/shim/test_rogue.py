"""A relay that runs something else in the agent's place: whatever it says, mosh is unavailable and nothing more."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import tunneld
from tests.shim.scene import MOSH_SIZED, Scene, scene
from tunneld.core.stream import frame
from tunneld.core.stream.frame import Frame

HELLO = frame.PREAMBLE + frame.message(frame.HELLO, {"versions": [1]}).encode()
SERVING = frame.message(frame.SERVING, {"join": "/nowhere"}).encode()

PRELUDE = f"""
import os, socket, sys, time
sys.path.insert(0, {str(Path(tunneld.__file__).parents[1])!r})
from tunneld.core.stream import frame
from tunneld.core.stream.frame import Frame, message
greeting = {HELLO!r}
def say(data):
    global greeting
    data, greeting = greeting + data, b""  # both in one piece
    while data:
        data = data[os.write(1, data):]
"""
STAYS = "\ntime.sleep(30)"  # whatever becomes of its input; longer than any of these tests


@contextlib.asynccontextmanager
async def rogue(folder: Path, script: str) -> AsyncIterator[Scene]:
    """The shim with a relay on which every command runs `script`; it stays until the connection goes."""
    program = folder / "rogue.py"
    program.write_text(PRELUDE + script)
    async with scene(folder, key_options=f'command="exec {sys.executable} {program}"') as made:
        yield made


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (f"say({Frame(frame.ACK, number=5).encode()!r})" + STAYS, "acknowledges datagrams that were never sent"),
        (f"say({SERVING + b'X' * 20!r})" + STAYS, "broke the protocol"),
        ("say(os.urandom(100000))" + STAYS, "broke the protocol"),
        ("say(message(frame.SERVING, {}).encode())" + STAYS, "does not say where further streams join"),
        ("say(message(frame.SERVING, {'error': ['\\x1b[2J']}).encode())" + STAYS, "it does not say why"),
        ("say(Frame(8, payload=b'{\"error\":' + b'[' * 980 + b']' * 980 + b'}').encode())" + STAYS, "the relay"),
        ("say(message(frame.SERVING, {'error': '\\x1b[2Jno'}).encode())" + STAYS, "the relay's ingress: [2Jno"),
        ("say(Frame(frame.SERVING, payload=b'[' * 9000).encode())" + STAYS, "does not carry a JSON object"),
        ("say(b''); sys.exit('bye')", "the agent on the relay ended (it said: bye)"),
        (f"say({SERVING!r} + Frame(frame.PING).encode() * 400000)" + STAYS, "it asks for more than it reads"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else None,
)
async def test_a_rogue_agent_costs_mosh_alone(tmp_path: Path, script: str, why: str) -> None:
    """Nonsense and floods end the agent with a reason; the tunnel's connection lives on."""
    async with rogue(tmp_path, script) as made:
        status = await made.until(lambda status: status.state == "unavailable")
        assert why in status.reason
        assert len(status.reason) < 300
        assert not made.connection.is_closed()


async def test_an_agent_that_does_not_open_the_ingress_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that greets and then talks of other things is waited for only so long."""
    monkeypatch.setattr("tunneld.shim.link.SERVE_TIMEOUT", 0.2)
    async with rogue(tmp_path, "say(message(frame.SERVE, {'bind': 1}).encode())" + STAYS) as made:
        status = await made.until(lambda status: status.state == "unavailable")
        assert status.reason == "the agent did not open the ingress within 0.2 s"
        assert not made.connection.is_closed()


async def test_a_rogue_agent_holds_no_socket_for_flows_that_ended(tmp_path: Path) -> None:
    """Three datagrams at once for a port without a server: the second is refused, the third opens nothing."""
    script = f"""
say({SERVING!r})
for serial in range(300):
    port = int(sys.argv[1]) + 1
    say(b"".join(Frame(frame.DATAGRAM, port << 16 | serial, n, bytes(40)).encode() for n in range(3)))
    time.sleep(0.005)
"""
    script = script.replace("int(sys.argv[1])", "int(open(sys.argv[0] + '.port').read())")
    async with rogue(
        tmp_path, "while not os.path.exists(sys.argv[0] + '.port'): time.sleep(.01)" + script + STAYS
    ) as made:
        before = udp_sockets()
        (tmp_path / "rogue.py.port").write_text(str(made.port))
        status = await made.until(lambda status: status.counters.get("host_flows_refused_by_target", 0) > 100)
        assert status.flows < 100
        assert udp_sockets() <= before + status.flows


async def test_a_rogue_agent_does_not_choose_what_status_shows(tmp_path: Path) -> None:
    """Counters are names and numbers; nothing else that it reports gets anywhere."""
    report = {
        "datagrams_in": 7,
        "\x1b[2J": 1,
        "x" * 65: 1,
        "text": "t",
        "true": True,
        "less": -1,
        "more": 1 << 70,
        "f": 1.5,
    }
    script = f"say({SERVING + frame.message(frame.REPORT, report).encode()!r})" + STAYS
    async with rogue(tmp_path, script) as made:
        status = await made.until(lambda status: bool([name for name in status.counters if name.startswith("relay_")]))
        assert {name: n for name, n in status.counters.items() if name.startswith("relay_")} == {
            "relay_datagrams_in": 7
        }


async def test_a_rogue_agent_reaches_the_profiles_ports_alone(tmp_path: Path) -> None:
    """Whatever port a flow's number names, the host sends nowhere else."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.2", 0))
        other.setblocking(False)
        flows = [port << 16 for port in (other.getsockname()[1], 22, 53, 0, 65535)]
        wrong = b"".join(Frame(frame.DATAGRAM, flow, 0, MOSH_SIZED).encode() for flow in flows)
        async with rogue(tmp_path, f"say({SERVING + wrong!r})" + STAYS) as made:
            await made.until(lambda status: status.counters.get("host_datagrams_wrong_port") == len(flows))
            with pytest.raises(BlockingIOError):
                other.recv(100)


def udp_sockets() -> int:
    """How many UDP sockets this process holds."""
    udp = {f"socket:[{line.split()[9]}]" for line in Path("/proc/self/net/udp").read_text().splitlines()[1:]}
    count = 0
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            count += os.readlink(fd) in udp
    return count
