"""Serving mosh, cancelled at any moment: nothing stays behind, here or on the relay."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import asyncssh

from tests.shim.test_rogue import udp_sockets
from tests.shim.test_shim import KEEPALIVE, MOSH_SIZED, SERVER_SIDE, Client, Echo, ancestors, free_udp_ports
from tests.sshd import running_sshd
from tunneld.log import logger
from tunneld.profile import Mosh, PortRange, Relay
from tunneld.shim.shim import Shim
from tunneld.ssh.connect.dial import dial

MOMENTS = [0.0, *(0.001 * 1.5**step for step in range(16))]
"""Seconds after the start, up to half a second: before the command, while Python starts, while streams are opened."""


async def test_cancelled_at_any_moment_it_leaves_nothing(tmp_path: Path) -> None:
    """No socket, no connection, no task here; no agent there."""
    async with running_sshd(tmp_path) as sshd:
        relay = Relay("127.0.0.1", sshd.port, sshd.user, (sshd.user_key,), sshd.known_hosts, ssh_config=False)
        dialled: list[asyncssh.SSHClientConnection] = []

        async def one_more() -> asyncssh.SSHClientConnection:
            dialled.append(await dial(relay, KEEPALIVE))
            return dialled[-1]

        first = free_udp_ports(3)
        mosh = Mosh(PortRange(first, first + 2), "127.0.0.1", SERVER_SIDE)
        shim = Shim(mosh, dial=one_more, keepalive=KEEPALIVE, log=logger())
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Echo, local_addr=(SERVER_SIDE, first))
        before = udp_sockets()
        tasks = len(asyncio.all_tasks())
        with contextlib.closing(transport), Client(first) as client:
            for moment in MOMENTS:
                connection = await dial(relay, KEEPALIVE)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(moment), asyncio.TaskGroup() as group:
                        group.create_task(shim.run(connection))
                        group.create_task(keep_asking(client))
                assert udp_sockets() == before + 1
                connection.abort()
                await connection.wait_closed()
                for one in dialled:
                    await one.wait_closed()
                assert len(asyncio.all_tasks()) == tasks
        async with asyncio.timeout(20):
            while agents_under(sshd.pid):  # noqa: ASYNC110 - another process's end
                await asyncio.sleep(0.02)


async def keep_asking(client: Client) -> None:
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            client.sock.send(MOSH_SIZED)
        await asyncio.sleep(0.02)


def agents_under(pid: int) -> int:
    count = 0
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and b"-ISc" in (entry / "cmdline").read_bytes():
                count += pid in ancestors(int(entry.name)) and os.path.exists(entry / "exe")
    return count
