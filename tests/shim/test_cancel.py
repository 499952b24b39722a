"""Serving mosh, cancelled in every state: nothing stays behind, here or on the relay."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import asyncssh

from tests.shim.scene import KEEPALIVE, MOSH_SIZED, SERVER_SIDE, Client, Echo, ancestors, free_udp_ports
from tests.shim.test_rogue import udp_sockets
from tests.sshd import running_sshd
from tunneld.core.supervise.backoff import Limits
from tunneld.log import logger
from tunneld.profile import Mosh, PortRange, Relay
from tunneld.shim.shim import Shim
from tunneld.ssh.connect.dial import dial

STATES: dict[str, Callable[[Shim, int], bool]] = {
    "at the start": lambda shim, dials: True,
    "while the agent starts": lambda shim, dials: len(shim.status().carriers) >= 1,
    "while the agent opens the ingress": lambda shim, dials: has_greeted(shim),
    "as soon as mosh is available": lambda shim, dials: shim.status().state == "ready",
    "while the dedicated streams are dialled": lambda shim, dials: dials >= 1,
    "while a dedicated stream is opened": lambda shim, dials: len(shim.status().carriers) >= 2,
    "with every stream in use": lambda shim, dials: sum(each.rtt is not None for each in shim.status().carriers) == 3,
}
"""What must be so when the shim is cancelled; `dials` counts how often it began to dial."""


def has_greeted(shim: Shim) -> bool:
    return shim._link is not None and any(carrier.greeted for carrier in shim._link.outlet.carriers.values())


async def test_cancelled_in_any_state_it_leaves_nothing(tmp_path: Path) -> None:
    """There is no socket, no connection and no task left here, and no agent there."""
    async with running_sshd(tmp_path) as sshd:
        relay = Relay("127.0.0.1", sshd.port, sshd.user, (sshd.user_key,), sshd.known_hosts, ssh_config=False)
        dialled: list[asyncssh.SSHClientConnection] = []
        dials = 0

        async def one_more() -> asyncssh.SSHClientConnection:
            nonlocal dials
            dials += 1
            dialled.append(await dial(relay, KEEPALIVE))
            return dialled[-1]

        first = free_udp_ports(3)
        mosh = Mosh(PortRange(first, first + 2), "127.0.0.1", SERVER_SIDE)
        shim = Shim(mosh, dial=one_more, keepalive=KEEPALIVE, limits=Limits(), log=logger())
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Echo, local_addr=(SERVER_SIDE, first))
        before = udp_sockets()
        tasks = len(asyncio.all_tasks())
        with contextlib.closing(transport), Client(first) as client:
            for is_reached in STATES.values():
                connection = await dial(relay, KEEPALIVE)
                dials = 0
                async with asyncio.timeout(20), asyncio.TaskGroup() as group:
                    serving = group.create_task(shim.run(connection))
                    while not is_reached(shim, dials):
                        client.send_quietly(MOSH_SIZED)
                        await asyncio.sleep(0.001)  # the states have no event
                    serving.cancel()
                assert udp_sockets() == before + 1
                connection.abort()
                await connection.wait_closed()
                for one in dialled:
                    await one.wait_closed()
                assert len(asyncio.all_tasks()) == tasks
        async with asyncio.timeout(20):
            while agents_under(sshd.pid):  # noqa: ASYNC110 - another process's end
                await asyncio.sleep(0.02)


def agents_under(pid: int) -> int:
    count = 0
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and b"-ISc" in (entry / "cmdline").read_bytes():
                count += pid in ancestors(int(entry.name)) and os.path.exists(entry / "exe")
    return count
